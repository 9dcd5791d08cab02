"""Texts without labels in one call of fit: the language model first, then virtual adversaries."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from sklstm import LSTMLanguageModel, LSTMTextClassifier, LSTMTextRegressor, SequenceVectorizer
from sklstm.training.start import Fresh
from tests.conftest import LABELS, TEXTS, TINY

UNLABELLED = [f"{text} again and again" for text in TEXTS]
SETTINGS = TINY | {"max_epochs": 1, "embedding_dim": 8, "hidden_size": 8}
RECIPE = LSTMLanguageModel(embedding_dim=8, hidden_size=8, max_epochs=2, random_state=3)


def build(**params):
    return LSTMTextClassifier(**SETTINGS | {"pretrained": clone(RECIPE)} | params)


def test_it_is_a_language_model_and_then_a_fit_from_it():
    both = build().fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)
    model = clone(RECIPE).fit([*TEXTS, *UNLABELLED])
    after = build(pretrained=model).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(both.predict_proba(TEXTS), after.predict_proba(TEXTS))
    assert "again" in both.vectorizer_.vocabulary_
    assert not hasattr(both.pretrained, "model_")  # a clone was fitted


def test_without_a_recipe_it_has_the_parameters_of_the_classifier():
    vectorizer = SequenceVectorizer(max_length=5, analyzer="char")
    clf = build(pretrained=None, vectorizer=vectorizer, embedding_dim="auto", cell="coupled")
    clf.fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)
    settings = clf.model_.network.settings
    assert (settings.hidden_size, settings.embedding_dim, settings.cell) == (8, 128, "coupled")
    assert clf.vectorizer_.analyzer == "char" and clf.vectorizer_.max_length == 5
    assert not hasattr(vectorizer, "vocabulary_")


def test_a_fit_is_repeatable_and_resumes():
    one, other = (build().fit(TEXTS, LABELS, X_unlabelled=UNLABELLED) for _ in range(2))
    np.testing.assert_array_equal(one.predict_proba(TEXTS), other.predict_proba(TEXTS))
    one.partial_fit(TEXTS, LABELS)
    assert one.n_iter_ == other.n_iter_ + 1


def test_unfreezing_by_layers_needs_no_other_source():
    clf = build(gradual_unfreezing=True, max_epochs=3).fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)
    assert clf.n_iter_ == 3
    with pytest.raises(ValueError, match="gradual_unfreezing=True needs weights that have learnt"):
        build(gradual_unfreezing=True, pretrained=None).fit(TEXTS, LABELS)


@pytest.mark.parametrize("adversarial", [0.0, 0.05])
def test_virtual_adversaries_train_on_unlabelled_texts_too(adversarial, monkeypatch):
    clf = build(virtual_adversarial=0.9, adversarial=adversarial)
    clf.fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)
    model = clone(RECIPE).fit([*TEXTS, *UNLABELLED])
    without = clone(clf).set_params(pretrained=model).fit(TEXTS, LABELS)
    assert clf.loss_curve_[0] > without.loss_curve_[0]  # by the divergence of these texts
    pairs = zip(clf.net_.module_.parameters(), without.net_.module_.parameters(), strict=True)
    assert any(not torch.equal(*pair) for pair in pairs)


def test_more_unlabelled_than_labelled_texts_and_the_reverse():
    for unlabelled in (UNLABELLED * 5, UNLABELLED[:3]):
        clf = build(virtual_adversarial=0.25).fit(TEXTS, LABELS, X_unlabelled=unlabelled)
        assert np.isfinite(clf.predict_proba(TEXTS)).all()


def test_numbers_label_sets_and_sentences():
    sets = np.stack([np.array(LABELS) == "pos", np.arange(len(TEXTS)) % 2 == 0], axis=1)
    settings = {"virtual_adversarial": 0.05, "read_by": "sentence", "pooling": "mean"}
    clf = build(**settings).fit(TEXTS, sets.astype(int), X_unlabelled=UNLABELLED)
    assert clf.predict_proba(TEXTS).shape == (len(TEXTS), 2)
    parameters = SETTINGS | {"pretrained": clone(RECIPE), "virtual_adversarial": 0.05}
    model = LSTMTextRegressor(**parameters)
    model.fit(TEXTS, np.arange(len(TEXTS)), X_unlabelled=UNLABELLED)
    assert np.isfinite(model.predict(TEXTS)).all()


def test_a_search_passes_the_texts_on(texts, labels):
    search = GridSearchCV(build(), {"lr": [0.01, 0.001]}, cv=2)
    search.fit(texts, labels, X_unlabelled=UNLABELLED[:7])
    assert "again" in search.best_estimator_.vectorizer_.vocabulary_


def test_texts_of_another_kind_are_noticed():
    with pytest.warns(UserWarning, match="X_unlabelled has only .*% of the tokens of X"):
        build().fit(TEXTS, LABELS, X_unlabelled=["房间很好房间很差"] * 9)


@pytest.mark.parametrize(
    ("params", "unlabelled", "error", "message"),
    [
        ({}, [], ValueError, "X_unlabelled must hold at least one text"),
        ({}, "a text", TypeError, "X_unlabelled must be a sequence of texts"),
        ({}, ["a", 3], TypeError, r"X_unlabelled\[1\] must be a str"),
        (
            {"embeddings": {"a": [1.0] * 8}, "pretrained": None},
            UNLABELLED,
            ValueError,
            "embeddings and X_un",
        ),
        (
            {"pretrained": "model.safetensors"},
            UNLABELLED,
            ValueError,
            "an unfitted LSTMLanguageModel",
        ),
        (
            {"pretrained": FrozenEstimator(RECIPE)},
            UNLABELLED,
            ValueError,
            "got FrozenEstimator, fit",
        ),
        ({"hidden_size": 9}, UNLABELLED, ValueError, "hidden_size is the language model's, 8"),
        (
            {"num_layers": 2, "pretrained": None},
            UNLABELLED,
            ValueError,
            "num_layers must be 1 where",
        ),
    ],
)
def test_what_cannot_be(params, unlabelled, error, message):
    clf = build().fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)
    before = clf.predict_proba(TEXTS)
    with pytest.raises(error, match=message):
        clf.set_params(**params).fit(TEXTS, LABELS, X_unlabelled=unlabelled)
    np.testing.assert_array_equal(clf.predict_proba(TEXTS), before)


def test_a_fitted_model_and_a_resumed_fit_are_refused():
    fitted = clone(RECIPE).fit(UNLABELLED)
    with pytest.raises(ValueError, match="got LSTMLanguageModel, fitted. Leave one of them out"):
        build(pretrained=fitted).fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)
    clf = build(warm_start=True).fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)
    with pytest.raises(ValueError, match="X_unlabelled must be given to the first fit"):
        clf.fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)
    before = clf.model_
    assert clf.fit(TEXTS, LABELS).model_ is not before


@pytest.mark.parametrize(
    ("params", "labels", "message"),
    [
        ({}, ["pos"] * len(TEXTS), "y must hold at least two classes"),
        ({"hidden_size": 9}, LABELS, "hidden_size is the language model's, 8"),
        ({"vectorizer": SequenceVectorizer(analyzer="char")}, LABELS, "got another analyzer"),
        ({"gradual_unfreezing": True, "max_epochs": 2}, LABELS, "max_epochs must be at least 3"),
    ],
)
def test_what_is_wrong_is_noticed_before_the_language_model_is_learnt(
    params, labels, message, monkeypatch
):
    monkeypatch.setattr("sklstm.supervised.learn_language", None)
    with pytest.raises(ValueError, match=message):
        build(**params).fit(TEXTS, labels, X_unlabelled=UNLABELLED)


class Broken(DummyClassifier):
    """A classifier that cannot be fitted, or cannot predict."""

    def __init__(self, when="fit"):
        super().__init__()
        self.when = when

    def fit(self, X, y, sample_weight=None):
        if self.when == "fit":
            raise ValueError("no file of vectors")
        return super().fit(X, y, sample_weight)

    def predict_proba(self, X):
        return super().predict_proba(X) * np.nan


@pytest.mark.parametrize(
    ("when", "message"),
    [("fit", "got the error 'no file of vectors' from Broken"), ("predict", "got NaN or infinity")],
)
def test_errors_of_members_come_before_the_language_model_is_learnt(when, message, monkeypatch):
    monkeypatch.setattr("sklstm.supervised.learn_language", None)
    blend = ["ngrams", ("broken", Broken(when))]
    with pytest.raises(ValueError, match=f"{message}.* This is about the member 'broken'"):
        build(blend=blend).fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)


@pytest.mark.parametrize("validation", [{}, {"X_val": TEXTS, "y_val": LABELS}])
def test_a_member_is_fitted_to_all_texts_once(validation, monkeypatch):
    seen = []

    class Counting(DummyClassifier):
        def fit(self, X, y, sample_weight=None):
            seen.append(len(X))
            return super().fit(X, y, sample_weight)

    member = ("counting", Counting(strategy="prior"))
    clf = build(blend=[member]).fit(TEXTS, LABELS, X_unlabelled=UNLABELLED, **validation)
    assert seen.count(len(TEXTS)) == 1
    assert clf.members_["counting"].class_prior_ == pytest.approx([0.5, 0.5])


def test_texts_that_no_step_uses_are_not_read_again(monkeypatch):
    read = []

    def encode(self, texts, vectorizer, _encode=Fresh.encode):
        read.append(texts)
        return _encode(self, texts, vectorizer)

    monkeypatch.setattr(Fresh, "encode", encode)
    build().fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)
    assert UNLABELLED not in read
    build(virtual_adversarial=0.25).fit(TEXTS, LABELS, X_unlabelled=UNLABELLED)
    assert UNLABELLED in read
