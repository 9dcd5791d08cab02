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


@pytest.mark.slow  # the interpreter takes half a minute
@needs_triton
@pytest.mark.parametrize("name", triton_interpreted.ALL)
def test_interpreted_kernels_match_the_reference(differences, name):
    assert differences[name] is None, differences[name]


# Compiled

#: Compute capability -> bytes of shared memory a program may have: A100, H100, RTX 50.
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 120: 99 * 1024}
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def builds():
    """Return what to compile: capability, dtype, how float32 is multiplied, H, cell."""
    found = []
    for capability, shared in SHARED_MEMORY.items():

        def largest(dtype, precision, cell, capability=capability, shared=shared):
            has_norms = CELLS[cell].has_norms
            hidden = triton_layer.largest_hidden(dtype, shared, has_norms=has_norms)
            return (capability, dtype, precision, hidden, cell)

        found += [largest(BF16, "ieee", cell) for cell in CELLS]
        found += [largest(FP16, "ieee", "lstm"), largest(FP32, "ieee", "peephole")]
        found += [largest(FP32, "ieee", "layer_norm"), largest(FP32, "tf32", "coupled")]
    # Registers and shared memory differ little between cards: the smaller sizes on one or two.
    found += [(80, BF16, "ieee", 64, cell) for cell in ("lstm", "layer_norm")]
    found += [(120, BF16, "ieee", 32, "layer_norm"), (120, BF16, "ieee", 11, "layer_norm")]
    # Rows that do not start at multiples of 16 bytes are loaded number by number.
    found += [(120, BF16, "ieee", 51, "layer_norm"), (80, BF16, "ieee", 100, "lstm")]
    found += [(120, FP32, "tf32", hidden, "lstm") for hidden in (16, 64)]
    return found


def kernels_and_arguments(cell, dtype, hidden, precision, monkeypatch):
    """Return both kernels, each with the arguments that ``triton_layer.py`` launches it with."""
    from sklstm.kernels import triton_backward, triton_forward

    caught = {}
    for module, kernel in (
        (triton_forward, triton_forward.forward_kernel),
        (triton_backward, triton_backward.backward_kernel),
    ):

        def catch(*arguments, module=module, kernel=kernel):
            caught[kernel] = module.arguments(*arguments) | {"PRECISION": precision}

        monkeypatch.setattr(module, "run", catch)
    reverse = cell in ("coupled", "peephole")
    case = Case(2, 3, 4, hidden, lengths=(2, 1, 1), reverse=reverse, masked=True, zoned=True)
    inputs = make_inputs(case, cell, dtype)
    with torch.no_grad():
        outputs = triton_layer.forward(inputs, for_backward=True)
        triton_layer.backward(
            inputs, outputs.saved, outputs.h, outputs.h_last, outputs.c_last, True
        )
    return caught


def compiled(kernel, arguments, capability, options):
    """Compile a kernel as a launch with these arguments would."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {BF16: "*bf16", FP16: "*fp16", FP32: "*fp32", torch.int32: "*i32"}
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
    from sklstm.kernels import triton_block

    pairs = kernels_and_arguments(cell, dtype, hidden, precision, monkeypatch)
    assert len(pairs) == 2
    for kernel, arguments in pairs.items():
        options = triton_block.options(arguments["PADDED"])
        binary = compiled(kernel, arguments, capability, options)
        # See NUM_WARPS; earlier versions of Triton need a few registers more for padded sizes.
        most = 128 if hidden < arguments["PADDED"] and BEFORE_3_7 else 0
        assert memory_of_threads(binary, tmp_path / "kernel.cubin") <= most
        assert binary.metadata.shared <= SHARED_MEMORY[capability]


def test_the_largest_hidden_size_of_a_card():
    def largest(dtype, has_norms):
        memories = SHARED_MEMORY.values()
        return [triton_layer.largest_hidden(dtype, m, has_norms=has_norms) for m in memories]

    assert largest(BF16, has_norms=True) == [128, 128, 64]
    assert largest(FP32, has_norms=False) == [64, 64, 64]
    assert largest(FP32, has_norms=True) == [32, 32, 32]
    assert triton_layer.largest_hidden(FP16, 64 * 1024, has_norms=False) == 0


# Refusals


@pytest.fixture
def fresh():
    """Forget what was found out about devices, before and after."""
    cached = triton_layer.device_refusal
    cached.cache_clear()
    yield
    cached.cache_clear()


@pytest.fixture
def card(monkeypatch, fresh):
    """Return a card that Triton can run on, as torch would describe it."""
    properties = SimpleNamespace(name="RTX 5090", shared_memory_per_block_optin=99 * 1024)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
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
        (BF16, 64, None),
        (BF16, 65, "has H up to 64 for 'lstm' in torch.bfloat16 on RTX 5090; got H=65"),
        (FP32, 64, None),
        (FP32, 100, "has H up to 64 for 'lstm' in torch.float32 on RTX 5090; got H=100"),
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
    assert triton_layer.refusal(inputs_on(cpu, FP32, 65), need_last=True) == (
        "has H up to 64 for 'lstm' in torch.float32 in Triton's interpreter; got H=65"
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


def test_a_broken_triton_is_named(monkeypatch, fresh):
    monkeypatch.setattr(triton_layer, "find_spec", lambda name: "found")
    monkeypatch.setitem(sys.modules, "sklstm.kernels.triton_block", None)
    monkeypatch.delattr("sklstm.kernels.triton_block", raising=False)
    problem = triton_layer.device_refusal(torch.device("cuda"))
    assert problem.startswith("cannot import triton: ")
