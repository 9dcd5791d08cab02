"""Label sets, as users of scikit-learn's MLPClassifier know them."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import logit
from sklearn.exceptions import DataConversionWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    get_scorer,
    hamming_loss,
    make_scorer,
    roc_auc_score,
)
from sklearn.model_selection import cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer

import sklstm
from sklstm import LSTMTextClassifier
from tests.conftest import LABELS, TEXTS, TINY

ALL_TEXTS = TEXTS * 4
POSITIVE = np.array(LABELS * 4) == "pos"
FILM = np.array(["film" in text for text in ALL_TEXTS])
SETS = np.column_stack([POSITIVE, FILM, ~POSITIVE & FILM]).astype(int)
NAMES = ["good", "film", "bad film"]
FRAME = pd.DataFrame(SETS, columns=NAMES)
FAST = TINY | {"lr": 0.05, "ema": None, "max_epochs": 15, "early_stopping": False}


def distinct_sets(n_texts=300):
    """Return distinct texts of two labels, of which words tell which they have."""
    rng = np.random.default_rng(0)
    Y = rng.random((n_texts, 3)) < [0.5, 0.3, 0.1]
    words = [
        ["good" if a else "dull", "film" if b else "play", "long" if c else "short"]
        for a, b, c in Y
    ]
    return [f"a {' '.join(row)} number {k}" for k, row in enumerate(words)], Y.astype(int)


@pytest.fixture(scope="module")
def fitted():
    return LSTMTextClassifier(**FAST).fit(ALL_TEXTS, FRAME)


def test_probabilities_logits_and_predictions_agree(fitted):
    p = fitted.predict_proba(TEXTS)
    assert p.shape == (10, 3) and not np.allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(fitted.decision_function(TEXTS), logit(p), rtol=1e-6)
    np.testing.assert_allclose(fitted.predict_log_proba(TEXTS), np.log(p))
    np.testing.assert_array_equal(fitted.predict(TEXTS), (p > 0.5).astype(int))
    assert fitted.predict(TEXTS).dtype == np.int64


def test_the_score_is_that_of_whole_sets(fitted):
    predicted = fitted.predict(ALL_TEXTS)
    assert fitted.score(ALL_TEXTS, SETS) == accuracy_score(SETS, predicted)
    assert fitted.score(ALL_TEXTS, FRAME) == fitted.score(ALL_TEXTS, sparse.csr_array(SETS))


def test_the_score_of_columns_in_another_order_is_refused(fitted):
    with pytest.raises(ValueError, match="y must have the columns .* Reorder them"):
        fitted.score(ALL_TEXTS, FRAME[["film", "good", "bad film"]])
    assert fitted.score(ALL_TEXTS, FRAME.astype("Int64")) == fitted.score(ALL_TEXTS, FRAME)


def test_classes_are_the_names_of_the_columns(fitted):
    assert fitted.classes_.tolist() == NAMES
    assert LSTMTextClassifier(**FAST).fit(ALL_TEXTS, SETS).classes_.tolist() == [0, 1, 2]


def test_lists_of_labels_come_by_the_binarizer_that_the_error_names():
    lists = [[name for name, has in zip(NAMES, row, strict=True) if has] for row in SETS]
    model = LSTMTextClassifier(**FAST | {"max_epochs": 30})
    with pytest.raises(ValueError, match=r"sklearn.preprocessing.MultiLabelBinarizer"):
        model.fit(ALL_TEXTS, lists)
    binarizer = MultiLabelBinarizer()
    model.fit(ALL_TEXTS, binarizer.fit_transform(lists))
    found = binarizer.inverse_transform(model.predict(ALL_TEXTS))
    assert [set(row) for row in found] == [set(row) for row in lists]


@pytest.mark.parametrize("column", [SETS[:, :1], sparse.csr_array(SETS[:, :1]), FRAME[["good"]]])
def test_one_column_is_one_class_a_text(column):
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        model = LSTMTextClassifier(**FAST).fit(ALL_TEXTS, column)
    assert model.predict(TEXTS).shape == (10,)
    assert model.predict_proba(TEXTS).shape == (10, 2)


def test_labels_that_are_never_or_always_there():
    Y = np.column_stack([SETS[:, 0], np.zeros(40, int), np.ones(40, int)])
    for blend in (None, "ngrams"):
        model = LSTMTextClassifier(**FAST | {"blend": blend, "max_epochs": 30}).fit(ALL_TEXTS, Y)
        found = model.predict(TEXTS)
        assert (found[:, 1] == 0).all() and (found[:, 2] == 1).all()
        assert (found[:, 0] == SETS[:10, 0]).mean() > 0.8
        assert np.isfinite(model.decision_function(TEXTS)).all()


# Weights


@pytest.mark.parametrize("blend", [None, "ngrams"])
def test_weights_of_a_rare_label_find_it_and_nothing_else(blend):
    """Also with label smoothing, by which a large weight must not make all texts positive."""
    texts, _ = distinct_sets(200)
    rare = np.arange(200) % 50 == 0
    texts = [
        f"{text} {'rare' if r else 'usual'} thing" for text, r in zip(texts, rare, strict=True)
    ]
    Y = np.column_stack([rare, np.arange(200) % 2]).astype(int)
    found = {}
    for weights in (None, "balanced"):
        settings = FAST | {"class_weight": weights, "blend": blend, "label_smoothing": 0.05}
        model = LSTMTextClassifier(**settings).fit(texts, Y)
        found[weights] = model.predict_proba(texts)[:, 0]
    assert found["balanced"][rare].mean() > found[None][rare].mean()
    assert found["balanced"][rare].min() > 0.5 > found["balanced"][~rare].max()


def test_the_n_grams_know_the_weights_of_labels():
    texts, Y = distinct_sets()
    members = [
        LSTMTextClassifier(**FAST | {"blend": "ngrams", "max_epochs": 1, "class_weight": weights})
        .fit(texts, Y)
        .member_.predict_proba(texts)
        for weights in (None, {2: 10.0})
    ]
    assert members[1][:, 2].mean() > 1.02 * members[0][:, 2].mean()
    np.testing.assert_allclose(members[1][:, :2], members[0][:, :2])


def test_a_member_of_the_users_cannot_have_weights_of_labels():
    member = make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression()))
    model = LSTMTextClassifier(**FAST | {"blend": member, "class_weight": "balanced"})
    with pytest.raises(
        ValueError, match="blend must be 'ngrams' or None with class_weight of label"
    ):
        model.fit(ALL_TEXTS, SETS)


def test_balanced_weights_are_negatives_over_positives():
    by_hand = {name: (40 - n) / n for name, n in FRAME.sum().items()}
    one, other = (
        LSTMTextClassifier(**FAST | {"class_weight": weights}).fit(ALL_TEXTS, FRAME)
        for weights in ("balanced", by_hand)
    )
    np.testing.assert_array_equal(one.predict_proba(TEXTS), other.predict_proba(TEXTS))


def test_a_weight_of_no_label_is_refused():
    model = LSTMTextClassifier(**FAST | {"class_weight": {"goood": 2.0}})
    with pytest.raises(ValueError, match=r"some of the labels \['good', 'film', 'bad film'\]; got"):
        model.fit(ALL_TEXTS, FRAME)


# partial_fit and warm_start


def test_partial_fit_takes_the_labels_from_classes_or_from_the_columns():
    for classes, Y in ((None, FRAME), (NAMES, SETS), (NAMES, FRAME)):
        model = LSTMTextClassifier(**FAST).partial_fit(ALL_TEXTS, Y, classes)
        assert model.classes_.tolist() == NAMES
        model.partial_fit(ALL_TEXTS, SETS).partial_fit(ALL_TEXTS, FRAME, NAMES)
    model = LSTMTextClassifier(**FAST).partial_fit(ALL_TEXTS, SETS, np.arange(3))
    assert model.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("Y", "classes", "match"),
    [
        (SETS[:, :2], None, "y must have 3 columns, one for each label that is known; got 2"),
        (FRAME[["film", "good", "bad film"]], None, "y must have the columns"),
        (SETS, ["x", "y", "z"], "classes must be those of the first call"),
        (SETS, ["x", "y"], "classes must name the 3 columns of y, each by a name of its own"),
        (SETS, ["x", "y", "y"], "classes must name the 3 columns of y, each by a name of its own"),
        (LABELS * 4, None, "y must hold label sets, as in the first fit; got one class a text"),
    ],
    ids=["fewer", "another order", "other classes", "too few", "twice", "another kind"],
)
def test_later_calls_must_agree(fitted, Y, classes, match):
    before = fitted.predict_proba(TEXTS)
    with pytest.raises(ValueError, match=match):
        fitted.partial_fit(ALL_TEXTS, Y, classes)
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), before)


def test_another_kind_of_y_under_warm_start_is_refused():
    model = LSTMTextClassifier(**FAST | {"warm_start": True, "max_epochs": 1})
    model.fit(ALL_TEXTS, LABELS * 4)
    match = "y must hold one class a text, as in the first fit; got label sets. Start anew: fit wi"
    with pytest.raises(ValueError, match=match):
        model.fit(ALL_TEXTS, SETS)
    assert model.set_params(warm_start=False).fit(ALL_TEXTS, SETS).classes_.tolist() == [0, 1, 2]


def test_predictions_are_sparse_where_the_last_y_was():
    model = LSTMTextClassifier(**FAST).partial_fit(ALL_TEXTS, sparse.csr_array(SETS))
    assert sparse.issparse(model.predict(TEXTS))
    assert not sparse.issparse(model.partial_fit(ALL_TEXTS, SETS).predict(TEXTS))


def test_validation_texts_of_another_kind_are_refused():
    model = LSTMTextClassifier(**FAST)
    with pytest.raises(ValueError, match="y_val must hold label sets, as y does; got one class"):
        model.fit(ALL_TEXTS, SETS, X_val=TEXTS, y_val=LABELS)
    with pytest.raises(ValueError, match="y_val must have 3 columns"):
        model.fit(ALL_TEXTS, SETS, X_val=TEXTS, y_val=SETS[:10, :2])


# Members, metrics, sentences


@pytest.mark.parametrize(
    "member",
    [
        make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression())),
        make_pipeline(CountVectorizer(), MultiOutputClassifier(MultinomialNB())),
        make_pipeline(TfidfVectorizer(), KNeighborsClassifier(3)),
    ],
    ids=["OneVsRest", "MultiOutput", "neighbours"],
)
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_a_member_of_the_users(member, container):
    texts, Y = distinct_sets()
    Y = container(Y)
    settings = FAST | {"blend": member, "max_epochs": 2, "early_stopping": True}
    model = LSTMTextClassifier(**settings).fit(texts, Y)
    assert model.blend_weights_[1] > 0
    assert model.score(texts, Y) > 0.8


def test_n_grams_learn_what_words_say():
    texts, Y = distinct_sets()
    settings = FAST | {"blend": "ngrams", "max_epochs": 2, "early_stopping": True}
    model = LSTMTextClassifier(**settings).fit(texts[:200], Y[:200])
    assert f1_score(Y[200:], model.predict(texts[200:]), average="macro") > 0.95
    assert model.temperature_ == 1.0  # fewer than 100 texts were held out


def test_scorers_of_scikit_learn():
    texts, Y = distinct_sets()
    settings = FAST | {"blend": "ngrams", "max_epochs": 1}
    hamming = make_scorer(hamming_loss, greater_is_better=False)
    for scoring in ("accuracy", "f1_macro", "roc_auc", "average_precision", hamming):
        model = LSTMTextClassifier(**settings)
        assert np.isfinite(cross_val_score(model, texts, Y, cv=2, scoring=scoring)).all()
        model.set_params(early_stopping=True, scoring=scoring, calibrate=False, blend=None)
        held_out = {"X_val": texts[200:], "y_val": Y[200:]}
        model.fit(texts[:200], Y[:200], **held_out)
        score = get_scorer(scoring) if isinstance(scoring, str) else scoring
        expected = score(model, texts[200:], Y[200:])
        assert model.validation_scores_ == [pytest.approx(expected, abs=1e-6)]
        model.fit(texts, sparse.csr_array(Y))


def test_scorers_of_two_labels_are_those_of_both():
    """With two columns scikit-learn takes the classes for those of one label."""
    texts, Y = distinct_sets()
    model = LSTMTextClassifier(**FAST | {"blend": "ngrams", "max_epochs": 1})
    model.fit(texts, Y[:, :2])
    Y, p = Y[:, :2], model.predict_proba(texts)
    for name, metric in (
        ("roc_auc", roc_auc_score),
        ("average_precision", average_precision_score),
    ):
        assert get_scorer(name)(model, texts, Y) == pytest.approx(metric(Y, p), abs=1e-12)
        assert metric(Y, p) > 0.9


def test_sentences_have_a_probability_of_each_label():
    model = LSTMTextClassifier(**FAST | {"read_by": "sentence", "max_epochs": 2})
    texts = [f"{text}. {text}!" for text in ALL_TEXTS]
    model.fit(texts, SETS)
    (first, second), *_ = model.predict_sentences(texts[:2])
    assert first.probabilities.shape == (3,)
    together = first.weight * logit(first.probabilities) + second.weight * logit(
        second.probabilities
    )
    np.testing.assert_allclose(together, model.decision_function(texts[:1])[0], atol=1e-5)


def test_a_file_holds_names_and_whether_labels_are_sparse(fitted, tmp_path):
    fitted.save(tmp_path / "m.safetensors")
    loaded = sklstm.load(tmp_path / "m.safetensors")
    assert loaded.classes_.tolist() == NAMES and loaded.classes_.dtype == fitted.classes_.dtype
    sets = LSTMTextClassifier(**FAST | {"max_epochs": 1}).fit(ALL_TEXTS, sparse.csr_array(SETS))
    sets.save(tmp_path / "m.safetensors")
    assert sparse.issparse(sklstm.load(tmp_path / "m.safetensors").predict(TEXTS))
