"""The classic baselines, as pipelines of scikit-learn.

NB-SVM (Wang & Manning 2012) multiplies binary counts by each class's log-count ratio before a
linear model.
"""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline

from sklstm.text.tokenizers import tokenize

#: Names in specs, and titles in tables. All are deterministic.
BASELINES = {
    "mnb": "MultinomialNB, unigrams",
    "mnb2": "MultinomialNB, bigrams",
    "nbsvm": "NB-SVM, bigrams",
    "tfidf": "TF-IDF + LogisticRegression",
}


class LogCountRatio(TransformerMixin, BaseEstimator):
    """Scale binary counts by the log-count ratio of the second of two classes."""

    def fit(self, X, y):
        positive = np.asarray(y) == np.unique(y)[-1]
        p = 1 + np.asarray(X[positive].sum(axis=0)).ravel()
        q = 1 + np.asarray(X[~positive].sum(axis=0)).ravel()
        self.ratio_ = np.log((p / p.sum()) / (q / q.sum()))
        return self

    def transform(self, X):
        return X.multiply(self.ratio_).tocsr()


def make_baseline(name, texts):
    """Return an unfitted baseline; Chinese or Japanese texts are counted by characters."""
    unspaced = np.mean([len(tokenize(text)) > 3 * len(text.split()) for text in texts[:1000]]) > 0.5
    words = {"analyzer": "char"} if unspaced else {"token_pattern": r"(?u)\b\w+\b|[!?]"}
    bigrams = words | {"ngram_range": (1, 2)}
    svm = Pipeline([("ratio", LogCountRatio()), ("lr", LogisticRegression(C=4, max_iter=1000))])
    return {
        "mnb": make_pipeline(CountVectorizer(**words), MultinomialNB()),
        "mnb2": make_pipeline(CountVectorizer(**bigrams), MultinomialNB()),
        "nbsvm": make_pipeline(CountVectorizer(**bigrams, binary=True), OneVsRestClassifier(svm)),
        "tfidf": make_pipeline(
            TfidfVectorizer(**bigrams, sublinear_tf=True, min_df=2),
            LogisticRegression(C=10, max_iter=1000),
        ),
    }[name]
