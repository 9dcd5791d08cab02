"""What one update computes, against losses written by hand."""

import numpy as np
import pytest
import torch

from sklstm.text.batching import Batch, RaggedIds
from sklstm.text.windows import TrainingWindows
from sklstm.training.steps import NextToken, Supervised, mean_loss
from tests.builders import (
    LONG_IDS,
    LONG_LENGTHS,
    build_language_network,
    build_network,
    make_task,
)

BATCH = Batch(
    LONG_LENGTHS, LONG_IDS, torch.tensor([0, 2, 1, 1, 0]), torch.tensor([1.5, 0.5, 1.0, 2.0, 0.25])
)


def assert_gradients_are_equal(network, other):
    for (name, one), two in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=lambda m, n=name: f"{n}: {m}")


def test_the_loss_is_the_mean_of_weight_times_cross_entropy():
    outputs = torch.log(torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]]))
    batch = Batch(None, None, torch.tensor([2, 0]), torch.tensor([1.5, 0.5]))
    expected = -(1.5 * np.log(0.5) + 0.5 * np.log(0.7)) / 2
    assert mean_loss(make_task(), outputs, batch).item() == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_supervised_gradients_are_those_of_a_loss_by_hand(smoothing):
    network, by_hand = build_network(), build_network()
    loss, outputs = Supervised(make_task(label_smoothing=smoothing))(network, BATCH)
    log_p = by_hand(LONG_IDS, LONG_LENGTHS).log_softmax(dim=1)
    shares = (1 - smoothing) * torch.eye(3)[BATCH.targets] + smoothing / 3
    expected = (BATCH.weights * -(shares * log_p).sum(dim=1)).sum() / 5
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(outputs.log_softmax(dim=1), log_p)
    assert not loss.requires_grad
    assert_gradients_are_equal(network, by_hand)


def test_gradients_are_added_to_those_of_the_weights():
    network, twice = build_network(), build_network()
    step = Supervised(make_task())
    step(network, BATCH)
    for _ in range(2):
        step(twice, BATCH)
    torch.testing.assert_close(twice.head.weight.grad, 2 * network.head.weight.grad)


def test_the_next_token_is_predicted_by_the_networks_own_loss():
    texts = RaggedIds(np.arange(3, 13, dtype=np.int32), np.array([0, 4, 10]))
    windows = TrainingWindows(
        texts, n_ids=13, window=6, batch_size=2, n_negatives=5, rng=np.random.default_rng(0)
    )
    batch = next(iter(windows))
    network, by_hand = build_language_network(), build_language_network()
    loss, outputs = NextToken()(network, batch)
    expected = by_hand(batch.ids, batch.negatives, batch.log_share)
    expected.backward()
    assert outputs is None and not loss.requires_grad
    torch.testing.assert_close(loss, expected.detach())
    assert_gradients_are_equal(network, by_hand)
