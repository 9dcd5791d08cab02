"""What docs/works_with.md says of other libraries, apart from its blocks (``test_pages.py``)."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from sklstm import LSTMTextClassifier, LSTMTextRegressor
from tests.conftest import LABELS, TEXTS, TINY, distinct

ROOT = Path(__file__).parent.parent
PIP = 'not installed: pip install -e ".[interop]"'


def read_versions(page):
    """Return the version of each library in the table at the end of the page."""
    return dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", page, flags=re.MULTILINE))


def test_the_page_names_the_versions_that_are_tried():
    versions = read_versions((ROOT / "docs" / "works_with.md").read_text(encoding="utf-8"))
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["interop"]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in extra}
    assert versions.keys() == names - {"pandas", "alembic", "sqlalchemy"}
    by_name = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    assert versions == {name: by_name[name] for name in versions}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Return a function that lists the runs MLflow has logged, its autologging being on."""
    mlflow = pytest.importorskip("mlflow", reason=PIP)
    monkeypatch.chdir(tmp_path)  # where MLflow writes what is not in the database
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.sklearn.autolog(log_models=False)
    yield lambda: mlflow.search_runs(output_format="list")
    mlflow.sklearn.autolog(disable=True)


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_autologging_logs_no_part_of_a_fit(runs):
    several = np.array([[label == "pos", k % 2 == 0] for k, label in enumerate(LABELS)])
    params = TINY | {"blend": "ngrams", "max_epochs": 1}
    LSTMTextClassifier(**params).fit(*distinct(200)).partial_fit(["text good"], ["pos"])
    LSTMTextClassifier(**params).partial_fit(TEXTS, LABELS, classes=["neg", "pos"])
    LSTMTextClassifier(**params).fit(TEXTS, several)
    LSTMTextRegressor(**params).fit(TEXTS, np.arange(10.0)).partial_fit(TEXTS, np.arange(10.0))
    assert runs() == []


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_autologging_is_on_again_after_a_fit(runs):
    LSTMTextClassifier(**TINY | {"blend": "ngrams"}).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match="blend must be an estimator that can be fitted"):
        LSTMTextClassifier(**TINY | {"blend": LogisticRegression()}).fit(TEXTS, LABELS)
    LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    (run,) = runs()
    assert run.data.tags["estimator_name"] == "LogisticRegression"


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_optunas_callback_prunes_a_fit():
    optuna = pytest.importorskip("optuna", reason=PIP)
    integration = pytest.importorskip("optuna_integration", reason=PIP)
    epochs = []

    class Always(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            epochs.append(trial.last_step)
            return True

    def objective(trial):
        callbacks = [integration.SkorchPruningCallback(trial, "valid_loss")]
        LSTMTextClassifier(**TINY | {"callbacks": callbacks}).fit(*distinct(200))
        raise AssertionError("the fit was not pruned")

    study = optuna.create_study(pruner=Always())
    study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "PRUNED"]
    assert len(epochs) == 2


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_cleanlab_finds_the_wrong_labels():
    filters = pytest.importorskip("cleanlab.filter", reason=PIP)
    words = np.array(["bad", "good"])[np.arange(200) % 2]
    texts = [f"text {k} is {word}" for k, word in enumerate(words)]
    labels, wrong = (words == "good").astype(int), np.arange(7, 200, 19)
    labels[wrong] = 1 - labels[wrong]
    clf = LSTMTextClassifier(**TINY | {"blend": "ngrams"})
    probabilities = cross_val_predict(clf, texts, labels, cv=3, method="predict_proba")
    found = np.flatnonzero(filters.find_label_issues(labels, probabilities, n_jobs=1))
    assert found.tolist() == wrong.tolist()


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_river_learns():
    compat = pytest.importorskip("river.compat", reason=PIP)
    clf = LSTMTextClassifier(**TINY | {"blend": "ngrams"}).fit(TEXTS, LABELS)
    stream = compat.convert_sklearn_to_river(clf, classes=["neg", "pos"])
    before = stream.predict_proba_one({"text": "good"})["neg"]
    for _ in range(5):
        stream.learn_one({"text": "good"}, "neg")
    assert stream.predict_proba_one({"text": "good"})["neg"] > before
