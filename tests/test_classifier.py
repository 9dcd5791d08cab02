"""LSTMTextClassifier by use: what it promises, and what it says when it is used wrongly."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import get_scorer, log_loss
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, LRScheduler

from sklstm import LSTMTextClassifier, SequenceVectorizer
from sklstm.kernels.contract import CELLS
from sklstm.model import prediction
from tests.conftest import LABELS, TEXTS, TINY

UNUSUAL = ["", " \n", "zzz qqq", "😀", "good", "good " * 1_000, "<br />", "房间"]


# What it promises


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention", "embedding_mean"])
@pytest.mark.parametrize("attention", [None, "dot"])
@pytest.mark.parametrize("backend", ["aten", "cpu", "reference"])
def test_probabilities_do_not_depend_on_the_texts_beside(
    texts, labels, pooling, attention, backend
):
    model = LSTMTextClassifier(
        **(TINY | {"max_epochs": 2}),
        vectorizer=SequenceVectorizer(max_length=None),
        pooling=pooling,
        attention=attention,
        backend=backend,
        num_layers=2,
    ).fit(texts, labels)
    mixed = [*UNUSUAL[:5], *TEXTS, "good " * 50, *UNUSUAL[6:]]
    together = model.predict_proba(mixed)
    order = np.random.default_rng(0).permutation(len(mixed))
    shuffled = model.predict_proba([mixed[k] for k in order])
    alone = np.vstack([model.predict_proba([text]) for text in mixed])
    np.testing.assert_allclose(shuffled, together[order], rtol=0, atol=1e-6)
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)
    assert len(np.unique(together.round(6), axis=0)) > 5


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention", "embedding_mean"])
@pytest.mark.parametrize("backend", ["aten", "cpu"])
def test_segments_do_not_depend_on_the_texts_beside(texts, labels, pooling, backend):
    changes = {"pooling": pooling, "backend": backend, "num_layers": 2, "max_epochs": 2}
    model = LSTMTextClassifier(**(TINY | changes), segments=3).fit(texts, labels)
    mixed = [*UNUSUAL, *TEXTS, *(word * n for word in ("good ", "bad ") for n in (3, 4, 100))]
    together = model.predict_proba(mixed)
    alone = np.vstack([model.predict_proba([text]) for text in mixed])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)


def test_segments_change_long_texts_alone(tiny, texts, labels):
    longest = max(len(text.split()) for text in texts)
    without = tiny.fit(texts, labels).predict_proba(texts)
    for segments, same in ((longest, True), (2, False)):
        model = clone(tiny).set_params(segments=segments).fit(texts, labels)
        assert np.array_equal(model.predict_proba(texts), without) == same
        assert model.score(texts, labels) >= 0.8
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict_proba(texts), model.predict_proba(texts))


def opinions(n_texts):
    """Return texts of which one sentence tells the label, and the sentence's place."""
    rng = np.random.default_rng(0)
    words = ["rain", "train", "plain", "grain", "Spain"]
    labels = np.array(["neg", "pos"])[np.arange(n_texts) % 2]
    places = rng.integers(0, 3, n_texts)
    texts = []
    for label, place in zip(labels, places, strict=True):
        sentences = ["The " + " ".join(rng.choice(words, rng.integers(1, 6))) for _ in range(3)]
        sentences[place] = f"It was {'great' if label == 'pos' else 'awful'}"
        ends = rng.choice([".", "?!", ".')"], 3)
        texts.append(" ".join(map("".join, zip(sentences, ends, strict=True))))
    return texts, labels, places


@pytest.fixture(scope="module")
def by_sentences():
    """Return a classifier that has learnt which sentences speak."""
    texts, labels, _ = opinions(120)
    return LSTMTextClassifier(**TINY, segments="sentence").fit(texts, labels)


def test_sentences_that_speak_are_found(by_sentences):
    texts, labels, places = opinions(20)
    assert by_sentences.score(texts, labels) == 1.0
    for sentences, label, place in zip(
        by_sentences.predict_segments(texts), labels, places, strict=True
    ):
        assert len(sentences) == 3 and sentences[place].tokens[:2] == ["it", "was"]
        evidence = [s.weight * np.log(s.probabilities[1] / s.probabilities[0]) for s in sentences]
        assert np.argmax(np.abs(evidence)) == place
        assert (evidence[place] > 0) == (label == "pos")


def test_sentences_add_up_to_the_texts_answer(monkeypatch, by_sentences):
    texts = [*UNUSUAL, *opinions(12)[0], "Good. " * 300, "A 'b.' C?! (D.) e"]
    answers = by_sentences.predict_segments(texts)
    tokens = by_sentences.vectorizer_.tokenize(texts)
    assert [sum((s.tokens for s in segments), []) for segments in answers] == tokens
    merged = [sum(s.weight * np.log(s.probabilities) for s in segments) for segments in answers]
    odds = np.exp(np.array(merged))
    probabilities = by_sentences.predict_proba(texts)
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), probabilities, atol=1e-6)
    np.testing.assert_allclose([sum(s.weight for s in text) for text in answers], 1, atol=1e-6)
    assert [segment.tokens for segment in answers[-1]] == [
        ["a", "'", "b", ".", "'"],
        ["c", "?", "!"],
        ["(", "d", ".", ")"],
        ["e"],
    ]
    assert len(answers[-2]) == 128 and [segment.tokens for segment in answers[0]] == [[]]
    alone = [by_sentences.predict_segments([text])[0] for text in texts]
    monkeypatch.setattr(prediction, "TEXTS_PER_CHUNK", 5)
    for others in (alone, by_sentences.predict_segments(texts)):
        for one, other in zip(answers, others, strict=True):
            assert [s.tokens for s in one] == [s.tokens for s in other]
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=0, atol=1e-6)
                assert a.weight == pytest.approx(b.weight, abs=1e-6)


@pytest.mark.parametrize("pooling", ["last", ("mean", "max"), "attention", "embedding_mean"])
@pytest.mark.parametrize("backend", ["auto", "aten", "reference"])
def test_sentences_do_not_depend_on_the_texts_beside(pooling, backend):
    texts, labels, _ = opinions(40)
    changes = {"pooling": pooling, "backend": backend, "num_layers": 2, "max_epochs": 2}
    model = LSTMTextClassifier(**(TINY | changes), segments="sentence").fit(texts, labels)
    mixed = [
        *UNUSUAL,
        *TEXTS,
        *texts[:9],
        *(word * n for word in ("good. ", "bad ") for n in (3, 99)),
    ]
    together = model.predict_proba(mixed)
    alone = np.vstack([model.predict_proba([text]) for text in mixed])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)


def test_sentences_repeat_travel_and_go_on(by_sentences):
    texts, labels, _ = opinions(60)
    model = copy.deepcopy(by_sentences)
    probabilities = model.predict_proba(texts)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(model)).predict_proba(texts), probabilities
    )
    np.testing.assert_array_equal(
        clone(model).fit(*opinions(120)[:2]).predict_proba(texts), probabilities
    )
    assert model.transform(texts).shape == (60, 40)
    assert model.partial_fit(texts, labels).score(texts, labels) == 1.0
    model.set_params(adversarial=0.05, dropout=0.2, warm_start=True, max_epochs=2)
    assert model.fit(texts, labels).score(texts, labels) == 1.0
    with pytest.raises(ValueError, match="segments must stay 'sentence', as in the fit"):
        model.set_params(segments=None).fit(texts, labels)
    assert len(model.predict_segments(texts)) == 60


def test_sentences_of_a_classifier_that_reads_none(fitted, tiny):
    with pytest.raises(ValueError, match="needs a classifier fitted with segments='sentence'"):
        fitted.set_params(segments="sentence").predict_segments(TEXTS)
    with pytest.raises(NotFittedError):
        tiny.set_params(segments="sentence").predict_segments(TEXTS)


def test_bad_input_of_predict_segments(by_sentences):
    with pytest.raises(TypeError, match="X must be a sequence of texts; got a single str"):
        by_sentences.predict_segments("one text")


ANSWERS = ["predict", "predict_proba", "predict_log_proba", "decision_function", "transform"]


@pytest.mark.parametrize("method", ANSWERS)
def test_answers_are_those_of_all_texts_at_once(monkeypatch, fitted, method):
    mixed = [*UNUSUAL, *TEXTS]
    together = getattr(fitted, method)(mixed)
    monkeypatch.setattr(prediction, "TEXTS_PER_CHUNK", 5)
    in_chunks = getattr(fitted, method)(mixed)
    assert in_chunks.dtype == together.dtype
    if method == "predict":
        assert in_chunks.tolist() == together.tolist()
    else:
        np.testing.assert_allclose(in_chunks, together, rtol=0, atol=1e-6)


def test_no_work_starts_before_the_last_text_is_checked(monkeypatch, fitted):
    monkeypatch.setattr(prediction, "TEXTS_PER_CHUNK", 2)
    monkeypatch.setattr(fitted.vectorizer_, "transform_ragged", pytest.fail)
    with pytest.raises(TypeError, match=r"X\[10\] must be a str; got None"):
        fitted.predict([*TEXTS, None])


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_learns_repeats_and_travels(tiny, texts, labels, cell):
    tiny.set_params(cell=cell, max_epochs=20, zoneout=0.1, recurrent_dropout=0.1, num_layers=2)
    model = tiny.fit(texts, labels)
    assert model.score(texts, labels) >= 0.8
    probabilities = model.predict_proba(UNUSUAL)
    alone = np.vstack([model.predict_proba([text]) for text in UNUSUAL])
    np.testing.assert_allclose(alone, probabilities, rtol=0, atol=1e-6)
    again = clone(model).fit(texts, labels)
    np.testing.assert_array_equal(again.predict_proba(UNUSUAL), probabilities)
    back = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(back.predict_proba(UNUSUAL), probabilities)


def word_order(n_texts):
    """Return texts, and whether "not" stands before the adjective of each or after it."""
    rng = np.random.default_rng(0)
    fillers = ["the", "film", "was", "plot", "it"]

    def text(negated):
        words = rng.choice(fillers, size=4).tolist()
        return " ".join([*words, *(("not", "good") if negated else ("good", "not")), *words[:2]])

    negated = np.arange(n_texts) % 2 == 0
    return [text(n) for n in negated], negated


@pytest.mark.parametrize("changes", [{}, {"cell": "layer_norm", "zoneout": 0.1}], ids=str)
def test_bfloat16_learns_what_float32_learns(tiny, changes):
    texts, labels = word_order(300)
    tiny.set_params(hidden_size=16, **changes)
    answers = {}
    for precision in ("float32", "bfloat16"):
        model = clone(tiny).set_params(precision=precision).fit(texts[:200], labels[:200])
        assert model.score(texts[200:], labels[200:]) > 0.95
        answers[precision] = model.predict_proba(texts)
    assert 0 < np.abs(answers["float32"] - answers["bfloat16"]).max() < 0.2
    assert {p.dtype for p in model.net_.module_.parameters()} == {torch.float32}


def test_bfloat16_keeps_the_promises_of_float32(tiny, texts, labels):
    model = tiny.set_params(precision="bfloat16", segments=6).fit(texts, labels)
    mixed = [*UNUSUAL, *TEXTS]
    probabilities = model.predict_proba(mixed)
    assert probabilities.dtype == np.float64 and model.transform(mixed).dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    alone = np.vstack([model.predict_proba([text]) for text in mixed])
    np.testing.assert_allclose(alone, probabilities, rtol=0, atol=1e-3)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(mixed), probabilities)
    np.testing.assert_array_equal(
        clone(model).fit(texts, labels).predict_proba(mixed), probabilities
    )
    # The weights are those of float32, so that another device may go on in its own way.
    model.set_params(precision="float32", warm_start=True, max_epochs=1).fit(texts, labels)
    assert model.net_.module_.precision == "float32"


@pytest.mark.parametrize("has_units", [True, False])
def test_auto_trains_in_bfloat16_where_there_are_units(monkeypatch, tiny, texts, labels, has_units):
    monkeypatch.setattr("sklstm.network.text_network.has_bfloat16_units", lambda device: has_units)
    models = {p: clone(tiny).set_params(precision=p) for p in ("auto", "float32", "bfloat16")}
    losses = {p: model.fit(texts, labels).loss_curve_ for p, model in models.items()}
    assert losses["auto"] == losses["bfloat16" if has_units else "float32"]
    assert losses["bfloat16"] != losses["float32"]
    # Prediction with the same weights: auto's is float32's.
    models["float32"].net_.module_.load_state_dict(models["auto"].net_.module_.state_dict())
    models["float32"].temperature_ = models["auto"].temperature_
    answers = [models[p].predict_proba(texts) for p in ("auto", "float32")]
    np.testing.assert_array_equal(*answers)


def test_cells_differ_and_can_be_searched(tiny, texts, labels):
    search = GridSearchCV(tiny, {"cell": sorted(CELLS)}, cv=2, scoring="neg_log_loss")
    search.fit(texts, labels)
    assert len(set(search.cv_results_["mean_test_score"])) == len(CELLS)


def test_learns_what_a_bag_of_words_cannot():
    texts, negated = word_order(300)
    model = LSTMTextClassifier(**(TINY | {"hidden_size": 16})).fit(texts[:200], negated[:200])
    assert model.score(texts[200:], negated[200:]) > 0.95


def test_probabilities_add_up_and_agree_with_each_other(fitted, texts):
    probabilities = fitted.predict_proba(texts)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(texts)), probabilities)
    decision = fitted.decision_function(texts)
    np.testing.assert_allclose(1 / (1 + np.exp(-decision)), probabilities[:, 1], atol=1e-12)
    assert (fitted.predict(texts) == fitted.classes_[(decision > 0).astype(int)]).all()


def test_three_classes(tiny, texts):
    labels = np.array(["a", "b", "c", "a", "b", "c", "a", "b", "c", "a"] * 4)
    model = tiny.set_params(max_epochs=20).fit(texts, labels)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.decision_function(texts).shape == (40, 3)
    assert model.score(texts, labels) > 0.6


def test_unusual_texts_get_probabilities(fitted):
    probabilities = fitted.predict_proba([*UNUSUAL, "good " * 1_000_000])
    assert np.isfinite(probabilities).all()
    # Without a single known token they are the same text.
    np.testing.assert_allclose(probabilities[[1, 3, 6]], probabilities[[0, 0, 0]], atol=1e-6)


def test_unusual_texts_can_be_trained_on(tiny):
    model = tiny.fit(UNUSUAL * 2, list("abcdefgh") * 2)
    assert np.isfinite(model.predict_proba(UNUSUAL)).all()


DROPOUTS = ["input_dropout", "recurrent_dropout", "weight_dropout", "zoneout"]


@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropouts_of_the_lstm_learn_and_repeat(tiny, texts, labels, kind):
    tiny.set_params(**{kind: 0.2}, max_epochs=20)
    model = clone(tiny).fit(texts, labels)
    assert model.score(texts, labels) >= 0.8
    assert clone(tiny).fit(texts, labels).loss_curve_ == model.loss_curve_
    assert clone(tiny).set_params(**{kind: 0.0}).fit(texts, labels).loss_curve_ != model.loss_curve_


def test_fitting_twice_is_fitting_once(tiny, texts, labels):
    first = tiny.fit(texts, labels).predict_proba(texts)
    second = tiny.fit(texts, labels).predict_proba(texts)
    np.testing.assert_array_equal(first, second)


def test_seeds_matter_and_repeat(tiny, texts, labels):
    def fit(seed):
        return clone(tiny).set_params(random_state=seed).fit(texts, labels).predict_proba(texts)

    np.testing.assert_array_equal(fit(1), fit(1))
    np.testing.assert_array_equal(fit(np.random.RandomState(1)), fit(np.random.RandomState(1)))
    assert np.abs(fit(1) - fit(2)).max() > 1e-3


def test_global_random_states_are_untouched(texts, labels):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002  the global state is what is under test
    before_torch, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = LSTMTextClassifier(random_state=0, max_epochs=1).fit(texts, labels)
    model.partial_fit(texts, labels).predict_proba(texts)
    assert torch.equal(torch.get_rng_state(), before_torch)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002


def test_without_random_state_numpys_global_seed_decides(tiny, texts, labels):
    def fit():
        np.random.seed(5)  # noqa: NPY002  the global state is what is under test
        model = clone(tiny).set_params(random_state=None).fit(texts, labels)
        return model.predict_proba(texts), np.random.random()  # noqa: NPY002

    (first, after), (second, _) = fit(), fit()
    np.testing.assert_array_equal(first, second)
    np.random.seed(5)  # noqa: NPY002
    np.random.randint(np.iinfo(np.int32).max)  # noqa: NPY002  the one draw
    assert np.random.random() == after  # noqa: NPY002


def test_unit_weights_equal_no_weights(tiny, texts, labels):
    without = tiny.fit(texts, labels).predict_proba(texts)
    for weights in (np.ones(len(texts)), np.full(len(texts), 7.0)):
        weighted = tiny.fit(texts, labels, sample_weight=weights).predict_proba(texts)
        np.testing.assert_array_equal(without, weighted)


def test_texts_of_weight_zero_might_as_well_be_missing(tiny, texts, labels):
    rows = np.arange(len(texts)) % 4 != 0
    weights = rows.astype(float)
    some = [text for text, row in zip(texts, rows, strict=True) if row]
    zero = tiny.fit(
        [t if r else "unseen word" for t, r in zip(texts, rows, strict=True)], labels, weights
    )
    expected = clone(tiny).fit(some, labels[rows])
    assert zero.vectorizer_.vocabulary_ == expected.vectorizer_.vocabulary_
    np.testing.assert_array_equal(zero.predict_proba(texts), expected.predict_proba(texts))


def test_weights_move_the_answer(tiny):
    texts, labels = ["same text"] * 40, ["a", "b"] * 20
    weights = np.where(np.array(labels) == "a", 9.0, 1.0)
    for arguments, parameters in (
        ({"sample_weight": weights}, {}),
        ({}, {"class_weight": {"a": 9.0, "b": 1.0}}),
    ):
        model = clone(tiny).set_params(max_epochs=30, label_smoothing=0.0, **parameters)
        model.fit(texts, labels, **arguments)
        assert model.predict_proba(["same text"])[0, 0] == pytest.approx(0.9, abs=0.05)


def test_weights_of_classes_come_from_the_texts_that_count(tiny, texts, labels):
    weights = (np.arange(len(texts)) % 4 != 0).astype(float)
    some = np.flatnonzero(weights)
    tiny.set_params(class_weight="balanced")
    with_zeros = clone(tiny).fit(texts, labels, weights)
    without = clone(tiny).fit([texts[k] for k in some], labels[some])
    np.testing.assert_array_equal(with_zeros.predict_proba(texts), without.predict_proba(texts))


def test_partial_fit_with_weights_of_classes_that_do_not_come(tiny, texts):
    tiny.set_params(class_weight={"pos": 2.0, "neutral": 3.0})
    tiny.partial_fit(texts[:5], ["pos"] * 5, classes=["neg", "neutral", "pos"])


def test_partial_fit_keeps_the_temperature(fitted, texts, labels):
    fitted.temperature_ = 1.5
    assert fitted.partial_fit(texts, labels).temperature_ == 1.5


def test_many_classes_in_few_texts_are_no_regression(tiny, texts):
    tiny.partial_fit(texts[:4], [0, 7, 9, 12], classes=range(30))
    tiny.fit(texts[:20], list(range(20)))


def test_balanced_classes_get_the_same_say(tiny):
    texts, labels = ["same text"] * 40, ["a"] * 32 + ["b"] * 8
    model = tiny.set_params(class_weight="balanced", max_epochs=30).fit(texts, labels)
    assert model.predict_proba(["same text"])[0, 0] == pytest.approx(0.5, abs=0.05)


# How it trains


def distinct(n_texts=400):
    """Return different texts; a fifth of the labels can only be learnt by heart."""
    rng = np.random.default_rng(0)
    labels = np.array(["neg", "pos"])[np.arange(n_texts) % 2]
    wrong = rng.random(n_texts) < 0.2
    words = np.where((labels == "pos") ^ wrong, "good", "bad")
    return [f"text {k} is {word}" for k, word in enumerate(words)], labels


def test_early_stopping_keeps_the_best_weights():
    texts, labels = distinct()
    held_texts, held_labels = texts[300:], labels[300:]
    model = LSTMTextClassifier(
        **(TINY | {"max_epochs": 40, "lr": 0.05}), n_iter_no_change=2, calibrate=False
    )
    model.fit(texts[:300], labels[:300], X_val=held_texts, y_val=held_labels)
    scores = model.validation_scores_
    assert model.n_iter_ == len(scores) < 40
    assert np.argmax(scores) == len(scores) - 3
    score = -log_loss(held_labels, model.predict_proba(held_texts))
    assert score == pytest.approx(max(scores), abs=1e-6)


@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro", "roc_auc", "neg_log_loss"])
def test_a_scorer_judges_the_training(scoring):
    texts, labels = distinct()
    model = LSTMTextClassifier(**(TINY | {"max_epochs": 4}), scoring=scoring, calibrate=False)
    model.fit(texts[:300], labels[:300], X_val=texts[300:], y_val=labels[300:])
    score = get_scorer(scoring)(model, texts[300:], labels[300:])
    assert score == pytest.approx(max(model.validation_scores_), abs=1e-6)


def test_the_best_is_kept_however_small_the_progress():
    texts, labels = distinct()
    held = {"X_val": texts[:100], "y_val": labels[:100]}
    model = LSTMTextClassifier(**TINY, tol=10.0, n_iter_no_change=4, calibrate=False)
    model.fit(texts, labels, **held)
    assert model.n_iter_ == 5
    score = -log_loss(held["y_val"], model.predict_proba(held["X_val"]))
    assert score == pytest.approx(max(model.validation_scores_), abs=1e-6)


def test_a_scorer_that_cannot_judge_is_named(tiny):
    texts, labels = distinct(100)
    labels = labels.astype("<U4")
    labels[0] = "rare"
    match = "scoring must be a scorer.* which hold none of the classes .'rare'.; got the error"
    refuse(match, tiny.set_params(scoring="neg_log_loss"), X=texts, y=labels)
    refuse("called as scoring.estimator, X, y.", tiny.set_params(scoring=log_loss), texts, labels)
    tiny.set_params(scoring=lambda estimator, X, y: np.nan)
    refuse("scoring must give a number on the .* got nan", tiny, texts, labels)


def test_a_callable_judges_the_training(tiny):
    texts, labels = distinct(100)

    def wrong_answers(estimator, X, y):
        return -float((estimator.predict(X) != y).sum())

    model = tiny.set_params(scoring=wrong_answers).fit(texts, labels)
    assert len(model.validation_scores_) == model.n_iter_ > 1
    assert all(-10 <= score < 0 and score == int(score) for score in model.validation_scores_)


def test_no_early_stopping_trains_on_all_texts_to_the_end(tiny, texts, labels):
    model = tiny.set_params(early_stopping=False, max_epochs=7).fit(texts, labels)
    assert model.n_iter_ == len(model.loss_curve_) == len(model.history_) == 7
    assert model.validation_scores_ == []
    assert model.temperature_ == 1.0
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_temperature_calibrates_the_texts_set_aside():
    texts, labels = distinct()
    held = {"X_val": texts[200:], "y_val": labels[200:]}
    # Trained by heart without brakes, so that it is far too sure of itself.
    parameters = TINY | {"max_epochs": 30, "ema": None, "label_smoothing": 0.0}
    parameters |= {"early_stopping": False, "lr_schedule": "constant"}
    raw = LSTMTextClassifier(**parameters, calibrate=False).fit(texts[:200], labels[:200], **held)
    calibrated = LSTMTextClassifier(**parameters).fit(texts[:200], labels[:200], **held)
    assert raw.temperature_ == 1.0
    assert calibrated.temperature_ > 1.0
    assert (raw.predict(texts) == calibrated.predict(texts)).all()
    losses = [log_loss(held["y_val"], m.predict_proba(held["X_val"])) for m in (raw, calibrated)]
    assert losses[1] < losses[0]


def test_warm_start_goes_on_from_the_weights(tiny, texts, labels):
    model = tiny.set_params(warm_start=True, max_epochs=5).fit(texts, labels)
    vocabulary, loss = model.vectorizer_.vocabulary_, model.loss_curve_[-1]
    model.fit([*texts, "unseen"], [*labels, "pos"])
    assert model.vectorizer_.vocabulary_ is vocabulary
    assert model.loss_curve_[0] < loss * 1.5
    assert model.set_params(warm_start=False).fit(texts, labels).loss_curve_[0] > loss * 1.5


def test_partial_fit_keeps_vocabulary_and_learns(tiny, texts, labels):
    model = tiny.partial_fit(texts[:10], labels[:10], classes=["neg", "pos"])
    vocabulary = model.vectorizer_.vocabulary_
    for _ in range(15):
        model.partial_fit([*texts, "unseen word"], [*labels, "pos"])
    assert model.vectorizer_.vocabulary_ is vocabulary
    assert model.n_iter_ == 16
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.score(texts, labels) > 0.9


def test_partial_fit_can_start_with_one_of_the_classes(tiny, texts):
    model = tiny.partial_fit(texts[:5], ["pos"] * 5, classes=["neg", "neutral", "pos"])
    assert model.predict_proba(texts).shape == (40, 3)


def test_partial_fit_goes_on_with_the_moments_of_adam(tiny, texts, labels):
    tiny.partial_fit(texts, labels, classes=["neg", "pos"])
    state = tiny.net_.optimizer_.state_dict()["state"]
    steps = [int(s["step"]) for s in state.values()]
    assert set(steps) == {5}
    tiny.partial_fit(texts, labels)
    assert [int(s["step"]) for s in state.values()] == steps
    state = tiny.net_.optimizer_.state_dict()["state"]
    assert [int(s["step"]) for s in state.values()] == [2 * step for step in steps]


def test_partial_fit_after_fit_goes_on_learning(tiny, texts, labels):
    tiny.set_params(max_epochs=3).fit(texts, labels)
    before = tiny.predict_proba(texts)
    losses = [tiny.partial_fit(texts, labels).loss_curve_[-1] for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]
    assert np.abs(tiny.predict_proba(texts) - before).max() > 0.05


def test_calls_of_partial_fit_do_not_repeat_order_and_masks(texts, labels):
    """With a learning rate of next to nothing only order and masks can change the loss."""
    parameters = TINY | {"dropout": 0.5, "lr": 1e-12}
    model = LSTMTextClassifier(**parameters)
    for _ in range(3):
        model.partial_fit(texts, labels, classes=["neg", "pos"])
    assert len(set(model.loss_curve_)) == 3
    again = LSTMTextClassifier(**parameters)
    for _ in range(3):
        again.partial_fit(texts, labels, classes=["neg", "pos"])
    assert again.loss_curve_ == model.loss_curve_


def test_going_on_with_another_network_is_refused(fitted, texts, labels):
    fitted.set_params(hidden_size=16, warm_start=True)
    sentence = "hidden_size must stay 8, as in the fit that warm_start or partial_fit goes on from;"
    for method in (fitted.fit, fitted.partial_fit):
        with pytest.raises(ValueError, match=f"{sentence} got 16. Use fit with warm_start=False"):
            method(texts, labels)
    fitted.set_params(hidden_size=8, segments=5)
    with pytest.raises(ValueError, match="segments must stay None, as in the fit .* got 5"):
        fitted.fit(texts, labels)
    fitted.set_params(segments=None, dropout=0.25).fit(texts, labels)
    assert fitted.net_.module_.dropout == 0.25


def test_pickle_holds_the_weights_once(fitted):
    n_bytes = sum(4 * weight.numel() for weight in fitted.net_.module_.parameters())
    assert len(pickle.dumps(fitted)) < n_bytes + 60_000


def test_verbose_levels(tiny, texts, labels, capfd):
    tiny.set_params(max_epochs=2).fit(texts, labels)
    assert capfd.readouterr() == ("", "")
    tiny.set_params(verbose=1).fit(*distinct(60))
    out, err = capfd.readouterr()
    header, _, *lines = out.splitlines()
    assert header.split() == ["epoch", "train_loss", "valid_accuracy", "valid_loss", "dur"]
    assert [line.split()[0] for line in lines if line.strip()[:1].isdigit()] == ["1", "2"]
    assert err == ""
    tiny.set_params(verbose=2).fit(texts, labels)
    assert "| 0/5 [" in capfd.readouterr().err


class CountEpochs(Callback):
    def __init__(self):
        self.n_epochs = 0

    def on_epoch_end(self, net, **kwargs):
        self.n_epochs += 1


def test_callbacks_run_on_copies(tiny, texts, labels):
    callback = CountEpochs()
    model = tiny.set_params(callbacks=[("count", callback)], max_epochs=3).fit(texts, labels)
    assert callback.n_epochs == 0
    assert dict(model.net_.callbacks_)["count"].n_epochs == 3


def test_skorchs_checkpoint_finds_the_best(tiny, tmp_path):
    tiny.set_params(callbacks=[Checkpoint(dirname=str(tmp_path))], max_epochs=4).fit(*distinct())
    assert (tmp_path / "params.pt").exists()


def test_the_learning_rate_can_be_left_to_a_callback(tiny, texts, labels):
    seen = []

    class Watch(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(net.optimizer_.param_groups[0]["lr"])

    steps = LRScheduler("StepLR", step_size=1, gamma=0.1)
    tiny.set_params(lr_schedule=None, callbacks=[steps, Watch()], max_epochs=2, lr=0.5)
    # A deep copy of the watch still writes to the list it closes over.
    tiny.fit(texts, labels)
    assert seen == pytest.approx([0.5] * 5 + [0.05] * 5)


def test_skorchs_early_stopping_is_no_interruption(tiny, texts, labels):
    stopping = EarlyStopping(monitor="train_loss", patience=2, threshold=10.0, threshold_mode="abs")
    model = tiny.set_params(callbacks=[stopping]).fit(texts, labels)
    assert model.n_iter_ < 10


class PressCtrlC(Callback):
    """Sends this process the signal of Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, net, **kwargs):
        if len(net.history) == self.epoch and len(net.history[-1]["batches"]) == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_keeps_the_best_weights_so_far(tiny):
    texts, labels = distinct()
    held = {"X_val": texts[:100], "y_val": labels[:100]}
    tiny.set_params(callbacks=[PressCtrlC(3)], calibrate=False)
    with pytest.warns(UserWarning, match="interrupted after 2 epochs; the best weights so far are"):
        tiny.fit(texts, labels, **held)
    assert tiny.n_iter_ == 2 == len(tiny.validation_scores_)
    score = -log_loss(labels[:100], tiny.predict_proba(texts[:100]))
    assert score == pytest.approx(max(tiny.validation_scores_), abs=1e-6)


def test_ctrl_c_in_the_first_epoch_leaves_a_fitted_estimator(tiny, texts, labels):
    tiny.set_params(callbacks=[PressCtrlC(1)])
    with pytest.warns(UserWarning, match="interrupted after 0 epochs; the newest weights so far"):
        tiny.fit(texts, labels)
    assert tiny.n_iter_ == 0
    assert np.isfinite(tiny.predict_proba(texts)).all()


def test_ctrl_c_in_partial_fit_keeps_what_was_learnt(tiny, texts, labels):
    tiny.partial_fit(texts, labels, classes=["neg", "pos"])
    tiny.set_params(callbacks=[PressCtrlC(2)])
    before = tiny.predict_proba(texts)
    with pytest.warns(UserWarning, match="interrupted after 1 epochs; the newest weights so far"):
        tiny.partial_fit(texts, labels)
    assert np.abs(tiny.predict_proba(texts) - before).max() > 1e-4


def test_ctrl_c_while_judging_drops_the_unfinished_epoch(tiny):
    texts, labels = distinct()
    calls = []

    def press(estimator, X, y):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return 0.5

    with pytest.warns(UserWarning, match="interrupted after 2 epochs"):
        tiny.set_params(scoring=press).fit(texts, labels)
    assert tiny.n_iter_ == len(tiny.loss_curve_) == len(tiny.validation_scores_) == 2


def test_ctrl_c_while_calibrating_keeps_the_training(tiny, monkeypatch):
    def press(self, network, log_probabilities, *, expected):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("sklstm.model.validation.Validation.calibrate", press)
    with pytest.warns(UserWarning, match="interrupted after 10 epochs"):
        tiny.set_params(n_iter_no_change=99).fit(*distinct())
    assert tiny.temperature_ == 1.0


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_in_a_worker_ends_the_search(tiny, texts, labels, n_jobs):
    tiny.set_params(callbacks=[PressCtrlC(1)])
    search = GridSearchCV(tiny, {"lr": [0.1, 0.2]}, cv=2, n_jobs=n_jobs)
    with pytest.raises((KeyboardInterrupt, TerminatedWorkerError)):
        search.fit(texts, labels)


def test_threads_can_predict_with_one_estimator(texts, labels):
    model = LSTMTextClassifier(**(TINY | {"dropout": 0.5, "word_dropout": 0.5}))
    model.fit(texts, labels)
    expected = model.predict_proba(texts)
    answers = []

    def predict():
        answers.extend(model.predict_proba(texts) for _ in range(10))

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    for answer in answers:
        np.testing.assert_array_equal(answer, expected)


def test_fits_in_threads_do_not_disturb_each_other(tiny, texts, labels):
    expected = clone(tiny).fit(texts, labels).predict_proba(texts)
    models = [clone(tiny) for _ in range(3)]
    threads = [threading.Thread(target=model.fit, args=(texts, labels)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models:
        np.testing.assert_allclose(model.predict_proba(texts), expected, atol=1e-6)


# What it says


def refuse(match, model=None, X=None, y=None, **arguments):
    model = LSTMTextClassifier(**TINY) if model is None else model
    with pytest.raises((TypeError, ValueError), match=match):
        model.fit(TEXTS if X is None else X, LABELS if y is None else y, **arguments)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"X": "text"}, "X must be a sequence of texts; got a single str"),
        ({"X": [*TEXTS[:9], None]}, r"X\[9\] must be a str; got None"),
        ({"y": LABELS[:9]}, "X and y must have the same length; got 10 texts and 9 labels"),
        ({"y": ["pos"] * 10}, "y must hold at least two classes; got one class: 'pos'"),
        ({"y": np.linspace(0, 1, 10)}, "y must hold classes; got continuous numbers"),
        ({"y": np.eye(10)}, "OneVsRestClassifier"),
        ({"sample_weight": "balanced"}, "use the parameter class_weight"),
        ({"sample_weight": [1] * 9}, "got 9 weights and 10 texts"),
        ({"sample_weight": [0] * 10}, "at least one weight above 0"),
        ({"X_val": TEXTS}, "X_val and y_val must be given together; got X_val alone"),
        ({"y_val": LABELS}, "X_val and y_val must be given together; got y_val alone"),
        ({"X_val": TEXTS, "y_val": ["odd"] * 10}, "y_val must hold the known classes"),
        ({"X_val": TEXTS, "y_val": LABELS[:9]}, "X_val and y_val must have the same length"),
        ({"X_val": "text", "y_val": LABELS}, "X_val must be a sequence of texts"),
    ],
)
def test_bad_input_keeps_an_earlier_fit(fitted, changes, match):
    before = fitted.predict_proba(TEXTS)
    refuse(match, fitted, **changes)
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), before)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"hidden_size": 0}, r"The 'hidden_size' parameter .* in the range \[1, inf\). Got 0"),
        (
            {"segments": 0},
            r"The 'segments' parameter .* in the range \[1, inf\), .*'sentence'.* Got 0",
        ),
        ({"segments": "line"}, "The 'segments' parameter .* Got 'line' instead"),
        ({"dropout": 1.0}, r"The 'dropout' parameter .* in the range \[0.0, 1.0\). Got 1.0"),
        (
            {"backend": "cuda"},
            "'backend' parameter .* must be a str among .* Got 'cuda' instead",
        ),
        ({"precision": "float16"}, "'precision' parameter .* must be a str among .* Got 'float16'"),
        ({"cell": "gru"}, "'cell' parameter .* must be a str among .* Got 'gru' instead"),
        ({"adversarial": 1.0}, r"'adversarial' parameter .* in the range \[0.0, 1.0\). Got 1.0"),
        ({"virtual_adversarial": -1}, r"'virtual_adversarial' parameter .* Got -1 instead"),
        ({"zoneout": 1.0}, r"'zoneout' parameter .* in the range \[0.0, 1.0\). Got 1.0"),
        ({"backend": "aten", "cell": "coupled"}, "backend='aten' has no cell 'coupled'"),
        (
            {"backend": "triton"},
            "backend='triton' (runs on CUDA cards; got .* on cpu|needs triton)",
        ),
        ({"lr_schedule": "step"}, "The 'lr_schedule' parameter .* Got 'step' instead"),
        ({"scoring": "log loss"}, "The 'scoring' parameter .* Got 'log loss' instead"),
        ({"class_weight": "equal"}, "The 'class_weight' parameter .* Got 'equal' instead"),
        ({"vectorizer": str.split}, "must be an instance of 'sklstm.text.vectorizer.Seq"),
        ({"pooling": ("max", "average")}, "pooling must name one or more of"),
        ({"class_weight": {"pos": -1}}, "class_weight must hold numbers of 0 or more"),
        (
            {"callbacks": [EarlyStopping(), 3]},
            r"callbacks\[1\] must be a callback of skorch.* got 3",
        ),
        ({"pooling": (["max"],)}, "pooling must name one or more of"),
        ({"backend": "aten", "recurrent_dropout": 0.1}, "backend='aten' has no recurrent dropout"),
        ({"device": "meta"}, "device='meta' must be a device that torch can compute on here"),
        ({"device": "gpu"}, "device must be 'auto' or a device of torch .* got 'gpu'"),
        ({"vectorizer": SequenceVectorizer(min_df=99)}, "stands in min_df=99 texts or more"),
        ({"vectorizer": SequenceVectorizer(keep="all")}, "The 'keep' parameter of SequenceV"),
    ],
)
def test_impossible_parameters_keep_an_earlier_fit(fitted, parameters, match):
    before = fitted.predict_proba(TEXTS)
    refuse(match, fitted.set_params(**parameters))
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none():
    refuse("device='cuda' needs a CUDA device", LSTMTextClassifier(device="cuda"))


def test_unknown_parameter_of_the_vectorizer(tiny):
    with pytest.raises(ValueError, match="Invalid parameter 'min_dff' for estimator SequenceVec"):
        tiny.set_params(vectorizer__min_dff=2)


@pytest.mark.parametrize(
    "method", ["predict", "predict_proba", "predict_log_proba", "decision_function", "transform"]
)
def test_before_fit(tiny, method):
    with pytest.raises(NotFittedError):
        getattr(tiny, method)(TEXTS)


@pytest.mark.parametrize(
    ("X", "match"), [("text", "got a single str"), ([], "X must hold at least one text")]
)
def test_bad_input_of_predict(fitted, X, match):
    with pytest.raises((TypeError, ValueError), match=match):
        fitted.predict(X)


def test_partial_fit_says_what_is_wrong(tiny, fitted):
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        tiny.partial_fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match="classes must hold at least two classes; got one class"):
        tiny.partial_fit(TEXTS, LABELS, classes=["pos"])
    before = fitted.predict_proba(TEXTS)
    with pytest.raises(ValueError, match=r"known classes \['neg', 'pos'\] only; got \['odd'\]"):
        fitted.partial_fit(TEXTS, ["odd"] * 10)
    with pytest.raises(ValueError, match="classes must be those of the first call"):
        fitted.partial_fit(TEXTS, LABELS, classes=["neg", "odd"])
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), before)


def test_partial_fit_checks_parameters_each_time(tiny):
    tiny.partial_fit(TEXTS, LABELS, classes=["neg", "pos"])
    with pytest.raises(ValueError, match="The 'batch_size' parameter"):
        tiny.set_params(batch_size=0).partial_fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match="class_weight='balanced' needs all texts at once"):
        tiny.set_params(batch_size=8, class_weight="balanced").partial_fit(TEXTS, LABELS)


def test_set_params_that_fails_changes_nothing(tiny):
    with pytest.raises(ValueError, match="Invalid parameter 'nope'"):
        tiny.set_params(vectorizer__nope=1)
    assert tiny.vectorizer is None
    tiny.set_params(vectorizer=SequenceVectorizer(min_df=3))
    tiny.set_params(vectorizer=None, vectorizer__max_df=7)
    assert (tiny.vectorizer.min_df, tiny.vectorizer.max_df) == ("auto", 7)


def test_validation_texts_that_do_not_count_are_refused(fitted):
    fitted.set_params(class_weight={"pos": 0.0})
    held = {"X_val": TEXTS[:5], "y_val": LABELS[:5]}
    refuse(r"a class whose class_weight is above 0; got \['pos'\] only", fitted, **held)


def test_warm_start_refuses_new_classes(fitted):
    refuse(
        r"known classes \['neg', 'pos'\]", fitted.set_params(warm_start=True), y=list("abcdefghij")
    )


def test_a_fit_that_breaks_in_training_keeps_an_earlier_fit(fitted, texts, labels):
    class Break(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise RuntimeError("broken")

    before = fitted.predict_proba(texts)
    for method in (fitted.set_params(warm_start=True).fit, fitted.partial_fit):
        fitted.set_params(callbacks=[Break()])
        with pytest.raises(RuntimeError, match="broken"):
            method(texts, labels)
        np.testing.assert_array_equal(fitted.predict_proba(texts), before)


def test_a_fresh_process_loads_and_predicts(fitted, tmp_path):
    """Five lines of a user, and neither triton nor CUDA is touched."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    program = textwrap.dedent(
        """
        import pickle, sys, torch
        model = pickle.load(open(sys.argv[1], "rb"))
        print(model.predict(["a good film", "a bad film"]).tolist())
        print("triton" in sys.modules, torch.cuda.is_initialized())
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model.pkl")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split("\n")[:2] == ["['pos', 'neg']", "False False"]
