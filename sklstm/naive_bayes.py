"""Naive Bayes and logistic regression in one: the second of the linear models of n-grams."""

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted


class NaiveBayesLogisticRegression(ClassifierMixin, BaseEstimator):
    """Logistic regression on the log-count ratios of naive Bayes.

    Each feature that a text has, whatever its value, is replaced by the log-count ratio of a class
    against the rest. What tells the class by counting alone is then large before the regression,
    so that its penalty spares it. More than two classes are one against the rest.

    Parameters
    ----------
    C : float, default=0.3
        Inverse of the regression's penalty.
    alpha : float, default=1.0
        What is added to each count.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    ratios_ : ndarray of shape (n_regressions, n_features)
        The log-count ratios of each class; of two classes, those of the second one alone.
    regressions_ : list of LogisticRegression
        What was fitted to them.

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
        self.classes_, targets = np.unique(y, return_inverse=True)
        weights = np.ones(len(targets)) if sample_weight is None else np.asarray(sample_weight)
        told_apart = range(len(self.classes_)) if len(self.classes_) > 2 else [1]
        self.ratios_, self.regressions_ = [], []
        for target in told_apart:
            belongs = targets == target
            ratio = self._log_share(X, weights * belongs) - self._log_share(X, weights * ~belongs)
            regression = LogisticRegression(C=self.C, max_iter=1000)
            regression.fit(_replace(X, ratio), belongs, sample_weight=weights)
            self.ratios_.append(ratio)
            self.regressions_.append(regression)
        self.ratios_ = np.array(self.ratios_)
        return self

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
        check_is_fitted(self)
        belongs = [
            regression.predict_proba(_replace(X, ratio))[:, 1]
            for ratio, regression in zip(self.ratios_, self.regressions_, strict=True)
        ]
        if len(self.classes_) == 2:
            belongs.insert(0, 1 - belongs[0])
        # Each regression is fitted by itself, so that all of them can be as good as sure of no.
        odds = np.maximum(np.stack(belongs, axis=1), np.finfo(np.float64).tiny)
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
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _log_share(self, X, weights):
        """Return the logarithm of each feature's share of all that weighted texts have."""
        of_entries = np.repeat(weights, np.diff(X.indptr))
        counts = self.alpha + np.bincount(X.indices, of_entries, minlength=X.shape[1])
        return np.log(counts / counts.sum())


def _replace(X, ratio):
    """Return the ratios of the features that each text has, in arrays of their own."""
    return sparse.csr_array((ratio[X.indices], X.indices, X.indptr), shape=X.shape, copy=True)
