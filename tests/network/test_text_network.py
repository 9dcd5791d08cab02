"""Ids to logits, and each pool against numpy."""

import numpy as np
import pytest
import torch

from sklstm import lstm
from sklstm.network import text_network as network_module
from sklstm.network.text_network import POOLINGS, LSTMTextNetwork, attend, has_bfloat16_units

SETTINGS = {
    "n_ids": 20,
    "n_classes": 3,
    "embedding_dim": 5,
    "hidden_size": 4,
    "num_layers": 1,
    "bidirectional": True,
    "attention": None,
    "segments": None,
    "marks": None,
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
    "precision": "float32",
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


LONG_IDS = torch.zeros(17, 5, dtype=torch.int32)
LONG_LENGTHS = torch.tensor([17, 13, 12, 3, 1])
for _text, _length in enumerate(LONG_LENGTHS.tolist()):
    LONG_IDS[:_length, _text] = torch.arange(3, 20)[torch.arange(_length) * (_text + 2) % 17]


def states_by_hand(network, ids):
    """Return a text's states, each segment run alone."""
    pieces = network.embedding(ids).split(network.segments or len(ids))
    states = [network.lstm.states(piece.unsqueeze(1)).squeeze(1) for piece in pieces]
    return torch.cat(states)


@pytest.mark.parametrize("segments", [1, 4, 6, 16])
@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": tuple(POOLINGS)},
        {"pooling": ("last", "mean"), "attention": "dot"},
        {"pooling": ("last", "max"), "bidirectional": False},
        {"pooling": ("last", "max"), "num_layers": 2, "cell": "peephole"},
        {"pooling": ("last", "attention"), "backend": "aten"},
    ],
    ids=str,
)
def test_segments_are_run_alone_and_pooled_together(segments, changes):
    network = build(segments=segments, **changes).double().eval()
    pooled = network.pool(LONG_IDS, LONG_LENGTHS)
    by_hand = []
    for text, length in enumerate(LONG_LENGTHS.tolist()):
        ids = LONG_IDS[:length, text]
        states = states_by_hand(network, ids).unsqueeze(1)
        live = torch.ones(length, 1, 1, dtype=torch.bool)
        if network.attention:
            states = attend(states, live)
        embedded = network.embedding(ids).unsqueeze(1)
        pools = zip(network.pooling, network.pools, strict=True)
        parts = [
            pool(embedded if name == "embedding_mean" else states, live) for name, pool in pools
        ]
        by_hand.append(torch.cat(parts, dim=1))
    torch.testing.assert_close(pooled, torch.cat(by_hand))
    weight = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1)).double()
    names, parameters = zip(
        *(p for p in network.named_parameters() if "head" not in p[0]), strict=True
    )
    grads = torch.autograd.grad((pooled * weight).sum(), parameters)
    expected = torch.autograd.grad((torch.cat(by_hand) * weight).sum(), parameters)
    for name, grad, of_hand in zip(names, grads, expected, strict=True):
        torch.testing.assert_close(grad, of_hand, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("segments", [17, 1000])
def test_texts_that_are_no_longer_than_a_segment_are_left_alone(segments):
    """All dropouts on: the generator is asked for nothing else either."""
    dropouts = {name: 0.3 for name in SETTINGS if name.endswith("dropout")} | {"backend": "cpu"}
    without, network = build(**dropouts), build(segments=segments, **dropouts)
    expected = without(LONG_IDS, LONG_LENGTHS)
    assert torch.equal(network(LONG_IDS, LONG_LENGTHS), expected)
    # Padding, of which there is more here than of any text, makes no text longer.
    padded = torch.cat([LONG_IDS, torch.zeros(2 * segments, 5, dtype=torch.int32)])
    without.eval(), network.eval()
    assert torch.equal(network(padded, LONG_LENGTHS), without(padded, LONG_LENGTHS))


def test_short_texts_beside_long_ones_are_not_changed_by_segments():
    without, network = build().double(), build(segments=13).double()
    with_segments, expected = network(LONG_IDS, LONG_LENGTHS), without(LONG_IDS, LONG_LENGTHS)
    torch.testing.assert_close(with_segments[1:], expected[1:])
    assert not torch.allclose(with_segments[0], expected[0])


# Of LONG_IDS some end their sentence, and one closes.
MARKS = torch.zeros(20, dtype=torch.int8)
MARKS[[4, 9, 13]], MARKS[10] = 1, 2
SENTENCES = {"segments": "sentence", "marks": MARKS}


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": tuple(POOLINGS)},
        {"pooling": ("last", "mean"), "attention": "dot", "bidirectional": False},
        {"pooling": ("last", "max"), "num_layers": 2, "cell": "peephole"},
        {"pooling": ("embedding_mean", "max"), "backend": "aten"},
    ],
    ids=str,
)
def test_sentences_are_read_alone_and_their_answers_merged(changes):
    network, plain = (build(**more, **changes).double() for more in (SENTENCES, {}))
    with torch.no_grad():
        network.merge.weight.copy_(torch.linspace(-1, 1, network.n_pooled))
    plain.load_state_dict(network.state_dict(), strict=False)
    logits = network(LONG_IDS, LONG_LENGTHS)
    of_sentences, weights, widths = network.classify_sentences(LONG_IDS, LONG_LENGTHS)
    by_hand = []
    for text, length in enumerate(LONG_LENGTHS.tolist()):
        n = int((widths[:, text] > 0).sum())
        pieces = LONG_IDS[:length, text].split(widths[:n, text].tolist())
        pooled = torch.cat([plain.pool(p.unsqueeze(1), torch.tensor([len(p)])) for p in pieces])
        own = (pooled @ network.merge.weight).softmax(0).unsqueeze(1)
        answers = plain.head(pooled)
        torch.testing.assert_close(of_sentences[:n, text], answers)
        torch.testing.assert_close(weights[:n, text], own[:, 0])
        assert not weights[n:, text].any()
        by_hand.append((own * answers).sum(0))
    assert (widths > 0).sum() == 11
    torch.testing.assert_close(logits, torch.stack(by_hand))
    names, parameters = zip(*network.named_parameters(), strict=True)
    own = dict(plain.named_parameters()) | {"merge.weight": network.merge.weight}
    grads = torch.autograd.grad(logits.square().sum(), parameters)
    expected = torch.autograd.grad(
        torch.stack(by_hand).square().sum(), [own[name] for name in names]
    )
    for name, grad, of_hand in zip(names, grads, expected, strict=True):
        torch.testing.assert_close(grad, of_hand, msg=lambda text, name=name: f"{name}: {text}")


def test_unknown_words_of_word_dropout_end_no_other_sentences():
    network, seen = build(word_dropout=0.9, **SENTENCES), []
    run = network.lstm.states
    network.lstm.states = lambda x, lengths, *others: (
        seen.append(lengths) or run(x, lengths, *others)
    )
    network.train()(LONG_IDS, LONG_LENGTHS)
    assert len(torch.cat(seen)) == 11


def test_masks_of_the_lstm_are_drawn_for_each_segment():
    network = build(segments=4, recurrent_dropout=0.5, input_dropout=0.5)
    seen = []
    run = network.lstm.states
    network.lstm.states = lambda x, lengths, *others: (
        seen.append((x.shape, lengths)) or run(x, lengths, *others)
    )
    network.pool(LONG_IDS, LONG_LENGTHS)
    ((shape, lengths),) = seen
    assert shape[-1] == 5 and len(lengths) == 14  # 5 + 4 + 3 + 1 + 1 rows
    assert lengths.sum() == LONG_LENGTHS.sum()


def test_padding_has_no_embedding_and_gets_no_gradient():
    network = build()
    assert not network.embedding.weight[0].any()
    network(IDS, LENGTHS).sum().backward()
    assert not network.embedding.weight.grad[0].any()
    assert network.embedding.weight.grad[3:11].abs().sum(dim=1).all()


def dtypes_seen(network):
    """Return the dtypes of the inputs and the states of the LSTM's kernels in one call."""
    seen, run = [], lstm.lstm_layer

    def spy(directions, **kwargs):
        outputs = run(directions, **kwargs)
        seen.append(outputs[0].h.dtype)
        return outputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lstm, "lstm_layer", spy)
        logits = network(IDS, LENGTHS)
    return set(seen), logits


@pytest.mark.parametrize("has_units", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_precision_is_that_of_the_lstm_alone(monkeypatch, has_units, training, precision):
    monkeypatch.setattr("sklstm.network.text_network.has_bfloat16_units", lambda device: has_units)
    network = build(precision=precision, num_layers=2, pooling=tuple(POOLINGS), attention="dot")
    pooled = []
    for pool in network.pools:
        pool.register_forward_hook(lambda _, inputs, output: pooled.extend([*inputs, output]))
    dtypes, logits = dtypes_seen(network.train(training))
    short = precision == "bfloat16" or (precision == "auto" and training and has_units)
    assert dtypes == {torch.bfloat16 if short else torch.float32}
    assert {x.dtype for x in pooled} == {torch.float32, torch.bool}
    expected = build(num_layers=2, pooling=tuple(POOLINGS), attention="dot")(IDS, LENGTHS)
    assert logits.dtype == torch.float32 and torch.equal(logits, expected) == (not short)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.02)
    logits.sum().backward()
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize(
    "changes",
    [{"cell": "peephole"}, {"recurrent_dropout": 0.2}, {"zoneout": 0.1}, {"backend": "cpu"}],
    ids=str,
)
def test_auto_leaves_to_float32_what_torch_has_not_fused(monkeypatch, changes):
    monkeypatch.setattr("sklstm.network.text_network.has_bfloat16_units", lambda device: True)
    dtypes, _ = dtypes_seen(build(precision="auto", **changes))
    assert dtypes == {torch.float32}


def test_units_for_bfloat16(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda:0")
    for capabilities, expected in (
        ({"amx_bf16": True}, True),
        ({"amx_bf16": False, "avx512_bf16": True}, False),
        ({"architecture": "arm64", "bf16": True}, False),
    ):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda of=capabilities: of, raising=False)
        assert has_bfloat16_units(cpu) is expected
    monkeypatch.delattr("torch.cpu.get_capabilities")
    assert has_bfloat16_units(cpu) is False
    for capability, expected in (((7, 5), False), ((8, 0), True), ((12, 0), True)):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda device, of=capability: of)
        assert has_bfloat16_units(cuda) is expected
    assert has_bfloat16_units(torch.device("meta")) is False


@pytest.mark.parametrize("kind", [name for name in SETTINGS if name.endswith("dropout")])
def test_dropout_acts_while_training_only(kind):
    network = build(**{kind: 0.5})
    assert not torch.equal(network(IDS, LENGTHS), network(IDS, LENGTHS))
    network.eval()
    assert torch.equal(network(IDS, LENGTHS), network(IDS, LENGTHS))


def test_embedding_dropout_is_the_same_for_all_tokens_of_a_text():
    network = build(embedding_dropout=0.5, pooling=("embedding_mean",))
    seen = []
    network.lstm.states = lambda x, *_: seen.append(x) or torch.zeros(5, 3, 8)
    network.pool(IDS, LENGTHS)
    ratio = seen[0][:4, 0] / network.embedding.weight[IDS[:4, 0].long()]
    torch.testing.assert_close(ratio, ratio[:1].expand(4, -1))
    assert set(ratio.unique().round().tolist()) <= {0.0, 2.0}


def test_word_dropout_leaves_padding_alone():
    network = build(word_dropout=0.9)
    different, index = [], []
    network.embedding.register_forward_pre_hook(lambda _, inputs: different.append(inputs[0]))
    states = network.lstm.states
    network.lstm.states = lambda x, lengths, rows, tables: (
        index.append(rows) or states(x, lengths, rows, tables)
    )
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


@pytest.mark.parametrize(
    "changes", [{}, {"backend": "cpu"}, {"segments": 4}, SENTENCES, {"cell": "peephole"}], ids=str
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
