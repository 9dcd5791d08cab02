"""Ids to the outputs of a text."""

import pytest
import torch

from sklstm.kernels import compiled
from sklstm.network import text_network as network_module
from sklstm.network.encoder import Embedded
from sklstm.network.pooling import POOLINGS
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.text.special_tokens import PADDING
from tests.builders import DROPOUTS, IDS, LENGTHS, LONG_IDS, LONG_LENGTHS, SENTENCES, mark
from tests.builders import build_network as build


def test_pools_are_concatenated_in_order():
    both = build(pooling=("mean", "max")).eval()
    pooled = both.pool(IDS, LENGTHS)
    for part, name in zip(pooled.split(8, dim=1), ("mean", "max"), strict=True):
        network = build(pooling=(name,)).eval()
        network.embedding, network.lstm = both.embedding, both.lstm
        torch.testing.assert_close(network.pool(IDS, LENGTHS), part)


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": tuple(POOLINGS)},
        {"pooling": ("last", "mean"), "attention": "dot", "bidirectional": False},
        {"pooling": ("last", "max"), "num_layers": 2, "cell": "peephole"},
        {"pooling": ("embedding_mean", "max"), "backend": "aten"},
        {"pooling": ("last", "attention"), "backend": "aten"},
    ],
    ids=str,
)
def test_sentences_are_read_separately_and_their_outputs_merged(changes):
    network, plain = (build(**more, **changes).double() for more in (SENTENCES, {}))
    with torch.no_grad():
        network.merge.weight.copy_(torch.linspace(-1, 1, network.n_pooled))
    plain.load_state_dict(network.state_dict(), strict=False)
    outputs = network(mark(LONG_IDS), LONG_LENGTHS)
    of_sentences, weights, widths = network.classify_sentences(mark(LONG_IDS), LONG_LENGTHS)
    by_hand = []
    for text, length in enumerate(LONG_LENGTHS.tolist()):
        n = int((widths[:, text] > 0).sum())
        pieces = LONG_IDS[:length, text].split(widths[:n, text].tolist())
        pooled = torch.cat([plain.pool(p.unsqueeze(1), torch.tensor([len(p)])) for p in pieces])
        own = (pooled @ network.merge.weight).softmax(0).unsqueeze(1)
        of_pieces = plain.head(pooled)
        torch.testing.assert_close(of_sentences[:n, text], of_pieces)
        torch.testing.assert_close(weights[:n, text], own[:, 0])
        assert not weights[n:, text].any()
        by_hand.append((own * of_pieces).sum(0))
    assert (widths > 0).sum() == 11
    torch.testing.assert_close(outputs, torch.stack(by_hand))
    names, parameters = zip(*network.named_parameters(), strict=True)
    own = dict(plain.named_parameters()) | {"merge.weight": network.merge.weight}
    grads = torch.autograd.grad(outputs.square().sum(), parameters)
    expected = torch.autograd.grad(
        torch.stack(by_hand).square().sum(), [own[name] for name in names]
    )
    for name, grad, of_hand in zip(names, grads, expected, strict=True):
        torch.testing.assert_close(grad, of_hand, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": ("last", "max", "mean", "embedding_mean", "max")},
        {"pooling": ("max",), "bidirectional": False},
        {"pooling": ("last", "mean"), "num_layers": 2},
        {"pooling": ("mean", "last"), "read_by": "sentence"},
    ],
    ids=str,
)
def test_pools_are_taken_in_the_pass(changes, monkeypatch):
    """In training and in prediction, with the gradients that the states would give."""
    network = build(backend="compiled", **changes)
    ids, taken = mark(LONG_IDS) if "read_by" in changes else LONG_IDS, []
    take_pools = compiled.take_pools
    monkeypatch.setattr(compiled, "take_pools", lambda *args: taken.append(1) or take_pools(*args))

    def train():
        network.zero_grad()
        pooled = network.pool(ids, LONG_LENGTHS)
        (pooled * torch.linspace(-1, 1, pooled.shape[1])).sum().backward()
        return pooled.detach(), [p.grad for p in network.parameters() if p.grad is not None]

    pooled, gradients = train()
    assert taken
    with torch.no_grad():
        predicted = network.pool(ids, LONG_LENGTHS)
    taken.clear()
    monkeypatch.setattr(compiled, "POOLS", frozenset())
    expected, expected_gradients = train()
    assert not taken
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(predicted, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        [g.to_dense() for g in gradients], [g.to_dense() for g in expected_gradients]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": "dot"},
        {"pooling": ("max", "attention")},
        {"backend": "aten"},
        {"cell": "peephole"},
    ],
    ids=str,
)
def test_what_needs_all_states_gets_them_in_prediction_too(changes, monkeypatch):
    monkeypatch.setattr(compiled, "take_pools", None)
    network = build(**({"pooling": ("max",)} | changes))
    expected = network.pool(LONG_IDS, LONG_LENGTHS)
    with torch.no_grad():
        actual = network.pool(LONG_IDS, LONG_LENGTHS)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def lengths_seen(network):
    """Return the lengths of all rows that the LSTM reads in one call."""
    seen, run = [], network.lstm.states_or_pools
    network.lstm.states_or_pools = lambda x, lengths, *others, pools: (
        seen.append(lengths) or run(x, lengths, *others, pools=pools)
    )
    network(mark(LONG_IDS), LONG_LENGTHS)
    return torch.cat(seen)


def test_unknown_tokens_of_word_dropout_end_no_other_sentences():
    network = build(word_dropout=0.9, **SENTENCES).train()
    assert len(lengths_seen(network)) == 11


def test_each_sentence_is_a_row_of_the_lstm_with_masks_of_its_own():
    network = build(recurrent_dropout=0.5, input_dropout=0.5, **SENTENCES)
    lengths = lengths_seen(network)
    assert len(lengths) == 11 and lengths.sum() == LONG_LENGTHS.sum()


def test_a_text_of_one_sentence_is_read_as_a_whole():
    """All dropouts on: the generator is asked for nothing else either."""
    dropouts = {name: 0.3 for name in DROPOUTS} | {"backend": "torch"}
    ids, lengths = LONG_IDS[:13, 1:], LONG_LENGTHS[1:]  # in one group of sentences
    without, network = build(**dropouts), build(**dropouts, **SENTENCES)
    torch.testing.assert_close(network(ids, lengths), without(ids, lengths))
    assert torch.equal(network.generator.get_state(), without.generator.get_state())
    # Padding, even if there is more of it than of any text, makes no text longer.
    padded = torch.cat([ids, torch.zeros(40, 4, dtype=torch.int32)])
    without.eval(), network.eval()
    torch.testing.assert_close(network(padded, lengths), without(padded, lengths))


@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropout_acts_while_training_only(kind):
    network = build(**{kind: 0.5})
    assert not torch.equal(network(IDS, LENGTHS), network(IDS, LENGTHS))
    network.eval()
    assert torch.equal(network(IDS, LENGTHS), network(IDS, LENGTHS))


@pytest.mark.parametrize("finds_equal", [True, False], ids=["equal once", "as on a card"])
def test_embedding_dropout_is_the_same_for_equal_tokens_of_a_batch(finds_equal, monkeypatch):
    network = build(embedding_dropout=0.5)
    if not finds_equal:
        look_up = LSTMTextNetwork._look_up
        monkeypatch.setattr(
            network, "_look_up", lambda *args: Embedded(look_up(network, *args).each())
        )
    embedded = network.embed(LONG_IDS)
    assert (embedded.index is not None) == finds_equal
    ids, masks = LONG_IDS.flatten().long(), {}
    ratios = embedded.each().flatten(0, 1) / network.embedding.weight[ids]
    for number, ratio in zip(ids.tolist(), ratios, strict=True):
        if number != PADDING:
            assert set(ratio.detach().round().tolist()) <= {0.0, 2.0}
            torch.testing.assert_close(ratio, masks.setdefault(number, ratio))
    assert len({tuple(mask.tolist()) for mask in masks.values()}) > len(masks) / 2


def test_word_dropout_leaves_padding_unchanged():
    network = build(word_dropout=0.9)
    different, index = [], []
    network.embedding.register_forward_pre_hook(lambda _, inputs: different.append(inputs[0]))
    run = network.lstm.states_or_pools
    network.lstm.states_or_pools = lambda x, lengths, rows, tables, pools: (
        index.append(rows) or run(x, lengths, rows, tables, pools=pools)
    )
    network.pool(IDS, LENGTHS)
    seen = different[0][index[0]]
    assert torch.equal(seen == 0, IDS == 0)
    assert (seen == 1).any()


def test_tokens_that_occur_again_are_embedded_once():
    network = build()
    seen = []
    network.embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.pool(IDS.clamp(max=4), LENGTHS)
    assert seen[0].tolist() == [0, 3, 4]


@pytest.mark.parametrize(
    "changes", [{}, {"backend": "torch"}, SENTENCES, {"cell": "peephole"}], ids=str
)
def test_prepared_products_change_nothing_but_rounding(changes):
    network = build(**changes).eval()
    ids, lengths = LONG_IDS, LONG_LENGTHS
    with torch.inference_mode():
        prepared = network.prepare(torch.tensor([*range(3, 20), 5, 7], dtype=torch.int32))
        assert len(prepared.embedded) == 18  # each once, and the padding
        torch.testing.assert_close(
            network(ids, lengths, prepared), network(ids, lengths), rtol=0, atol=1e-6
        )


def test_nothing_is_prepared_where_it_would_be_too_large(monkeypatch):
    monkeypatch.setattr(network_module, "MAX_TABLE", 100)
    assert build().eval().prepare(LONG_IDS) is None
