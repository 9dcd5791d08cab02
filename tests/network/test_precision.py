"""Devices, and where bfloat16 is used: in the LSTM only."""

import pytest
import torch

from sklstm import lstm
from sklstm.lstm import LSTM
from sklstm.network.pooling import POOLINGS
from sklstm.network.precision import check_precision, resolve_device
from tests.builders import IDS, LENGTHS, build_network


def dtypes_seen(network):
    """Return the dtypes of what the LSTM's kernels return in one call, and the outputs."""
    seen, run = [], lstm.lstm_layer

    def spy(directions, **kwargs):
        outputs = run(directions, **kwargs)
        states, pools = outputs[0].h, outputs[0].pools
        seen.extend(x.dtype for x in ([states] if pools is None else pools.values()))
        return outputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lstm, "lstm_layer", spy)
        outputs = network(IDS, LENGTHS)
    return set(seen), outputs


@pytest.mark.parametrize("has_units", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_precision_is_that_of_the_lstm_only(monkeypatch, has_units, training, precision):
    monkeypatch.setattr(LSTM, "gains_from_bfloat16", lambda layer, device: has_units)
    others = {"num_layers": 2, "pooling": tuple(POOLINGS), "attention": "dot"}
    network = build_network(precision=precision, **others)
    pooled = []
    for pool in network.pools:
        pool.register_forward_hook(lambda _, inputs, output: pooled.extend([*inputs, output]))
    dtypes, outputs = dtypes_seen(network.train(training))
    short = precision == "bfloat16" or (precision == "auto" and training and has_units)
    assert dtypes == {torch.bfloat16 if short else torch.float32}
    assert {x.dtype for x in pooled} == {torch.float32, torch.bool}
    expected = build_network(**others)(IDS, LENGTHS)
    assert outputs.dtype == torch.float32 and torch.equal(outputs, expected) == (not short)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=0.02)
    outputs.sum().backward()
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


def test_devices():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError) as caught:
        resolve_device("abacus")
    assert str(caught.value) == (
        "device must be 'auto' or a device of torch such as 'cpu' or 'cuda'; got 'abacus'."
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none():
    with pytest.raises(ValueError) as caught:
        resolve_device("cuda:1")
    assert str(caught.value) == (
        "device='cuda:1' needs a CUDA device, and torch finds none here. "
        "Use device='auto' or device='cpu'."
    )


def test_a_device_that_cannot_compute_is_refused():
    with pytest.raises(ValueError, match="device='meta' must be a device that torch can compute"):
        resolve_device("meta")


def test_precision_of_a_device_that_cannot_cast():
    for precision, device in (("bfloat16", "cpu"), ("auto", "meta"), ("float32", "meta")):
        check_precision(precision, device)
    with pytest.raises(ValueError) as caught:
        check_precision("bfloat16", "meta")
    assert str(caught.value) == (
        "precision='bfloat16' needs a device that computes in it; got device='meta'. "
        "Use precision='auto' or precision='float32'."
    )
