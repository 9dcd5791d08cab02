"""Every backend against the reference: outputs, last states, each gradient by name."""

import pytest
import torch

from sklstm.kernels.dispatch import BACKENDS, lstm_sequence
from tests.kernels.cases import (
    CASES,
    TOLERANCES,
    assert_same,
    make_inputs,
    outputs_and_gradients,
)

JUDGED = [name for name in BACKENDS if name != "reference"]


def runner(backend, need_last=True):
    return lambda inputs: lstm_sequence(**inputs, backend=backend, need_last=need_last)


def expectation(inputs, with_last):
    """Return what the reference says of the same numbers in float64."""
    exact = {
        name: value
        if value is None or name == "lengths"
        else value.double()
        if name == "mask_h"
        else value.detach().double().requires_grad_()
        for name, value in inputs.items()
    }
    return outputs_and_gradients(runner("reference"), exact, with_last=with_last)


# Backend x case, without what test_dispatch shows to be refused: torch has no recurrent dropout.
PAIRS = {
    f"{backend}-{name}": (backend, case)
    for backend in JUDGED
    for name, case in CASES.items()
    if not (backend == "aten" and case.masked)
}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("backend", "case"), PAIRS.values(), ids=PAIRS)
def test_backend_matches_the_reference(backend, case, dtype):
    # torch's fused layer keeps no last cell state of ragged texts; test_dispatch has the refusal.
    with_last = not (backend == "aten" and case.lengths is not None)
    inputs = make_inputs(case, dtype)
    actual = outputs_and_gradients(runner(backend, with_last), inputs, with_last=with_last)
    assert_same(actual, expectation(inputs, with_last), dtype)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_prediction_gives_the_outputs_of_training(backend, case):
    inputs = make_inputs(case, torch.float64)
    trained = runner(backend)(inputs)
    with torch.inference_mode():
        predicted = runner(backend)(inputs)
    for one, other in zip(trained, predicted, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_backward_can_run_twice(backend):
    inputs = make_inputs(CASES["ragged, unsorted"], torch.float64)
    h, _, _ = runner(backend)(inputs)
    first = torch.autograd.grad(h.sum(), inputs["x"], retain_graph=True)[0]
    second = torch.autograd.grad(h.sum(), inputs["x"])[0]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
