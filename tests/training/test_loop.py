"""The training loop: nets that are built, trained, ended and resumed."""

import pickle
import signal
from functools import partial
from types import SimpleNamespace

import pytest
import skorch.callbacks.logging
import torch
from skorch.callbacks import Callback, EarlyStopping

from sklstm.training.fine_tuning import measure_depth
from sklstm.training.loop import read_moments, train, wrap_net
from tests.builders import build_network, build_small_net, make_batches


def best_possible():
    return SimpleNamespace(evaluate=lambda network: {"valid_loss": 1.0}, monitor="valid_loss")


class InterruptAt(Callback):
    """Presses Ctrl-C before a batch, counted from 0."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_begin(self, net, **kwargs):
        self.n_batches_ = 0

    def on_batch_begin(self, net, **kwargs):
        if self.n_batches_ == self.batch:
            raise KeyboardInterrupt
        self.n_batches_ += 1


# The settings of the optimiser


def test_biases_are_not_decayed():
    net = build_small_net(weight_decay=0.1)
    decayed = {
        id(p): group["weight_decay"]
        for group in net.optimizer_.param_groups
        for p in group["params"]
    }
    for name, parameter in net.module_.named_parameters():
        assert decayed[id(parameter)] == (0.0 if "bias" in name else 0.1)


@pytest.mark.parametrize("n_layers", [1, 12])  # whose names hold _l1 and _l10
def test_the_rates_reach_every_weight_by_its_depth(n_layers):
    net = build_small_net(
        build_network(num_layers=n_layers), layer_lr_decay=0.5, lr=0.8, weight_decay=0.1
    )
    groups = {p: group for group in net.optimizer_.param_groups for p in group["params"]}
    depths = set()
    for name, parameter in net.module_.named_parameters():
        depths.add(depth := measure_depth(name, n_layers))
        assert groups[parameter]["lr"] == pytest.approx(0.8 * 0.5**depth), name
        assert groups[parameter]["weight_decay"] == (0.0 if "bias" in name else 0.1), name
    assert depths == set(range(n_layers + 2))


@pytest.mark.parametrize("freeze", [True, False])
def test_a_frozen_embedding_is_not_trained(freeze):
    net = build_small_net(freeze_embeddings=freeze)
    before = net.module_.embedding.weight.detach().clone()
    train(net, make_batches(), n_epochs=1)
    assert torch.equal(net.module_.embedding.weight, before) is freeze


# How a training ends


def test_the_users_callbacks_and_the_history_are_left():
    net = build_small_net(callbacks=[("own", InterruptAt(99))], verbose=0, lr_schedule="linear")
    trained = train(net, make_batches(), n_epochs=2)
    ((name, callback),) = trained.callbacks
    assert name == "own" and callback.n_batches_ == 6
    assert [row["epoch"] for row in trained.history] == [1, 2]
    assert not trained.interrupted and not net.module_.training


def test_an_epoch_that_never_ended_leaves_no_row():
    net = build_small_net(callbacks=[InterruptAt(4)])
    trained = train(net, make_batches(), n_epochs=5)
    assert trained.interrupted
    assert len(trained.history) == len(net.history) == 1


def test_a_callback_of_skorch_that_stops_is_no_interruption_and_others_see_the_epoch():
    seen = []

    class After(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(len(net.history))

    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=1e9, threshold_mode="abs")
    net = build_small_net(callbacks=[stop, After()])
    trained = train(net, make_batches(), n_epochs=9)
    assert not trained.interrupted
    assert len(trained.history) == len(seen) < 9 and seen[-1] == len(seen)


def test_nothing_of_the_training_stays_in_the_net():
    net = build_small_net(
        ema=0.9,
        validation=best_possible(),
        early_stopping=True,
        n_iter_no_change=3,
        lr_schedule="linear",
        n_epochs=3,
    )
    train(net, make_batches(), n_epochs=2)
    restored = pickle.loads(pickle.dumps(net))
    assert restored.history == net.history
    assert all("batches" not in row and "complete" not in row for row in net.history)
    assert all(parameter.grad is None for parameter in net.module_.parameters())
    assert len(pickle.dumps(net)) < 60_000


# How a later training resumes


def steps_of(net):
    return {int(state["step"]) for state in net.optimizer_.state.values()}


def test_a_net_resumes_history_and_moments_but_no_learning_rate():
    earlier = build_small_net(lr_schedule="linear", n_epochs=2)
    trained = train(earlier, make_batches(), n_epochs=2)
    assert earlier.optimizer_.param_groups[0]["lr"] == 0.0
    net = build_small_net(earlier.module_, history=trained.history, moments=read_moments(earlier))
    assert [group["lr"] for group in net.optimizer_.param_groups] == [0.01, 0.01]
    assert len(train(net, make_batches(), n_epochs=1).history) == 3
    assert (steps_of(earlier), steps_of(net)) == ({6}, {9})
    assert len(trained.history) == 2  # a copy was continued


def test_moments_are_resumed_under_other_rates():
    """Groups, and with them the order of the weights in the optimiser, may differ."""
    earlier = build_small_net(build_network(num_layers=2))
    train(earlier, make_batches(), n_epochs=2)
    net = build_small_net(
        build_network(num_layers=2), layer_lr_decay=0.5, moments=read_moments(earlier)
    )
    for (name, old), (_, new) in zip(
        earlier.module_.named_parameters(), net.module_.named_parameters(), strict=True
    ):
        for key, value in earlier.optimizer_.state[old].items():
            assert torch.equal(net.optimizer_.state[new][key], value), (name, key)
    assert len({group["lr"] for group in net.optimizer_.param_groups}) == 4


def test_moments_are_copies():
    net = build_small_net()
    train(net, make_batches(), n_epochs=1)
    moments = read_moments(net)
    assert moments.keys() == dict(net.module_.named_parameters()).keys()
    before = {name: own["exp_avg"].clone() for name, own in moments.items()}
    for _ in range(2):
        train(build_small_net(moments=moments), make_batches(), n_epochs=1)
    for name, own in moments.items():
        assert torch.equal(own["exp_avg"], before[name]), name


def test_a_wrapped_network_shows_what_its_training_left():
    net = build_small_net(callbacks=[("own", InterruptAt(99))])
    trained, moments = train(net, make_batches(), n_epochs=2), read_moments(net)
    wrapped = wrap_net(
        net.module_, callbacks=trained.callbacks, history=trained.history, moments=moments
    )
    assert wrapped.module_ is net.module_
    assert wrapped.callbacks_ == trained.callbacks
    assert list(wrapped.history) == trained.history
    assert steps_of(wrapped) == {6}


@pytest.mark.parametrize(("batch_size", "advice"), [(4, "batch_size=2 or"), (1, "hidden_size")])
def test_too_little_memory_says_what_to_do(batch_size, advice):
    def step(network, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")

    net = build_small_net()
    net.step = step
    batches = make_batches()
    batches.batch_size = batch_size
    longest = batches.texts.lengths.max()
    expected = f"a batch of {batch_size} texts of up to {longest} tokens. .*{advice}"
    with pytest.raises(torch.OutOfMemoryError, match=expected):
        train(net, batches, n_epochs=1)


# Divergence


def poison(network):
    with torch.no_grad():
        network.head.weight[0] = float("nan")


def test_weights_that_are_not_finite_are_never_left():
    net = build_small_net(callbacks=[("interrupt", InterruptAt(1))])
    poison(net.module_)
    with pytest.raises(ValueError, match="Training diverged: weights are not finite"):
        train(net, make_batches(), n_epochs=1)


def test_ctrl_c_inside_a_callback_of_skorch_is_the_users(monkeypatch):
    """It must not be taken for a callback that asks to stop, which warns of nothing."""
    press = SimpleNamespace(time=partial(signal.raise_signal, signal.SIGINT))

    class PressAtTheEnd(Callback):
        def on_batch_end(self, net, **kwargs):
            monkeypatch.setattr(skorch.callbacks.logging, "time", press)  # EpochTimer's

    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    trained = train(build_small_net(callbacks=[PressAtTheEnd()]), make_batches(), n_epochs=3)
    signal.signal(signal.SIGINT, usual)
    assert trained.interrupted and trained.history == []
