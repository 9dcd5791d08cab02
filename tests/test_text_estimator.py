"""What fit and partial_fit do: early stopping, scoring, calibration, and resuming."""

import dataclasses
import warnings

import numpy as np
import pytest
from sklearn.metrics import get_scorer, log_loss

from sklstm import LSTMTextClassifier, LSTMTextRegressor
from sklstm.model.text_model import TextModel
from tests.conftest import LABELS, TEXTS, TINY, distinct, refuse


def test_early_stopping_keeps_the_best_weights():
    texts, labels = distinct()
    held_texts, held_labels = texts[300:], labels[300:]
    model = LSTMTextClassifier(
        **(TINY | {"max_epochs": 40, "lr": 0.1, "batch_size": 32}),
        n_iter_no_change=2,
        calibrate=False,
    )
    model.fit(texts[:300], labels[:300], X_val=held_texts, y_val=held_labels)
    scores = model.validation_scores_
    assert model.n_iter_ == len(scores) < 40
    assert np.argmax(scores) == len(scores) - 3
    score = -log_loss(held_labels, model.predict_proba(held_texts))
    assert score == pytest.approx(max(scores), abs=1e-6)


@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro", "roc_auc", "neg_log_loss"])
def test_a_scorer_decides_which_weights_are_kept(scoring):
    texts, labels = distinct()
    model = LSTMTextClassifier(
        **(TINY | {"max_epochs": 4, "batch_size": 32}), scoring=scoring, calibrate=False
    )
    model.fit(texts[:300], labels[:300], X_val=texts[300:], y_val=labels[300:])
    score = get_scorer(scoring)(model, texts[300:], labels[300:])
    assert score == pytest.approx(max(model.validation_scores_), abs=1e-6)


def test_the_best_is_kept_however_small_the_progress():
    texts, labels = distinct()
    held = {"X_val": texts[:100], "y_val": labels[:100]}
    model = LSTMTextClassifier(
        **(TINY | {"batch_size": 32}), tol=10.0, n_iter_no_change=4, calibrate=False
    )
    model.fit(texts, labels, **held)
    assert model.n_iter_ == 5
    score = -log_loss(held["y_val"], model.predict_proba(held["X_val"]))
    assert score == pytest.approx(max(model.validation_scores_), abs=1e-6)


def test_a_scorer_that_fails_is_named(tiny):
    texts, labels = distinct(100)
    labels = labels.astype("<U4")
    labels[0] = "rare"
    match = "scoring must give a number.* which hold none of the classes .'rare'.; 'neg_log_loss'"
    refuse(match, tiny.set_params(scoring="neg_log_loss"), X=texts, y=labels)
    refuse(r"Write make_scorer\(log_loss\)", tiny.set_params(scoring=log_loss), texts, labels)
    tiny.set_params(scoring=lambda estimator, X, y: np.nan)
    refuse("scoring must give a number on the .* got nan", tiny, texts, labels)


def test_a_callable_scores_the_training(tiny):
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


def test_temperature_calibrates_the_validation_texts():
    texts, labels = distinct()
    held = {"X_val": texts[200:], "y_val": labels[200:]}
    # Trained by heart, so that it is far too sure of itself.
    parameters = TINY | {"max_epochs": 20, "batch_size": 25, "ema": None, "label_smoothing": 0.0}
    parameters |= {"early_stopping": False, "lr_schedule": "constant"}
    raw = LSTMTextClassifier(**parameters, calibrate=False).fit(texts[:200], labels[:200], **held)
    calibrated = LSTMTextClassifier(**parameters).fit(texts[:200], labels[:200], **held)
    assert raw.temperature_ == 1.0
    assert calibrated.temperature_ > 1.0
    assert (raw.predict(texts) == calibrated.predict(texts)).all()
    losses = [log_loss(held["y_val"], m.predict_proba(held["X_val"])) for m in (raw, calibrated)]
    assert losses[1] < losses[0]


def test_warm_start_resumes_from_the_weights(tiny, texts, labels):
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


def test_partial_fit_resumes_with_the_moments_of_adam(tiny, texts, labels):
    tiny.partial_fit(texts, labels, classes=["neg", "pos"])
    earlier = tiny.model_.moments
    names = [name for name, _ in tiny.model_.network.named_parameters()]
    assert sorted(earlier) == sorted(names)
    assert {int(own["step"]) for own in earlier.values()} == {5}
    tiny.partial_fit(texts, labels)
    assert {int(own["step"]) for own in earlier.values()} == {5}
    assert {int(own["step"]) for own in tiny.model_.moments.values()} == {10}
    assert tiny.fit(texts, labels).model_.moments == {}


def test_partial_fit_after_fit_learns_more(tiny, texts, labels):
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


def test_resuming_with_another_network_is_refused(fitted, texts, labels):
    fitted.set_params(hidden_size=16, warm_start=True)
    sentence = "hidden_size must stay 8, as in the fit that warm_start or partial_fit resumes;"
    for method in (fitted.fit, fitted.partial_fit):
        with pytest.raises(ValueError, match=f"{sentence} got 16. Use fit with warm_start=False"):
            method(texts, labels)
    fitted.set_params(hidden_size=8, read_by="sentence")
    with pytest.raises(ValueError, match="read_by must stay None, as in the fit .* got 'sentence'"):
        fitted.fit(texts, labels)
    fitted.set_params(read_by=None, dropout=0.25).fit(texts, labels)
    assert fitted.model_.network.settings.dropout == 0.25


def test_partial_fit_with_weights_of_classes_that_do_not_come(tiny, texts):
    tiny.set_params(class_weight={"pos": 2.0, "neutral": 3.0})
    tiny.partial_fit(texts[:5], ["pos"] * 5, classes=["neg", "neutral", "pos"])


def test_partial_fit_keeps_the_temperature(fitted, texts, labels):
    model = fitted.model_
    fitted.model_ = dataclasses.replace(
        model, blend=dataclasses.replace(model.blend, temperature=1.5)
    )
    assert fitted.partial_fit(texts, labels).temperature_ == 1.5


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


def test_warm_start_refuses_new_classes(fitted):
    refuse(
        r"known classes \['neg', 'pos'\]", fitted.set_params(warm_start=True), y=list("abcdefghij")
    )


def test_swapped_texts_and_labels_are_warned_of():
    labels = ["pos" if "good" in text else "neg" for text in TEXTS]
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS)]
    # scikit-learn warns of as many classes, too, if it comes so far.
    with pytest.warns(UserWarning, match="Are X and y swapped") as caught:
        LSTMTextClassifier(**TINY).fit(labels, texts)
    message = (
        f"y has {len(texts)} different labels for {len(texts)} texts, of which 2 are different"
    )
    (warning,) = [w for w in caught if "swapped" in str(w.message)]
    assert str(warning.message).startswith(message) and warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LSTMTextClassifier(**TINY).fit(texts, labels)


@pytest.mark.parametrize(
    "name", ["predict", "predict_proba", "predict_log_proba", "decision_function"]
)
def test_an_answer_is_that_of_one_model(name, tiny, texts, labels, monkeypatch):
    """Also where another thread fits while the outputs are computed."""
    three = np.where(np.arange(len(texts)) % 3 == 0, "dull", labels)
    later = LSTMTextClassifier(**TINY).fit(texts, three).model_
    ask = getattr(tiny.set_params(max_epochs=1).fit(texts, labels), name)
    expected, compute = ask(texts), TextModel.outputs

    def fit_meanwhile(model, asked):
        outputs = compute(model, asked)
        tiny.model_ = later
        return outputs

    monkeypatch.setattr(TextModel, "outputs", fit_meanwhile)
    np.testing.assert_array_equal(ask(texts), expected)
    assert len(tiny.classes_) == 3


def test_numbers_are_those_of_one_model(texts, labels, monkeypatch):
    settings = {name: value for name, value in TINY.items() if name != "max_epochs"}
    regressor = LSTMTextRegressor(**settings, max_epochs=1)
    later = regressor.fit(texts, np.arange(len(texts)) * 1e6).model_
    expected = regressor.fit(texts, np.arange(len(texts))).predict(texts)
    compute = TextModel.outputs

    def fit_meanwhile(model, asked):
        outputs = compute(model, asked)
        regressor.model_ = later
        return outputs

    monkeypatch.setattr(TextModel, "outputs", fit_meanwhile)
    np.testing.assert_array_equal(regressor.predict(texts), expected)
