"""Label sets from features: both linear models of n-grams, one against the rest for each label."""

import numpy as np
from scipy import sparse
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from sklstm.ngrams.naive_bayes import mark_features


class LinearLabelSets(ClassifierMixin, BaseEstimator):
    """For each label the mean of two probabilities: of a logistic regression, and of NB-SVM.

    In scikit-learn, OneVsRestClassifier takes no weights of texts unless metadata routing is on,
    and MultiOutputClassifier no label that every text has, or none.

    Parameters
    ----------
    logistic : LogisticRegression
        The first model, unfitted.
    naive_bayes : NaiveBayesLogisticRegression
        The second, unfitted.

    Attributes
    ----------
    classes_ : ndarray of shape (n_labels,)
        The numbers of the columns of y.
    coef_, ratio_coef_ : ndarray of shape (n_labels, n_features)
        What a feature's value, and what having it, adds to the log-odds of each label.
    intercept_, ratio_intercept_ : ndarray of shape (n_labels,)
        What is added to them for every text.
    """

    def __init__(self, logistic, naive_bayes):
        self.logistic = logistic
        self.naive_bayes = naive_bayes

    def fit(self, X, y, sample_weight=None):
        """Fit two models for each label.

        A label that every text has, or none, gets the same probability for all texts: its share of
        the texts, with half a text more on either side.

        Parameters
        ----------
        X : csr_array of shape (n_texts, n_features)
            The features.
        y : array or sparse matrix of shape (n_texts, n_labels)
            1 where a text has a label, else 0.
        sample_weight : array-like of shape (n_texts,) or (n_texts, n_labels), or None
            Weight of each text, or of each text for each label.

        Returns
        -------
        self : LinearLabelSets
        """
        indicator = (y.toarray() if sparse.issparse(y) else np.asarray(y)) > 0
        n_texts, n_labels = indicator.shape
        self.classes_ = np.arange(n_labels)
        shares = (indicator.sum(axis=0) + 0.5) / (n_texts + 1)
        self.coef_ = np.zeros((n_labels, X.shape[1]))
        self.ratio_coef_ = np.zeros_like(self.coef_)
        self.intercept_ = logit(shares)
        self.ratio_intercept_ = self.intercept_.copy()
        weights = np.ones(n_texts) if sample_weight is None else np.asarray(sample_weight)
        weights = np.broadcast_to(weights.reshape(n_texts, -1), indicator.shape)
        for k, (has, weight) in enumerate(zip(indicator.T, weights.T, strict=True)):
            if has.any() and not has.all():
                logistic = clone(self.logistic).fit(X, has, weight)
                naive_bayes = clone(self.naive_bayes).fit(X, has, weight)
                self.coef_[k], self.intercept_[k] = logistic.coef_[0], logistic.intercept_[0]
                self.ratio_coef_[k] = naive_bayes.coef_[0]
                self.ratio_intercept_[k] = naive_bayes.intercept_[0]
        return self

    def predict_proba(self, X):
        """Return the probability of each label.

        Parameters
        ----------
        X : csr_array of shape (n_texts, n_features)
            The features.

        Returns
        -------
        probabilities : ndarray of shape (n_texts, n_labels)
        """
        check_is_fitted(self)
        odds = X @ self.coef_.T + self.intercept_
        ratio_odds = mark_features(X) @ self.ratio_coef_.T + self.ratio_intercept_
        return (expit(odds) + expit(ratio_odds)) / 2

    def predict(self, X):
        """Return an indicator of the labels that are more probable than not.

        Parameters
        ----------
        X : csr_array of shape (n_texts, n_features)
            The features.

        Returns
        -------
        labels : ndarray of shape (n_texts, n_labels), int64
        """
        return (self.predict_proba(X) > 0.5).astype(np.int64)
