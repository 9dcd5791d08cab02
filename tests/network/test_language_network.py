import numpy as np
import pytest
import torch
from torch import nn

from sklstm.network.language_network import (
    Candidates,
    log_frequencies,
    sampled_softmax_loss,
)
from sklstm.text.special_tokens import PADDING
from sklstm.text.windows import inclusion_shares, sample_ids
from tests.builders import build_language_network as build

N_IDS = 13


def draw_ids(n_steps=6, n_texts=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, N_IDS, (n_steps, n_texts), generator=generator, dtype=torch.int32)


def test_with_all_words_the_sampled_softmax_is_the_full_one():
    """The same loss and the same gradients as torch's cross-entropy over all words."""
    sampled, full = build(), build()
    ids, everything = draw_ids(), torch.arange(1, N_IDS)
    loss = sampled(ids, everything, torch.zeros(N_IDS - 1))
    loss.backward()
    expected = -full.log_probabilities(ids, torch.full((3,), 6)).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for (name, own), other in zip(sampled.named_parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, msg=lambda m, n=name: f"{n}: {m}")


def test_gradients_of_the_sampled_softmax():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    contexts, table, bias = normal(9, 4), normal(8, 4), normal(8)
    targets = torch.tensor([0, 1, 2, 3, 4, 5, 0, 0, 7])  # some of them among the negatives
    negatives, log_share = torch.tensor([0, 3, 6]), torch.tensor([-0.1, -2.0, 0.0]).double()

    def loss(contexts, table, bias):
        return sampled_softmax_loss(
            contexts, targets, Candidates(table, bias, negatives, log_share)
        )

    assert torch.autograd.gradcheck(loss, (contexts, table, bias))


def test_chunks_make_no_difference(monkeypatch):
    network, ids = build(), draw_ids()
    negatives, log_share = torch.tensor([1, 4, 9]), torch.zeros(3)
    whole = network(ids, negatives, log_share)
    probabilities = network.log_probabilities(ids, torch.full((3,), 6))
    monkeypatch.setattr("sklstm.network.language_network.MAX_LOGITS", 32)
    torch.testing.assert_close(network(ids, negatives, log_share), whole)
    torch.testing.assert_close(network.log_probabilities(ids, torch.full((3,), 6)), probabilities)


def test_on_average_the_sampled_sum_is_the_full_one():
    rng = np.random.default_rng(0)
    shares = inclusion_shares(np.arange(N_IDS) ** 2, 5)
    weights = np.exp(np.random.default_rng(1).normal(size=N_IDS))
    sums = []
    for _ in range(5000):
        drawn = sample_ids(shares, rng)
        sums.append((weights[drawn] / shares[drawn]).sum())
    assert np.mean(sums) == pytest.approx(weights[1:].sum(), rel=0.02)


@pytest.mark.parametrize("cell", ["lstm", "coupled"])
def test_forward_never_sees_the_future_nor_backward_the_past(cell):
    network = build(cell=cell).eval()
    ids, lengths = draw_ids(), torch.full((3,), 6)
    changed = ids.clone()
    changed[3] = ids[3] % (N_IDS - 1) + 1  # another id, never the padding
    before, after = (network.log_probabilities(i, lengths) for i in (ids, changed))
    same = torch.isclose(before, after).all(dim=2)
    # Row t of the forward direction predicts token t + 1, of the backward direction token t.
    assert same[0].tolist() == [True, True, False, False, False]
    assert same[1].tolist() == [False, False, False, False, True]


def test_probabilities_of_all_words_sum_to_one_and_the_padding_has_none():
    network = build()
    p = network.logits(torch.randn(4, 5, generator=torch.Generator().manual_seed(0))).exp()
    assert (p[:, PADDING] == 0).all()
    ids = torch.tensor([[2] * 12, list(range(1, 13))], dtype=torch.int32)  # each possible successor
    total = network.log_probabilities(ids, torch.full((12,), 2))[0].exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0))


def test_a_text_is_as_probable_alone_as_in_a_batch_with_longer_ones():
    network, ids = build().eval(), draw_ids()
    ids[4:, 1] = PADDING
    in_batch = network.log_probabilities(ids, torch.tensor([6, 4, 6]))
    alone = network.log_probabilities(ids[:4, 1:2], torch.tensor([4]))
    torch.testing.assert_close(in_batch[0, :3, 1], alone[0, :, 0])
    torch.testing.assert_close(in_batch[1, :3, 1], alone[1, :, 0])
    assert (in_batch[:, 3:, 1] == 0)[0].all()


def test_one_direction_may_have_several_layers_and_dropout():
    network = build(bidirectional=False, num_layers=2, dropout=0.5)
    ids, everything = draw_ids(), torch.arange(1, N_IDS)
    losses = {float(network(ids, everything, torch.zeros(N_IDS - 1)).detach()) for _ in range(3)}
    assert len(losses) == 3  # new masks each time
    network.eval()
    assert network.log_probabilities(ids, torch.full((3,), 6)).shape == (1, 5, 3)


def test_biases_start_at_the_frequencies_of_the_words():
    counts = np.array([0, 4, 2, 10])
    network = build(n_ids=4, log_frequency=log_frequencies(counts))
    assert network.bias.exp().tolist() == pytest.approx([1 / 20, 5 / 20, 3 / 20, 11 / 20])


def test_bfloat16_is_near_float32():
    ids, everything = draw_ids(), torch.arange(1, N_IDS)
    losses = [
        build(precision=p)(ids, everything, torch.zeros(N_IDS - 1)) for p in ("float32", "bfloat16")
    ]
    assert losses[0].dtype == losses[1].dtype == torch.float32
    torch.testing.assert_close(*losses, rtol=0.02, atol=0.02)


def test_building_leaves_torchs_random_state_unchanged():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    build()
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(build().projections[0], nn.Linear)
