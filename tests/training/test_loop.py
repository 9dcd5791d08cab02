"""The parts of the training loop that are not skorch's."""

import copy
import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, GradientNormClipping

from sklstm.text.batching import Batch, RaggedIds, TrainingBatches
from sklstm.training.loop import (
    Schedule,
    build_net,
    check_precision,
    count_epochs,
    go_on,
    resolve_device,
    train,
)
from tests.network.test_text_network import SETTINGS as NETWORK

SETTINGS = {"lr": 0.01, "weight_decay": 0.0, "label_smoothing": 0.0, "device": "cpu", "verbose": 0}


def settings():
    """Return the settings of a small network."""
    return NETWORK | {"generator": torch.Generator().manual_seed(0)}


def batches(n_texts=24, batch_size=8):
    ids = np.random.default_rng(0).integers(3, 20, size=4 * n_texts).astype(np.int32)
    texts = RaggedIds(ids, np.arange(0, 4 * n_texts + 1, 4))
    rng = np.random.default_rng(0)
    weights = np.ones(n_texts)
    return TrainingBatches(texts, ids[::4] % 3, weights, batch_size=batch_size, rng=rng)


@pytest.mark.parametrize(
    ("max_epochs", "n_batches", "expected"),
    [(7, 1, 7), ("auto", 1, 50), ("auto", 200, None), ("auto", 10**6, 3)],
)
def test_epochs(max_epochs, n_batches, expected):
    epochs = count_epochs(max_epochs, n_batches=n_batches)
    if expected is None:
        assert 2 < epochs < 20
        assert epochs * n_batches >= 1000
    else:
        assert epochs == expected


def test_automatic_epochs_leave_room_to_thaw():
    assert count_epochs("auto", n_batches=10**6, n_stages=4) == 6
    assert count_epochs("auto", n_batches=200, n_stages=4) == 10
    assert count_epochs("auto", n_batches=1, n_stages=60) == 62
    assert count_epochs(4, n_batches=1, n_stages=4) == 4


def test_schedule_rises_then_falls():
    linear = [Schedule("linear", 100)(k) for k in range(101)]
    assert linear[:2] == [0.1, 0.2] and linear[9] == 1.0 == max(linear)
    assert np.diff(linear[10:]).max() < 0 and linear[100] == 0.0
    cosine = [Schedule("cosine", 100)(k) for k in range(101)]
    assert cosine[55] == pytest.approx(0.5) and cosine[100] == pytest.approx(0.0)
    assert {Schedule("constant", 100)(k) for k in range(10, 200)} == {1.0}


def test_learning_rate_follows_the_schedule():
    net = build_net(settings(), schedule=Schedule("linear", 6), **SETTINGS)
    seen = []
    net.optimizer_.register_step_pre_hook(
        lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"])
    )
    train(net, batches(), max_epochs=2)
    assert seen == pytest.approx([0.01 * Schedule("linear", 6)(k) for k in range(6)])


def test_biases_are_not_decayed():
    net = build_net(settings(), **(SETTINGS | {"weight_decay": 0.1}))
    decayed = {
        id(p): group["weight_decay"]
        for group in net.optimizer_.param_groups
        for p in group["params"]
    }
    for name, parameter in net.module_.named_parameters():
        assert decayed[id(parameter)] == (0.0 if "bias" in name else 0.1)


def test_loss_is_the_mean_of_weight_times_cross_entropy():
    net = build_net(settings(), **SETTINGS)
    logits = torch.log(torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]]))
    batch = Batch(None, None, torch.tensor([2, 0]), torch.tensor([1.5, 0.5]))
    expected = -(1.5 * np.log(0.5) + 0.5 * np.log(0.7)) / 2
    assert net.get_loss(logits, batch).item() == pytest.approx(expected)


def test_callbacks_that_ask_for_gradients_get_dense_ones():
    """skorch's own clipping knows no sparse ones; the weights come out the same."""
    seen = []

    class Spy(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            seen.extend(p.grad.is_sparse for _, p in named_parameters if p.grad is not None)

    plain = build_net(settings(), **SETTINGS)
    spied = build_net(settings(), user_callbacks=[Spy(), GradientNormClipping(1e9)], **SETTINGS)
    for net in (plain, spied):
        train(net, batches(), max_epochs=2)
    assert seen and not any(seen)
    for one, other in zip(plain.module_.parameters(), spied.module_.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_average_matches_its_formula():
    """After n updates: the weighted mean of all weights seen, newest 1, then decay, decay**2."""
    seen = []

    class Spy(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(net.module_.head.weight.detach().clone())

    net = build_net(settings(), ema=0.8, user_callbacks=[("spy", Spy())], **SETTINGS)
    train(net, batches(), max_epochs=2)
    weights = 0.8 ** np.arange(len(seen))[::-1]
    expected = sum(w * x for w, x in zip(weights / weights.sum(), seen, strict=True))
    torch.testing.assert_close(net.module_.head.weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_training_goes_on_from_the_raw_weights_not_from_the_average():
    plain = build_net(settings(), **SETTINGS)
    averaged = build_net(settings(), ema=0.9, **SETTINGS)
    for net in (plain, averaged):
        train(net, batches(), max_epochs=3)
    assert [row["train_loss"] for row in plain.history] == pytest.approx(
        [row["train_loss"] for row in averaged.history]
    )
    assert not torch.equal(plain.module_.head.weight, averaged.module_.head.weight)


def test_judge_sees_the_average_and_the_best_is_kept():
    seen = []

    def judge(network):
        seen.append(copy.deepcopy(network.state_dict()))
        return {"valid_loss": [3.0, 1.0, 2.0, 2.0][len(seen) - 1]}

    net = build_net(settings(), ema=0.9, judge=judge, patience=2, **SETTINGS)
    assert train(net, batches(), max_epochs=9) is False
    assert len(net.history) == 4
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, seen[1][name])


def test_a_training_that_diverged_is_an_error():
    class Poison(Callback):
        def on_batch_end(self, net, **kwargs):
            net.module_.head.weight.data.fill_(float("nan"))

    net = build_net(settings(), user_callbacks=[Poison()], **SETTINGS)
    with pytest.raises(ValueError) as caught:
        train(net, batches(), max_epochs=3)
    assert str(caught.value) == (
        "Training diverged: the loss of epoch 1 is nan. Lower lr, which is 0.01."
    )


def test_going_on_takes_weights_masks_and_moments_but_no_learning_rate():
    earlier = build_net(settings(), schedule=Schedule("linear", 6), **SETTINGS)
    train(earlier, batches(), max_epochs=2)
    assert earlier.optimizer_.param_groups[0]["lr"] == 0.0
    net = build_net(settings(), **SETTINGS)
    go_on(net, earlier)
    assert torch.equal(net.module_.head.weight, earlier.module_.head.weight)
    assert torch.equal(net.module_.generator.get_state(), earlier.module_.generator.get_state())
    assert [group["lr"] for group in net.optimizer_.param_groups] == [0.01, 0.01]
    train(net, batches(), max_epochs=1)
    steps = [{int(state["step"]) for state in n.optimizer_.state.values()} for n in (earlier, net)]
    assert steps == [{6}, {9}]


def test_nothing_of_the_training_stays_in_the_net():
    data = batches()
    net = build_net(
        settings(),
        ema=0.9,
        judge=lambda network: {"valid_loss": 1.0},
        patience=3,
        schedule=Schedule("linear", 9),
        **SETTINGS,
    )
    train(net, data, max_epochs=2)
    restored = pickle.loads(pickle.dumps(net))
    assert restored.history == net.history
    assert all("batches" not in row for row in net.history)
    assert all(parameter.grad is None for parameter in net.module_.parameters())
    assert len(pickle.dumps(net)) < 60_000


def test_devices():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="device must be 'auto' or a device of torch"):
        resolve_device("abacus")


def test_precision_of_a_device_that_cannot_cast():
    for precision, device in (("bfloat16", "cpu"), ("auto", "meta"), ("float32", "meta")):
        check_precision(precision, device)
    with pytest.raises(ValueError) as caught:
        check_precision("bfloat16", "meta")
    assert str(caught.value) == (
        "precision='bfloat16' needs a device that computes in it; got device='meta'. "
        "Use precision='auto' or precision='float32'."
    )
