"""Ragged ids to batches."""

import numpy as np
import pytest

from sklstm.text.batching import (
    FEW_TEXTS,
    IDS_PER_PREDICTION_BATCH,
    MOST_IDS_PER_PREDICTION_BATCH,
    RaggedIds,
    TrainingBatches,
    prediction_batches,
    quantise,
)


def ragged(lengths):
    """Text k holds its own number, k + 1, so many times as it is long."""
    return RaggedIds(
        np.repeat(np.arange(1, len(lengths) + 1), lengths).astype(np.int32),
        np.concatenate([[0], np.cumsum(lengths)]),
    )


LENGTHS = np.random.default_rng(0).integers(1, 90, size=333)


def test_pad_by_eye():
    ids, lengths = ragged([2, 1, 3]).pad(np.array([2, 0]))
    assert ids.T.tolist() == [[3, 3, 3, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
    assert lengths.tolist() == [3, 2]


def test_quantise_rounds_up_to_few_values():
    values = [quantise(n) for n in range(1, 5000)]
    assert all(n <= value < max(n + 8, 1.126 * n) for n, value in enumerate(values, 1))
    assert len(set(values)) < 70


def training(batch_size=16, seed=0):
    return TrainingBatches(
        ragged(LENGTHS),
        targets=np.arange(333) % 5,
        weights=np.arange(333) + 1.0,
        batch_size=batch_size,
        rng=np.random.default_rng(seed),
    )


def test_an_epoch_holds_every_text_once_with_its_target_and_weight():
    batches = training()
    seen = []
    for batch in batches:
        texts = batch.ids[0].numpy() - 1
        np.testing.assert_array_equal(batch.lengths, LENGTHS[texts])
        np.testing.assert_array_equal((batch.ids != 0).sum(dim=0), LENGTHS[texts])
        np.testing.assert_array_equal(batch.targets, texts % 5)
        np.testing.assert_array_equal(batch.weights, texts + 1.0)
        seen += texts.tolist()
    assert sorted(seen) == list(range(333))
    assert len(batches) == 21


def test_batches_start_with_the_longest_text_and_have_little_padding():
    batches = list(training())
    assert batches[0].lengths[0] == LENGTHS.max()
    assert all((np.diff(batch.lengths) <= 0).all() for batch in batches)
    assert sum(batch.ids.numel() for batch in batches) < 1.2 * LENGTHS.sum()


def test_epochs_differ_and_seeds_repeat():
    def rows(batches):
        return [batch.ids[0].tolist() for batch in batches]

    batches = training()
    first, second = rows(batches), rows(batches)
    assert first != second
    assert rows(training()) == first
    assert rows(training(seed=1)) != first


def test_prediction_covers_every_text_within_its_budget():
    lengths = np.append(LENGTHS, 100_000)
    seen = []
    for rows, ids, batch_lengths in prediction_batches(ragged(lengths)):
        np.testing.assert_array_equal(ids[0].numpy() - 1, rows)
        np.testing.assert_array_equal(batch_lengths, lengths[rows])
        assert len(rows) <= FEW_TEXTS or ids.numel() <= IDS_PER_PREDICTION_BATCH
        assert len(rows) == 1 or ids.numel() <= MOST_IDS_PER_PREDICTION_BATCH
        seen += rows.tolist()
    assert sorted(seen) == list(range(334))


@pytest.mark.parametrize("n_texts", [0, 1])
def test_prediction_of_few_texts(n_texts):
    assert len(list(prediction_batches(ragged([3] * n_texts)))) == n_texts
