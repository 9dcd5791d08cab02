"""What the member of n-grams predicts of classes, without scikit-learn's checks of any input.

The checks of a pipeline, of a voting classifier and of its members take longer than the arithmetic
of one text, whose features are ours.
"""

import numpy as np
from scipy.special import expit
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.utils.extmath import softmax

from sklstm.ngrams.naive_bayes import NaiveBayesLogisticRegression
from sklstm.ngrams.vectorizer import NgramVectorizer

MODELS = [LogisticRegression, NaiveBayesLogisticRegression]


def can_predict(member) -> bool:
    """Return whether a fitted member is as ``linear.py`` makes it for classes."""
    if type(member) is not Pipeline or len(member.steps) != 2:
        return False
    ngrams, voting = (step for _, step in member.steps)
    if type(ngrams) is not NgramVectorizer or type(voting) is not VotingClassifier:
        return False
    models = getattr(voting, "estimators_", [])
    if voting.voting != "soft" or voting.weights is not None or [*map(type, models)] != MODELS:
        return False
    # Of more than two classes liblinear's model is another one, as was that of 'multi_class'.
    one = models[0]
    return one.solver != "liblinear" and getattr(one, "multi_class", "deprecated") == "deprecated"


def predict_proba(member: Pipeline, texts: list[str]) -> np.ndarray:
    """Return what ``member.predict_proba(texts)`` does, to the last bit, (n_texts, n_classes)."""
    ngrams, voting = (step for _, step in member.steps)
    logistic, naive_bayes = voting.estimators_
    features = ngrams.transform(texts)
    odds = features @ logistic.coef_.T + logistic.intercept_
    if len(logistic.classes_) == 2:
        yes = expit(odds[:, 0])
        of_values = np.stack([1 - yes, yes], axis=1)
    else:
        of_values = softmax(odds, copy=False)
    return np.mean([of_values, naive_bayes.predict_proba(features)], axis=0)
