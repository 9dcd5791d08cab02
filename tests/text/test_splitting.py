"""Which texts are held out."""

import numpy as np
import pytest
from sklearn.model_selection import ShuffleSplit

from sklstm.text.splitting import split_rows


def split(texts, targets, fraction=0.1, seed=0):
    """Return the rows to train on and the rows held out, each row once."""
    rng = np.random.default_rng(seed)
    train, held_out = split_rows(texts, np.asarray(targets), fraction=fraction, rng=rng)
    assert sorted([*train, *held_out]) == list(range(len(texts)))
    return train, held_out


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


# Label sets


def draw_sets(n_texts=2000, seed=0):
    """Return distinct texts and label sets; the labels are of a share of 0.3, 0.1, 0.02, 0.01."""
    rng = np.random.default_rng(seed)
    indicator = rng.random((n_texts, 4)) < [0.3, 0.1, 0.02, 0.01]
    return [f"text {k}" for k in range(n_texts)], indicator


@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_each_label_contributes_its_share(fraction):
    texts, indicator = draw_sets()
    for seed in range(5):
        _, held_out = split(texts, indicator, fraction, seed)
        wanted = fraction * indicator.sum(axis=0)
        assert np.abs(indicator[held_out].sum(axis=0) - wanted).max() <= 2
        assert abs(len(held_out) - fraction * len(texts)) <= 2


def test_rare_labels_are_nearer_their_share_than_by_chance():
    """As in Sechidis et al. (2011), whose measure this is."""
    texts, indicator = draw_sets(600)
    wanted = 0.1 * indicator.sum(axis=0)

    def distance(rows):
        return np.abs(indicator[rows].sum(axis=0) - wanted).mean()

    ours = [distance(split(texts, indicator, seed=seed)[1]) for seed in range(20)]
    chance = ShuffleSplit(20, test_size=0.1, random_state=0)
    assert np.mean(ours) < 0.5 * np.mean([distance(rows) for _, rows in chance.split(texts)])


def test_combinations_that_are_all_rare_do_not_empty_the_split():
    """Each combination of labels comes once: in proportion to combinations none could be spared."""
    indicator = (np.arange(256)[:, None] >> np.arange(8)) % 2 == 1
    _, held_out = split([f"text {k}" for k in range(256)], indicator)
    assert abs(len(held_out) - 25.6) <= 3


def test_equal_texts_with_different_sets_stay_on_one_side():
    texts, indicator = draw_sets(300)
    texts = [f"text {k % 60}" for k in range(300)]
    train, held_out = split(texts, indicator)
    assert len(held_out) > 0
    assert not {texts[k] for k in train} & {texts[k] for k in held_out}


def test_a_label_of_few_texts_stays_in_training():
    texts, indicator = draw_sets(400)
    indicator[:, 3] = np.arange(400) < 4
    train, _ = split(texts, indicator)
    assert {0, 1, 2, 3} <= set(train)


def test_labels_that_no_text_has_or_all_have():
    texts, indicator = draw_sets(400)
    indicator[:, 0], indicator[:, 1] = False, True
    _, held_out = split(texts, indicator)
    assert abs(len(held_out) - 40) <= 2
    none = np.zeros((400, 2), dtype=bool)
    assert len(split(texts, none)[1]) == 40


@pytest.mark.parametrize("texts", [["the same"] * 60, ["one", "other"] * 30])
def test_something_is_left_to_train_on(texts):
    indicator = np.arange(60)[:, None] % [2, 3] == 0
    for seed in range(5):
        rows, _ = split_rows(texts, indicator, fraction=0.9, rng=np.random.default_rng(seed))
        assert len(rows) > 0


def test_the_split_of_label_sets_follows_the_seed():
    texts, indicator = draw_sets(200)
    assert split(texts, indicator)[1].tolist() == split(texts, indicator)[1].tolist()
    assert split(texts, indicator)[1].tolist() != split(texts, indicator, seed=1)[1].tolist()
