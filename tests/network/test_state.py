import copy
import re

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sklstm.kernels.cells import CELLS
from sklstm.network.pooling import POOLINGS
from sklstm.network.state import from_state, take_state
from tests.builders import IDS, LENGTHS, SENTENCES, build_language_network, build_network

CHOICES = [
    {},
    {"num_layers": 3},
    {"bidirectional": False},
    SENTENCES,
    {"attention": "dot", "dropout": 0.25},
    {"pooling": ("attention", "last", "attention")},
    *({"cell": cell} for cell in CELLS),
    *({"pooling": (pooling,)} for pooling in POOLINGS),
    {"hidden_size": np.int64(4), "dropout": np.float64(0.5), "bidirectional": np.bool_(True)},
]


def check_same(again, network):
    assert type(again) is type(network)
    assert again.settings == network.settings
    assert not again.training
    torch.testing.assert_close(again.state_dict(), network.state_dict(), rtol=0, atol=0)
    names = [name for name, _ in network.named_parameters()]
    assert [name for name, _ in again.named_parameters()] == names
    assert all(weight.is_leaf and weight.requires_grad for weight in again.parameters())


@pytest.mark.parametrize("settings", CHOICES, ids=str)
def test_a_text_network_comes_back(settings):
    network = build_network(**settings)
    again = from_state(take_state(network))
    check_same(again, network)
    assert torch.equal(again(IDS, LENGTHS), network.eval()(IDS, LENGTHS))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_language_network_comes_back(bidirectional):
    network = build_language_network(bidirectional=bidirectional)
    check_same(from_state(take_state(network)), network)


def test_the_generator_goes_on():
    """The masks of the dropout that follow are those that the network would have drawn."""
    network = build_network(dropout=0.5, zoneout=0.1, num_layers=2)
    network.train()(IDS, LENGTHS)
    again = from_state(take_state(network)).train()
    for _ in range(2):
        assert torch.equal(again(IDS, LENGTHS), network(IDS, LENGTHS))
    assert again.lstm.generator is again.generator


def test_weights_of_another_precision_stay_so():
    network = build_network().double()
    again = from_state(take_state(network))
    assert again.head.weight.dtype == torch.float64
    check_same(again, network)


def test_a_state_shares_no_memory():
    network = build_network()
    state = take_state(network)
    again = from_state(state)
    with torch.no_grad():
        network.head.bias.fill_(1.0)
        again.head.bias.fill_(2.0)
    assert (state["weights"]["head.bias"] == 0).all()


def test_a_state_may_be_read_only():
    """As the arrays of a pickle are that joblib maps into memory."""
    state = take_state(build_network(**SENTENCES))
    for array in [*state["weights"].values(), state["generator"]]:
        array.flags.writeable = False
    with torch.no_grad():
        from_state(state).head.bias.fill_(1.0)


def test_a_state_is_data():
    state = take_state(build_network(**SENTENCES))
    arrays = [*state["weights"].values(), state["generator"]]
    assert all(type(array) is np.ndarray for array in arrays)
    assert state["kind"] == "LSTMTextNetwork" and state["settings"]["hidden_size"] == 4


def damage(name, value, settings=None):
    """Return the state of a network with one setting, or one weight, of another value."""
    state = copy.deepcopy(take_state(build_network(**settings or {})))
    state["settings" if name in state["settings"] else "weights"][name] = value
    return state


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("embedding_dim", 6, "the weight 'embedding.weight' is of shape (20, 5), and (20, 6) with"),
        ("hidden_size", 5, "the weight 'lstm.weight_ih_l0' is of shape (16, 5), and (20, 5) with"),
        ("num_layers", 2, "the weights are not those of num_layers=2"),
        ("num_layers", 10**9, "the weights are not those of num_layers=1000000000"),
        ("bidirectional", False, "see 'lstm.bias_hh_l0_reverse'"),
        ("cell", "peephole", "see 'lstm.peephole_l0'"),
        ("cell", "coupled", "the weight 'lstm."),
        (
            "pooling",
            ("max",),
            "the weight 'head.weight' is of shape (3, 16), and (3, 8) with these",
        ),
        ("pooling", ("max", "attention"), "the weights are not those of pooling"),
        ("pooling", ("max",) * 101, "the weights are not those of pooling"),
        ("head.weight", np.zeros((3, 17), np.float32), "'head.weight' is of shape (3, 17)"),
        ("head.bias", np.zeros(3), "the weight 'head.bias' is of float64"),
        ("head.bias", np.zeros(3, np.int64), "the weight 'head.bias' is of int64"),
        ("more", np.zeros(3, np.float32), "the weights are not those of the settings: see 'more'"),
        ("embedding_dim", 0, "embedding_dim must not be 0"),
        ("hidden_size", "8", "hidden_size must not be '8'"),
        ("dropout", 1.0, "dropout must not be 1.0"),
        ("dropout", float("nan"), "dropout must not be nan"),
        ("zoneout", "x", "zoneout must not be 'x'"),
        ("bidirectional", "no", "bidirectional must not be 'no'"),
        ("cell", "x", "cell must not be 'x'"),
        ("backend", "x", "backend must not be 'x'"),
        ("precision", "x", "precision must not be 'x'"),
        ("attention", "x", "attention must not be 'x'"),
        ("read_by", "x", "read_by must not be 'x'"),
        ("pooling", ("x",), "pooling must not be ('x',)"),
        ("pooling", "max", "pooling must not be 'max'"),
    ],
)
def test_settings_that_are_not_those_of_the_weights(name, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_state(damage(name, value))


HUGE = {
    "a wide embedding": damage("embedding_dim", 10**9),
    "a large state": damage("hidden_size", 10**6),
    "a head of no columns": damage("head.weight", np.zeros((10**9, 0), np.float32)),
    "an embedding of no columns": damage("embedding.weight", np.zeros((10**9, 0), np.float32)),
    "layers of no weights": damage("num_layers", 200, {"hidden_size": 100}),
}
for layer in range(200):
    HUGE["layers of no weights"]["weights"][f"lstm.weight_hh_l{layer}"] = np.zeros(0, np.float32)


@pytest.mark.parametrize("state", HUGE.values(), ids=HUGE)
def test_no_memory_is_taken_for_sizes_that_are_a_lie(state):
    with pytest.raises((ValueError, RuntimeError)), NoLargeTensor():
        from_state(state)


class NoLargeTensor(TorchDispatchMode):
    """Raise AssertionError where a tensor of more than a megabyte has memory."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **kwargs or {})
        if isinstance(out, torch.Tensor) and out.device.type != "meta":
            assert out.numel() < 2**18
        return out
