"""Rows that lag end where AdamW would have brought them step by step."""

import copy

import pytest
import torch
from torch import nn

from sklstm.training import optimizer
from sklstm.training.optimizer import LazyAdamW

SETTINGS = {"lr": 0.01, "weight_decay": 0.1}
DECAY = 0.97


class Pair:
    """The same embedding under torch's AdamW, averaged separately, and under ours."""

    def __init__(self, average=DECAY, eps=1e-8, dtype=torch.float64, n_ids=60):
        torch.manual_seed(0)
        self.theirs = nn.Embedding(n_ids, 3, dtype=dtype)
        self.ours = copy.deepcopy(self.theirs)
        self.adamw = torch.optim.AdamW(self.theirs.parameters(), eps=eps, **SETTINGS)
        self.lazy = LazyAdamW(self.ours.parameters(), eps=eps, fused=True, **SETTINGS)
        self.average = self.theirs.weight.detach().clone()
        self.n_steps, self.cycles_momentum = 0, False
        self.lazy.begin(self.ours, average)

    def run(self, n_steps, *, n_backward=1):
        frequent = 1 / torch.arange(1, len(self.ours.weight) + 1)  # the last ids are rare
        for _ in range(n_steps):
            self.n_steps += 1
            for optimizer_ in (self.adamw, self.lazy):
                optimizer_.zero_grad()
                group = optimizer_.param_groups[0]
                group["lr"] = 0.01 / (1 + 0.01 * self.n_steps)
                if self.cycles_momentum:  # as OneCycleLR does
                    group["betas"] = (0.85 + 0.1 * (self.n_steps % 10) / 10, 0.999)
            for _ in range(n_backward):
                ids = torch.multinomial(frequent, 4).unique()
                grad = torch.randn(len(ids), 3, dtype=self.ours.weight.dtype)
                for embedding in (self.theirs, self.ours):
                    (embedding(ids) * grad).sum().backward()
            self.adamw.step()
            self.lazy.step()
            share = (1 - DECAY) / (1 - DECAY**self.n_steps)
            self.average.lerp_(self.theirs.weight.detach(), share)

    def freeze(self, n_steps):
        """Freeze both for so many updates, which count for the average."""
        for embedding in (self.theirs, self.ours):
            embedding.weight.requires_grad_(False)
        for _ in range(n_steps):
            self.n_steps += 1
            for optimizer_ in (self.adamw, self.lazy):
                optimizer_.zero_grad()
            self.ours(torch.randperm(len(self.ours.weight))[:4])
            self.adamw.step()
            self.lazy.step()
            share = (1 - DECAY) / (1 - DECAY**self.n_steps)
            self.average.lerp_(self.theirs.weight.detach(), share)
        for embedding in (self.theirs, self.ours):
            embedding.weight.requires_grad_(True)

    def check(self, atol):
        rows = self.lazy.rows
        rows.catch_up_all()
        torch.testing.assert_close(self.ours.weight, self.theirs.weight, rtol=0, atol=atol)
        if rows.decay_of_average is not None:
            torch.testing.assert_close(rows.average, self.average, rtol=0, atol=atol)
        expected = self.adamw.state[self.theirs.weight]
        for name, value in rows.moments().items():
            torch.testing.assert_close(value.double(), expected[name].double(), rtol=0, atol=atol)


@pytest.mark.parametrize("average", [None, DECAY])
@pytest.mark.parametrize("max_lag", [0, 7, 1000])
def test_rows_catch_up_with_all_they_missed(average, max_lag, monkeypatch):
    """Without eps the numbers are the same up to rounding."""
    monkeypatch.setattr(optimizer, "MAX_LAG", max_lag)
    monkeypatch.setattr(optimizer, "ROWS_AT_ONCE", 25)  # three parts
    pair = Pair(average, eps=1e-30)
    for n_steps in (1, 5, 90):
        pair.run(n_steps)
        pair.check(atol=1e-11)


def test_the_usual_eps_and_single_precision_change_little():
    pair = Pair(dtype=torch.float32)
    pair.run(200)
    pair.check(atol=1e-5)
    moved = (pair.ours.weight - Pair(dtype=torch.float32).ours.weight).abs().mean()
    assert moved > 0.1  # ten thousand times as much


def test_rows_without_a_gradient_do_lag():
    pair = Pair()
    pair.run(1)
    earlier = pair.ours.weight.detach().clone()
    pair.run(1)
    assert 0 < (pair.ours.weight != earlier).any(dim=1).sum() <= 8 < len(earlier)


def test_momentum_may_change_between_steps():
    pair = Pair(eps=1e-30)
    pair.cycles_momentum = True
    pair.run(60)
    pair.check(atol=1e-11)


def test_a_state_that_is_saved_and_loaded_meanwhile():
    """As skorch's Checkpoint and LoadInitState do, after our callback."""
    pair = Pair(None, eps=1e-30)
    pair.run(10)
    state = copy.deepcopy(pair.lazy.state_dict())
    assert len(state["state"]) == 1
    pair.run(7)
    pair.lazy.load_state_dict(state)
    with torch.no_grad():
        pair.ours.weight.copy_(pair.theirs.weight)
    pair.adamw.load_state_dict(copy.deepcopy(state))
    pair.n_steps = 10
    pair.run(10)  # at learning rates that come with the loaded groups
    pair.check(atol=1e-11)


def test_an_interrupted_step_loses_nothing(monkeypatch):
    """Ctrl-C in the middle of a step must not harm the rows it has just read."""
    pair = Pair()
    pair.run(20)
    before = pair.ours.weight.detach().clone()

    def interrupt(*_):
        raise KeyboardInterrupt

    for name in ("_miss", "_miss_average", "_rows_of"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pair.lazy.rows, name, interrupt)
            pair.run(1)
    pair.lazy.rows.catch_up_all()
    assert (pair.ours.weight - before).abs().max() < 0.2
    assert (pair.lazy.rows.average - before).abs().max() < 0.2
    assert (before.abs() > 0.5).any()


def test_a_frozen_embedding_stays():
    pair = Pair()
    before = pair.ours.weight.detach().clone()
    pair.ours.weight.requires_grad_(False)
    for _ in range(3):
        pair.lazy.zero_grad()
        pair.ours(torch.tensor([1, 2]))
        pair.lazy.step()
    pair.lazy.rows.catch_up_all()
    assert torch.equal(pair.ours.weight, before) and torch.equal(pair.lazy.rows.average, before)


@pytest.mark.parametrize("average", [None, DECAY])
@pytest.mark.parametrize("n_first", [0, 1, 30])
def test_an_embedding_may_unfreeze_and_freeze_again(average, n_first):
    """Frozen updates count for the average only, whose rows differ from the weights."""
    pair = Pair(average, eps=1e-30)
    pair.run(n_first)
    for n_frozen in (1, 8):
        pair.freeze(n_frozen)
        pair.run(20)
    pair.check(atol=1e-11)
    pair.freeze(5)
    pair.check(atol=1e-11)
    assert pair.lazy.rows.n_steps == n_first + 40 < pair.n_steps


def test_frozen_rows_are_averaged_when_someone_asks(monkeypatch):
    """Not at each update, which would cost a pass over the vocabulary."""
    pair = Pair(eps=1e-30)
    pair.run(10)
    pair.freeze(1)
    before = pair.lazy.rows.average.clone()
    pair.freeze(3)
    assert torch.equal(pair.lazy.rows.average, before)
    pair.check(atol=1e-11)
    assert not torch.equal(pair.lazy.rows.average, before)


def test_whoever_predicts_meanwhile_reads_rows_that_have_caught_up():
    pair = Pair(eps=1e-30)
    pair.run(30)
    pair.ours.eval()
    every = torch.arange(60)
    torch.testing.assert_close(pair.ours(every), pair.theirs(every), rtol=0, atol=1e-11)


def test_gradients_may_be_summed_over_several_batches():
    pair = Pair(eps=1e-30)
    pair.run(20, n_backward=3)
    pair.check(atol=1e-11)


def test_reading_without_a_step_changes_nothing():
    pair = Pair(eps=1e-30)
    pair.run(5)
    for ids in ([0, 1, 2], [1, 59], [3]):
        pair.ours(torch.tensor(ids))
    pair.run(5)
    pair.check(atol=1e-11)


def test_a_later_begin_resumes_the_moments():
    pair = Pair(None, eps=1e-30)
    pair.run(8)
    pair.lazy.finish()
    assert not pair.ours.sparse and not pair.ours._forward_pre_hooks
    pair.lazy.begin(pair.ours, None)
    pair.run(8)
    pair.check(atol=1e-11)


def test_rows_that_were_read_catch_up_once_a_step():
    """Also with padding among them, which gets no gradient and is never moved."""
    torch.manual_seed(0)
    embedding = nn.Embedding(9, 3, padding_idx=0)
    lazy = LazyAdamW(embedding.parameters(), fused=True, **SETTINGS)
    lazy.begin(embedding, DECAY)
    calls, catch_up = [], lazy.rows.catch_up
    lazy.rows.catch_up = lambda rows: calls.append(rows.tolist()) or catch_up(rows)
    for ids in ([0, 2, 5], [0, 5, 8]):
        lazy.zero_grad()
        embedding(torch.tensor(ids)).sum().backward()
        lazy.step()
    assert calls == [[2, 5], [5, 8]]
    assert not embedding.weight[0].any()


def test_other_weights_are_updated_as_usual_and_a_closure_is_called():
    torch.manual_seed(0)
    embedding, linear = nn.Embedding(9, 3), nn.Linear(3, 1)
    parameters = [*embedding.parameters(), *linear.parameters()]
    lazy = LazyAdamW(parameters, fused=True, **SETTINGS)
    lazy.begin(embedding, None)
    twin = copy.deepcopy(linear)
    adamw = torch.optim.AdamW(twin.parameters(), **SETTINGS)
    ids, inputs = torch.tensor([1, 4]), embedding.weight[[1, 4]].detach()

    def closure():
        loss = linear(embedding(ids)).sum()
        loss.backward()
        return loss

    loss = lazy.step(closure)
    expected = twin(inputs).sum()
    expected.backward()
    adamw.step()
    assert loss.item() == pytest.approx(expected.item())
    torch.testing.assert_close(linear.weight, twin.weight)
    assert embedding.weight.grad.is_sparse  # still there for whoever looks


def test_without_an_embedding_it_is_adamw():
    torch.manual_seed(0)
    linear = nn.Linear(3, 1)
    twin = copy.deepcopy(linear)
    for layer, kind in ((linear, LazyAdamW), (twin, torch.optim.AdamW)):
        chosen = kind(layer.parameters(), **SETTINGS)
        layer(torch.ones(3)).backward()
        chosen.step()
    torch.testing.assert_close(linear.weight, twin.weight, rtol=0, atol=0)
