"""The reference, judged from outside: torch.nn.LSTM and numerical gradients."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sklstm.kernels import cpu, reference
from sklstm.kernels.autograd import LSTMSequence
from sklstm.kernels.dispatch import lstm_sequence
from tests.kernels.cases import CASES, assert_same, make_inputs, outputs_and_gradients


def run_torch(inputs):
    """Run torch.nn.LSTM, packed where the lengths differ."""
    x, lengths = inputs["x"], inputs["lengths"]
    layer = torch.nn.LSTM(x.shape[2], inputs["h0"].shape[1], dtype=x.dtype)
    weights = {
        f"{name}_l0": inputs[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    states = (inputs["h0"].unsqueeze(0), inputs["c0"].unsqueeze(0))
    if lengths is not None:
        x = pack_padded_sequence(x, lengths, enforce_sorted=False)
    h, (h_last, c_last) = torch.func.functional_call(layer, weights, (x, states))
    if lengths is not None:
        h, _ = pad_packed_sequence(h, total_length=inputs["x"].shape[0])
    return h, h_last[0], c_last[0]


def run_loop(inputs):
    """Run the plain loop, differentiated by autograd."""
    bias = inputs["bias_ih"] + inputs["bias_hh"]
    return reference.lstm_loop(
        gates_x=inputs["x"] @ inputs["weight_ih"].T + bias,
        **{name: inputs[name] for name in ("weight_hh", "h0", "c0", "lengths", "mask_h")},
    )


# torch's layer has no recurrent dropout.
JUDGED = {name: case for name, case in CASES.items() if not case.masked}


@pytest.mark.parametrize("case", JUDGED.values(), ids=JUDGED)
def test_loop_matches_torch(case):
    inputs = make_inputs(case, torch.float64)
    expected = outputs_and_gradients(run_torch, inputs)
    assert_same(outputs_and_gradients(run_loop, inputs), expected, torch.float64)


def test_recurrent_dropout_is_a_mask_on_the_state_before():
    """A text at a time, from the formula, with torch's cell on the masked state."""
    inputs = make_inputs(CASES["recurrent dropout, ragged"], torch.float64)
    h, h_last, c_last = run_loop(inputs)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for text, length in enumerate(inputs["lengths"].tolist()):
        state, cell = inputs["h0"][text], inputs["c0"][text]
        for t in range(length):
            state, cell = torch.lstm_cell(
                inputs["x"][t, text].unsqueeze(0),
                ((inputs["mask_h"][text] * state).view(1, -1), cell.view(1, -1)),
                *(inputs[name] for name in names),
            )
            torch.testing.assert_close(h[t, text], state[0], rtol=0, atol=1e-12)
            state, cell = state[0], cell[0]
        torch.testing.assert_close(h_last[text], state, rtol=0, atol=1e-12)
        torch.testing.assert_close(c_last[text], cell, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_hand_written_backward_matches_torch(case):
    """Torch's layer where it can, else autograd through the loop."""
    inputs = make_inputs(case, torch.float64)
    expected = outputs_and_gradients(run_loop if case.masked else run_torch, inputs)

    def run(inputs):
        return lstm_sequence(**inputs, backend="reference", need_last=True)

    assert_same(outputs_and_gradients(run, inputs), expected, torch.float64)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("lengths", [None, (4, 2, 1)])
@pytest.mark.parametrize("backend", [reference, cpu], ids=lambda backend: backend.__name__)
def test_gradcheck(backend, lengths, masked):
    generator = torch.Generator().manual_seed(2)
    shapes = {"gates_x": (4, 3, 8), "weight_hh": (8, 2), "h0": (3, 2), "c0": (3, 2)}
    tensors = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes.values()
    ]
    lengths = None if lengths is None else torch.tensor(lengths)
    mask = torch.tensor([[2.0, 0], [0.5, 3], [0, 1]], dtype=torch.float64) if masked else None
    assert torch.autograd.gradcheck(LSTMSequence.apply, (*tensors, lengths, mask, backend))
