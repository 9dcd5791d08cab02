"""What happens between updates and between epochs."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, GradientNormClipping

from sklstm.training.callbacks import PREFIX, GradientClipping, build_callbacks
from sklstm.training.fine_tuning import measure_depth
from sklstm.training.loop import train
from sklstm.training.schedule import Schedule
from tests.builders import build_network, build_small_net, make_batches, make_training

N_LAYERS = 2
N_STAGES = 4  # head, two layers, embedding
PATHS = {"lazy": [], "dense": [GradientNormClipping(1e9)]}  # which asks for dense gradients


def validation_of(evaluate):
    """Return a validation whose results come from a function."""
    return SimpleNamespace(evaluate=evaluate, monitor="valid_loss")


def getting_worse():
    """Return a validation of which each epoch is worse than the one before."""
    losses = iter(range(99))
    return validation_of(lambda network: {"valid_loss": float(next(losses))})


# Which callbacks there are


def names_of(callbacks):
    return [name.removeprefix(PREFIX) for name, _ in callbacks]


def test_the_callbacks_are_in_the_order_in_which_an_epoch_ends():
    settings = make_training(
        lr_schedule="linear", early_stopping=True, verbose=2, callbacks=[("own", Callback())]
    )
    callbacks = build_callbacks(
        settings, n_batches=3, n_epochs=2, n_stages=4, validation=getting_worse()
    )
    assert names_of(callbacks) == [
        "clip",
        "diverged",
        "schedule",
        "rate",
        "weights",
        "unfreezing",
        "validation",
        "early_stopping",
        "own",
        "progress",
        "epoch_log",
    ]
    few = build_callbacks(make_training(), n_batches=3, n_epochs=2)
    assert names_of(few) == ["clip", "diverged", "rate", "weights"]


@pytest.mark.parametrize(
    ("settings", "keeps"),
    [({}, False), ({"keep_best": True}, True), ({"early_stopping": True}, True)],
    ids=str,
)
def test_validation_keeps_the_best_where_it_is_asked_to(settings, keeps):
    callbacks = build_callbacks(
        make_training(**settings), n_batches=3, n_epochs=2, validation=getting_worse()
    )
    assert dict(callbacks)[PREFIX + "validation"].keep_best is keeps


@pytest.mark.parametrize("other", [3, ("own", 3), (3, Callback()), dict], ids="abcd")
def test_what_is_no_callback_is_refused(other):
    settings = make_training(callbacks=[Callback(), other])
    with pytest.raises(TypeError) as caught:
        build_callbacks(settings, n_batches=3, n_epochs=2)
    assert str(caught.value) == (
        f"callbacks[1] must be a callback of skorch, or a pair of a name and one; got {other!r}."
    )


def test_the_users_callbacks_are_copied():
    given = [Callback(), ("own", GradientClipping(3.0)), Callback]
    callbacks = build_callbacks(make_training(callbacks=given), n_batches=3, n_epochs=2)
    one, (name, named), kind = callbacks[-3:]
    assert type(one) is Callback and one is not given[0]
    assert name == "own" and named.max_norm == 3.0 and named is not given[1][1]
    assert kind is Callback


# The learning rate, and gradients


def test_the_learning_rate_follows_the_schedule():
    net = build_small_net(lr_schedule="linear", n_epochs=2)
    seen = []
    net.optimizer_.register_step_pre_hook(
        lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"])
    )
    train(net, make_batches(), n_epochs=2)
    assert seen == pytest.approx([0.01 * Schedule("linear", 6)(k) for k in range(6)])


@pytest.mark.parametrize("norm", [0.1, 50.0])
def test_all_gradients_together_have_a_norm_of_at_most_the_limit(norm):
    """One of them is sparse, and one weight has none."""
    sparse, dense, absent = (torch.zeros(4, 1, requires_grad=True) for _ in range(3))
    values = torch.tensor([[0.6 * norm]])
    sparse.grad = torch.sparse_coo_tensor([[2]], values, (4, 1), check_invariants=True)
    dense.grad = torch.tensor([[0.0], [0.0], [0.0], [0.8 * norm]])
    named = [("sparse", sparse), ("dense", dense), ("absent", absent)]
    GradientClipping(2.0).on_grad_computed(None, named)
    clipped = min(2.0, norm)
    assert sparse.grad.to_dense()[2].item() == pytest.approx(0.6 * clipped, rel=1e-4)
    assert dense.grad[3].item() == pytest.approx(0.8 * clipped, rel=1e-4)


def test_callbacks_that_ask_for_gradients_get_dense_ones():
    """skorch's own clipping knows no sparse ones; the weights become the same."""
    seen = []

    class Spy(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            seen.extend(p.grad.is_sparse for _, p in named_parameters if p.grad is not None)

    plain = build_small_net()
    spied = build_small_net(callbacks=[Spy(), GradientNormClipping(1e9)])
    for net in (plain, spied):
        train(net, make_batches(), n_epochs=2)
    assert seen and not any(seen)
    for one, other in zip(plain.module_.parameters(), spied.module_.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


# The average of the weights


def test_the_average_matches_its_formula():
    """After n updates: the weighted mean of all weights seen, newest 1, then decay, decay**2."""
    seen = []

    class Spy(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(net.module_.head.weight.detach().clone())

    net = build_small_net(ema=0.8, callbacks=[("spy", Spy())])
    train(net, make_batches(), n_epochs=2)
    weights = 0.8 ** np.arange(len(seen))[::-1]
    expected = sum(w * x for w, x in zip(weights / weights.sum(), seen, strict=True))
    torch.testing.assert_close(net.module_.head.weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_training_continues_from_the_raw_weights_not_from_the_average():
    plain, averaged = build_small_net(), build_small_net(ema=0.9)
    for net in (plain, averaged):
        train(net, make_batches(), n_epochs=3)
    assert [row["train_loss"] for row in plain.history] == pytest.approx(
        [row["train_loss"] for row in averaged.history]
    )
    assert not torch.equal(plain.module_.head.weight, averaged.module_.head.weight)


# Validation


def test_the_average_is_validated_and_the_best_is_kept():
    seen = []

    def evaluate(network):
        seen.append(copy.deepcopy(network.state_dict()))
        return {"valid_loss": [3.0, 1.0, 2.0, 2.0][len(seen) - 1]}

    net = build_small_net(
        ema=0.9, validation=validation_of(evaluate), early_stopping=True, n_iter_no_change=2
    )
    trained = train(net, make_batches(), n_epochs=9)
    assert not trained.interrupted
    assert len(trained.history) == 4
    assert [row["valid_loss_best"] for row in trained.history] == [True, True, False, False]
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, seen[1][name])


def test_the_last_weights_stay_where_the_best_need_not_be_kept():
    seen = []

    def evaluate(network):
        seen.append(network.head.weight.detach().clone())
        return {"valid_loss": float(len(seen))}

    net = build_small_net(validation=validation_of(evaluate))
    train(net, make_batches(), n_epochs=3)
    assert torch.equal(net.module_.head.weight, seen[-1])


def test_a_score_is_better_where_it_is_higher():
    scores = iter([0.1, 0.3, 0.2])
    validation = SimpleNamespace(
        evaluate=lambda network: {"valid_score": next(scores), "valid_loss": 1.0},
        monitor="valid_score",
    )
    net = build_small_net(validation=validation, early_stopping=True, n_iter_no_change=1)
    history = train(net, make_batches(), n_epochs=9).history
    assert [row["valid_score_best"] for row in history] == [True, True, False]


def test_a_training_that_diverged_is_an_error():
    class Poison(Callback):
        def on_batch_end(self, net, **kwargs):
            net.module_.head.weight.data.fill_(float("nan"))

    net = build_small_net(callbacks=[Poison()])
    with pytest.raises(ValueError) as caught:
        train(net, make_batches(), n_epochs=3)
    assert str(caught.value) == (
        "Training diverged: the loss of epoch 1 is nan. Lower lr, which is 0.01."
    )


# Networks that unfreeze from the head down


class Spy(Callback):
    """Keeps a copy of all weights before the first update and after each."""

    def on_train_begin(self, net, **kwargs):
        self.seen_ = [copy.deepcopy(net.module_.state_dict())]

    def on_batch_end(self, net, **kwargs):
        if net.optimizer_.embedding is not None:
            net.optimizer_.rows.catch_up_all()
        self.seen_.append(copy.deepcopy(net.module_.state_dict()))


def unfreezing_net(callbacks=(), **settings):
    """Return a net of two layers; weight decay alone would move what is frozen, and visibly."""
    settings = {"weight_decay": 0.5, "n_stages": N_STAGES} | settings
    return build_small_net(
        build_network(num_layers=N_LAYERS), callbacks=list(callbacks), **settings
    )


def spied(callbacks=(), **settings):
    """Return an unfreezing net after six epochs of three updates, and its weights at each."""
    net = unfreezing_net([("spy", Spy()), *callbacks], **settings)
    train(net, make_batches(), n_epochs=6)
    return net, dict(net.callbacks_)["spy"].seen_


@pytest.mark.parametrize("path", PATHS)
def test_one_layer_more_moves_in_each_epoch(path):
    _, seen = spied(PATHS[path])
    for epoch in range(6):
        before, after = seen[3 * epoch], seen[3 * epoch + 3]
        for name in before:
            moves = measure_depth(name, N_LAYERS) <= epoch
            assert torch.equal(before[name], after[name]) != moves, (epoch, name)


def test_a_weight_that_was_frozen_before_stays_frozen():
    net = unfreezing_net()
    weight = net.module_.embedding.weight.requires_grad_(False)
    before = weight.clone()
    train(net, make_batches(), n_epochs=6)
    assert torch.equal(weight, before) and not weight.requires_grad
    assert net.module_.head.weight.requires_grad


@pytest.mark.parametrize("path", PATHS)
def test_the_average_is_that_of_all_updates_frozen_ones_included(path):
    net, seen = spied(PATHS[path], ema=0.8)
    shares = 0.8 ** torch.arange(len(seen) - 1).flip(0)
    shares = shares / shares.sum()
    for name, average in net.module_.state_dict().items():
        expected = sum(share * now[name] for share, now in zip(shares, seen[1:], strict=True))
        torch.testing.assert_close(average, expected, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("ema", [None, 0.8])
def test_rows_that_lag_unfreeze_as_torchs_adamw_would(ema):
    """The dense path is torch's AdamW, with an average of its own."""
    lazy, dense = (
        unfreezing_net(PATHS[path], ema=ema, layer_lr_decay=0.5) for path in ("lazy", "dense")
    )
    for net in (lazy, dense):
        train(net, make_batches(), n_epochs=9)
    for one, other in zip(lazy.module_.parameters(), dense.module_.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    for net in (lazy, dense):
        steps = [
            int(net.optimizer_.state[layer.weight]["step"])
            for layer in (net.module_.head, net.module_.embedding)
        ]
        assert steps == [27, 18]  # of nine epochs the embedding is trained in six


@pytest.mark.parametrize(("n_stages", "n_epochs"), [(N_STAGES, N_STAGES + 1), (1, 2)])
def test_early_stopping_ignores_epochs_before_all_is_trained(n_stages, n_epochs):
    net = unfreezing_net(
        n_stages=n_stages, validation=getting_worse(), early_stopping=True, n_iter_no_change=1
    )
    train(net, make_batches(), n_epochs=20)
    assert len(net.history) == n_epochs


def test_an_interrupted_training_leaves_nothing_frozen():
    class Interrupt(Callback):
        def on_batch_begin(self, net, **kwargs):
            raise KeyboardInterrupt

    net = unfreezing_net([Interrupt()])
    assert train(net, make_batches(), n_epochs=6).interrupted
    assert all(parameter.requires_grad for parameter in net.module_.parameters())
