"""Ids to logits, and each pool against numpy."""

import numpy as np
import pytest
import torch

from sklstm.network import POOLINGS, LSTMTextNetwork, attend

SETTINGS = {
    "n_ids": 20,
    "n_classes": 3,
    "embedding_dim": 5,
    "hidden_size": 4,
    "num_layers": 1,
    "bidirectional": True,
    "attention": None,
    "pooling": ("max", "mean"),
    "dropout": 0.0,
    "embedding_dropout": 0.0,
    "word_dropout": 0.0,
    "input_dropout": 0.0,
    "recurrent_dropout": 0.0,
    "weight_dropout": 0.0,
    "zoneout": 0.0,
    "cell": "lstm",
    "backend": "auto",
}
IDS = torch.tensor([[3, 4, 5, 6, 0], [7, 8, 9, 0, 0], [10, 0, 0, 0, 0]], dtype=torch.int32).T
LENGTHS = torch.tensor([4, 3, 1])


def build(seed=0, **changes):
    return LSTMTextNetwork(**(SETTINGS | changes), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_pools_match_numpy(pooling, bidirectional):
    network = build(pooling=(pooling,), bidirectional=bidirectional).eval()
    pooled = network.pool(IDS, LENGTHS).detach().numpy()
    embedded = network.embedding(IDS)
    states = network.lstm.states(embedded, LENGTHS).detach().numpy()
    source = embedded.detach().numpy() if pooling == "embedding_mean" else states
    for text, length in enumerate(LENGTHS.tolist()):
        own = source[:length, text]
        expected = {
            "last": np.r_[own[-1, :4], own[0, 4:]],
            "mean": own.mean(axis=0),
            "embedding_mean": own.mean(axis=0),
            "max": own.max(axis=0),
        }.get(pooling)
        if pooling == "attention":
            pool = network.pools[0]
            weight, bias = (p.detach().numpy() for p in pool.hidden.parameters())
            scores = np.exp(np.tanh(own @ weight.T + bias) @ pool.query.detach().numpy())
            expected = (scores / scores.sum()) @ own
        np.testing.assert_allclose(pooled[text], expected, atol=1e-6)


def test_pools_are_concatenated_in_order():
    both = build(pooling=("mean", "max")).eval()
    pooled = both.pool(IDS, LENGTHS)
    for part, name in zip(pooled.split(8, dim=1), ("mean", "max"), strict=True):
        network = build(pooling=(name,)).eval()
        network.embedding, network.lstm = both.embedding, both.lstm
        torch.testing.assert_close(network.pool(IDS, LENGTHS), part)


def test_self_attention_matches_numpy():
    states = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    attended = attend(states, (IDS != 0).unsqueeze(2)).numpy()
    for text, length in enumerate(LENGTHS.tolist()):
        own = states[:length, text].numpy()
        scores = np.exp(own @ own.T)
        expected = (scores / scores.sum(axis=1, keepdims=True)) @ own
        np.testing.assert_allclose(attended[:length, text], expected, atol=1e-5)


def test_padding_has_no_embedding_and_gets_no_gradient():
    network = build()
    assert not network.embedding.weight[0].any()
    network(IDS, LENGTHS).sum().backward()
    assert not network.embedding.weight.grad[0].any()
    assert network.embedding.weight.grad[3:11].abs().sum(dim=1).all()


@pytest.mark.parametrize("kind", [name for name in SETTINGS if name.endswith("dropout")])
def test_dropout_acts_while_training_only(kind):
    network = build(**{kind: 0.5})
    assert not torch.equal(network(IDS, LENGTHS), network(IDS, LENGTHS))
    network.eval()
    assert torch.equal(network(IDS, LENGTHS), network(IDS, LENGTHS))


def test_embedding_dropout_is_the_same_for_all_tokens_of_a_text():
    network = build(embedding_dropout=0.5, pooling=("embedding_mean",))
    seen = []
    network.lstm.states = lambda embedded, lengths, index: (
        seen.append(embedded) or torch.zeros(5, 3, 8)
    )
    network.pool(IDS, LENGTHS)
    ratio = seen[0][:4, 0] / network.embedding.weight[IDS[:4, 0].long()]
    torch.testing.assert_close(ratio, ratio[:1].expand(4, -1))
    assert set(ratio.unique().round().tolist()) <= {0.0, 2.0}


def test_word_dropout_leaves_padding_alone():
    network = build(word_dropout=0.9)
    different, index = [], []
    network.embedding.register_forward_pre_hook(lambda _, inputs: different.append(inputs[0]))
    states = network.lstm.states
    network.lstm.states = lambda x, lengths, rows: index.append(rows) or states(x, lengths, rows)
    network.pool(IDS, LENGTHS)
    seen = different[0][index[0]]
    assert torch.equal(seen == 0, IDS == 0)
    assert (seen == 1).any()


def test_tokens_that_come_again_are_embedded_once():
    network = build()
    seen = []
    network.embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.pool(IDS.clamp(max=4), LENGTHS)
    assert seen[0].tolist() == [0, 3, 4]


def test_seeds_decide_the_first_weights():
    one, same, other = build(0), build(0), build(1)
    for p, q, r in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p, r) == (p.ndim == 1)  # biases start at fixed values


def test_building_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    build(pooling=("attention", "last"))
    assert torch.equal(torch.get_rng_state(), before)
