"""scikit-learn's callbacks see each epoch, in pipelines and searches too, and can end a fit."""

import copy
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklstm import LSTMLanguageModel, LSTMTextClassifier, LSTMTextRegressor
from tests.conftest import LABELS, TEXTS, TINY, distinct

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")


class Log:
    """Notes each hook; ends the training after an epoch, or raises there."""

    def __init__(self, stop_after=None, fail_after=None):
        self.calls, self.models, self.data = [], [], []
        self.stop_after, self.fail_after = stop_after, fail_after

    def setup(self, estimator, context):
        self.calls.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        self.calls.append(f"begin {context.task_name}")
        self.data.append((X, y, metadata))

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.calls.append(f"end {context.task_name}")
        self.models.append(fitted_estimator)
        n_epochs = self.calls.count("end epoch")
        if context.task_name == "epoch" and n_epochs == self.fail_after:
            raise RuntimeError("no space left")
        return context.task_name == "epoch" and n_epochs == self.stop_after

    def teardown(self, estimator, context):
        self.calls.append("teardown")


def fit(estimator, *callbacks, **kwargs):
    return estimator.set_callbacks(*callbacks).fit(TEXTS, LABELS, **kwargs)


def make_tiny(**params):
    return LSTMTextClassifier(**TINY | {"max_epochs": 3} | params)


EPOCH = ["begin epoch", "end epoch"]


def test_each_epoch_is_a_task():
    log = Log()
    model = fit(make_tiny(), log)
    assert log.calls == ["setup", "begin fit", *EPOCH * 3, "end fit", "teardown"]
    assert vars(model).keys() - model.get_params(deep=False).keys() == {"model_", "_skl_callbacks"}
    assert "_Epochs" not in str(model.net_.callbacks_)


def test_a_fit_without_callbacks_has_the_same_bits():
    expected = make_tiny().fit(TEXTS, LABELS).predict_proba(TEXTS)
    found = fit(make_tiny(), Log()).predict_proba(TEXTS)
    np.testing.assert_array_equal(found, expected)


def test_they_get_the_training_data():
    log = Log()
    weights = np.arange(1, 11)
    make_tiny().set_callbacks(log).fit(iter(TEXTS), LABELS, sample_weight=weights)
    X, y, metadata = log.data[0]
    assert (X, y) == (TEXTS, LABELS) and metadata["sample_weight"] is weights


def test_the_estimator_of_an_epoch_is_that_of_a_fit_which_ended_there():
    """Its blend is calibrated, too; and it stays what it was while the training resumes."""
    params = {"blend": "ngrams", "lr_schedule": None, "n_iter_no_change": 3}
    data, log = distinct(300), Log()
    make_tiny(**params).set_callbacks(log).fit(*data)
    texts = data[0][:20]
    for n_epochs, model in enumerate(log.models[:-1], 1):
        # Early stopping would keep the best epoch; three improvements in a row keep the last.
        expected = make_tiny(**params, max_epochs=n_epochs).fit(*data)
        assert model.n_iter_ == n_epochs
        losses = [row["valid_loss"] for row in expected.history_]
        assert losses == sorted(losses, reverse=True)
        np.testing.assert_allclose(
            model.predict_proba(texts), expected.predict_proba(texts), rtol=1e-5
        )
    last, fitted = log.models[-2:]
    fitted.set_callbacks().partial_fit(TEXTS, LABELS)
    assert (last.n_iter_, fitted.n_iter_) == (3, 4)


def test_an_estimator_of_an_epoch_can_be_fitted_further_without_effect_on_the_training():
    class Meddler(Log):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            fitted_estimator.set_callbacks().partial_fit(TEXTS, LABELS)

    expected = make_tiny(dropout=0.5).fit(TEXTS, LABELS).predict_proba(TEXTS)
    found = fit(make_tiny(dropout=0.5), Meddler()).predict_proba(TEXTS)
    np.testing.assert_array_equal(found, expected)


def test_a_callback_ends_the_training():
    log = Log(stop_after=2)
    model = fit(make_tiny(max_epochs=5), log)
    assert log.calls == ["setup", "begin fit", *EPOCH * 2, "end fit", "teardown"]
    assert model.n_iter_ == 2 and len(model.loss_curve_) == 2


def test_a_callback_that_raises_leaves_the_earlier_fit():
    model = make_tiny().fit(TEXTS, LABELS)
    expected, log = model.predict_proba(TEXTS), Log(fail_after=1)
    with pytest.raises(RuntimeError, match="no space left"):
        fit(model, log)
    assert log.calls[-1] == "teardown"
    np.testing.assert_array_equal(model.predict_proba(TEXTS), expected)


def test_no_callback_is_refused():
    with pytest.raises(TypeError, match="FitCallback protocol"):
        make_tiny().set_callbacks("progress")


def test_an_error_in_the_texts_tears_down_nothing_that_was_not_set_up():
    log = Log()
    with pytest.raises(TypeError, match="single str"):
        make_tiny().set_callbacks(log).fit("one text", LABELS)
    assert log.calls == []


def test_partial_fit_is_one_epoch():
    log = Log()
    make_tiny().set_callbacks(log).partial_fit(TEXTS, LABELS, classes=["neg", "pos"])
    assert log.calls == ["setup", "begin fit", *EPOCH, "end fit", "teardown"]
    assert log.models[0].predict(TEXTS[:1]).shape == (1,)


@pytest.mark.parametrize("estimator", [LSTMTextRegressor, LSTMLanguageModel])
def test_other_estimators_have_them_too(estimator):
    params = {k: v for k, v in TINY.items() if k in estimator().get_params()}
    log = Log()
    model = estimator(**params | {"max_epochs": 2}).set_callbacks(log)
    model.fit(TEXTS, np.arange(10.0))
    assert log.calls.count("end epoch") == 2
    assert np.isfinite(log.models[0].score(TEXTS, np.arange(10.0)))


def test_the_monitor_scores_each_epoch(texts, labels):
    monitor = callback.ScoringMonitor(scoring="neg_log_loss")
    model = make_tiny().set_callbacks(monitor).fit(texts, labels)
    rows = monitor.get_logs().data
    assert [row["task_name"] for row in rows] == ["fit", "epoch", "epoch", "epoch"]
    scores = [row["neg_log_loss"] for row in rows]
    assert scores[1] < scores[2] < scores[3]
    assert scores[0] == pytest.approx(-log_loss(labels, model.predict_proba(texts)))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_passes_them_on(n_jobs, capsys):
    """The bar is set on the search, the monitor on the classifier, as scikit-learn says."""
    monitor = callback.ScoringMonitor(scoring="accuracy")
    pipeline = make_pipeline(make_tiny(max_epochs=2).set_callbacks(monitor))
    grid = {"lstmtextclassifier__lr": [0.01, 0.02]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs)
    search.set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(TEXTS, LABELS)
    rows = monitor.get_logs().data
    assert len(rows) == 5 * (2 + 1)  # four fits and the one of the best, each with two epochs
    assert "LSTMTextClassifier - fit" in capsys.readouterr().out


def test_they_are_shared_by_clones_and_survive_a_pickle():
    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = fit(make_tiny(), monitor)
    fit(clone(model))
    assert len(monitor.get_logs(select="all")) == 1
    clone(model).fit(TEXTS, LABELS)
    assert len(monitor.get_logs(select="all")) == 2
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert copy.deepcopy(model).fit(TEXTS, LABELS).n_iter_ == 3


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to itself")
def test_ctrl_c_inside_a_callback_keeps_the_model():
    class Interrupting(Log):
        def on_fit_task_end(self, estimator, context):
            super().on_fit_task_end(estimator, context)
            if self.calls.count("end epoch") == 2 and context.task_name == "epoch":
                signal.raise_signal(signal.SIGINT)

    log = Interrupting()
    with pytest.warns(UserWarning, match="interrupted after 1 epochs"):
        model = fit(make_tiny(), log)
    assert model.predict(TEXTS).shape == (10,) and log.calls[-1] == "teardown"


def test_scikit_learn_before_1_9_has_none():
    """Without ``sklearn.callback`` the package imports and fits; there is no set_callbacks."""
    program = """
import sys
import sklearn.ensemble, sklearn.model_selection, sklearn.pipeline, skorch
sys.modules["sklearn.callback"] = None
from sklstm import LSTMTextClassifier
from tests.conftest import LABELS, TEXTS, TINY
model = LSTMTextClassifier(**TINY).fit(TEXTS, LABELS)
assert not hasattr(model, "set_callbacks") and not hasattr(model, "_callback_fit_ctx")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
