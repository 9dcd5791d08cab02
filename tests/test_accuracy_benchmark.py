"""The accuracy benchmark judges rightly, splits without leaks, and goes on where it was ended."""

import importlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import VotingClassifier
from sklearn.metrics import log_loss
from skorch.callbacks import Callback

from sklstm import LSTMTextClassifier
from sklstm.datasets import load_docstrings

ROOT = Path(__file__).parent.parent
MARKS = ("validation", "test", "curves")


@pytest.fixture
def module(monkeypatch):
    """Return a function that imports a script of the benchmarks."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return importlib.import_module


@pytest.fixture(scope="module")
def texts_and_labels():
    docstrings = load_docstrings()
    table = pd.DataFrame({"text": docstrings.data, "label": docstrings.target})
    return table.drop_duplicates("text").sample(150, random_state=0)


@pytest.fixture
def folder(texts_and_labels, tmp_path, monkeypatch):
    """Return a folder of one data set, docstrings, with repeats and a test text seen in train."""
    table = texts_and_labels
    (tmp_path / "data" / "docstrings").mkdir(parents=True)
    train = pd.concat([table[:110], table[:20]])
    train.to_csv(tmp_path / "data" / "docstrings" / "train.csv.xz", index=False)
    table[109:].to_csv(tmp_path / "data" / "docstrings" / "test.csv", index=False)
    monkeypatch.setenv("SKLSTM_DATA", str(tmp_path / "data"))
    page = "".join(
        f"# {mark}\n\n<!-- {mark}: begin -->\nold\n<!-- {mark}: end -->\n" for mark in MARKS
    )
    (tmp_path / "page.md").write_text(page)
    return tmp_path


# Judging


def test_measures_by_hand(module):
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    seen = np.array([False, False, False, True])
    measures = module("judging").judge(np.array([0, 1, 1, 1]), probabilities, seen=seen)
    assert measures["accuracy"] == 0.5
    assert measures["accuracy_unseen"] == pytest.approx(2 / 3)
    # Class 0: its one text is found, beside two others; class 1: one of three is found.
    assert measures["macro_f1"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert measures["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.3]).mean())
    # Each stands in a bin of its own.
    assert measures["ece"] == pytest.approx((0.1 + 0.6 + 0.2 + 0.7) / 4)


def test_calibration_errors_within_a_bin_cancel(module):
    confidence = np.full(10, 0.7)
    right = np.arange(10) < 7
    assert module("judging").expected_calibration_error(confidence, right) == pytest.approx(0)
    assert module("judging").expected_calibration_error(np.ones(4), np.ones(4)) == 0


def test_floor_of_the_calibration_error_falls_with_the_root_of_the_rows(module):
    # Not the seed of the floor itself, whose numbers these would be.
    confidence = np.random.default_rng(1).uniform(0.5, 1.0, 40_000)
    floor = module("judging").calibration_floor
    assert floor(confidence[:400]) == pytest.approx(10 * floor(confidence), rel=0.1)
    assert 0.02 < floor(confidence[:400]) < 0.08


def test_mcnemar_by_hand(module):
    right = np.array([True] * 6 + [False] * 4)
    other = np.array([True] * 1 + [False] * 9)
    judging = module("judging")
    assert judging.mcnemar(right, other) == pytest.approx(2 * 0.5**5)
    assert judging.mcnemar(other, other) == 1.0
    seeds = np.array([right, other, [True] * 10])
    assert (judging.median_seed(seeds) == right).all()
    assert (judging.median_seed(seeds[:2]) == other).all()


def test_paired_bootstrap_knows_the_normal_limit_and_no_difference(module):
    bootstrap = module("judging").paired_bootstrap
    rng = np.random.default_rng(0)
    other = rng.random(2000) < 0.8
    better = other.copy()
    better[np.flatnonzero(~other)[:40]] = True
    result = bootstrap(better[None], other)
    error = np.std(better.astype(float) - other) / np.sqrt(2000)
    assert result["difference"] == pytest.approx(0.02)
    assert result["low"] == pytest.approx(0.02 - 1.96 * error, abs=0.001)
    assert result["high"] == pytest.approx(0.02 + 1.96 * error, abs=0.001)
    assert result["p"] < 0.001
    assert bootstrap(np.array([other, other]), other)["p"] == 1.0


def test_paired_bootstrap_is_wider_where_seeds_differ(module):
    other = np.zeros(1000, dtype=bool)
    alike = np.tile(np.arange(1000) < 500, (4, 1))
    differing = np.arange(1000) < np.array([[200], [400], [600], [800]])
    results = [module("judging").paired_bootstrap(rights, other) for rights in (alike, differing)]
    widths = [result["high"] - result["low"] for result in results]
    assert results[0]["difference"] == results[1]["difference"] == 0.5
    assert widths[1] > 3 * widths[0]


# Splits


def test_validation_keeps_equal_texts_together_and_the_test_file_closed(module, folder):
    (folder / "data" / "docstrings" / "test.csv").unlink()
    task = module("tasks").load_task("docstrings", "validation")
    assert len(task.texts) + len(task.judged_texts) == 130
    assert 16 <= len(task.judged_texts) <= 36
    assert not task.seen.any()
    shares = [
        np.unique(labels, return_counts=True)[1] / len(labels)
        for labels in (task.labels, task.judged_labels)
    ]
    assert np.abs(shares[0] - shares[1]).max() < 0.1
    again = module("tasks").load_task("docstrings", "validation")
    assert again.rows_hash == task.rows_hash


def test_test_rows_seen_in_training_are_known(module, folder):
    task = module("tasks").load_task("docstrings", "test")
    assert len(task.texts) == 130 and task.seen.tolist() == [True] + [False] * 40


def test_draws_are_nested_and_judged_rows_fixed(module, folder):
    task = module("tasks").load_task("docstrings", "test")
    small, large = task.draw(20, seed=1), task.draw(60, seed=1)
    assert large.texts[:20] == small.texts != task.draw(20, seed=2).texts[:20]
    label_of = dict(zip(task.texts, task.labels, strict=True))
    assert [label_of[text] for text in small.texts] == small.labels.tolist()
    judged = task.judge_by(10)
    assert judged.judged_texts == task.judge_by(10).judged_texts
    assert len(judged.judged_texts) == len(judged.judged_labels) == 10
    assert len({task.rows_hash, small.rows_hash, large.rows_hash, judged.rows_hash}) == 4


def test_data_that_is_not_there_is_named(module, folder):
    with pytest.raises(SystemExit, match=r"got \['nowhere'\], there are \['docstrings'\]"):
        module("tasks").find_data(["nowhere"])
    (folder / "data" / "docstrings" / "test.csv").unlink()
    with pytest.raises(SystemExit, match=r"must hold one test.csv, plain or compressed; got \[\]"):
        module("tasks").load_task("docstrings", "test")


# Systems


def test_specs_become_parameters(module, folder):
    systems = module("systems")
    task = module("tasks").load_task("docstrings", "validation")
    spec = "lstm:hidden_size=7,pooling=('max','mean'),cell=peephole,vectorizer__min_df=2,ema=None"
    system = systems.System(spec)
    model = system.make(task, seed=3)
    assert (model.hidden_size, model.pooling, model.cell) == (7, ("max", "mean"), "peephole")
    assert (model.vectorizer.min_df, model.ema, model.random_state) == (2, None, 3)
    assert system.random and system.title == f"`{spec}`"
    linear = systems.System("tfidf:logisticregression__C=3")
    assert linear.make(task, seed=0)[-1].C == 3 and not linear.random
    _, settings = systems.parse_spec("lstm:vectorizer=nbsvm,cell='nbsvm'")
    assert settings == {"vectorizer": systems.Baseline("nbsvm"), "cell": "nbsvm"}


def test_what_a_spec_names_is_made(module, folder, monkeypatch):
    systems = module("systems")
    task = module("tasks").load_task("docstrings", "validation")
    model = systems.System("lstm:callbacks=mnb").make(task, seed=0)
    assert type(model.callbacks[-1]).__name__ == "MultinomialNB"
    made = systems.Variant("Made", "lm:vectorizer__max_length=400", random=False)
    monkeypatch.setitem(systems.VARIANTS, "made", made)
    system = systems.System("made")
    model = system.make(task, 4)
    assert model.pretrained == systems.LANGUAGE_MODEL and model.vectorizer.max_length == 400
    assert model.random_state == 4 and system.title == "Made" and not system.random
    assert system.order == len(systems.BASELINES) + len(systems.VARIANTS) - 1


@pytest.mark.parametrize("spec", ["lstm:3", "lstm:**a", "lstm:a=", "lstm:a=b(1)"])
def test_a_spec_that_is_none_is_refused(module, spec):
    with pytest.raises(SystemExit, match="must be written name:parameter=value"):
        module("systems").System(spec)


def test_an_unknown_system_is_refused(module):
    with pytest.raises(SystemExit, match="A system must be one of .* got 'svm'"):
        module("systems").System("svm")


def test_descriptions_tell_configurations_apart(module, folder):
    systems = module("systems")
    task = module("tasks").load_task("docstrings", "validation")

    def name(spec, seed=0):
        return systems.hash_description(systems.describe(systems.System(spec).make(task, seed)))

    assert name("lstm") == name("lstm:hidden_size=128") == name("lstm", seed=5)
    assert name("lstm") == name("lstm:vectorizer__max_length=256,verbose=1")
    specs = ["lstm", "lstm:ema=None", "lstm:vectorizer__min_df=3", "nbsvm", "mnb", "mnb2"]
    assert len(set(map(name, specs))) == len(specs)
    values = {"a": np.arange(3), "b": [np.mean, (1, None)]}
    assert systems.describe(values) == systems.describe(dict(values))
    assert systems.describe(values) != systems.describe(values | {"a": np.arange(1, 4)})
    for name, content in (("one", "same"), ("two", "same"), ("three", "other")):
        (folder / name).write_text(content)
    files = [systems.describe(folder / name) for name in ("one", "two", "three")]
    assert files[0] == files[1] != files[2]  # the content counts, not the place


# Runs and tables


def run(folder, script, *options):
    command = [sys.executable, "-W", "error", ROOT / "benchmarks" / script, *options]
    command += ["--results", folder / "results"]
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def records(folder, part):
    paths = sorted((folder / "results" / part / "docstrings").glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


TINY_SETTINGS = {"max_epochs": 1, "hidden_size": 4, "embedding_dim": 4}
TINY = "lstm:" + ",".join(f"{name}={value}" for name, value in TINY_SETTINGS.items())


@pytest.mark.slow
def test_benchmark_of_accuracy(folder):
    options = ["--systems", "mnb", "tfidf", TINY, "--seeds", "0", "1", "--threads", "1"]
    result = run(folder, "accuracy.py", *options)
    assert result.returncode == 0, result.stderr
    found = records(folder, "validation")
    assert sorted(record["spec"] for record in found) == [TINY, TINY, "mnb", "tfidf"]
    assert "the best baseline" in result.stdout and "McNemar p" in result.stdout

    path = next((folder / "results").glob("validation/docstrings/mnb*.json"))
    path.unlink()  # as if the benchmark had been ended before
    again = run(folder, "accuracy.py", *options)
    assert again.stdout.count("(kept)") == 3 and path.exists()

    # One system fails; the others run.
    options[1:3] = ["lstm:dropout=2", "nbsvm"]
    result = run(folder, "accuracy.py", "docstrings", "--split", "test", *options)
    assert result.returncode == 1
    assert "'dropout' parameter" in result.stderr and "2 runs failed" in result.stderr
    assert {record["spec"] for record in records(folder, "test")} == {"nbsvm", TINY}
    assert all(record["n_seen"] == 1 for record in records(folder, "test"))

    result = run(folder, "accuracy.py", "--render", folder / "page.md")
    assert result.returncode == 0, result.stderr
    page = (folder / "page.md").read_text()
    assert "beside the baselines: 1 different ones in 2 runs" in page and "| unseen texts |" in page
    tried = [record for record in found if record["spec"] == TINY]
    accuracy, loss = (np.mean([run[name] for run in tried]) for name in ("accuracy", "log_loss"))
    assert f"| `{TINY}` | {100 * accuracy:.1f} ({loss:.3f}), 2 |" in page.replace("\xa0", " ")
    assert page.count("old") == 1 and "NB-SVM, bigrams" in page and "**" in page


@pytest.mark.slow
def test_benchmark_of_learning_curves(folder):
    options = ["--systems", "nbsvm", TINY, "--sizes", "40", "60", "5000", "--seeds", "2"]
    result = run(folder, "learning_curves.py", *options)
    assert result.returncode == 0, result.stderr
    found = pd.DataFrame(records(folder, "curves-validation"))
    n_train = found["n_train"].max()
    assert 90 < n_train < 115
    counts = found.groupby(["spec", "n_train"]).size()
    assert counts.to_dict() == {
        (spec, size): 2 for spec in ("nbsvm", TINY) for size in (40, 60, n_train)
    }
    refused = run(folder, "learning_curves.py", "--split", "test", "--render", folder / "page.md")
    assert refused.returncode == 1 and "must hold runs of curves-test; got none" in refused.stderr
    result = run(folder, "learning_curves.py", "--render", folder / "page.md")
    assert result.returncode == 0, result.stderr
    plot = folder / "images" / "learning_curves.svg"
    assert plot.read_text().startswith("<?xml") and plot.stat().st_size < 100_000
    page = (folder / "page.md").read_text()
    assert "(images/learning_curves.svg)" in page and "| docstrings, accuracy | 40 | 60 |" in page


@pytest.fixture
def results(module, folder):
    with module("runs").Results(folder / "results") as opened:
        yield opened


def test_runs_are_kept_claimed_and_written_whole(module, folder, results):
    runs, tasks, systems = module("runs"), module("tasks"), module("systems")
    task, system = tasks.load_task("docstrings", "test"), systems.System("mnb")
    first = results.run(system, task, 0, threads=1)
    assert first["new"] and first["alone"] and first["n_iter"] is None
    assert not results.run(system, task, 0, threads=1)["new"]
    (record,) = results.load("test", "docstrings")
    assert runs.load_arrays(record)["right"].mean() == first["accuracy"]
    with np.load(Path(record["path"]).with_suffix(".npz")) as arrays:
        assert np.allclose(arrays["probabilities"].sum(axis=1), 1, atol=1e-6)
        right = arrays["probabilities"].argmax(axis=1) == arrays["targets"]
    assert (right == runs.load_arrays(record)["right"]).all()
    here = Path(record["path"]).parent
    assert sorted(path.suffix for path in here.iterdir()) == [".json", ".npz"]

    here.joinpath(Path(record["path"]).name).unlink()
    with runs.claim(Path(record["path"]).with_suffix(".lock")) as claimed:
        assert claimed
        assert results.run(system, task, 0, threads=1) is None  # it is with another process


class Interrupt(Callback):
    """Ctrl-C after the first epoch."""

    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def test_an_interrupted_fit_is_not_kept(module, folder, results, monkeypatch):
    systems, task = module("systems"), module("tasks").load_task("docstrings", "validation")
    system = systems.System(TINY)
    whole = system.make
    monkeypatch.setattr(system, "make", lambda *a: whole(*a).set_params(callbacks=[Interrupt()]))
    with pytest.raises(KeyboardInterrupt):
        results.run(system, task, 0, threads=1)
    assert results.load("validation") == []
    assert results.run(systems.System(TINY), task, 0, threads=1)["new"]


def test_parts_are_judged_of_one_fit(module, folder, results, monkeypatch):
    systems, task = module("systems"), module("tasks").load_task("docstrings", "validation")
    for name, part in (
        ("all", None),
        ("net", systems.network_alone),
        ("n", systems.baseline_alone),
    ):
        monkeypatch.setitem(systems.VARIANTS, name, systems.Variant(name, TINY, part=part))
    fits, fit = [], LSTMTextClassifier.fit
    monkeypatch.setattr(LSTMTextClassifier, "fit", lambda *a: fits.append(1) or fit(*a))
    records = [
        results.run(systems.System(name), task, 0, threads=1) for name in ("all", "net", "n")
    ]
    assert len(fits) == 1
    assert len({record["log_loss"] for record in records}) == 3
    assert [record["alone"] for record in records] == [True, False, False]  # no seconds of theirs
    assert len({record["fit_s"] for record in records}) == 1
    results.run(systems.System("net"), task, 1, threads=1)
    assert len(fits) == 2
    classifier = LSTMTextClassifier(random_state=0, **TINY_SETTINGS).fit(task.texts, task.labels)
    judged = systems.baseline_alone(classifier).predict_proba(task.judged_texts)
    right = classifier.classes_[judged.argmax(axis=1)] == task.judged_labels
    assert records[2]["accuracy"] == pytest.approx(np.mean(right))


def test_other_warnings_of_a_fit_pass(module):
    class Warns(DummyClassifier):
        def fit(self, X, y):
            warnings.warn("the texts are dull", UserWarning, stacklevel=2)

    task = SimpleNamespace(texts=["a"], labels=["b"])
    with pytest.raises(UserWarning, match="the texts are dull"):
        module("runs").fit(Warns(), task, threads=1)


@pytest.mark.parametrize("seconds, n_seeds", [(59.0, 5), (60.0, 3)])
def test_a_system_of_slow_fits_has_fewer_seeds(module, folder, seconds, n_seeds):
    accuracy, systems = module("accuracy"), module("systems")
    task = module("tasks").load_task("docstrings", "validation")
    options = SimpleNamespace(seeds=None, time=False, threads=1)
    done = []

    class Done:
        def run(self, system, task, seed, **settings):
            done.append((system.spec, seed))
            return None  # another process has it

        def load(self, part, data):
            return [{"spec": "lstm", "fit_s": seconds}, {"spec": "mnb", "fit_s": 99}]

    chosen = [systems.System("mnb"), systems.System("lstm")]
    assert accuracy.run_all(Done(), chosen, task, options) == 0
    assert done == [("mnb", 0), *(("lstm", seed) for seed in range(n_seeds))]
    done.clear()
    accuracy.run_all(Done(), chosen, task, SimpleNamespace(seeds=[7, 8], time=True, threads=1))
    assert done == [("mnb", 7), ("lstm", 7)]


def test_processes_know_of_each_other(module, folder, results):
    assert results.alone()
    with module("runs").Results(folder / "results") as other:
        assert not results.alone() and not other.alone()
    assert results.alone()


def test_classes_missing_in_training_have_probability_0(module, folder, results):
    task = module("tasks").load_task("docstrings", "test")
    kept = np.flatnonzero(task.labels != task.classes[0])
    texts = [task.texts[row] for row in kept]
    task = replace(task, texts=texts, labels=task.labels[kept])
    record = results.run(module("systems").System("mnb"), task, 0, threads=1)
    (kept,) = results.load("test")
    with np.load(Path(kept["path"]).with_suffix(".npz")) as arrays:
        assert (arrays["probabilities"][:, 0] == 0).all()
    assert record["accuracy"] < 1 and np.isfinite(record["log_loss"])


def test_seconds_are_quoted_of_two_threads_alone(module, folder, results):
    tables, system = module("tables"), module("systems").System("nbsvm")
    task = module("tasks").load_task("docstrings", "validation")
    results.run(system, task, 0, threads=1)
    (row,) = tables.collect(results, "validation", "docstrings")
    assert row.fit_s == []
    timed = results.run(system, task, 0, threads=2, timing=True)
    assert "accuracy" not in timed
    (row,) = tables.collect(results, "validation", "docstrings")
    assert row.fit_s == [timed["fit_s"]] and len(row.runs) == 1
    assert f"| {timed['fit_s']:.1f} |" in tables.table([row])[-1]


def test_only_the_newest_configuration_counts(module, folder, results, monkeypatch):
    tables, runs, systems = module("tables"), module("runs"), module("systems")
    task = module("tasks").load_task("docstrings", "validation")
    for day, C in enumerate((1.0, 2.0)):
        spec = f"tfidf:logisticregression__C={C}"
        variant = systems.Variant("Linear", spec)
        monkeypatch.setitem(systems.VARIANTS, "linear", variant)
        surroundings = runs.surroundings() | {"finished": f"2030-01-0{day + 1}"}
        monkeypatch.setattr(runs, "surroundings", lambda fixed=surroundings: fixed)
        results.run(systems.System("linear"), task, 0, threads=1)
        monkeypatch.undo()
        monkeypatch.setenv("SKLSTM_DATA", str(folder / "data"))
        monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    monkeypatch.setitem(systems.VARIANTS, "linear", variant)
    (row,) = tables.collect(results, "validation", "docstrings")
    (run,) = row.runs
    assert run["finished"] == "2030-01-02" and row.against is None
    assert tables.configurations(results) == [
        "Configurations tried on validation rows, beside the baselines: 2 different ones in 2 "
        "runs (docstrings 2)."
    ]


def test_seeds_together_are_a_voting_classifier(module, folder, results, monkeypatch):
    tables, systems = module("tables"), module("systems")
    variant = systems.Variant("Tiny", f"{TINY},baseline=None,lr=0.1", together="Tiny together")
    monkeypatch.setitem(systems.VARIANTS, "tiny", variant)
    task = module("tasks").load_task("docstrings", "test")
    for seed in range(3):
        assert len(tables.collect(results, "test", "docstrings")) == min(seed, 1)
        results.run(systems.System("tiny"), task, seed, threads=1)
    tiny = LSTMTextClassifier(**TINY_SETTINGS, baseline=None, lr=0.1)
    members = [(str(seed), clone(tiny).set_params(random_state=seed)) for seed in range(3)]
    votes = VotingClassifier(members, voting="soft").fit(task.texts, task.labels)
    one, together = tables.collect(results, "test", "docstrings")
    (judged,) = together.runs
    expected = log_loss(task.judged_labels, votes.predict_proba(task.judged_texts))
    assert judged["log_loss"] == pytest.approx(expected, rel=1e-6)
    assert one.mean("log_loss") > expected * 1.001
    assert judged["accuracy"] == votes.score(task.judged_texts, task.judged_labels)
    assert tables.table([one, together])[-1].startswith("| Tiny together | 3 | ")


def test_a_page_without_marks_is_refused(module, tmp_path):
    (tmp_path / "page.md").write_text("nothing")
    with pytest.raises(SystemExit, match="must hold '<!-- test: begin -->' and an end"):
        module("tables").fill(tmp_path / "page.md", "test", ["line"])
