import copy

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from sklstm import SequenceVectorizer
from sklstm.ngrams.linear import make_ngram_member
from sklstm.ngrams.state import from_state, is_ngram_member, take_state
from tests.conftest import LABELS, TEXTS, UNUSUAL

CHINESE = ["房间很好", "服务很差", "早餐好吃", "位置太远"]
CORPORA = {
    "two classes": (TEXTS, LABELS),
    "three classes": (TEXTS, [1, 2, 3, 1, 2] * 2),
    "no pieces": (CHINESE * 2, [True, False] * 4),
    "one token": (["good", "good"], [0, 1]),
}


@pytest.fixture(scope="session")
def _fitted_once():
    return make_ngram_member("one class a text", SequenceVectorizer()).fit(TEXTS, LABELS)


@pytest.fixture
def classifier(_fitted_once):
    return copy.deepcopy(_fitted_once)


@pytest.mark.parametrize(("texts", "labels"), CORPORA.values(), ids=CORPORA)
def test_a_classifier_comes_back(texts, labels):
    fitted = make_ngram_member("one class a text", SequenceVectorizer()).fit(texts, labels)
    again = from_state(take_state(fitted), fitted[0].vectorizer)
    asked = [*texts, *UNUSUAL, *CHINESE]
    np.testing.assert_array_equal(again.predict_proba(asked), fitted.predict_proba(asked))
    np.testing.assert_array_equal(again.predict(asked), fitted.predict(asked))
    assert again.classes_.dtype == fitted.classes_.dtype
    assert again[-1].named_estimators_.keys() == fitted[-1].named_estimators_.keys()
    assert again[-1].n_features_in_ == fitted[-1].n_features_in_
    np.testing.assert_array_equal(
        clone(again).fit(texts, labels).predict_proba(asked), fitted.predict_proba(asked)
    )
    # What it has learnt is the same once more.
    np.testing.assert_equal(take_state(again), take_state(fitted))


def test_a_state_has_no_parameters_of_scikit_learn(classifier):
    """Whose names and defaults change from version to version, while files stay."""
    assert take_state(classifier).keys() == {
        "kind",
        "tokens",
        "words",
        "pairs",
        "pieces",
        "idf",
        "classes",
        "members",
    }
    assert [sorted(learnt) for learnt in take_state(classifier)["members"]] == [
        ["coef_", "intercept_", "n_iter_"],
        ["coef_", "intercept_"],
    ]


def test_only_our_own_classifier_is_one(classifier):
    assert is_ngram_member(classifier)
    assert is_ngram_member(clone(classifier).fit(TEXTS, LABELS))
    others = [
        clone(classifier),
        make_pipeline(CountVectorizer(), MultinomialNB()).fit(TEXTS, LABELS),
        clone(classifier).set_params(linear__logistic__C=1.0).fit(TEXTS, LABELS),
        clone(classifier).set_params(linear__voting="hard").fit(TEXTS, LABELS),
        clone(classifier).set_params(linear__logistic=MultinomialNB()).fit(TEXTS, LABELS),
        clone(classifier).set_params(linear__naive_bayes="drop").fit(TEXTS, LABELS),
    ]
    assert not any(map(is_ngram_member, others))


def test_a_subclass_is_not_ours(classifier):
    class Own(type(classifier)):
        pass

    assert not is_ngram_member(Own(classifier.steps))


def change(state, name, value):
    state[name] = value(state[name])


def change_learnt(state, name, value, member=1):
    state["members"][member][name] = value(state["members"][member][name])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: change(s, "tokens", lambda t: [t[0], *t[:-1]]), "tokens that come twice"),
        (lambda s: change(s, "tokens", lambda t: [1, *t[1:]]), "no strings"),
        (lambda s: change(s, "tokens", lambda t: t[:3]), "n-grams that are no n-grams"),
        (lambda s: change(s, "words", lambda w: w[::-1].copy()), "n-grams that are no n-grams"),
        (lambda s: change(s, "words", lambda w: w - 1), "n-grams that are no n-grams"),
        (lambda s: change(s, "words", lambda w: w.astype(float)), "n-grams that are no n-grams"),
        (lambda s: change(s, "pairs", lambda p: p[:, None]), "n-grams that are no n-grams"),
        (lambda s: change(s, "pairs", lambda p: p + 10**6), "n-grams that are no n-grams"),
        (lambda s: change(s, "pieces", lambda p: [p[0], *p[:-1]]), "pieces that come twice"),
        (lambda s: change(s, "pieces", lambda p: p[1:]), "other weights"),
        (lambda s: change(s, "idf", lambda i: i[:1]), "other weights"),
        (lambda s: change(s, "idf", lambda i: [i[0][:, None], i[1]]), "other weights"),
        (lambda s: change(s, "idf", lambda i: [i[0] * np.nan, i[1]]), "numbers that are not fin"),
        (lambda s: change(s, "idf", lambda i: [i[0] > 0, i[1]]), "numbers that are not finite"),
        (lambda s: change(s, "classes", lambda c: np.array([1, 2, 3])), "other coefficients"),
        (lambda s: change_learnt(s, "coef_", lambda c: c[:, 1:]), "other coefficients"),
        (lambda s: change_learnt(s, "coef_", lambda c: c * np.inf), "numbers that are not finite"),
        (lambda s: change_learnt(s, "intercept_", lambda i: i[:0]), "other coefficients"),
        (lambda s: s["members"][0].pop("n_iter_"), "other coefficients"),
        (lambda s: s["members"].pop(), "zip"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(classifier, damage, message):
    state = take_state(classifier)
    damage(state)
    with pytest.raises((ValueError, TypeError), match=message):
        from_state(state, SequenceVectorizer())


def test_a_member_of_many_classes_is_ours_whatever_solver_found_it():
    for n_outputs, solver in ((2, "lbfgs"), (3, "newton-cg")):
        member = make_ngram_member("one class a text", n_outputs=n_outputs)
        assert dict(member[-1].estimators)["logistic"].solver == solver
        assert is_ngram_member(member.fit(["a b", "b c", "c a"] * 4, [0, 1, n_outputs - 1] * 4))
