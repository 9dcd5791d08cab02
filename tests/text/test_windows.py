import numpy as np
import pytest

from sklstm.text.batching import RaggedIds
from sklstm.text.special_tokens import BOUNDARY, PADDING
from sklstm.text.windows import (
    TrainingWindows,
    add_both_boundaries,
    add_boundaries,
    inclusion_shares,
    sample_ids,
)

TEXTS = RaggedIds(np.array([5, 6, 7, 3, 8, 4], dtype=np.int32), np.array([0, 3, 4, 6]))


def windows(texts=TEXTS, **settings):
    defaults = {"n_ids": 9, "window": 4, "batch_size": 2, "n_negatives": 3}
    return TrainingWindows(texts, **defaults | settings, rng=np.random.default_rng(0))


def test_a_boundary_stands_before_each_text():
    stream, begins = add_boundaries(TEXTS)
    assert stream.tolist() == [2, 5, 6, 7, 2, 3, 2, 8, 4]
    assert begins.tolist() == [0, 4, 6, 9]
    assert stream.dtype == np.int32


def test_both_boundaries_stand_before_and_after_each_text():
    both = add_both_boundaries(TEXTS)
    texts = [t.tolist() for t in np.split(both.ids, both.offsets[1:-1])]
    assert texts == [[2, 5, 6, 7, 2], [2, 3, 2], [2, 8, 4, 2]]


def predicted_from_the_left(epoch):
    return np.sort(np.concatenate([batch.ids[1:].flatten().numpy() for batch in epoch]))


def test_every_token_is_predicted_once_an_epoch_where_the_windows_fit():
    for epoch in range(5):
        source = windows(window=4, n_negatives=3)  # 9 tokens: three windows of 3 predictions
        batches = list(source)
        assert len(batches) == len(source) == 2
        assert predicted_from_the_left(batches).tolist() == [2, 2, 2, 3, 4, 5, 6, 7, 8], epoch


def test_windows_follow_the_texts_in_a_circle():
    follows = {(2, 5), (5, 6), (6, 7), (7, 2), (2, 3), (3, 2), (2, 8), (8, 4), (4, 2)}
    source = windows(window=5, batch_size=1)
    for _ in range(5):
        for batch in source:
            ids = batch.ids[:, 0].tolist()
            assert set(zip(ids[:-1], ids[1:], strict=True)) <= follows


def test_each_epoch_has_an_order_and_cuts_of_its_own():
    source = windows()
    epochs = [np.concatenate([b.ids.flatten().numpy() for b in source]).tolist() for _ in range(6)]
    assert len(set(map(tuple, epochs))) > 3


def test_same_seed_gives_the_same_windows():
    for one, other in zip(windows(), windows(), strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a == b).all()


def test_a_stream_shorter_than_the_window_is_read_once_around():
    (batch,) = windows(window=100)
    assert batch.ids.shape == (10, 1)
    assert batch.ids[0] == batch.ids[-1]
    assert sorted(batch.ids[1:, 0].tolist()) == [2, 2, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("n", [1, 5, 20, 49])
def test_shares_sum_to_the_number_of_negatives_and_leave_out_the_padding(n):
    counts = np.random.default_rng(0).zipf(1.5, 50)
    counts[PADDING] = 0
    shares = inclusion_shares(counts, n)
    assert shares.sum() == pytest.approx(n)
    assert shares[PADDING] == 0
    assert (shares[1:] > 0).all() and shares.max() <= 1
    order = np.argsort(counts[1:])
    assert (np.diff(shares[1:][order]) >= -1e-12).all()


def test_shares_below_one_follow_the_power_of_the_counts():
    shares = inclusion_shares(np.array([0, 0, 0, 15, 255]), 1)
    assert shares == pytest.approx(np.array([0, 1, 1, 8, 64]) / 74)


def test_more_negatives_than_ids_are_all_of_them():
    shares = inclusion_shares(np.array([0, 3, 1, 9]), 100)
    assert shares.tolist() == [0, 1, 1, 1]
    assert sample_ids(shares, np.random.default_rng(0)).tolist() == [1, 2, 3]


def test_draws_come_as_often_as_their_shares_and_never_twice():
    rng = np.random.default_rng(0)
    shares = inclusion_shares(np.array([0, 1, 2, 3, 50, 100, 20, 7]), 3)
    draws = [sample_ids(shares, rng) for _ in range(4000)]
    assert all(len(set(ids.tolist())) == len(ids) == 3 for ids in draws)
    frequency = np.bincount(np.concatenate(draws), minlength=8) / len(draws)
    assert frequency == pytest.approx(shares, abs=0.03)


def test_batches_carry_the_chance_of_their_negatives():
    source = windows()
    batch = next(iter(source))
    assert batch.log_share.exp().numpy() == pytest.approx(source.shares[batch.negatives.numpy()])
    assert source.counts[BOUNDARY] == 3
