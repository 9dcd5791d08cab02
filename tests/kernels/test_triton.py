"""Triton's kernels where there is no card: interpreted, and compiled ahead of time."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sklearn.utils.fixes import parse_version

from sklstm.kernels import triton_layer
from sklstm.kernels.cells import CELLS
from tests.kernels import triton_interpreted
from tests.kernels.cases import CASES, Case, make_inputs

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="needs triton, which is not installed"
)
BEFORE_3_7 = find_spec("triton") is not None and parse_version(version("triton")) < (
    parse_version("3.7")
)
interpreting = os.environ.get("TRITON_INTERPRET", "0") != "0"
needs_compiler = pytest.mark.skipif(
    interpreting, reason="TRITON_INTERPRET is set, and an interpreted kernel cannot be compiled"
)

# Interpreted


@pytest.fixture(scope="module")
def differences():
    """Return by case what differs from the reference, or None."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.kernels.triton_interpreted"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow  # the interpreter takes minutes
@needs_triton
@pytest.mark.parametrize("name", triton_interpreted.ALL)
def test_interpreted_kernels_match_the_reference(differences, name):
    assert differences[name] is None, differences[name]


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("name", triton_interpreted.FAULTS)
def test_the_interpreter_finds_wrong_addresses(differences, name):
    assert triton_interpreted.FAULTS[name][1] in differences[name]


# Compiled

#: Compute capability -> bytes of shared memory a program may have: A100, H100, RTX 50.
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 120: 99 * 1024}
#: RTX 30, RTX 40, B200: what differs least from one of those.
OF_OTHERS = {86: 99 * 1024, 89: 99 * 1024, 100: 227 * 1024}
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def builds():
    """Return what to compile: capability, dtype, how float32 is multiplied, H, cell."""
    found = []
    for capability in SHARED_MEMORY:
        largest = {size: resident(capability, size) for size in (2, 4)}
        found += [(capability, BF16, "ieee", largest[2], cell) for cell in CELLS]
        found += [(capability, FP16, "ieee", largest[2], "lstm")]
        found += [(capability, FP32, "ieee", largest[4], "peephole")]
        found += [(capability, FP32, "ieee", 32, "layer_norm")]
        found += [(capability, FP32, "tf32", largest[4], "coupled")]
        # Streamed weights.
        found += [(capability, BF16, "ieee", 256, "layer_norm")]
        found += [(capability, FP32, "tf32", 128, "lstm")]
    # Registers and shared memory differ little between cards: the smaller sizes on one or two.
    found += [(80, BF16, "ieee", 64, cell) for cell in ("lstm", "layer_norm")]
    found += [(120, BF16, "ieee", 32, "layer_norm"), (120, BF16, "ieee", 11, "layer_norm")]
    # Rows that do not start at multiples of 16 bytes are loaded number by number.
    found += [(120, BF16, "ieee", 51, "layer_norm"), (80, BF16, "ieee", 100, "lstm")]
    found += [(120, FP32, "tf32", hidden, "lstm") for hidden in (16, 64)]
    found += [(90, FP32, "ieee", 256, "peephole")]
    for capability in OF_OTHERS:
        half = (capability, BF16, "ieee", resident(capability, 2), "layer_norm")
        full = (capability, FP32, "ieee", resident(capability, 4), "peephole")
        found += [pytest.param(*build, marks=pytest.mark.slow) for build in (half, full)]
    return found


def memory_of(capability):
    return (SHARED_MEMORY | OF_OTHERS)[capability]


def resident(capability, size):
    """Return the largest H whose weights stay in the shared memory of a card."""
    return max(h for h in (16, 32, 64, 128) if 4 * h * h * size + 32 * h < memory_of(capability))


def kernels_and_arguments(cell, dtype, hidden, precision, capability, monkeypatch):
    """Return both kernels, each with its arguments and options, as ``launch`` would take them."""
    from sklstm.kernels import triton_backward, triton_block, triton_forward

    caught, shared = {}, memory_of(capability)

    def catch(name, kernel, arguments, device):
        arguments |= triton_block.plan_arguments(
            of := triton_block.plan(name, dtype, hidden, shared, has_norms=CELLS[cell].has_norms)
        )
        caught[kernel] = arguments | {"PRECISION": precision}, triton_block.options(of)

    for module in (triton_forward, triton_backward):
        monkeypatch.setattr(module, "launch", catch)
    case = Case(2, 3, 4, hidden, lengths=(2, 1, 1), masked=True, zoned=True)
    inputs = [make_inputs(case, cell, dtype)]
    inputs += [inputs[0]._replace(reverse=True)] if cell in ("coupled", "peephole") else []
    with torch.no_grad():
        outputs = triton_layer.forward_all(inputs, for_backward=True)
        grads = [{"h": own.h, "h_last": own.h_last, "c_last": own.c_last} for own in outputs]
        triton_layer.backward_all(inputs, outputs[0].saved, grads, [True] * len(inputs))
    return caught


def compiled(kernel, arguments, capability, options):
    """Compile a kernel as a launch with these arguments would."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {BF16: "*bf16", FP16: "*fp16", FP32: "*fp32", torch.int64: "*i64"}
    signature, constants, attributes = {}, {}, {}
    for number, name in enumerate(kernel.arg_names):
        value = arguments[name]
        if isinstance(value, torch.Tensor):
            signature[name] = types[value.dtype]
            attributes[(number,)] = [["tt.divisibility", 16]]
        elif name in ("n_steps", "n_texts"):
            signature[name] = "i32"
        else:
            signature[name] = "constexpr"
            constants[name] = value
    return triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options=options,
    )


def memory_of_threads(binary, path):
    """Return the bytes of memory a thread needs since its registers do not suffice."""
    import triton

    path.write_bytes(binary.asm["cubin"])
    usage = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sum(int(n) for n in re.search(r"STACK:(\d+).*LOCAL:(\d+)", usage).groups())


def most_memory(arguments, dtype):
    """Return the bytes that a thread may need where its registers do not suffice.

    See ``NUM_WARPS``. Earlier versions of Triton need a few registers more for padded sizes.
    """
    if arguments["STREAMED"]:
        return 520
    if arguments["H"] < arguments["PADDED"]:
        return 128 if BEFORE_3_7 else 32
    is_plain_float = dtype == FP32 and arguments["PRECISION"] == "ieee"
    return 32 if is_plain_float or BEFORE_3_7 else 0


@needs_triton
@needs_compiler
@pytest.mark.parametrize(
    ("capability", "dtype", "precision", "hidden", "cell"),
    builds(),
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_compiled_kernels_fit_the_card(
    capability, dtype, precision, hidden, cell, monkeypatch, tmp_path
):
    pairs = kernels_and_arguments(cell, dtype, hidden, precision, capability, monkeypatch)
    assert len(pairs) == 2
    for kernel, (arguments, options) in pairs.items():
        binary = compiled(kernel, arguments, capability, options)
        assert memory_of_threads(binary, tmp_path / "kernel.cubin") <= most_memory(arguments, dtype)
        assert binary.metadata.shared <= memory_of(capability)


def test_plans():
    """What fits a card stays on it; the rest is streamed, or read later."""
    from sklstm.kernels.triton_block import plan

    def found(kernel, dtype, hidden, has_norms=False):
        plans = [
            plan(kernel, dtype, hidden, m, has_norms=has_norms) for m in SHARED_MEMORY.values()
        ]
        return [("streamed" if own.streamed else own.stages) for own in plans]

    assert found("forward", BF16, 128) == [2, 3, "streamed"]
    assert found("backward", BF16, 128) == [1, 3, "streamed"]
    assert found("backward", BF16, 128, has_norms=True) == [1, 2, "streamed"]
    assert found("forward", BF16, 64) == [3, 3, 3]
    assert found("forward", FP32, 64) == [2, 2, 2]
    assert found("backward", FP32, 64) == [2, 2, 1]
    assert found("forward", FP32, 64, has_norms=True) == ["streamed"] * 3
    assert found("forward", FP32, 65) == found("forward", BF16, 129) == ["streamed"] * 3


@needs_triton
def test_a_plan_that_the_card_refuses_gives_way_to_a_more_modest_one(monkeypatch):
    from triton.runtime.errors import OutOfResources

    from sklstm.kernels import triton_block

    monkeypatch.setattr(triton_block, "_refused", set())
    monkeypatch.setattr(triton_block, "shared_memory_of", lambda device: SHARED_MEMORY[90])
    tried = []

    class Kernel:
        """Refuses whatever reads ahead, or keeps the weights."""

        def __getitem__(self, grid):
            def run(**arguments):
                tried.append((arguments["STREAMED"], arguments["STAGES"]))
                if tried[-1] != (True, 1):
                    raise OutOfResources(300, 227, "shared memory")

            return run

    arguments = {"weight_hh": torch.zeros(1, dtype=BF16), "norm_hh": None, "H": 128, "G": 4}
    arguments |= {"n_texts": 3, "D": 2}
    for _ in range(2):
        triton_block.launch("forward", Kernel(), arguments, torch.device("cpu"))
    assert tried == [(False, 3), (False, 1), (True, 1), (True, 1)]


@needs_triton
def test_a_card_that_refuses_every_plan_is_an_error_each_time(monkeypatch):
    from triton.runtime.errors import OutOfResources

    from sklstm.kernels import triton_block

    monkeypatch.setattr(triton_block, "_refused", set())
    monkeypatch.setattr(triton_block, "shared_memory_of", lambda device: SHARED_MEMORY[120])

    class Kernel:
        def __getitem__(self, grid):
            def run(**arguments):
                raise OutOfResources(300, 99, "shared memory")

            return run

    arguments = {"weight_hh": torch.zeros(1, dtype=FP16), "norm_hh": None, "H": 256, "G": 4}
    for _ in range(3):
        with pytest.raises(OutOfResources):
            own = arguments | {"n_texts": 3, "D": 2}
            triton_block.launch("forward", Kernel(), own, torch.device("cpu"))


# Refusals


@pytest.fixture
def fresh():
    """Forget what was found out about devices, before and after."""
    triton_layer.refusals.clear()
    yield
    triton_layer.refusals.clear()


@pytest.fixture
def card(monkeypatch, fresh):
    """Return a card that Triton can run on."""
    monkeypatch.setattr(triton_layer, "device_refusal", lambda device: None)
    return torch.device("cuda", 0)


def inputs_on(device, dtype, hidden):
    """Return inputs of which ``refusal`` asks dtype, device and sizes; a CPU has no other."""
    x = SimpleNamespace(device=device, dtype=dtype, shape=(7, 3, 5))
    sizes, properties = (7, 3, 5, hidden), CELLS["lstm"]
    return SimpleNamespace(x=x, sizes=sizes, cell="lstm", properties=properties)


@pytest.mark.parametrize(
    ("dtype", "hidden", "sentence"),
    [
        (BF16, 256, None),
        (BF16, 257, "has H up to 256; got H=257"),
        (FP32, 256, None),
        (torch.float64, 8, "computes in float32, float16 or bfloat16; got torch.float64"),
    ],
)
def test_what_a_card_refuses(card, dtype, hidden, sentence):
    assert triton_layer.refusal(inputs_on(card, dtype, hidden), need_last=True) == sentence


def test_the_interpreter_refuses_what_it_cannot_compute(monkeypatch, fresh):
    monkeypatch.setattr(triton_layer, "device_refusal", lambda device: None)
    cpu = torch.device("cpu")
    assert triton_layer.refusal(inputs_on(cpu, FP32, 64), need_last=True) is None
    assert triton_layer.refusal(inputs_on(cpu, BF16, 64), need_last=True) == (
        "has no bfloat16 in Triton's interpreter, which cannot multiply it"
    )


def test_without_triton_it_says_how_to_install_it(monkeypatch, fresh):
    monkeypatch.setattr(triton_layer, "find_spec", lambda name: None)
    inputs = make_inputs(CASES["full"], "lstm", FP32)
    assert triton_layer.refusal(inputs, need_last=True) == (
        'needs triton, which is not installed (pip install "sklstm[triton]")'
    )


@pytest.fixture
def machine(monkeypatch, fresh):
    """Return a setter of what Triton and torch find on a machine."""

    def set_up(*, cuda_version="13.0", capability=(9, 0), interpreted=False, error=None):
        def probe(device):
            if error is not None:
                raise error

        block = SimpleNamespace(INTERPRETED=interpreted, probe=probe)
        monkeypatch.setattr(triton_layer, "find_spec", lambda name: "found")
        monkeypatch.setitem(sys.modules, "sklstm.kernels.triton_block", block)
        monkeypatch.setattr("sklstm.kernels.triton_block", block, raising=False)
        monkeypatch.setattr(torch.version, "cuda", cuda_version)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda_version is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")

    return set_up


@pytest.mark.parametrize(
    ("found", "device", "sentence"),
    [
        ({}, "cuda", None),
        ({"interpreted": True}, "cpu", None),
        ({}, "cpu", "runs on CUDA cards; got tensors on cpu"),
        ({"cuda_version": None}, "cuda", "needs a CUDA card, and torch finds none"),
        (
            {"capability": (7, 5)},
            "cuda",
            "needs compute capability 8.0 or newer; Tesla T4 has 7.5",
        ),
        (
            {"error": RuntimeError("Failed to find C compiler.\nSet CC.")},
            "cuda",
            "cannot launch a kernel on cuda: RuntimeError: Failed to find C compiler.",
        ),
        ({"error": OSError()}, "cuda", "cannot launch a kernel on cuda: OSError"),
    ],
)
def test_why_triton_cannot_run(machine, found, device, sentence):
    machine(**found)
    assert triton_layer.device_refusal(torch.device(device)) == sentence


def test_a_lack_of_memory_is_asked_about_again(machine):
    machine(error=torch.OutOfMemoryError("CUDA out of memory."))
    device = torch.device("cuda")
    assert "out of memory" in triton_layer.device_refusal(device)
    machine()
    assert triton_layer.device_refusal(device) is None


def test_a_broken_triton_is_named(monkeypatch, fresh):
    monkeypatch.setattr(triton_layer, "find_spec", lambda name: "found")
    monkeypatch.setitem(sys.modules, "sklstm.kernels.triton_block", None)
    monkeypatch.delattr("sklstm.kernels.triton_block", raising=False)
    problem = triton_layer.device_refusal(torch.device("cuda"))
    assert problem.startswith("cannot import triton: ")
