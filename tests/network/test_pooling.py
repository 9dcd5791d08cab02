"""Each pool, and self-attention, against numpy."""

import numpy as np
import pytest
import torch

from sklstm.network.pooling import POOLINGS, attend, check_pooling
from tests.builders import IDS, LENGTHS, build_network


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_pools_match_numpy(pooling, bidirectional):
    network = build_network(pooling=(pooling,), bidirectional=bidirectional).eval()
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


def test_the_maximum_is_the_same_with_and_without_gradients():
    pool = POOLINGS["max"](4, bidirectional=True, generator=torch.Generator())
    states = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    live = (IDS != 0).unsqueeze(2)
    assert torch.equal(pool(states, live), pool(states.clone().requires_grad_(), live))


def test_self_attention_matches_numpy():
    states = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    attended = attend(states, (IDS != 0).unsqueeze(2)).numpy()
    for text, length in enumerate(LENGTHS.tolist()):
        own = states[:length, text].numpy()
        scores = np.exp(own @ own.T)
        expected = (scores / scores.sum(axis=1, keepdims=True)) @ own
        np.testing.assert_allclose(attended[:length, text], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "question"),
    [
        ("average", " Did you mean 'mean'?"),
        ((), ""),
        (("max", "sum"), ""),
        (("max", "Last"), " Did you mean 'last'?"),
    ],
)
def test_unknown_pooling_is_refused(pooling, question):
    with pytest.raises(ValueError) as caught:
        check_pooling(pooling)
    assert str(caught.value) == (
        "pooling must name one or more of 'attention', 'embedding_mean', 'last', 'max', 'mean'; "
        f"got {pooling!r}.{question}"
    )


@pytest.mark.parametrize("pooling", ["mean", ("max",), ["last", "attention"]])
def test_known_pooling_passes(pooling):
    check_pooling(pooling)
