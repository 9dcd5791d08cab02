"""Naive Bayes and logistic regression in one: the second of the linear models of n-grams."""

import numpy as np
from scipy import sparse
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from sklstm.checks import check_has


class NaiveBayesLogisticRegression(ClassifierMixin, BaseEstimator):
    """Logistic regression on the log-count ratios of naive Bayes.

    Each feature that a text has, whatever its value, is replaced by the log-count ratio of a class
    against the rest. What the counts say about the class is then large before the regression,
    so that its penalty spares it. More than two classes are one against the rest.

    Parameters
    ----------
    C : float, default=0.3
        Inverse of the regression's penalty.
    alpha : float, default=1.0
        What is added to each count, above 0.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    coef_ : ndarray of shape (n_regressions, n_features)
        What each feature of a text adds to the log-odds of a class, the ratio times the
        regression's coefficient; of two classes there is one regression, for the second one.
    intercept_ : ndarray of shape (n_regressions,)
        What is added to them for every text.

    References
    ----------
    Wang & Manning (2012), Baselines and Bigrams: Simple, Good Sentiment and Topic Classification
    (there with a support vector machine, NB-SVM).
    """

    def __init__(self, C=0.3, alpha=1.0):
        self.C = C
        self.alpha = alpha

    def fit(self, X, y, sample_weight=None):
        """Count, and fit the regressions.

        Parameters
        ----------
        X : csr_array of shape (n_texts, n_features)
            The features; what is stored is what a text has.
        y : array-like of shape (n_texts,)
            The labels, of two classes at least.
        sample_weight : array-like of shape (n_texts,) or None
            Weight of each text, in the counts and in the regressions.

        Returns
        -------
        self : NaiveBayesLogisticRegression
        """
        X = sparse.csr_array(X)
        self.classes_, targets = np.unique(y, return_inverse=True)
        weights = np.ones(len(targets)) if sample_weight is None else np.asarray(sample_weight)
        told_apart = range(len(self.classes_)) if len(self.classes_) > 2 else [1]
        self.coef_ = np.empty((len(told_apart), X.shape[1]))
        self.intercept_ = np.empty(len(told_apart))
        for k, target in enumerate(told_apart):
            belongs = targets == target
            ratios = count_log_ratios(X, belongs, weights, alpha=self.alpha)
            regression = LogisticRegression(C=self.C, max_iter=1000)
            regression.fit(_replace(X, ratios), belongs, sample_weight=weights)
            self.coef_[k] = ratios * regression.coef_[0]
            self.intercept_[k] = regression.intercept_[0]
        return self

    def decision_function(self, X):
        """Return the log-odds of each class against the rest, or of the second class of two.

        Parameters
        ----------
        X : csr_array of shape (n_texts, n_features)
            The features.

        Returns
        -------
        decision : ndarray of shape (n_texts, n_classes), or (n_texts,) with two classes
        """
        check_has(self, "coef_")
        decision = mark_features(X) @ self.coef_.T + self.intercept_
        return decision if len(self.classes_) > 2 else decision[:, 0]

    def predict_proba(self, X):
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : csr_array of shape (n_texts, n_features)
            The features.

        Returns
        -------
        probabilities : ndarray of shape (n_texts, n_classes)
            Columns in the order of ``classes_``.
        """
        odds = expit(self.decision_function(X))
        if odds.ndim == 1:
            return np.stack([1 - odds, odds], axis=1)
        # Each regression is fitted by itself, so that all of them can be as good as sure of no.
        odds = np.maximum(odds, np.finfo(np.float64).tiny)
        return odds / odds.sum(axis=1, keepdims=True)

    def predict(self, X):
        """Return the most probable label of each text.

        Parameters
        ----------
        X : csr_array of shape (n_texts, n_features)
            The features.

        Returns
        -------
        labels : ndarray of shape (n_texts,)
        """
        decision = self.decision_function(X)
        return self.classes_[decision.argmax(axis=1) if decision.ndim == 2 else 1 * (decision > 0)]


def mark_features(X):
    """Return 1 for each feature that a text has, whatever its value, as a csr_array."""
    if not isinstance(X, sparse.csr_array):
        X = sparse.csr_array(X)
    return sparse.csr_array((np.ones(len(X.indices)), X.indices, X.indptr), shape=X.shape)


def count_log_ratios(X, belongs, weights, *, alpha):
    """Return the logarithm of how much likelier each feature is in the texts that belong.

    Parameters
    ----------
    X : csr_array of shape (n_texts, n_features)
        The features.
    belongs : ndarray of shape (n_texts,), bool
        Whether a text is of the class.
    weights : ndarray of shape (n_texts,)
        How often a text is counted.
    alpha : float
        What is added to each count.

    Returns
    -------
    ratios : ndarray of shape (n_features,)
    """

    def log_share(weights):
        of_entries = np.repeat(weights, np.diff(X.indptr))
        counts = alpha + np.bincount(X.indices, of_entries, minlength=X.shape[1])
        return np.log(counts / counts.sum())

    return log_share(weights * belongs) - log_share(weights * ~belongs)


def _replace(X, ratios):
    """Return the ratios of the features that each text has, in arrays of their own."""
    return sparse.csr_array((ratios[X.indices], X.indices, X.indptr), shape=X.shape, copy=True)
