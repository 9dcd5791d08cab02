"""Triton's kernels on a card, against the reference on the CPU: for whoever has one."""

import pytest
import torch

from sklstm.kernels import autograd, reference, triton_layer
from sklstm.kernels.cells import CELLS
from sklstm.kernels.contract import Inputs
from tests.kernels.cases import CASES, Case, in_double, make_inputs, outputs_and_gradients
from tests.kernels.triton_interpreted import HALF_TOLERANCE, assert_near

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
]

#: Name -> dtype, how float32 is multiplied, and the largest difference that rounding may make, as
#: a share of the tensor's largest number; tf32 has float16's digits, bfloat16 three bits fewer.
ARITHMETIC = {
    "float32": (torch.float32, "ieee", 1e-4),
    "tf32": (torch.float32, "tf32", HALF_TOLERANCE),
    "float16": (torch.float16, "ieee", HALF_TOLERANCE),
    "bfloat16": (torch.bfloat16, "ieee", 8 * HALF_TOLERANCE),
}

#: More texts than a program owns and than a card has processors for; every padded size.
LARGE = {
    "three thousand texts": Case(3, 3001, 5, 11),
    "H=32": Case(9, 33, 8, 32, lengths=(9, 1, 5) * 11, reverse=True),
    "H=64": Case(9, 33, 8, 64, lengths=(9, 1, 5) * 11, masked=True, zoned=True),
    "H=128": Case(9, 33, 8, 128, lengths=(9, 1, 5) * 11, reverse=True, masked=True),
}


@pytest.fixture
def precision(monkeypatch):
    """Return a setter of how the kernels multiply float32."""
    from sklstm.kernels import triton_block

    return lambda value: monkeypatch.setattr(triton_block, "_precision", lambda: value)


def on_card(inputs: Inputs) -> Inputs:
    """Return the inputs on the card; gradients flow back to where they came from."""
    moved = {
        name: value.cuda()
        for name, value in inputs._asdict().items()
        if isinstance(value, torch.Tensor) and name != "lengths"
    }
    return inputs._replace(**moved)


def on_the_card(inputs):
    outputs = autograd.run(triton_layer, [on_card(inputs)])[0]
    return [output.cpu() for output in outputs[:3]]


def by_definition(inputs):
    return autograd.run(reference, [inputs])[0][:3]


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("case", (CASES | LARGE).values(), ids=CASES | LARGE)
@pytest.mark.parametrize("cell", CELLS)
def test_card_matches_the_reference(cell, case, arithmetic, precision):
    dtype, multiplied, tolerance = ARITHMETIC[arithmetic]
    inputs = make_inputs(case, cell, dtype)
    refused = triton_layer.refusal(on_card(inputs), need_last=True)
    if refused is not None:
        pytest.skip(f"the card {refused}")
    precision(multiplied)
    actual = outputs_and_gradients(on_the_card, inputs)
    expected = outputs_and_gradients(by_definition, in_double(inputs))
    assert_near(actual, expected, tolerance)


def test_new_sizes_compile_nothing_anew():
    """Only H, dtype, cell and features may cost a compilation; lengths and batches change."""
    from sklstm.kernels.triton_forward import forward_kernel

    def run(n_steps, n_texts):
        inputs = on_card(make_inputs(Case(n_steps, n_texts, 5, 11), "lstm", torch.float32))
        with torch.no_grad():
            triton_layer.forward(inputs, for_backward=False)

    def n_compiled():
        return sum(len(of_device[0]) for of_device in forward_kernel.device_caches.values())

    run(1, 1)
    first = n_compiled()
    for sizes in ((2, 16), (7, 3), (64, 128)):
        run(*sizes)
    assert n_compiled() == first
