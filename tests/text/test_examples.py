"""Texts with targets and weights, and which of them are held out."""

import numpy as np
import pytest

from sklstm.text.examples import Examples, split_rows


def split(texts, targets, fraction=0.1, seed=0):
    """Return the rows to train on and the rows held out, each row once."""
    rng = np.random.default_rng(seed)
    train, held_out = split_rows(texts, np.asarray(targets), fraction=fraction, rng=rng)
    assert sorted([*train, *held_out]) == list(range(len(texts)))
    return train, held_out


def test_rows_are_taken_together():
    examples = Examples(["a", "b", "c"], np.array([2, 0, 1]), np.array([1.0, 0.5, 2.0]))
    texts, targets, weights = examples.take(np.array([2, 0]))
    assert texts == ["c", "a"]
    assert targets.tolist() == [1, 2] and weights.tolist() == [2.0, 1.0]


def test_factors_multiply_the_weights():
    examples = Examples(["a", "b"], np.array([0, 1]), np.array([1.0, 0.5]))
    weighed = examples.weigh(np.array([3.0, 4.0]))
    assert weighed.weights.tolist() == [3.0, 2.0]
    assert weighed.texts == examples.texts and weighed.targets is examples.targets
    assert examples.weights.tolist() == [1.0, 0.5]


def test_each_class_contributes_its_share():
    texts = [f"text {k}" for k in range(1000)]
    targets = np.repeat([0, 1, 2], [600, 300, 100])
    _, held_out = split(texts, targets)
    assert np.bincount(targets[held_out]).tolist() == [60, 30, 10]


def test_without_strata_all_texts_are_one():
    texts = [f"text {k}" for k in range(100)]
    found = split_rows(texts, fraction=0.1, rng=np.random.default_rng(0))
    for rows, expected in zip(found, split(texts, np.zeros(100, dtype=int)), strict=True):
        assert rows.tolist() == expected.tolist()
    assert len(found[1]) == 10


def test_equal_texts_stay_on_one_side():
    texts = [f"text {k % 50}" for k in range(300)]
    train, held_out = split(texts, np.arange(300) % 2)
    assert len(held_out) > 0
    assert not {texts[k] for k in train} & {texts[k] for k in held_out}


def test_small_classes_stay_in_training():
    texts = [f"text {k}" for k in range(104)]
    targets = [0] * 100 + [1] * 4
    train, held_out = split(texts, targets)
    assert {100, 101, 102, 103} <= set(train)
    assert len(held_out) == 10


def test_training_always_keeps_every_class():
    train, _ = split(["a", "b", "c", "d", "e", "f"], [0, 0, 1, 1, 2, 2], 0.99)
    assert {k // 2 for k in train} == {0, 1, 2}


def test_no_class_is_emptied_by_its_repeated_texts():
    texts = [""] * 900 + [f"text {k}" for k in range(9)] + [f"other {k}" for k in range(200)]
    targets = np.repeat([0, 1], [909, 200])
    for seed in range(10):
        train, held_out = split(texts, targets, seed=seed)
        assert np.bincount(targets[train])[0] >= 900
        assert np.bincount(targets[held_out]).max() <= 91


def test_texts_with_several_labels_do_not_take_the_last_of_a_class():
    texts = [f"text {k}" for k in range(100)] + ["text 0", "text 1"]
    targets = np.repeat([0, 1], [100, 2])
    for seed in range(10):
        train, _ = split(texts, targets, seed=seed)
        assert (targets[train] == 1).sum() == 2


@pytest.mark.parametrize(
    ("texts", "fraction"),
    [(["a", "b", "c"], 0.1), (["a", "a", "a"], 0.4)],
    ids=["the share is no text", "all texts are equal"],
)
def test_too_few_texts_to_spare_any(texts, fraction):
    train, held_out = split_rows(
        texts, np.zeros(3, dtype=int), fraction=fraction, rng=np.random.default_rng(0)
    )
    assert train.tolist() == [0, 1, 2]
    assert held_out is None


def test_the_split_follows_the_seed():
    texts = [f"text {k}" for k in range(100)]
    assert split(texts, [0, 1] * 50)[1].tolist() == split(texts, [0, 1] * 50)[1].tolist()
    assert split(texts, [0, 1] * 50)[1].tolist() != split(texts, [0, 1] * 50, seed=1)[1].tolist()
