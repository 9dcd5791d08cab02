"""Whole data sets through a network, and the temperature."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from sklstm.model import prediction
from sklstm.model.prediction import (
    answer_in_chunks,
    compute_logits,
    compute_pooled,
    fit_blend,
    fit_temperature,
    mean_log_loss,
)
from sklstm.text.batching import RaggedIds
from tests.network.test_text_network import build


def ragged(n_texts=700):
    lengths = np.random.default_rng(0).integers(1, 60, size=n_texts)
    ids = np.random.default_rng(1).integers(1, 20, size=lengths.sum()).astype(np.int32)
    return RaggedIds(ids, np.concatenate([[0], np.cumsum(lengths)]))


def test_results_stand_in_the_order_of_the_texts():
    network, texts = build(dropout=0.5), ragged()
    logits, pooled = compute_logits(network, texts), compute_pooled(network, texts)
    assert logits.shape == (700, 3) and logits.dtype == np.float64
    assert pooled.shape == (700, 16) and pooled.dtype == np.float32
    network.eval()
    for row in (0, 350, 699):
        ids, lengths = texts.pad(np.array([row]))
        with torch.no_grad():
            np.testing.assert_allclose(logits[row], network(ids, lengths)[0], atol=1e-6)
            np.testing.assert_allclose(pooled[row], network.pool(ids, lengths)[0], atol=1e-6)


def test_default_sizes_keep_the_promise_of_1e_6():
    network = build(embedding_dim=128, hidden_size=128, n_ids=3000).eval()
    texts = ragged(300)
    together = softmax(compute_logits(network, texts), axis=1)
    for row in range(0, 300, 37):
        begin, end = texts.offsets[row : row + 2]
        alone = RaggedIds(texts.ids[begin:end], np.array([0, end - begin]))
        probabilities = softmax(compute_logits(network, alone), axis=1)[0]
        np.testing.assert_allclose(probabilities, together[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_prediction_leaves_the_mode_as_it_was(training):
    network = build().train(training)
    compute_logits(network, ragged(3))
    assert network.training == training


def test_no_texts():
    assert compute_logits(build(), ragged(0)).shape == (0, 3)


@pytest.mark.parametrize("n_texts", [1, 4, 5, 9])
def test_answers_come_chunk_by_chunk_in_the_order_of_the_texts(monkeypatch, n_texts):
    monkeypatch.setattr(prediction, "TEXTS_PER_CHUNK", 4)
    texts = [f"text {k}" for k in range(n_texts)]
    chunks = []

    def answer(chunk):
        chunks.append(chunk)
        return np.array([text[5:] for text in chunk])

    answers = answer_in_chunks(texts, answer)
    assert answers.tolist() == [str(k) for k in range(n_texts)]
    assert sum(chunks, []) == texts and max(map(len, chunks)) == min(n_texts, 4)


def test_memory_beside_texts_and_result_does_not_grow_with_them():
    def answer(chunk):
        ids = np.ones(50 * len(chunk), dtype=np.int32)
        return np.zeros((len(RaggedIds(ids, 50 * np.arange(len(chunk) + 1))), 2))

    def most_beside(n_texts):
        texts = ["good"] * n_texts
        tracemalloc.start()
        result = answer_in_chunks(texts, answer)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - result.nbytes

    n_texts = prediction.TEXTS_PER_CHUNK
    assert most_beside(8 * n_texts) < 1.2 * most_beside(2 * n_texts)


def test_mean_log_loss_by_hand():
    logits = np.log([[0.9, 0.1], [0.5, 0.5]])
    loss = mean_log_loss(logits, np.array([0, 1]), np.array([3.0, 1.0]))
    assert loss == pytest.approx(-(3 * np.log(0.9) + np.log(0.5)) / 4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_temperature_is_found_again(temperature):
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(20_000, 3))
    targets = (softmax(honest, axis=1).cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    found = fit_temperature(honest * temperature, targets, np.ones(20_000))
    assert found == pytest.approx(temperature, rel=0.05)


def test_a_blend_finds_the_scales_that_made_the_targets():
    rng = np.random.default_rng(0)
    logits, other = rng.normal(size=(2, 40_000, 3))
    log_probabilities = log_softmax(other, axis=1)
    truth = softmax(1.5 * logits + 0.7 * log_probabilities, axis=1)
    targets = (truth.cumsum(axis=1) < rng.random((len(truth), 1))).sum(axis=1)
    found = fit_blend(
        [logits, log_probabilities], targets, np.ones(len(truth)), expected=(0.5, 0.5)
    )
    assert found == pytest.approx((1.5, 0.7), abs=0.05)


def test_a_blend_leaves_out_what_tells_nothing_and_counts_weights():
    rng, n_texts = np.random.default_rng(0), 50_000  # so many that the penalty hardly counts
    targets = rng.integers(2, size=n_texts)
    useful = 2.0 * np.eye(2)[targets] + rng.normal(size=(n_texts, 2))
    misleading = log_softmax(-useful + rng.normal(size=useful.shape), axis=1)
    equal = {"expected": (0.5, 0.5)}
    assert fit_blend([useful, misleading], targets, np.ones(n_texts), **equal)[1] < 0.05
    weights = rng.multinomial(n_texts, np.full(n_texts, 1 / n_texts)).astype(float)
    noise = log_softmax(rng.normal(size=useful.shape), axis=1)
    repeated = np.repeat(np.arange(n_texts), weights.astype(int))
    once = fit_blend([useful, noise], targets, weights, **equal)
    again = fit_blend(
        [useful[repeated], noise[repeated]], targets[repeated], np.ones(len(repeated)), **equal
    )
    assert once == pytest.approx(again, abs=0.05)


def test_a_blend_of_few_texts_stays_near_the_expected_weights():
    sure = np.log([[0.9, 0.1], [0.1, 0.9]])
    found = fit_blend([sure, -sure], np.array([0, 1]), np.ones(2), expected=(0.3, 0.7))
    assert found == pytest.approx((0.3, 0.7), abs=0.05)
    assert found[0] > 0.3 and found[1] < 0.7
