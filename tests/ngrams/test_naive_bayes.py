"""Naive Bayes' ratios, then a regression: what the formulas of Wang & Manning (2012) say."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklstm.ngrams.naive_bayes import NaiveBayesLogisticRegression, _replace, count_log_ratios


@pytest.fixture(scope="module")
def counts(docstrings):
    features = CountVectorizer(max_features=200).fit_transform(docstrings.data[:800])
    return sparse.csr_array(features, dtype=np.float64), docstrings.target[:800]


def by_formula(X, y):
    """Return the regression of binary features times r, in dense arrays."""
    binary = (X.toarray() > 0).astype(float)
    positive = y == np.unique(y)[-1]
    p, q = 1 + binary[positive].sum(axis=0), 1 + binary[~positive].sum(axis=0)
    ratio = np.log((p / p.sum()) / (q / q.sum()))
    return make_pipeline(
        FunctionTransformer(lambda Z: (Z.toarray() > 0) * ratio),
        LogisticRegression(C=0.3, max_iter=1000),
    ).fit(X, positive)


def test_two_classes(counts):
    X, y = counts
    positive = y == y[0]
    expected = by_formula(X, positive).predict_proba(X)
    found = NaiveBayesLogisticRegression().fit(X, positive)
    np.testing.assert_allclose(found.predict_proba(X), expected, atol=1e-8)
    log_odds = np.log(expected[:, 1] / expected[:, 0])
    np.testing.assert_allclose(found.decision_function(X), log_odds, atol=1e-6)
    assert (found.predict(X) == (log_odds > 0)).all()


def test_many_classes_are_one_against_the_rest(counts):
    X, y = counts
    model = NaiveBayesLogisticRegression().fit(X, y)
    assert model.coef_.shape == (len(np.unique(y)), X.shape[1]) and len(model.coef_) > 2
    each = np.stack(
        [by_formula(X, y == label).predict_proba(X)[:, 1] for label in model.classes_], 1
    )
    expected = each / each.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-8)
    assert (model.predict(X) == model.classes_[expected.argmax(axis=1)]).all()


def test_the_ratios_are_those_of_naive_bayes(counts):
    X, y = counts
    positive = y == y[0]
    ratios = count_log_ratios(X, positive, np.ones(len(y)), alpha=0.5)
    bayes = MultinomialNB(alpha=0.5).fit(X > 0, positive)
    expected = bayes.feature_log_prob_[1] - bayes.feature_log_prob_[0]
    np.testing.assert_allclose(ratios, expected, atol=1e-12)


def test_values_do_not_count(counts):
    X, y = counts
    other = X.copy()
    other.data *= np.random.default_rng(0).random(len(other.data)) + 0.1
    models = [NaiveBayesLogisticRegression().fit(features, y) for features in (X, other)]
    np.testing.assert_array_equal(models[0].predict_proba(X), models[1].predict_proba(other))


def test_the_features_stay_as_they_are():
    indices = np.array([2, 0, 1, 2, 1, 0], dtype=np.int32)
    indptr = np.array([0, 2, 4, 5, 6], dtype=np.int32)
    X = sparse.csr_array((np.arange(1.0, 7.0), indices, indptr), shape=(4, 3))
    model = NaiveBayesLogisticRegression().fit(X, [0, 1, 0, 1])
    model.predict_proba(X)
    _replace(X, np.arange(3.0)).sort_indices()  # in place, as some solvers do
    assert X.indices.tolist() == [2, 0, 1, 2, 1, 0]
    assert X.data.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_layouts_and_dense_arrays_do_not_matter(counts):
    X, y = counts
    expected = NaiveBayesLogisticRegression().fit(X, y).predict_proba(X)
    for other in (sparse.csc_array(X), X.toarray()):
        found = NaiveBayesLogisticRegression().fit(other, y).predict_proba(other)
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_a_weight_is_a_text_so_many_times(counts):
    X, y = counts
    weights = np.random.default_rng(0).integers(3, size=len(y))
    rows = np.repeat(np.arange(len(y)), weights)
    weighted = NaiveBayesLogisticRegression().fit(X, y, sample_weight=weights.astype(float))
    repeated = NaiveBayesLogisticRegression().fit(X[rows], y[rows])
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-8)


def test_where_all_regressions_say_no_the_least_unlikely_class_is_predicted():
    model = NaiveBayesLogisticRegression(C=1e8).fit(sparse.csr_array(np.eye(3)), ["a", "b", "c"])
    model.intercept_ -= [1e4, 1e4 - 1, 1e4]
    nothing = sparse.csr_array((2, 3))
    np.testing.assert_allclose(model.predict_proba(nothing), 1 / 3)
    assert model.predict(nothing).tolist() == ["b", "b"]


def test_it_asks_to_be_fitted_first():
    with pytest.raises(NotFittedError):
        NaiveBayesLogisticRegression().predict(sparse.csr_array((2, 3)))


def test_it_is_cloned_with_its_parameters():
    assert clone(NaiveBayesLogisticRegression(C=2.0, alpha=3.0)).get_params() == {
        "C": 2.0,
        "alpha": 3.0,
    }
