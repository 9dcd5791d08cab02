"""The fits of n-grams use one thread of BLAS; threads of OpenMP wait asleep."""

import os
import subprocess
import sys

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_info, threadpool_limits

from sklstm import LSTMTextClassifier
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


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_threads_wait_asleep_unless_the_user_says_otherwise(given):
    variables = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    variables |= {} if given is None else {"OMP_WAIT_POLICY": given}
    code = "import os, sklstm; print(os.environ['OMP_WAIT_POLICY'])"
    run = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == (given or "PASSIVE")
