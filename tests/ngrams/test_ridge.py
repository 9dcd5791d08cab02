"""The penalty that generalised cross-validation chooses, against its formula."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge, RidgeCV

from sklstm.datasets import load_docstrings
from sklstm.ngrams.ridge import PENALTIES, ValidatedRidge


@pytest.fixture(scope="module")
def lengths():
    """Return features of texts, and the logarithm of their number of words with noise."""
    texts = load_docstrings().data[:400]
    noise = np.random.default_rng(0).normal(scale=0.3, size=400)
    y = np.log([len(text.split()) for text in texts]) + noise
    return TfidfVectorizer(max_features=200).fit_transform(texts), y


def score(X, y, alpha, weights=None):
    """Return the score by the formula, with the exact trace of the hat matrix."""
    weights = np.ones(len(y)) if weights is None else weights
    root = np.sqrt(weights)[:, None]
    Z = np.hstack([X.toarray(), np.ones((len(y), 1))]) * root
    penalty = alpha * np.eye(Z.shape[1])
    penalty[-1, -1] = 0  # of the intercept
    H = Z @ np.linalg.solve(Z.T @ Z + penalty, Z.T)
    target = y * root[:, 0]
    return ((target - H @ target) ** 2).sum() / (len(y) - np.trace(H)) ** 2


@pytest.mark.parametrize("weighted", [False, True])
def test_the_penalty_is_as_good_as_the_best_that_is_tried(lengths, weighted):
    X, y = lengths
    weights = np.random.default_rng(1).uniform(0.5, 2, size=len(y)) if weighted else None
    scores = [score(X, y, alpha, weights) for alpha in PENALTIES]
    assert 0 < np.argmin(scores) < len(PENALTIES) - 1  # the case says something
    found = ValidatedRidge().fit(X, y, weights).alpha_
    assert score(X, y, found, weights) < 1.002 * min(scores)


def test_scikit_learns_exact_search_agrees(lengths):
    X, y = lengths
    exact = RidgeCV(alphas=PENALTIES).fit(X.toarray(), y).alpha_
    found = ValidatedRidge().fit(X, y).alpha_
    assert 1 / 4 < found / exact < 4


def test_the_coefficients_are_those_of_ridge(lengths):
    X, y = lengths
    model = ValidatedRidge().fit(X, y)
    ridge = Ridge(alpha=model.alpha_).fit(X, y)
    np.testing.assert_allclose(model.predict(X), ridge.predict(X), atol=1e-3)
    assert model.predict(X).shape == y.shape
    assert model.predict(X[:1]).shape == (1,)


def test_several_columns_share_a_penalty_whatever_their_units(lengths):
    X, y = lengths
    one = ValidatedRidge().fit(X, y)
    several = ValidatedRidge().fit(X, np.column_stack([y, 1000 * y, np.ones(len(y))]))
    assert several.alpha_ == pytest.approx(one.alpha_, rel=0.02)
    found = several.predict(X)
    np.testing.assert_allclose(found[:, 0], one.predict(X), atol=2e-3)
    np.testing.assert_allclose(found[:, 1], 1000 * found[:, 0], rtol=1e-3)
    np.testing.assert_allclose(found[:, 2], 1)


def test_a_constant(lengths):
    X, y = lengths
    np.testing.assert_allclose(ValidatedRidge().fit(X, np.full(len(y), 3.5)).predict(X), 3.5)
