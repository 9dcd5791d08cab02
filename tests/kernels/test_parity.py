"""Every backend against the reference: outputs, last states, each gradient by name."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from sklstm.kernels import autograd, torch_layer
from sklstm.kernels.cells import CELLS
from sklstm.kernels.dispatch import BACKENDS, lstm_layer, refusal
from tests.kernels.cases import (
    CASES,
    TOLERANCES,
    Case,
    assert_same,
    in_double,
    make_inputs,
    outputs_and_gradients,
)

ON_CPU = [name for name in BACKENDS if name != "triton"]  # test_triton has the other


#: The finest dtype of each backend.
FINEST = dict.fromkeys(ON_CPU, torch.float64) | {"compiled": torch.float32}


def runner(backend, need_last=True):
    return lambda inputs: lstm_layer([inputs], backend=backend, need_last=need_last)[0]


def runs(backend, cell, case, dtype):
    """Whether a backend runs a case; test_dispatch has the refusals."""
    return refusal(backend, make_inputs(case, cell, dtype), need_last=False) is None


TRIPLES = {
    f"{backend}-{cell}-{name}-{dtype}": (backend, cell, case, dtype)
    for dtype in TOLERANCES
    for backend in ON_CPU
    if backend != "reference"
    for cell in CELLS
    for name, case in CASES.items()
    if runs(backend, cell, case, dtype)
}


@pytest.fixture(params=[2**18, 44 * 7], ids=["one block", "many blocks"])
def block_elements(request, monkeypatch):
    monkeypatch.setattr(torch_layer, "BLOCK_ELEMENTS", request.param)


@pytest.mark.parametrize(("backend", "cell", "case", "dtype"), TRIPLES.values(), ids=TRIPLES)
def test_backend_matches_the_reference(backend, cell, case, dtype, block_elements):
    # torch's fused layer keeps no last cell state of ragged texts; test_dispatch has the refusal.
    with_last = not (backend == "aten" and case.lengths is not None)
    inputs = make_inputs(case, cell, dtype)
    actual = outputs_and_gradients(runner(backend, with_last), inputs, with_last=with_last)
    expected = outputs_and_gradients(runner("reference"), in_double(inputs), with_last=with_last)
    assert_same(actual, expected, dtype)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_prediction_gives_the_outputs_of_training(backend, cell, case, block_elements):
    inputs = make_inputs(case, cell, torch.float64)
    trained = runner(backend)(inputs)
    with torch.inference_mode():
        predicted = runner(backend)(inputs)
    for one, other in zip(trained[:3], predicted[:3], strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", ON_CPU)
def test_backward_can_run_twice(backend):
    inputs = make_inputs(CASES["ragged, unsorted"], "lstm", FINEST[backend])
    h = runner(backend, need_last=False)(inputs).h
    first = torch.autograd.grad(h.sum(), inputs.x, retain_graph=True)[0]
    second = torch.autograd.grad(h.sum(), inputs.x)[0]
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ON_CPU)
def test_gradient_of_the_input_is_made_only_where_asked(backend, monkeypatch):
    module, made = BACKENDS[backend], []
    together = module.RUNS_TOGETHER
    name = "backward_all" if together else "backward"
    backward = getattr(module, name)

    def note(*args):
        grads = backward(*args)
        made.append(grads[0] if together else grads)
        return grads

    monkeypatch.setattr(module, name, note)
    inputs = make_inputs(CASES["full"], "lstm", FINEST[backend])
    for needed in (True, False):
        inputs.x.requires_grad_(needed)
        torch.autograd.grad(runner(backend)(inputs).h.sum(), inputs.weight_hh)
        assert (made[-1][0] is not None) == needed


#: Enough texts for shards of 8 on each of two lanes.
MANY = Case(7, 21, 5, 11, lengths=tuple(1 + k % 7 for k in range(21)), masked=True, zoned=True)


@pytest.mark.parametrize("n_directions", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_side_by_side_is_one_after_the_other(cell, n_directions, monkeypatch):
    """Shards and directions on two lanes against one thread, in float64."""
    one = make_inputs(MANY, cell, torch.float64)
    both = [one, one._replace(reverse=True)][:n_directions]

    def run(inputs):
        results = lstm_layer(both, backend="torch", need_last=True)
        return [sum(result[k] for result in results) for k in range(3)]

    expected = outputs_and_gradients(run, one)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 2)
        assert autograd._shares_of(torch_layer, both) * n_directions == 2
        actual = outputs_and_gradients(run, one)
    assert_same(actual, expected, torch.float64)


HALF = [("torch", cell, dtype) for cell in CELLS for dtype in (torch.bfloat16, torch.float16)]
HALF += [("aten", "lstm", torch.bfloat16)]
if "compiled" in ON_CPU:
    HALF += [("compiled", "lstm", torch.bfloat16)]


@pytest.mark.parametrize(("backend", "cell", "dtype"), HALF)
def test_half_precision_keeps_its_states_in_float32(backend, cell, dtype):
    """One rounding of the weights and of h a step, not of the sums: close to float32."""
    case = Case(40, 9, 24, 32, lengths=tuple(40 - k for k in range(9)))
    inputs = make_inputs(case, cell, torch.float32)
    rounded = inputs._replace(
        **{
            name: value.detach().to(dtype).requires_grad_()
            for name, value in inputs._asdict().items()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        }
    )
    with_last = backend != "aten"
    run = runner(backend, with_last)
    actual = outputs_and_gradients(run, rounded, with_last=with_last)
    expected = outputs_and_gradients(runner("reference"), in_double(rounded), with_last=with_last)
    precision = torch.finfo(dtype).eps
    for name, value in actual.items():
        assert value.dtype == dtype
        error = (value.double() - expected[name]).norm() / expected[name].norm()
        assert error < 3 * precision, f"{name}: {error / precision:.1f} roundings"


@pytest.mark.parametrize("backend", ["aten", "torch"])
def test_threads_may_change_before_the_backward(backend, monkeypatch):
    inputs = make_inputs(MANY._replace(masked=False, zoned=False), "lstm", torch.float64)
    (expected,) = torch.autograd.grad(runner(backend, False)(inputs).h.sum(), inputs.weight_hh)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 2)
        h = runner(backend, False)(inputs).h
    (actual,) = torch.autograd.grad(h.sum(), inputs.weight_hh)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_autocast_casts_the_layer(cell):
    """As torch.nn.LSTM: the result is that of bfloat16 inputs; gradients keep their dtype."""
    inputs = make_inputs(CASES["ragged, unsorted"], cell, torch.float32)
    run = runner("torch")
    with torch.autocast("cpu", torch.bfloat16):
        cast = run(inputs).h
        (grad,) = torch.autograd.grad(cast.float().sum(), inputs.weight_hh)
    rounded = inputs._replace(
        **{
            name: value.bfloat16()
            for name, value in inputs._asdict().items()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        }
    )
    torch.testing.assert_close(cast, run(rounded).h, rtol=0, atol=0)
    assert cast.dtype == torch.bfloat16 and grad.dtype == torch.float32
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("backend", ON_CPU)
def test_gradients_through_a_checkpoint(backend):
    """Recomputed in the backward: autograd lets its saved tensors be read once only."""
    inputs = make_inputs(CASES["ragged, reverse"], "lstm", FINEST[backend])

    def h(x):
        return runner(backend, need_last=False)(inputs._replace(x=x)).h

    (expected,) = torch.autograd.grad(h(inputs.x).sum(), inputs.weight_hh)
    out = checkpoint(h, inputs.x, use_reentrant=False)
    (actual,) = torch.autograd.grad(out.sum(), inputs.weight_hh)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_second_derivative_is_refused(backend):
    inputs = make_inputs(CASES["full"], "lstm", FINEST[backend])
    total = runner(backend)(inputs).h.sum()
    (grad,) = torch.autograd.grad(total, inputs.x, create_graph=True)
    (plain,) = torch.autograd.grad(total, inputs.x, retain_graph=True)
    torch.testing.assert_close(grad, plain, rtol=0, atol=0)
    with pytest.raises(
        RuntimeError, match="has no second derivative. Use torch.nn.LSTM for double"
    ):
        (total + grad.square().sum()).backward()
