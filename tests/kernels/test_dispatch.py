"""Names give their backend or an error; every backend has the same signature."""

import ast
import inspect
import re
import shutil
import subprocess
import warnings
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sklstm.kernels import (
    aten,
    available_backends,
    compiled,
    dispatch,
    library,
    lstm_layer,
    triton_layer,
)
from sklstm.kernels.cells import CELLS
from sklstm.kernels.contract import Inputs, check_inputs
from sklstm.kernels.dispatch import BACKENDS, choose, gains_from_bfloat16, refusal
from tests.kernels.cases import Case, make_inputs

SMALL = Case(7, 4, 5, 11)
RAGGED = SMALL._replace(lengths=(4, 7, 1, 6))


def test_available_backends_of_a_device(monkeypatch):
    monkeypatch.setattr(compiled, "library", lambda: None)
    assert available_backends("cpu") == ("aten", "reference", "torch")
    monkeypatch.setattr(compiled, "library", lambda: object())
    assert available_backends("cpu") == ("aten", "compiled", "reference", "torch")
    for problem in (None, "cannot launch"):
        monkeypatch.setattr(triton_layer, "device_refusal", lambda device, problem=problem: problem)
        expected = {"aten", "reference"} | ({"triton"} if problem is None else set())
        assert set(available_backends("cuda")) == expected


def on_card(inputs):
    """Return the inputs as if x were on a card, of which the dispatcher asks no more."""
    x = SimpleNamespace(device=torch.device("cuda", 0), dtype=inputs.x.dtype, shape=inputs.x.shape)
    return inputs._replace(x=x)


def test_a_card_runs_torchs_layer_or_our_kernels(monkeypatch):
    monkeypatch.setattr(triton_layer, "device_refusal", lambda device: None)
    monkeypatch.setattr(triton_layer, "refusal", lambda inputs, need_last: None)
    wide = RAGGED._replace(hidden=65)  # in float32 our kernels would read the weights each step
    standard, short, small, peephole = (
        on_card(make_inputs(case, cell, dtype))
        for case, cell, dtype in (
            (wide, "lstm", torch.float32),
            (wide, "lstm", torch.bfloat16),
            (RAGGED, "lstm", torch.float32),
            (wide, "peephole", torch.float32),
        )
    )
    assert choose("auto", [standard], need_last=False) == "aten"
    assert choose("auto", [standard], need_last=True) == "triton"
    for inputs in (short, small, peephole):
        assert choose("auto", [inputs], need_last=False) == "triton"
    monkeypatch.setattr(triton_layer, "refusal", lambda inputs, need_last: "has H up to 64")
    dispatch._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="'triton' has H up to 64. The LSTM runs in plain"):
        assert choose("auto", [peephole], need_last=False) == "reference"


def test_a_card_that_cannot_launch_warns_once_and_falls_back(monkeypatch):
    problem = "cannot launch a kernel on cuda:0: no C compiler"
    monkeypatch.setattr(triton_layer, "device_refusal", lambda device: problem)
    dispatch._warn_once.cache_clear()
    peephole = on_card(make_inputs(SMALL, "peephole", torch.float32))
    with pytest.warns(RuntimeWarning, match=f"'triton' {problem}. The LSTM runs in plain torch"):
        assert choose("auto", [peephole], need_last=True) == "reference"
    assert choose("auto", [peephole], need_last=True) == "reference"  # a warning would be an error
    with pytest.raises(ValueError, match=f"backend='triton' {problem}. Use backend='auto'."):
        choose("triton", [peephole], need_last=True)


def test_directions_that_share_their_x_share_it_under_autocast():
    inputs = make_inputs(SMALL, "lstm", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        cast = dispatch._autocast([inputs, inputs._replace(reverse=True)])
    assert cast[0].x is cast[1].x
    assert cast[0].x.dtype == cast[0].weight_hh.dtype == torch.bfloat16


FUNCTIONS = ["device_refusal", "refusal", "suits", "gains_from_bfloat16", "forward", "backward"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_backends_have_one_signature(function):
    def signature(module):
        return list(inspect.signature(getattr(module, function)).parameters)

    assert len({tuple(signature(module)) for module in BACKENDS.values()}) == 1


@pytest.mark.parametrize("module", BACKENDS.values(), ids=BACKENDS)
def test_backends_say_what_they_have(module):
    assert module.HAS_CELLS and CELLS.keys() >= module.HAS_CELLS
    assert all(isinstance(dtype, torch.dtype) for dtype in module.SHARES_THREADS)
    assert set(module.DEVICES) <= {"cpu", "cuda"}
    assert module.RUNS_TOGETHER == hasattr(module, "forward_all")
    assert module.READS_BY_INDEX == hasattr(module, "tabulate")
    assert module.POOLS <= {"last", "max", "mean"}
    together = inspect.signature(getattr(module, "forward_all", module.forward))
    assert bool(module.POOLS) == ("pools" in together.parameters)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cell_that_a_backend_does_not_have_is_refused(backend, monkeypatch):
    """As a new cell is, until someone writes it for the backend."""
    monkeypatch.setattr(compiled, "library", lambda: object())
    monkeypatch.setattr(triton_layer, "device_refusal", lambda device: None)
    monkeypatch.setitem(CELLS, "new", CELLS["lstm"])
    inputs = make_inputs(SMALL, "new", torch.float32)
    assert refusal(backend, inputs, need_last=False).startswith("has no cell 'new'")


def test_the_last_backend_runs_everything():
    *_, last = BACKENDS.values()
    inputs = make_inputs(RAGGED._replace(masked=True, zoned=True), "peephole", torch.float64)
    assert last.device_refusal(torch.device("meta")) is None
    assert last.refusal(inputs, need_last=True) is None
    assert last.HAS_CELLS == CELLS.keys()


def test_the_dispatcher_names_backends_only_in_its_table():
    """What it needs to know of a backend, it asks the backend."""
    tree = ast.parse(Path(dispatch.__file__).read_text(encoding="utf-8"))
    (table,) = (
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "BACKENDS"
    )
    modules = {value.id for value in table.value.values}
    in_table = set(ast.walk(table))
    for node in ast.walk(tree):
        if node not in in_table:
            assert not (isinstance(node, ast.Constant) and node.value in BACKENDS), node.value
            assert not (isinstance(node, ast.Name) and node.id in modules), node.id


def test_table_of_what_each_backend_runs(capsys, monkeypatch):
    """Cell x backend x feature, printed from the code, in float32, which all backends have.

    As on a machine where the compiled backend is built and triton can run."""
    monkeypatch.setattr(triton_layer, "device_refusal", lambda device: None)
    monkeypatch.setattr(compiled, "library", lambda: object())
    features = {
        "": {},
        "lengths": {"lengths": RAGGED.lengths},
        "recurrent dropout": {"masked": True},
        "zoneout": {"zoned": True},
    }
    table = {
        (cell, backend): [
            name or "plain"
            for name, changes in features.items()
            if refusal(backend, make_inputs(SMALL._replace(**changes), cell, torch.float32), False)
            is None
        ]
        for cell in CELLS
        for backend in sorted(BACKENDS)
    }
    with capsys.disabled():
        print()
        for (cell, backend), names in table.items():
            print(f"  {cell:18} {backend:10} {', '.join(names) or '-'}")
    for cell in CELLS:
        everything = ["plain", "lengths", "recurrent dropout", "zoneout"]
        for backend in ("reference", "torch", "triton"):
            assert table[cell, backend] == everything
        assert table[cell, "aten"] == (["plain", "lengths"] if cell == "lstm" else [])
        assert table[cell, "compiled"] == (everything[:3] if cell == "lstm" else [])


@pytest.mark.parametrize(
    ("backend", "device", "changes", "expected"),
    [
        ("aten", "cpu", {}, True),
        ("aten", "cpu", {"masked": True}, False),
        ("aten", "cpu", {"zoned": True}, False),
        ("aten", "cpu", {"cell": "coupled"}, False),
        ("aten", "cuda", {}, False),
        ("compiled", "cpu", {"masked": True}, True),
        ("compiled", "cpu", {"zoned": True}, False),
        ("compiled", "cpu", {"cell": "peephole"}, False),
        ("compiled", "cuda", {}, False),
        ("torch", "cpu", {}, False),
        ("triton", "cuda", {"cell": "coupled", "masked": True, "zoned": True}, True),
        ("triton", "cuda", {"hidden": 257}, False),
        ("auto", "cpu", {}, True),
        ("auto", "cpu", {"cell": "coupled"}, False),
        ("auto", "cuda", {"cell": "coupled"}, True),
        ("auto", "meta", {}, False),
    ],
)
def test_what_gains_from_bfloat16(monkeypatch, backend, device, changes, expected):
    """With all units for it, and without any."""
    monkeypatch.setattr(triton_layer, "device_refusal", lambda device: None)
    refusal = None if device == "cpu" else "runs on the CPU only"
    monkeypatch.setattr(compiled, "device_refusal", lambda device: refusal)
    layer = {"cell": "lstm", "hidden": 128, "masked": False, "zoned": False} | changes
    for has_units in (True, False):
        capability = (8, 0) if has_units else (7, 5)
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda of, own=capability: own)
        monkeypatch.setattr(compiled, "instructions", lambda dtype, own=has_units: int(own))
        monkeypatch.setattr(aten, "has_matrix_units", lambda own=has_units: own)
        gains = gains_from_bfloat16(backend, torch.device(device), **layer)
        assert gains == (expected and has_units)


def test_matrix_units_for_bfloat16(monkeypatch):
    for capabilities, expected in (
        ({"amx_bf16": True}, True),
        ({"amx_bf16": False, "avx512_bf16": True}, False),
        ({"architecture": "arm64", "bf16": True}, False),
    ):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda of=capabilities: of, raising=False)
        assert aten.has_matrix_units() is expected
    monkeypatch.delattr("torch.cpu.get_capabilities")
    assert aten.has_matrix_units() is False


def sized(n_texts, hidden, *, lengths=None, dtype=torch.float32, training=True, **changes):
    """Return both directions of a layer of 200 steps, without values."""
    zeros = torch.zeros((), dtype=dtype)
    inputs = Inputs(
        x=zeros.expand(200, n_texts, hidden),
        weight_ih=zeros.expand(4 * hidden, hidden),
        weight_hh=zeros.expand(4 * hidden, hidden).requires_grad_(training),
        bias=zeros.expand(4 * hidden),
        h0=zeros.expand(n_texts, hidden),
        c0=zeros.expand(n_texts, hidden),
        lengths=lengths,
    )
    return [inputs._replace(reverse=reverse, **changes) for reverse in (False, True)]


def short(directions):
    """Return the same with 40 steps."""
    return [inputs._replace(x=inputs.x[:40]) for inputs in directions]


def by_index(directions):
    """Return the same with 50 different inputs that are read by index."""
    index = torch.zeros(200, directions[0].sizes[1], dtype=torch.int64)
    return [inputs._replace(x=inputs.x[0, :1].expand(50, -1), index=index) for inputs in directions]


HALF_PADDING = torch.full((32,), 100)
ALIKE = torch.full((32,), 190)


@pytest.mark.parametrize(
    ("directions", "need_last", "expected"),
    [
        (sized(32, 128), False, "aten"),
        (sized(32, 128, lengths=ALIKE), False, "aten"),
        (sized(32, 128, lengths=ALIKE), True, "torch"),  # aten keeps no last states
        (sized(32, 128, lengths=HALF_PADDING), False, "torch"),
        (short(sized(32, 128, lengths=HALF_PADDING // 5)), False, "aten"),
        (sized(128, 256), False, "torch"),  # large steps
        (sized(128, 256, training=False), False, "aten"),
        (sized(128, 256, lengths=torch.full((128,), 100), training=False), False, "torch"),
        (sized(32, 128, dtype=torch.float64), False, "torch"),
        (sized(128, 256, dtype=torch.bfloat16), False, "aten"),
        (sized(32, 128, mask_h=torch.zeros(32, 128)), False, "torch"),
    ],
)
def test_auto_chooses_by_the_rule(directions, need_last, expected, monkeypatch):
    monkeypatch.setattr(compiled, "library", lambda: None)
    assert choose("auto", directions, need_last=need_last) == expected


@pytest.mark.parametrize(
    ("directions", "expected"),
    [
        (sized(32, 128), "compiled"),
        (sized(128, 256, lengths=torch.full((128,), 100)), "compiled"),
        (sized(32, 128, mask_h=torch.zeros(32, 128)), "compiled"),
        (sized(32, 128, dtype=torch.float64), "torch"),
        (sized(32, 128, dtype=torch.bfloat16), "compiled"),
        (sized(128, 128, dtype=torch.bfloat16, training=False), "aten"),
        (by_index(sized(128, 128, dtype=torch.bfloat16, training=False)), "compiled"),
        (sized(32, 128, dtype=torch.float16), "torch"),
        (sized(32, 128, zone_h=torch.zeros(1), zone_c=torch.zeros(1)), "torch"),
        (sized(128, 256, training=False), "aten"),
        (sized(32, 128, lengths=HALF_PADDING, training=False), "compiled"),
        (by_index(sized(32, 128, training=False)), "compiled"),
    ],
)
def test_auto_prefers_what_is_compiled(directions, expected, monkeypatch):
    monkeypatch.setattr(compiled, "library", lambda: object())
    monkeypatch.setattr(compiled, "instructions", lambda dtype: 1)
    assert choose("auto", directions, need_last=False) == expected


def test_bfloat16_without_instructions_for_it(monkeypatch):
    """The compiled recurrence widens it then, which only who asks for it shall wait for."""
    monkeypatch.setattr(compiled, "library", lambda: object())
    monkeypatch.setattr(compiled, "instructions", lambda dtype: 0)
    directions = sized(32, 128, dtype=torch.bfloat16)
    assert choose("auto", directions, need_last=False) == "aten"
    assert choose("compiled", directions, need_last=False) == "compiled"


def test_compiled_is_built_where_there_is_a_compiler():
    """It is optional at install, so that without this nobody would notice that it fails to."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    assert compiled.library() is not None


@pytest.mark.parametrize(
    ("is_source", "match"),
    [
        (False, "backend='compiled' was not built when .* a C compiler"),
        (
            True,
            "backend='compiled' was not built in the folder of the source, .* 'pip install -e .'",
        ),
    ],
)
def test_compiled_says_that_it_was_not_built(monkeypatch, tmp_path, is_source, match):
    monkeypatch.setattr(compiled, "library", lambda: None)
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "sklstm" / "kernels" / "compiled.py"))
    if is_source:
        (tmp_path / "setup.py").touch()
    inputs = make_inputs(SMALL, "lstm", torch.float32)
    with pytest.raises(ValueError, match=match):
        choose("compiled", [inputs], need_last=False)
    # Who installs with "pip install ." and starts Python in the clone would not notice.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled.warn_if_not_usable()
    assert [warning.category for warning in caught] == [UserWarning] * is_source


SOURCES = {
    "garbage": b"no library",
    "empty": b"",
    "foreign": "int something(void) { return 1; }",
    "stale": "".join(
        f"long sklstm_{name}(void) {{ return {library.VERSION - 1}; }} "
        for name in "version size_of_layer instructions forward backward pack sum_rows".split()
    ),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_library_that_cannot_be_used_is_named_and_the_next_backend_runs(
    monkeypatch, tmp_path, kind
):
    path = tmp_path / f"_compiled{EXTENSION_SUFFIXES[0]}"
    if isinstance(SOURCES[kind], bytes):
        path.write_bytes(SOURCES[kind])
    elif shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    else:
        (tmp_path / "library.c").write_text(SOURCES[kind])
        source = str(tmp_path / "library.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(path), source], check=True)
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    monkeypatch.setattr(compiled, "load", cache(library.load.__wrapped__))
    what = "another version of the source" if kind == "stale" else "cannot be loaded"
    with pytest.warns(UserWarning, match=f"cannot be used: _compiled.* {what}.* Install"):
        compiled.warn_if_not_usable()
    assert "compiled" not in available_backends("cpu")
    inputs = make_inputs(SMALL, "lstm", torch.float32)
    assert choose("auto", [inputs], need_last=False) in ("aten", "torch")
    with pytest.raises(ValueError, match=f"backend='compiled' cannot be used: .*{what}"):
        choose("compiled", [inputs], need_last=False)


def test_struct_and_version_of_python_are_those_of_the_source():
    source = (Path(compiled.__file__).parent / "compiled.c").read_text()
    struct = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL).split("typedef struct {")[1]
    fields = struct.split("} Layer;")[0]
    names = [re.findall(r"\w+", part)[-1] for part in re.split("[,;]", fields) if part.strip()]
    assert names == [name for name, _ in library.Layer._fields_]
    assert f"#define VERSION {library.VERSION}\n" in source


def refuse(match, case=RAGGED, cell="lstm", backend="auto", need_last=True, **changes):
    inputs = make_inputs(case, cell, torch.float64)._replace(**changes)
    with pytest.raises(ValueError, match=match):
        lstm_layer([inputs], backend=backend, need_last=need_last)


def test_unknown_backend_is_refused():
    names = "'aten', 'auto', 'compiled', 'reference', 'torch', 'triton'"
    refuse(f"backend must be one of {names}; got 'cuda'.", backend="cuda")


@pytest.mark.parametrize(
    ("case", "cell", "need_last", "match"),
    [
        (RAGGED, "lstm", True, "'aten' cannot return the last cell state of texts of different"),
        (SMALL._replace(masked=True), "lstm", False, "'aten' has no recurrent dropout, since"),
        (SMALL._replace(zoned=True), "lstm", False, "'aten' has no zoneout, since"),
        (SMALL, "peephole", False, "'aten' has no cell 'peephole': .* Use backend='auto'."),
    ],
)
def test_aten_refuses_what_torch_lacks(case, cell, need_last, match):
    refuse(match, case, cell, backend="aten", need_last=need_last)


@pytest.mark.parametrize("backend", ["compiled", "torch"])
def test_other_devices_are_refused(backend):
    inputs = make_inputs(SMALL, "lstm", torch.float32)
    inputs = inputs._replace(x=inputs.x.to("meta"))
    match = f"backend='{backend}' runs on the CPU only; got tensors on meta"
    with pytest.raises(ValueError, match=match):
        choose(backend, [inputs], need_last=True)


@pytest.mark.parametrize(
    ("lengths", "match"),
    [
        ([4, 7, 1], r"one whole number for each of the 4 texts; got shape \(3,\)"),
        ([4.0, 7.0, 1.0, 6.0], "one whole number .* of torch.float32"),
        ([4, 8, 1, 6], "between 1 and T=7; got values from 1 to 8"),
        ([4, 7, 0, 6], "between 1 and T=7; got values from 0 to 7"),
    ],
)
@pytest.mark.parametrize("backend", ["aten", "torch"])
def test_wrong_lengths_are_refused(lengths, match, backend):
    refuse(match, lengths=torch.tensor(lengths), backend=backend, need_last=False)


@pytest.mark.parametrize(
    ("cell", "changes", "match"),
    [
        ("lstm", {"cell": "gru"}, "cell must be one of 'coupled', .*; got 'gru'."),
        ("lstm", {"x": torch.zeros(7, 5)}, r"x must have shape \(T, B, I\) .* got \(7, 5\)"),
        ("lstm", {"x": torch.zeros(0, 4, 5)}, r"T, B, I >= 1; got \(0, 4, 5\)"),
        ("lstm", {"index": torch.zeros(7, 4).long()}, r"x with an index must .*; got \(7, 4, 5\)"),
        (
            "lstm",
            {"x": torch.zeros(9, 5), "index": torch.zeros(7, 4).int()},
            r"index must have shape \(T, B\) .* got shape \(7, 4\) of torch.int32",
        ),
        (
            "lstm",
            {"x": torch.zeros(9, 5), "index": torch.full((7, 4), 9)},
            "index must lie between 0 and U - 1 = 8; got values from 9 to 9",
        ),
        (
            "lstm",
            {"weight_hh": torch.zeros(33, 11)},
            r"weight_hh of the cell 'lstm' must have shape \(4\*H, H\); got \(33, 11\)",
        ),
        (
            "coupled",
            {"weight_hh": torch.zeros(44, 11)},
            r"weight_hh of the cell 'coupled' must have shape \(3\*H, H\); got \(44, 11\)",
        ),
        (
            "lstm",
            {"weight_ih": torch.zeros(44, 6)},
            r"weight_ih must have shape \(44, 5\), with the rows of weight_hh and I from x",
        ),
        ("lstm", {"bias": torch.zeros(11)}, r"bias must have shape \(44,\), with .* got \(11,\)"),
        ("lstm", {"h0": torch.zeros(2, 11)}, r"h0 must .* B from x and H from .* got \(2, 11\)"),
        ("lstm", {"mask_h": torch.zeros(4, 1)}, r"mask_h must have shape .* got \(4, 1\)"),
        ("lstm", {"peephole": torch.zeros(3, 11)}, "the cell 'lstm' has no peephole"),
        ("peephole", {"peephole": None}, "the cell 'peephole' needs peephole"),
        ("layer_norm", {"norm_c": torch.zeros(11)}, r"norm_c must have shape \(2, 11\)"),
        ("lstm", {"zone_h": torch.zeros(7, 4, 11)}, "the cell 'lstm' needs zone_c"),
        ("lstm", {"c0": torch.zeros(4, 11).double()}, "c0 must have the dtype .* torch.float64"),
        ("lstm", {"h0": torch.zeros(4, 11, device="meta")}, "h0 must have .* device .* on meta"),
    ],
)
def test_wrong_arguments_are_refused(cell, changes, match):
    inputs = make_inputs(SMALL, cell, torch.float32)
    check_inputs(inputs)
    with pytest.raises(ValueError, match=match):
        check_inputs(inputs._replace(**changes))
