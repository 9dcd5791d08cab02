"""The reference, judged from outside: torch's layer and cell, formulas, numerical gradients."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sklstm.kernels import reference, torch_layer
from sklstm.kernels.autograd import LSTMLayer
from sklstm.kernels.cells import CELLS
from sklstm.kernels.contract import DIFFERENTIABLE
from sklstm.kernels.dispatch import lstm_layer
from tests.kernels.cases import CASES, Case, assert_same, make_inputs, outputs_and_gradients


def run_torch(inputs):
    """Run torch.nn.LSTM, packed where the lengths differ; its own reverse direction for ours."""
    x, lengths = inputs.x, inputs.lengths
    n_steps, n_texts, n_inputs, hidden = inputs.sizes
    layer = torch.nn.LSTM(n_inputs, hidden, bidirectional=inputs.reverse, dtype=x.dtype)
    suffixes = ["_l0", "_l0_reverse"][: 1 + inputs.reverse]
    named = {"weight_ih": inputs.weight_ih, "weight_hh": inputs.weight_hh, "bias_ih": inputs.bias}
    weights = {name + suffix: value for name, value in named.items() for suffix in suffixes}
    weights |= {f"bias_hh{suffix}": torch.zeros_like(inputs.bias) for suffix in suffixes}
    states = tuple(state.expand(len(suffixes), -1, -1) for state in (inputs.h0, inputs.c0))
    if lengths is not None:
        x = pack_padded_sequence(x, lengths, enforce_sorted=False)
    h, (h_last, c_last) = torch.func.functional_call(layer, weights, (x, states))
    if lengths is not None:
        h, _ = pad_packed_sequence(h, total_length=n_steps)
    return h[..., -hidden:], h_last[-1], c_last[-1]


PLAIN = {name: case for name, case in CASES.items() if not (case.masked or case.zoned)}


@pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN)
def test_loop_matches_torch(case):
    inputs = make_inputs(case, "lstm", torch.float64)
    expected = outputs_and_gradients(run_torch, inputs)
    assert_same(outputs_and_gradients(reference.lstm_loop, inputs), expected, torch.float64)


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def norm(x, scale, shift=0.0):
    return scale * (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-5) + shift


def next_states(inputs, x, h, c, zones):
    """One step of one text, written from the formulas of docs/kernels.md; all are vectors."""
    cell, hidden = inputs.cell, h.shape[0]
    seen = h if inputs.mask_h is None else inputs.mask_h[zones.text] * h
    from_x, from_h = inputs.weight_ih @ x, inputs.weight_hh @ seen
    if cell == "layer_norm":
        from_x, from_h = norm(from_x, inputs.norm_ih), norm(from_h, inputs.norm_hh)
    gates = from_x + from_h + inputs.bias
    gate = {name: gates[k * hidden : (k + 1) * hidden] for k, name in enumerate(CELLS[cell].gates)}
    p_i, p_f, p_o = (0, 0, 0) if inputs.peephole is None else inputs.peephole
    i = sigmoid(gate["i"] + p_i * c)
    f = 1 - i if cell == "coupled" else sigmoid(gate["f"] + p_f * c)
    c_new = f * c + i * torch.tanh(gate["g"])
    o = sigmoid(gate["o"] + p_o * (c if cell == "peephole_previous" else c_new))
    squashed = norm(c_new, *inputs.norm_c) if cell == "layer_norm" else c_new
    h_new = o * torch.tanh(squashed)
    if inputs.zone_h is None:
        return h_new, c_new
    z_h, z_c = (zone[zones.step, zones.text] for zone in (inputs.zone_h, inputs.zone_c))
    return z_h * h + (1 - z_h) * h_new, z_c * c + (1 - z_c) * c_new


class Place:
    """Which text and which of its steps."""

    def __init__(self, text, step):
        self.text, self.step = text, step


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("cell", CELLS)
def test_loop_matches_the_formulas_text_by_text(cell, case):
    inputs = make_inputs(case, cell, torch.float64)
    h, h_last, c_last = reference.lstm_loop(inputs)
    lengths = case.lengths or [case.n_steps] * case.n_texts
    for text, length in enumerate(lengths):
        state, memory = inputs.h0[text], inputs.c0[text]
        for step in range(length)[:: -1 if case.reverse else 1]:
            place = Place(text, step)
            state, memory = next_states(inputs, inputs.x[step, text], state, memory, place)
            torch.testing.assert_close(h[step, text], state, rtol=0, atol=1e-11)
        torch.testing.assert_close(h_last[text], state, rtol=0, atol=1e-11)
        torch.testing.assert_close(c_last[text], memory, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("cell", CELLS)
def test_hand_written_backward_matches_autograd(cell, case):
    inputs = make_inputs(case, cell, torch.float64)
    expected = outputs_and_gradients(reference.lstm_loop, inputs)

    def run(inputs):
        return lstm_layer([inputs], backend="reference", need_last=True)[0]

    assert_same(outputs_and_gradients(run, inputs), expected, torch.float64)


GRADCHECKED = {
    "full": Case(4, 3, 2, 2),
    "ragged": Case(4, 3, 2, 2, lengths=(4, 2, 1)),
    "all features": Case(4, 3, 2, 2, lengths=(2, 4, 1), reverse=True, masked=True, zoned=True),
}


@pytest.mark.parametrize("case", GRADCHECKED.values(), ids=GRADCHECKED)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", [reference, torch_layer], ids=lambda backend: backend.__name__)
def test_gradcheck(backend, cell, case):
    inputs = make_inputs(case, cell, torch.float64)
    tensors = [getattr(inputs, name) for name in DIFFERENTIABLE]
    bare = (inputs._replace(**dict.fromkeys(DIFFERENTIABLE)),)

    def run(*tensors):
        h, h_last, c_last = LSTMLayer.apply(backend, bare, frozenset(), *tensors)
        if case.lengths is not None:  # what stands in the padding means nothing
            step = torch.arange(case.n_steps).view(-1, 1, 1)
            h = torch.where(step < inputs.lengths.unsqueeze(1), h, 0.0)
        return h, h_last, c_last

    assert torch.autograd.gradcheck(run, tensors)
