"""Depths, the learning rates that follow from them, and networks that thaw from the head down."""

import copy

import pytest
import torch
from skorch.callbacks import Callback, GradientNormClipping

from sklstm.training.fine_tuning import count_stages, list_rates, measure_depth
from sklstm.training.loop import build_net, go_on, train
from tests.training.test_loop import SETTINGS, batches, settings

N_LAYERS = 2
N_STAGES = 4  # head, two layers, embedding
PATHS = {"lazy": [], "dense": [GradientNormClipping(1e9)]}  # which asks for dense gradients


class Spy(Callback):
    """Keeps a copy of all weights before the first update and after each."""

    def on_train_begin(self, net, **kwargs):
        self.seen_ = [copy.deepcopy(net.module_.state_dict())]

    def on_batch_end(self, net, **kwargs):
        if net.optimizer_.embedding is not None:
            net.optimizer_.rows.catch_up_all()
        self.seen_.append(copy.deepcopy(net.module_.state_dict()))


def thawing_net(callbacks=(), n_layers=N_LAYERS, **changes):
    network = settings() | {"num_layers": n_layers}
    changes = {"weight_decay": 0.5, "n_stages": n_layers + 2} | changes
    return build_net(network, user_callbacks=list(callbacks), **SETTINGS | changes)


def spied(callbacks=(), **changes):
    """Return a thawing net after six epochs of three updates, and its weights at each update."""
    net = thawing_net([("spy", Spy()), *callbacks], **changes)
    train(net, batches(), max_epochs=6)
    return net, dict(net.callbacks_)["spy"].seen_


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("head.bias", 0),
        ("pools.1.score.weight", 0),
        ("merge.weight", 0),
        ("lstm.weight_ih_l11", 1),
        ("lstm.bias_hh_l11_reverse", 1),
        ("lstm.peephole_l1", 11),
        ("lstm.weight_ih_l0_reverse", 12),
        ("embedding.weight", 13),
    ],
)
def test_depths(name, depth):
    assert measure_depth(name, 12) == depth


def test_rates_fall_by_the_same_factor_at_each_depth():
    rates = list_rates(0.8, 0.5, 2)
    assert [weights for _, weights, _ in rates] == ["lstm.*_l1*", "lstm.*_l0*", "embedding.*"]
    assert [rate for *_, rate in rates] == [0.4, 0.2, 0.1]


def test_stages():
    assert count_stages(1, freeze_embeddings=False) == 3
    assert count_stages(2, freeze_embeddings=True) == 3


@pytest.mark.parametrize("n_layers", [1, 12])  # whose names hold _l1 and _l10
def test_the_rates_reach_every_weight_by_its_depth(n_layers):
    net = thawing_net(n_layers=n_layers, layer_lr_decay=0.5, lr=0.8, weight_decay=0.1)
    groups = {p: group for group in net.optimizer_.param_groups for p in group["params"]}
    depths = set()
    for name, parameter in net.module_.named_parameters():
        depths.add(depth := measure_depth(name, n_layers))
        assert groups[parameter]["lr"] == pytest.approx(0.8 * 0.5**depth), name
        assert groups[parameter]["weight_decay"] == (0.0 if "bias" in name else 0.1), name
    assert depths == set(range(n_layers + 2))


@pytest.mark.parametrize("path", PATHS)
def test_one_layer_more_moves_in_each_epoch(path):
    """Weight decay is large: it alone would move what is frozen."""
    _, seen = spied(PATHS[path])
    for epoch in range(6):
        before, after = seen[3 * epoch], seen[3 * epoch + 3]
        for name in before:
            moves = measure_depth(name, N_LAYERS) <= epoch
            assert torch.equal(before[name], after[name]) != moves, (epoch, name)


def test_a_weight_frozen_from_outside_stays_frozen():
    net = thawing_net([("spy", Spy())])
    weight = net.module_.embedding.weight.requires_grad_(False)
    before = weight.clone()
    train(net, batches(), max_epochs=6)
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
def test_rows_that_stay_behind_thaw_as_torchs_adamw_would(ema):
    """The dense path is torch's AdamW with an average beside it."""
    lazy, dense = (
        thawing_net(PATHS[path], ema=ema, layer_lr_decay=0.5) for path in ("lazy", "dense")
    )
    for net in (lazy, dense):
        train(net, batches(), max_epochs=9)
    for one, other in zip(lazy.module_.parameters(), dense.module_.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    for net in (lazy, dense):
        steps = [
            int(net.optimizer_.state[layer.weight]["step"])
            for layer in (net.module_.head, net.module_.embedding)
        ]
        assert steps == [27, 18]  # of nine epochs the embedding is trained in six


def test_early_stopping_looks_at_no_epoch_before_all_is_trained():
    worse = iter(range(99))
    net = thawing_net(judge=lambda network: {"valid_loss": float(next(worse))}, patience=1)
    train(net, batches(), max_epochs=20)
    assert len(net.history) == N_STAGES + 1
    worse = iter(range(99))
    judge = {"judge": lambda network: {"valid_loss": float(next(worse))}, "patience": 1}
    net = thawing_net(n_stages=1, **judge)
    train(net, batches(), max_epochs=20)
    assert len(net.history) == 2


def test_an_interrupted_training_leaves_nothing_frozen():
    class Interrupt(Callback):
        def on_batch_begin(self, net, **kwargs):
            raise KeyboardInterrupt

    net = thawing_net([Interrupt()])
    assert train(net, batches(), max_epochs=6) is True
    assert all(parameter.requires_grad for parameter in net.module_.parameters())


def test_moments_go_on_under_other_rates():
    """Groups, and with them the order of the weights in the optimiser, may differ."""
    earlier, _ = spied()
    net = thawing_net(layer_lr_decay=0.5)
    go_on(net, earlier)
    for (name, old), (_, new) in zip(
        earlier.module_.named_parameters(), net.module_.named_parameters(), strict=True
    ):
        for key, value in earlier.optimizer_.state[old].items():
            assert torch.equal(net.optimizer_.state[new][key], value), (name, key)
    assert len({group["lr"] for group in net.optimizer_.param_groups}) == N_STAGES
