"""Numbers from features: ridge regression whose penalty follows from the texts."""

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.utils.validation import check_is_fitted

from sklstm.tasks.regression import as_columns, mean_and_scale

# From the strongest, which is fitted fastest; weaker ones are tried as long as they are better. A
# parabola through the best three says what lies between.
PENALTIES = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
# Random vectors that estimate a trace. Its relative error falls with the number of texts too.
N_PROBES = 2
TINY = 1e-12


class ValidatedRidge(RegressorMixin, BaseEstimator):
    """Ridge regression with the penalty that generalised cross-validation chooses.

    For n texts, residuals r and the matrix H that turns y into predictions, it minimises
    ``n * (r @ r) / (n - trace(H)) ** 2``. The trace is estimated: its exact value, as in
    scikit-learn's RidgeCV, takes time that grows with the cube of n.

    Attributes
    ----------
    alpha_ : float
        The penalty.
    mean_, scale_ : ndarray of shape (n_numbers,)
        Mean and standard deviation of each column of y.
    coef_ : ndarray of shape (n_numbers, n_features)
        What a feature's value adds to each number, in standard deviations.
    intercept_ : ndarray of shape (n_numbers,)
        What is added to them for every text.

    References
    ----------
    Golub, Heath & Wahba (1979), Generalized Cross-Validation as a Method for Choosing a Good Ridge
    Parameter; Girard (1989) and Hutchinson (1990) for the trace.
    """

    def fit(self, X, y, sample_weight=None):
        """Choose the penalty and fit.

        Parameters
        ----------
        X : csr_array of shape (n_texts, n_features)
            The features.
        y : array-like of shape (n_texts,) or (n_texts, n_numbers)
            The numbers. One penalty serves all columns, each divided by its standard deviation.
        sample_weight : array-like of shape (n_texts,) or None
            Weight of each text.

        Returns
        -------
        self : ValidatedRidge
        """
        y = np.asarray(y, dtype=np.float64)
        columns = as_columns(y)
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)
        self.mean_, self.scale_ = mean_and_scale(columns, weights)
        columns = (columns - self.mean_) / np.where(self.scale_ > 0, self.scale_, 1.0)
        self.alpha_ = _choose_penalty(X, columns, weights)
        ridge = Ridge(alpha=self.alpha_).fit(X, columns, sample_weight=weights)
        self.coef_, self.intercept_ = np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_)
        self.is_flat_ = y.ndim == 1
        return self

    def predict(self, X):
        """Return the numbers.

        Parameters
        ----------
        X : csr_array of shape (n_texts, n_features)
            The features.

        Returns
        -------
        numbers : ndarray of shape (n_texts,) or (n_texts, n_numbers), as y was
        """
        check_is_fitted(self)
        numbers = (X @ self.coef_.T + self.intercept_) * self.scale_ + self.mean_
        return numbers[:, 0] if self.is_flat_ else numbers


def _choose_penalty(X, columns, weights) -> float:
    """Return the penalty with the lowest score, between those that are tried."""
    scores = []
    for alpha in PENALTIES:
        scores.append(_score(X, columns, weights, alpha))
        if len(scores) > 1 and scores[-1] >= scores[-2]:
            break
    best = int(np.argmin(scores))
    if not 0 < best < len(scores) - 1:
        return PENALTIES[best]
    # The lowest point of the parabola through the best and its neighbours.
    near = slice(best - 1, best + 2)
    square, slope, _ = np.polyfit(np.log(PENALTIES[near]), np.log(scores[near]), 2)
    return float(np.exp(-slope / (2 * square)))


def _score(X, columns, weights, alpha) -> float:
    """Return the score of a penalty, up to a factor, as a mean over the columns."""
    # Rows times the square root of their weight have errors of one size.
    roots = np.sqrt(weights)[:, None]
    probes = np.random.default_rng(0).choice([-1.0, 1.0], size=(len(columns), N_PROBES))
    ridge = Ridge(alpha=alpha).fit(X, np.hstack([columns, probes / roots]), sample_weight=weights)
    fitted, n_numbers = ridge.predict(X), columns.shape[1]
    residuals = (columns - fitted[:, :n_numbers]) * roots
    trace = (probes * roots * fitted[:, n_numbers:]).sum() / N_PROBES
    # Not 0, so that it has a logarithm, also where y is constant.
    return max((residuals**2).sum(), TINY) / max(len(columns) - trace, TINY) ** 2
