"""Both linear models for each label, against scikit-learn's own one-vs-rest."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from sklstm.datasets import load_arguments
from sklstm.ngrams.label_sets import LinearLabelSets
from sklstm.ngrams.naive_bayes import NaiveBayesLogisticRegression


def make():
    return LinearLabelSets(
        LogisticRegression(C=10.0, max_iter=1000), NaiveBayesLogisticRegression()
    )


@pytest.fixture(scope="module")
def functions():
    data = load_arguments(n_arguments=4)
    return TfidfVectorizer(max_features=300).fit_transform(data.data[:500]), data.target[:500]


def test_each_label_is_the_mean_of_two_models_against_the_rest(functions):
    X, Y = functions
    model = make().fit(X, Y)
    each = [OneVsRestClassifier(part).fit(X, Y) for part in (model.logistic, model.naive_bayes)]
    expected = np.mean([part.predict_proba(X) for part in each], axis=0)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-10)
    np.testing.assert_array_equal(model.predict(X), (expected > 0.5).astype(int))
    assert model.classes_.tolist() == [0, 1, 2, 3]


def test_sparse_labels_are_the_same(functions):
    X, Y = functions
    given = make().fit(X, sparse.csr_array(Y))
    np.testing.assert_array_equal(given.predict_proba(X), make().fit(X, Y).predict_proba(X))


def test_a_text_of_weight_2_is_that_text_twice(functions):
    X, Y = functions
    rows, weights = np.arange(200), np.ones(200)
    weights[:50] = 2
    twice = np.concatenate([rows, rows[:50]])
    weighted, repeated = make().fit(X[rows], Y[rows], weights), make().fit(X[twice], Y[twice])
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=2e-4)


def test_a_label_that_all_or_no_texts_have(functions):
    X, Y = functions
    Y = np.column_stack([np.ones(500, int), np.zeros(500, int), Y[:, 0]])
    model = make().fit(X, Y)
    found = model.predict_proba(X)
    np.testing.assert_allclose(found[:, 0], 500.5 / 501)
    np.testing.assert_allclose(found[:, 1], 0.5 / 501)
    alone = clone(model).fit(X, Y[:, 2:])
    np.testing.assert_array_equal(found[:, 2], alone.predict_proba(X)[:, 0])
