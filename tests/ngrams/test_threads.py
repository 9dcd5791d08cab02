"""The fits of n-grams use one thread of BLAS, and one for each linear model of several classes."""

import threading

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_info, threadpool_limits

from sklstm import LSTMTextClassifier
from sklstm.ngrams.naive_bayes import NaiveBayesLogisticRegression
from sklstm.ngrams.threads import one_blas_thread
from tests.conftest import LABELS, TEXTS, TINY


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("early_stopping", [True, False])
def test_fits_of_n_grams_use_one_thread_of_blas(early_stopping, monkeypatch):
    seen = []

    def fit(self, *args, _fit=LogisticRegression.fit, **kwargs):
        seen.append(blas_threads())
        return _fit(self, *args, **kwargs)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    settings = TINY | {"early_stopping": early_stopping, "max_epochs": 1, "blend": "ngrams"}
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        LSTMTextClassifier(**settings).fit(TEXTS * 3, LABELS * 3)
        assert blas_threads() == before
    assert seen and all(threads == {1} for threads in seen)


def test_a_member_of_the_users_keeps_its_threads(monkeypatch):
    seen = []

    def fit(self, *args, _fit=MultinomialNB.fit, **kwargs):
        seen.append(blas_threads())
        return _fit(self, *args, **kwargs)

    monkeypatch.setattr(MultinomialNB, "fit", fit)
    member = make_pipeline(CountVectorizer(), MultinomialNB())
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        LSTMTextClassifier(**TINY | {"blend": member, "max_epochs": 1}).fit(TEXTS, LABELS)
    assert seen and all(threads == before for threads in seen)


def test_fits_in_several_threads_leave_the_limit_as_it_was():
    """Each would otherwise restore what it found, and the last one found the other's limit."""
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before


@pytest.mark.parametrize(("n_classes", "n_threads"), [(2, 2), (3, 2), (3, 1)])
def test_linear_models_of_several_classes_are_fitted_in_threads(n_classes, n_threads, monkeypatch):
    """With the same bits; one after another where torch may use one thread."""
    seen = []

    def fit(self, *args, _fit=NaiveBayesLogisticRegression.fit, **kwargs):
        seen.append(threading.current_thread())
        return _fit(self, *args, **kwargs)

    monkeypatch.setattr(NaiveBayesLogisticRegression, "fit", fit)
    labels = [k % n_classes for k in range(3 * len(TEXTS))]
    settings = TINY | {"max_epochs": 1, "blend": "ngrams", "calibrate": False}
    predicted = []
    for n in (n_threads, 1):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n: n)
        model = LSTMTextClassifier(**settings).fit(TEXTS * 3, labels)
        predicted.append(model.member_.predict_proba(TEXTS))
    np.testing.assert_array_equal(*predicted)
    elsewhere = [thread is not threading.current_thread() for thread in seen]
    assert elsewhere == [n_classes > 2 and n_threads > 1, False]
