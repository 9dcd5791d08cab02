"""The compiled recurrence: each instruction set, its own sizes, reading by index."""

import numpy as np
import pytest
import torch

from sklstm.kernels import compiled, products, rows
from sklstm.kernels.contract import DIFFERENTIABLE
from sklstm.kernels.dispatch import BACKENDS, lstm_layer
from sklstm.kernels.memory import reused_memory
from sklstm.kernels.rows import find_rows
from tests.kernels.cases import Case, assert_same, in_double, make_inputs, outputs_and_gradients

pytestmark = pytest.mark.skipif(
    compiled.library() is None, reason="installed without a C compiler, so without the library"
)

#: More texts than the registers hold sums for; hidden sizes of one to three vectors, and of parts.
CASES = {
    f"H={hidden}, {n_texts} texts": Case(
        9, n_texts, 5, hidden, lengths=tuple(1 + 4 * k % 9 for k in range(n_texts)), reverse=odd
    )
    for hidden, n_texts, odd in [(16, 7, 0), (48, 13, 1), (51, 6, 0), (80, 5, 1), (112, 29, 0)]
}
CASES["H=48, 70 texts"] = Case(5, 70, 5, 48, lengths=tuple(1 + 3 * k % 5 for k in range(70)))
CASES["recurrent dropout"] = Case(9, 14, 5, 40, lengths=(9, 2) * 7, masked=True, reverse=True)


def run(inputs, backend="compiled"):
    return lstm_layer([inputs], backend=backend, need_last=True)[0]


def in_reference(inputs):
    return outputs_and_gradients(lambda x: run(x, "reference"), in_double(inputs))


def sets_of_instructions(dtype):
    return range(compiled.instructions(dtype) + 1 if compiled.library() else 0)


INSTRUCTIONS = sets_of_instructions(torch.float32)
#: The first one widens bfloat16, and runs on every processor.
SHORT_INSTRUCTIONS = sets_of_instructions(torch.bfloat16)
BOTH = [(torch.float32, number) for number in INSTRUCTIONS]
BOTH += [(torch.bfloat16, number) for number in SHORT_INSTRUCTIONS]


def use(instructions, monkeypatch, n_threads=1):
    """Let the library compute by these instructions, and share even little among the threads."""
    for module in (compiled, products):
        monkeypatch.setattr(module, "instructions", lambda dtype: instructions)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    monkeypatch.setattr(compiled, "MIN_WORK", 0)


def assert_near(actual, expected, n_roundings):
    """Compare in bfloat16: the distance of each tensor as a whole, in roundings of its numbers."""
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        other = expected[name].double()
        error = (value.double() - other).norm() / max(float(other.norm()), 1e-30)
        n = float(error) / torch.finfo(torch.bfloat16).eps
        assert n < n_roundings, f"{name}: {n:.2f} roundings"


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_every_instruction_set_matches_the_reference(instructions, case, n_threads, monkeypatch):
    use(instructions, monkeypatch, n_threads)
    inputs = make_inputs(case, "lstm", torch.float32)
    assert_same(outputs_and_gradients(run, inputs), in_reference(inputs), torch.float32)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("instructions", SHORT_INSTRUCTIONS)
def test_every_instruction_set_for_bfloat16(instructions, case, n_threads, monkeypatch):
    """Near the reference, and nearer to each other: they round the same numbers."""
    inputs = make_inputs(case, "lstm", torch.bfloat16)
    expected = in_reference(inputs)
    use(0, monkeypatch)
    widened = outputs_and_gradients(run, inputs)
    use(instructions, monkeypatch, n_threads)
    actual = outputs_and_gradients(run, inputs)
    assert all(value.dtype == torch.bfloat16 for value in actual.values())
    assert_near(actual, expected, n_roundings=2)
    # A sum on the border between two numbers can be rounded to either, and then a state differs.
    assert_near(actual, widened, n_roundings=0.5)


@pytest.mark.parametrize("shared", [True, False], ids=["one x", "an x each"])
@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
@pytest.mark.parametrize("hidden", [16, 51])
def test_directions_together_match_the_reference(hidden, n_threads, shared, monkeypatch):
    """With a thread for each direction, several, and a number that they cannot share equally."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    monkeypatch.setattr(compiled, "MIN_WORK", 0)
    case = Case(9, 13, 5, hidden, lengths=tuple(1 + 4 * k % 9 for k in range(13)))
    one = make_inputs(case, "lstm", torch.float32)

    def run_both(inputs, backend="compiled"):
        other = inputs._replace(
            x=inputs.x if shared else 2 * inputs.x,
            weight_hh=inputs.weight_hh.flip(0),
            weight_ih=inputs.weight_ih.flip(1),
            reverse=True,
        )
        results = lstm_layer([inputs, other], backend=backend, need_last=True)
        return [sum(result[k] * (1 + n) for n, result in enumerate(results)) for k in range(3)]

    expected = outputs_and_gradients(lambda x: run_both(x, "reference"), in_double(one))
    assert_same(outputs_and_gradients(run_both, one), expected, torch.float32)


@pytest.mark.parametrize(("n_steps", "expected"), [(3, 1), (2_000, 4)])
def test_little_work_has_one_thread(n_steps, expected, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    inputs = make_inputs(Case(n_steps, 1, 2, 48), "lstm", torch.float32)
    assert compiled._n_threads([inputs], find_rows(inputs)) == expected


@pytest.mark.parametrize("kind", ["expanded", "transposed"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_states_that_do_not_lie_in_line(kind, masked, training):
    """Such as a learnt first state, the same for all texts."""
    inputs = make_inputs(Case(5, 33, 8, 64, masked=masked), "lstm", torch.float32)

    def arranged(x):
        return x[:1].expand(33, 64) if kind == "expanded" else x.t().contiguous().t()

    def run_arranged(inputs, backend="compiled"):
        names = ("h0", "c0", "mask_h") if masked else ("h0", "c0")
        changes = {name: arranged(getattr(inputs, name)) for name in names}
        return run(inputs._replace(**changes), backend)

    if training:
        actual = outputs_and_gradients(run_arranged, inputs)
        expected = outputs_and_gradients(lambda x: run_arranged(x, "reference"), in_double(inputs))
        assert_same(actual, expected, torch.float32)
        return
    with torch.inference_mode():
        for one, other in zip(
            run_arranged(inputs)[:3], run_arranged(inputs, "reference")[:3], strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_expanded_gradients(weight):
    """As a sum or a mean over the outputs sends them back: no memory of their own."""
    inputs = make_inputs(Case(5, 33, 8, 64), "lstm", torch.float32)
    one, other = (
        torch.autograd.grad((weight * run(inputs, backend).h).sum(), inputs.weight_hh)[0]
        for backend in ("compiled", "reference")
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_prediction_gives_the_outputs_of_training(case, dtype):
    inputs = make_inputs(case, "lstm", dtype)
    trained = run(inputs)
    with torch.inference_mode():
        predicted = run(inputs)
    for one, other in zip(trained[:3], predicted[:3], strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_padding_is_zero(dtype):
    """Poolings mask it, but multiply by the mask: it must be finite."""
    inputs = make_inputs(CASES["H=16, 7 texts"], "lstm", dtype)
    padding = torch.arange(9).unsqueeze(1) >= inputs.lengths
    assert padding.any() and (run(inputs).h[padding] == 0).all()


@pytest.mark.parametrize(("dtype", "instructions"), BOTH)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(dtype, instructions, value, monkeypatch):
    """A training that diverged must show; a gate driven to infinity is open, not broken."""
    use(instructions, monkeypatch)
    inputs = make_inputs(Case(3, 2, 5, 16), "lstm", dtype)
    with torch.no_grad():
        inputs.bias[0] = value
        h = run(inputs).h
        expected = run(in_double(inputs), "reference").h.to(dtype)
    atol = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(h, expected, equal_nan=True, rtol=1e-4, atol=atol)
    assert torch.isnan(h[..., 0]).all() == (value != value)


def by_index(case, dtype=torch.float32):
    """Return inputs that read 6 different rows again and again."""
    inputs = make_inputs(case, "lstm", dtype)
    n_steps, n_texts, n_inputs, _ = inputs.sizes
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, n_inputs, generator=generator).to(dtype).requires_grad_()
    index = torch.randint(6, (n_steps, n_texts), generator=generator)
    return inputs._replace(x=x, index=index)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "triton"])
@pytest.mark.parametrize("n_directions", [1, 2])
def test_inputs_read_by_index(backend, n_directions):
    """The gradient of a row is the sum over the steps that read it."""
    inputs = by_index(CASES["H=51, 6 texts"])

    def read(inputs, backend):
        both = [inputs, inputs._replace(reverse=True)][:n_directions]
        results = lstm_layer(both, backend=backend, need_last=False)
        return (sum(result.h for result in results),)

    actual = outputs_and_gradients(lambda x: read(x, backend), inputs, with_last=False)
    looked_up = in_double(inputs)

    def look_up(inputs):
        return read(inputs._replace(x=inputs.x[inputs.index], index=None), "reference")

    expected = outputs_and_gradients(look_up, looked_up, with_last=False)
    assert_same(actual, expected, torch.float32)


ALL_POOLS = frozenset({"last", "max", "mean"})


def pools_of(inputs, states, max_of_each=lambda states: states.amax(dim=0)):
    """Return the pools of states (T, B, H) by name, from their definition."""
    n_steps, n_texts = states.shape[:2]
    lengths = torch.full((n_texts,), n_steps) if inputs.lengths is None else inputs.lengths
    each = [states[:length, text] for text, length in enumerate(lengths)]
    return {
        "last": torch.stack([own[0] if inputs.reverse else own[-1] for own in each]),
        "max": torch.stack([max_of_each(own) for own in each]),
        "mean": torch.stack([own.double().mean(dim=0) for own in each]).to(states.dtype),
    }


def run_pools(directions, pools=ALL_POOLS, backend="compiled"):
    return lstm_layer(directions, backend=backend, need_last=False, pools=pools)


def both_directions(case, *, indexed, dtype=torch.float32):
    return and_back(by_index(case, dtype) if indexed else make_inputs(case, "lstm", dtype))


def and_back(one):
    """Return a direction and another one, which shares all but one tensor with it."""
    return [one, one._replace(weight_hh=one.weight_hh.flip(0), reverse=not one.reverse)]


def ragged(n_steps, n_texts, hidden, **more):
    lengths = tuple(1 + 4 * k % n_steps for k in range(n_texts))
    return Case(n_steps, n_texts, 5, hidden, lengths=lengths, **more)


POOLED = {
    "no lengths": Case(6, 3, 5, 16),
    "one step": Case(1, 4, 5, 16),
    "one text": Case(7, 1, 5, 48, lengths=(6,)),
    "recurrent dropout": CASES["recurrent dropout"],
    "H=1": ragged(9, 7, 1),
    "H=3": ragged(9, 14, 3, reverse=True),
    "H=257": ragged(9, 13, 257),
    "saturated": ragged(9, 7, 16, scale=60.0),
}


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("case", POOLED.values(), ids=POOLED)
@pytest.mark.parametrize(("dtype", "instructions"), BOTH)
def test_pools_are_those_of_the_states(dtype, instructions, case, n_threads, indexed, monkeypatch):
    use(instructions, monkeypatch, n_threads)
    directions = both_directions(case, indexed=indexed, dtype=dtype)
    with torch.no_grad():
        states = [result.h for result in run_pools(directions, frozenset())]
        taken = run_pools(directions)
    for inputs, h, result in zip(directions, states, taken, strict=True):
        assert result.h is None and result.pools.keys() == ALL_POOLS
        expected = pools_of(inputs, h)
        assert {pool.dtype for pool in result.pools.values()} == {torch.float32}
        tiny = 0 if dtype == torch.float32 else 1e-37  # of which AVX-512 makes 0 in bfloat16
        for name in ("last", "max"):  # of the same states, before these are rounded to the dtype
            rounded = result.pools[name].to(dtype)
            torch.testing.assert_close(rounded, expected[name], rtol=0, atol=tiny, msg=name)
        atol = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps / 2
        mean = expected["mean"].float()
        torch.testing.assert_close(result.pools["mean"], mean, rtol=0, atol=atol)


def pools_and_gradients(directions, pools, backend):
    """Return all pools, and the gradients of a fixed random sum of them."""
    taken = []
    for inputs, result in zip(directions, run_pools(directions, pools, backend), strict=True):
        assert (result.pools is None) == (backend == "reference")
        found = pools_of(inputs, result.h, max_of_each=first_max) if backend == "reference" else {}
        taken += [(found or result.pools)[name] for name in sorted(pools)]
    generator = torch.Generator().manual_seed(1)
    total = 0.0
    for pool in taken:
        weight = torch.randn(pool.shape, generator=generator, dtype=torch.float64)
        total = total + (pool * weight.to(pool.dtype)).sum()
    leaves = {
        f"{name} {k}": getattr(inputs, name)
        for k, inputs in enumerate(directions)
        for name in DIFFERENTIABLE
        if getattr(inputs, name) is not None
    }
    gradients = torch.autograd.grad(total, list(leaves.values()))
    results = {str(k): pool.detach() for k, pool in enumerate(taken)}
    return results | dict(zip(leaves, gradients, strict=True))


def first_max(states):
    """Return the maximum over the first axis, whose gradient goes to one state."""
    return states.max(dim=0).values


@pytest.mark.parametrize("pools", [ALL_POOLS, frozenset({"max"}), frozenset({"mean"})], ids=sorted)
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("indexed", [False, True])
# The maximum of saturated states is in many places.
@pytest.mark.parametrize("case", [name for name in POOLED if name != "saturated"])
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_gradients_of_pools(instructions, case, indexed, n_threads, pools, monkeypatch):
    use(instructions, monkeypatch, n_threads)
    directions = both_directions(POOLED[case], indexed=indexed)
    actual = pools_and_gradients(directions, pools, "compiled")
    double = and_back(in_double(directions[0]))
    expected = pools_and_gradients(double, pools, "reference")
    assert_same(actual, expected, torch.float32)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("case", ["recurrent dropout", "H=257", "one text"])
@pytest.mark.parametrize("instructions", SHORT_INSTRUCTIONS)
def test_gradients_of_pools_in_bfloat16(instructions, case, indexed, n_threads, monkeypatch):
    """Without the maximum, which can be another state's when these are rounded."""
    pools = frozenset({"last", "mean"})
    directions = both_directions(POOLED[case], indexed=indexed, dtype=torch.bfloat16)
    use(instructions, monkeypatch, n_threads)
    actual = pools_and_gradients(directions, pools, "compiled")
    double = and_back(in_double(directions[0]))
    assert_near(actual, pools_and_gradients(double, pools, "reference"), n_roundings=2)


@pytest.mark.parametrize("instructions", SHORT_INSTRUCTIONS)
def test_the_gradient_of_the_maximum_in_bfloat16(instructions, monkeypatch):
    """As of the states themselves where each text has one, so that no other can be the largest."""
    use(instructions, monkeypatch)
    directions = both_directions(Case(1, 33, 5, 48), indexed=False, dtype=torch.bfloat16)
    pooled = pools_and_gradients(directions, frozenset({"max"}), "compiled")
    last = pools_and_gradients(directions, frozenset({"last"}), "compiled")
    assert all(torch.equal(value, last[name]) for name, value in pooled.items())


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("dtype", "instructions"), BOTH)
def test_sums_of_rows(dtype, instructions, n_threads, monkeypatch):
    """In float32 the bits of index_add_, in bfloat16 those of the sum rounded once."""
    use(instructions, monkeypatch)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 208, generator=generator).to(dtype)[:, :192]  # they lie apart
    source = torch.randint(90, (499,), generator=generator)
    sums = products.sum_rows(rows, source, 100, n_threads)
    expected = torch.zeros(100, 192).index_add_(0, source, rows[:499].float()).to(dtype)
    assert torch.equal(sums[:100], expected) and not sums[90:].any()


def test_rows_of_products():
    """Few numbers of rows in bfloat16, each at most an eighth more than needed."""
    needed = range(1, 5_000)
    for n in needed:
        assert rows.n_for_products(n, torch.float32) == n
        assert n <= rows.n_for_products(n, torch.bfloat16) <= max(n + 1, n * 9 / 8)
    assert len({rows.n_for_products(n, torch.bfloat16) for n in needed}) < 100
    x = rows.with_more_rows(torch.ones(1_001, 3, dtype=torch.bfloat16))
    assert len(x) == 1_024 and not x[1_001:].any() and x[:1_001].all()


def test_the_gradient_of_equal_maxima_goes_to_the_one_that_is_read_first():
    inputs = make_inputs(Case(4, 1, 2, 16), "lstm", torch.float32)
    # Without the forget gate every state is sigmoid(o) * tanh(sigmoid(i) * tanh(g)).
    bias = inputs.bias.detach().index_fill(0, torch.arange(16, 32), -1e4)
    for reverse in (False, True):
        x = torch.ones_like(inputs.x).requires_grad_()
        equal = {"x": x, "weight_hh": torch.zeros_like(inputs.weight_hh), "bias": bias}
        own = inputs._replace(**equal, reverse=reverse)
        pool = run_pools([own], frozenset({"max"}))[0].pools["max"]
        (grad,) = torch.autograd.grad(pool.sum(), x)
        (step,) = grad.abs().sum(dim=(1, 2)).nonzero()[:, 0]
        assert step == (3 if reverse else 0)


@pytest.mark.parametrize("pools", [["max"], ["mean"], ["last"], ["last", "mean"]], ids=str)
def test_only_the_pools_that_are_asked_for(pools):
    pools = set(pools)
    directions = both_directions(POOLED["H=3"], indexed=False)
    with torch.no_grad():
        whole, some = run_pools(directions), run_pools(directions, frozenset(pools))
    for one, other in zip(whole, some, strict=True):
        assert other.pools.keys() == pools
        assert all(torch.equal(one.pools[name], other.pools[name]) for name in pools)


def test_the_states_come_where_pools_cannot_be_taken():
    directions = both_directions(POOLED["H=3"], indexed=False)
    with torch.no_grad():
        expected = run_pools(directions, frozenset())
        for given in (
            run_pools(directions, ALL_POOLS | {"attention"}),
            run_pools(directions, backend="aten"),
        ):
            for one, other in zip(given, expected, strict=True):
                assert one.pools is None and one.h.shape == other.h.shape


def test_the_mean_of_a_long_text_keeps_its_digits():
    """In a plain sum of equal states many additions round alike."""
    inputs = make_inputs(Case(30_000, 1, 2, 16), "lstm", torch.float32)
    inputs = inputs._replace(x=torch.full_like(inputs.x, 0.7))
    with torch.no_grad():
        states = run(inputs).h
        (result,) = run_pools([inputs])
    expected = pools_of(inputs, states)["mean"]
    plain = states.numpy().cumsum(axis=0)[-1] / len(states)
    assert np.abs(plain - expected.numpy()).max() > 1e-5  # so that the case shows something
    torch.testing.assert_close(result.pools["mean"], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("gate", range(4))
def test_pools_of_what_is_no_number(instructions, step, gate, monkeypatch):
    """In one gate of one unit at one step: every state from there on is none."""
    use(instructions, monkeypatch)
    inputs = make_inputs(Case(3, 2, 5, 16), "lstm", torch.float32)
    with torch.no_grad():
        inputs.weight_ih.zero_()[16 * gate, 0] = 1.0
        inputs.x.zero_()[step, 1, 0] = float("nan")
        states, (result,) = run(inputs).h, run_pools([inputs])
    for name, expected in pools_of(inputs, states).items():
        assert torch.isnan(expected[1, 0]) and not torch.isnan(expected[0]).any()
        torch.testing.assert_close(result.pools[name], expected, equal_nan=True, rtol=0, atol=1e-6)


def test_reused_memory_changes_nothing():
    """Large enough for the pool; the second step runs in the memory of the first."""
    case = Case(40, 64, 8, 128, lengths=tuple(40 - k % 7 for k in range(64)))
    inputs = make_inputs(case, "lstm", torch.float32)
    expected = outputs_and_gradients(run, inputs)
    with reused_memory():
        for _ in range(2):
            assert_same(outputs_and_gradients(run, inputs), expected, torch.float32)
