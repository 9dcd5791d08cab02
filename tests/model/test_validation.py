"""The texts set aside."""

import numpy as np
import pytest
import torch
from sklearn.metrics import make_scorer, roc_auc_score

from sklstm.model.prediction import compute_logits
from sklstm.model.validation import (
    ALIKE,
    ALONE,
    MIN_TEXTS_FOR_TEMPERATURE,
    LabelledTexts,
    Validation,
    split_validation,
)
from sklstm.text.batching import RaggedIds
from tests.network.test_text_network import build


def split(texts, targets, fraction=0.1, seed=0):
    """Return the rows of training and validation texts."""
    data = LabelledTexts(texts, np.asarray(targets), np.arange(len(texts)))  # weights tell rows
    parts = split_validation(data, fraction=fraction, rng=np.random.default_rng(seed))
    for part in parts:
        assert part.texts == [texts[row] for row in part.weights]
        assert part.targets.tolist() == data.targets[part.weights].tolist()
    return [part.weights for part in parts]


def test_each_class_gives_its_share():
    texts = [f"text {k}" for k in range(1000)]
    targets = np.repeat([0, 1, 2], [600, 300, 100])
    train, valid = split(texts, targets)
    assert np.bincount(targets[valid]).tolist() == [60, 30, 10]
    assert sorted([*train, *valid]) == list(range(1000))


def test_equal_texts_stay_on_one_side():
    texts = [f"text {k % 50}" for k in range(300)]
    train, valid = split(texts, np.arange(300) % 2)
    assert len(valid) > 0
    assert not {texts[k] for k in train} & {texts[k] for k in valid}


def test_small_classes_stay_in_training():
    texts = [f"text {k}" for k in range(104)]
    targets = [0] * 100 + [1] * 4
    train, valid = split(texts, targets)
    assert {100, 101, 102, 103} <= set(train)
    assert len(valid) == 10


def test_training_always_keeps_every_class():
    train, _ = split(["a", "b", "c", "d", "e", "f"], [0, 0, 1, 1, 2, 2], 0.99)
    assert {k // 2 for k in train} == {0, 1, 2}


def test_no_class_is_emptied_by_its_repeated_texts():
    texts = [""] * 900 + [f"text {k}" for k in range(9)] + [f"other {k}" for k in range(200)]
    targets = np.repeat([0, 1], [909, 200])
    for seed in range(10):
        train, valid = split(texts, targets, seed=seed)
        assert np.bincount(targets[train])[0] >= 900
        assert np.bincount(targets[valid]).max() <= 91


def test_texts_with_several_labels_do_not_take_the_last_of_a_class():
    texts = [f"text {k}" for k in range(100)] + ["text 0", "text 1"]
    targets = np.repeat([0, 1], [100, 2])
    for seed in range(10):
        train, _ = split(texts, targets, seed=seed)
        assert (targets[train] == 1).sum() == 2


def test_too_few_texts_to_spare_any():
    data = LabelledTexts(["a", "b", "c"], np.array([0, 0, 1]), np.ones(3))
    train, valid = split_validation(data, fraction=0.1, rng=np.random.default_rng(0))
    assert train is data
    assert valid is None


def test_split_follows_the_seed():
    texts = [f"text {k}" for k in range(100)]
    assert split(texts, [0, 1] * 50)[1].tolist() == split(texts, [0, 1] * 50)[1].tolist()
    assert split(texts, [0, 1] * 50)[1].tolist() != split(texts, [0, 1] * 50, seed=1)[1].tolist()


def validation(scoring=None, n_classes=2, n_texts=60, targets=None):
    lengths = np.full(n_texts, 3)
    ids = np.random.default_rng(0).integers(3, 20, size=3 * n_texts).astype(np.int32)
    targets = np.arange(n_texts) % n_classes if targets is None else targets
    return Validation(
        LabelledTexts([f"text {k}" for k in range(n_texts)], targets, np.ones(n_texts)),
        RaggedIds(ids, np.concatenate([[0], np.cumsum(lengths)])),
        classes=np.array(["a", "b", "c"])[:n_classes],
        scoring=scoring,
    )


@pytest.mark.parametrize("scoring", ["accuracy", "roc_auc", "neg_log_loss", "balanced_accuracy"])
def test_scorers_of_two_classes(scoring):
    judgement = validation("accuracy").judge(build(n_classes=2))
    assert judgement["valid_score"] == pytest.approx(judgement["valid_accuracy"])
    judged = validation(scoring)
    judgement = judged.judge(build(n_classes=2))
    assert np.isfinite(judgement["valid_score"])
    assert judged.monitor == "valid_score"
    if scoring == "neg_log_loss":
        assert judgement["valid_score"] == pytest.approx(-judgement["valid_loss"])


def test_scorers_of_three_classes():
    scorer = make_scorer(roc_auc_score, response_method="predict_proba", multi_class="ovr")
    for scoring in ("f1_macro", scorer):
        judgement = validation(scoring, n_classes=3).judge(build(n_classes=3))
        assert 0 <= judgement["valid_score"] <= 1


def test_without_a_scorer_the_log_loss_is_watched():
    judged = validation()
    assert judged.monitor == "valid_loss"
    assert set(judged.judge(build(n_classes=2))) == {"valid_loss", "valid_accuracy"}


@pytest.mark.parametrize(
    ("n_texts", "targets"),
    [(MIN_TEXTS_FOR_TEMPERATURE - 1, None), (MIN_TEXTS_FOR_TEMPERATURE, np.zeros(100, dtype=int))],
)
def test_too_little_to_tell_the_temperature(n_texts, targets):
    judged, network = validation(n_texts=n_texts, targets=targets), build(n_classes=2)
    assert judged.calibrate(network, None, expected=ALIKE) == (1.0, ALONE)


def test_temperature_lowers_the_loss():
    judged, network = validation(n_texts=MIN_TEXTS_FOR_TEMPERATURE), build(n_classes=2)
    logits = compute_logits(network, judged.ids)
    judged.data = judged.data._replace(targets=logits.argmax(axis=1))
    temperature, blend = judged.calibrate(network, None, expected=ALIKE)
    assert temperature < 1.0 and blend == ALONE


def says(targets, surely=0.9):
    """Return the log-probabilities of two classes that give these targets so much."""
    return np.log(np.where(np.eye(2)[targets], surely, 1 - surely))


def test_weights_count_in_the_blend():
    judged, network = validation(n_texts=200), build(n_classes=2)
    targets = judged.data.targets
    half = np.arange(200) < 100
    log_probabilities = says(np.where(half, targets, 1 - targets))  # right on one half alone
    for heard, is_trusted in ((half, True), (~half, False)):
        judged.data = judged.data._replace(weights=np.where(heard, 1.0, 0.01))
        _, (_, of_baseline) = judged.calibrate(network, log_probabilities, expected=ALIKE)
        assert (of_baseline > 0.6) if is_trusted else (of_baseline < 0.4)


def test_texts_of_weight_0_are_as_good_as_absent():
    network, few = build(n_classes=2), validation(n_texts=60)
    expected = few.calibrate(network, says(few.data.targets), expected=ALIKE)
    assert expected[0] == 1.0 and expected[1] != ALIKE
    more = validation(n_texts=1000)
    kept = np.arange(1000) < 60
    ids = np.concatenate([few.ids.ids, more.ids.ids[len(few.ids.ids) :]])
    more.ids = RaggedIds(ids, more.ids.offsets)
    more.data = more.data._replace(weights=kept.astype(float))
    found = more.calibrate(network, says(more.data.targets), expected=ALIKE)
    assert found[0] == 1.0
    assert found[1] == pytest.approx(expected[1], abs=1e-6)


def test_the_scale_of_the_logits_is_the_temperatures():
    judged, network = validation(n_texts=MIN_TEXTS_FOR_TEMPERATURE), build(n_classes=2)
    targets = compute_logits(network, judged.ids).argmax(axis=1)
    targets[::5] = 1 - targets[::5]
    judged.data = judged.data._replace(targets=targets)
    log_probabilities = says(targets, surely=0.6)
    temperature, blend = judged.calibrate(network, log_probabilities, expected=ALIKE)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter *= 3.0
    hotter, same = judged.calibrate(network, log_probabilities, expected=ALIKE)
    assert hotter == pytest.approx(3 * temperature, rel=1e-3)
    assert same == pytest.approx(blend, abs=1e-3)
