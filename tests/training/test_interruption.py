"""Ctrl-C keeps what was learnt; in a search it ends the search."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.ensemble import VotingClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

from sklstm.training.interruption import report_interruption
from tests.conftest import distinct


class PressCtrlC(Callback):
    """Sends this process the signal of Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, net, **kwargs):
        if len(net.history) == self.epoch and len(net.history[-1]["batches"]) == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_keeps_the_best_weights_so_far(tiny):
    texts, labels = distinct(200)
    held = {"X_val": texts[:100], "y_val": labels[:100]}
    tiny.set_params(callbacks=[PressCtrlC(3)], calibrate=False)
    match = "interrupted after 2 epochs; the best weights so far are"
    with pytest.warns(UserWarning, match=match) as caught:
        tiny.fit(texts, labels, **held)
    assert caught[0].filename == __file__  # the line of the user's code
    assert tiny.n_iter_ == 2 == len(tiny.validation_scores_)
    score = -log_loss(labels[:100], tiny.predict_proba(texts[:100]))
    assert score == pytest.approx(max(tiny.validation_scores_), abs=1e-6)


def test_ctrl_c_in_the_first_epoch_leaves_a_fitted_estimator(tiny, texts, labels):
    tiny.set_params(callbacks=[PressCtrlC(1)])
    with pytest.warns(UserWarning, match="interrupted after 0 epochs; the newest weights so far"):
        tiny.fit(texts, labels)
    assert tiny.n_iter_ == 0
    assert np.isfinite(tiny.predict_proba(texts)).all()


def test_ctrl_c_in_partial_fit_keeps_what_was_learnt(tiny, texts, labels):
    tiny.partial_fit(texts, labels, classes=["neg", "pos"])
    tiny.set_params(callbacks=[PressCtrlC(2)])
    before = tiny.predict_proba(texts)
    with pytest.warns(UserWarning, match="interrupted after 1 epochs; the newest weights so far"):
        tiny.partial_fit(texts, labels)
    assert np.abs(tiny.predict_proba(texts) - before).max() > 1e-4


def test_ctrl_c_while_validating_drops_the_unfinished_epoch(tiny):
    texts, labels = distinct(200)
    calls = []

    def press(estimator, X, y):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return 0.5

    with pytest.warns(UserWarning, match="interrupted after 2 epochs"):
        tiny.set_params(scoring=press).fit(texts, labels)
    assert tiny.n_iter_ == len(tiny.loss_curve_) == len(tiny.validation_scores_) == 2


def test_ctrl_c_while_calibrating_keeps_the_training(tiny, monkeypatch):
    def press(*arguments, **others):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("sklstm.model.blending.fit_blend", press)
    with pytest.warns(UserWarning, match="interrupted after 2 epochs"):
        tiny.set_params(max_epochs=2, batch_size=32).fit(*distinct())
    assert tiny.temperature_ == 1.0


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_in_a_worker_ends_the_search(tiny, texts, labels, n_jobs):
    tiny.set_params(callbacks=[PressCtrlC(1)])
    search = GridSearchCV(tiny, {"lr": [0.1, 0.2]}, cv=2, n_jobs=n_jobs)
    with pytest.raises((KeyboardInterrupt, TerminatedWorkerError)):
        search.fit(texts, labels)


class Interrupted(ClassifierMixin, TransformerMixin, BaseEstimator):
    """Is interrupted by Ctrl-C in its first fit."""

    def fit(self, X, y=None):
        self.classes_ = np.unique(y)
        report_interruption(SimpleNamespace(history=[], validation_scores=[]))
        return self

    def transform(self, X):
        return X

    def predict(self, X):
        return self.classes_[[0] * len(X)]


X, Y = [[1], [2], [3], [4]], [0, 0, 1, 1]


@pytest.mark.parametrize(
    "fit",
    [
        lambda: Interrupted().fit(X, Y),
        lambda: Interrupted().fit_transform(X, Y),
        lambda: make_pipeline(Interrupted()).fit(X, Y),
        lambda: make_pipeline(Interrupted(), "passthrough").fit_transform(X, Y),
    ],
)
def test_a_single_fit_warns(fit):
    with pytest.warns(UserWarning, match="interrupted after 0 epochs; the newest weights"):
        fit()


@pytest.mark.parametrize(
    "fit",
    [
        lambda: GridSearchCV(Interrupted(), {}, cv=2).fit(X, Y),
        lambda: cross_val_score(Interrupted(), X, Y, cv=2),
        lambda: VotingClassifier([("a", Interrupted())]).fit(X, Y),
    ],
)
def test_fits_of_many_estimators_end(fit):
    with pytest.raises(KeyboardInterrupt):
        fit()
