"""Whole data sets through a network."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.special import softmax

from sklstm.model import prediction
from sklstm.model.prediction import (
    compute_outputs,
    compute_pooled,
    compute_sentences,
    predict_in_chunks,
    sum_log_likelihoods,
)
from sklstm.text.batching import RaggedIds
from tests.builders import SENTENCES, build_language_network, make_ragged, mark
from tests.builders import build_network as build


def test_results_are_in_the_order_of_the_texts():
    network, texts = build(dropout=0.5), make_ragged()
    outputs, pooled = compute_outputs(network, texts), compute_pooled(network, texts)
    assert outputs.shape == (700, 3) and outputs.dtype == np.float64
    assert pooled.shape == (700, 16) and pooled.dtype == np.float32
    network.eval()
    for row in (0, 350, 699):
        ids, lengths = texts.pad(np.array([row]))
        with torch.no_grad():
            np.testing.assert_allclose(outputs[row], network(ids, lengths)[0], atol=1e-6)
            np.testing.assert_allclose(pooled[row], network.pool(ids, lengths)[0], atol=1e-6)


def test_sentences_are_in_the_order_of_the_texts():
    network, texts = build(**SENTENCES).eval(), make_ragged(50)
    texts.ids = mark(torch.from_numpy(texts.ids)).numpy()
    found = compute_sentences(network, texts)
    for row in (0, 25, 49):
        ids, lengths = texts.pad(np.array([row]))
        with torch.no_grad():
            expected = network.classify_sentences(ids, lengths)
        for part, own in zip(found[row], expected, strict=True):
            np.testing.assert_allclose(part, own[:, 0], atol=1e-6)
        assert found[row][2].sum() == lengths[0]


def test_default_sizes_keep_the_promise_of_1e_6():
    network = build(embedding_dim=128, hidden_size=128, n_ids=3000).eval()
    texts = make_ragged(300)
    together = softmax(compute_outputs(network, texts), axis=1)
    for row in range(0, 300, 37):
        begin, end = texts.offsets[row : row + 2]
        alone = RaggedIds(texts.ids[begin:end], np.array([0, end - begin]))
        probabilities = softmax(compute_outputs(network, alone), axis=1)[0]
        np.testing.assert_allclose(probabilities, together[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_prediction_leaves_the_mode_as_it_was(training):
    network = build().train(training)
    compute_outputs(network, make_ragged(3))
    assert network.training == training


def test_no_texts():
    assert compute_outputs(build(), make_ragged(0)).shape == (0, 3)


def test_log_likelihoods_are_summed_over_all_texts():
    network, texts = build_language_network(n_ids=20), make_ragged(40)
    expected = np.zeros(2)
    for row in range(40):
        ids, lengths = texts.pad(np.array([row]))
        with torch.no_grad():
            expected += network.eval().log_probabilities(ids, lengths).sum(dim=(1, 2)).numpy()
    np.testing.assert_allclose(sum_log_likelihoods(network, texts), expected, rtol=1e-5)


@pytest.mark.parametrize("n_texts", [1, 4, 5, 9])
def test_chunks_are_predicted_in_the_order_of_the_texts(monkeypatch, n_texts):
    monkeypatch.setattr(prediction, "TEXTS_PER_CHUNK", 4)
    texts = [f"text {k}" for k in range(n_texts)]
    chunks = []

    def predict(chunk):
        chunks.append(chunk)
        return np.array([text[5:] for text in chunk])

    rows = predict_in_chunks(texts, predict)
    assert rows.tolist() == [str(k) for k in range(n_texts)]
    assert sum(chunks, []) == texts and max(map(len, chunks)) == min(n_texts, 4)


def test_memory_apart_from_texts_and_result_does_not_grow_with_them():
    def predict(chunk):
        ids = np.ones(50 * len(chunk), dtype=np.int32)
        return np.zeros((len(RaggedIds(ids, 50 * np.arange(len(chunk) + 1))), 2))

    def further_memory(n_texts):
        texts = ["good"] * n_texts
        tracemalloc.start()
        result = predict_in_chunks(texts, predict)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - result.nbytes

    n_texts = prediction.TEXTS_PER_CHUNK
    assert further_memory(8 * n_texts) < 1.2 * further_memory(2 * n_texts)
