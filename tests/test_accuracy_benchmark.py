"""The accuracy benchmark scores rightly, splits without leaks, and resumes where it was ended."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.metrics import log_loss
from sklearn.utils.fixes import parse_version
from skorch.callbacks import Callback

from sklstm import LSTMTextClassifier
from sklstm.datasets import load_docstrings

SCRIPTS = Path(__file__).parent.parent / "benchmarks" / "accuracy"
MARKS = ("validation", "test", "curves")
TINY_SETTINGS = {"max_epochs": 1, "hidden_size": 4, "embedding_dim": 4}
TINY = "lstm:" + ",".join(f"{name}={value}" for name, value in TINY_SETTINGS.items())


@pytest.fixture
def module(monkeypatch):
    """Return a function that imports a script of the benchmark."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def test_data_are_sought_next_to_the_repository(module, monkeypatch):
    monkeypatch.delenv("SKLSTM_DATA", raising=False)
    assert module("data_sets").data_folder() == SCRIPTS.parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def table():
    docstrings = load_docstrings()
    table = pd.DataFrame({"text": docstrings.data, "label": docstrings.target})
    return table.drop_duplicates("text").sample(150, random_state=0)


@pytest.fixture
def folder(table, tmp_path, monkeypatch):
    """Return a folder of one data set, docstrings, with repeats and a test text seen in train."""
    data = tmp_path / "data" / "docstrings"
    data.mkdir(parents=True)
    pd.concat([table[:110], table[:20]]).to_csv(data / "train.csv.xz", index=False)
    table[109:].to_csv(data / "test.csv", index=False)
    monkeypatch.setenv("SKLSTM_DATA", str(tmp_path / "data"))
    marks = (f"<!-- {mark}: begin -->\nold\n<!-- {mark}: end -->\n" for mark in MARKS)
    (tmp_path / "page.md").write_text("".join(marks))
    return tmp_path


@pytest.fixture
def load(module, folder):
    """Return a function from a split to the data set."""
    return lambda split: module("data_sets").load_data_set("docstrings", split)


@pytest.fixture
def results(module, folder):
    with module("runs").Results(folder / "results") as opened:
        yield opened


# Scores and paired tests


def test_scores_by_hand(module):
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    seen = np.array([False, False, False, True])
    scores = module("scores").score(np.array([0, 1, 1, 1]), probabilities, seen=seen)
    assert scores["accuracy"] == 0.5
    assert scores["accuracy_unseen"] == pytest.approx(2 / 3)
    # Class 0: its one text is found, with two others; class 1: one of three is found.
    assert scores["macro_f1"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert scores["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.3]).mean())
    # Each is in a bin of its own.
    assert scores["ece"] == pytest.approx((0.1 + 0.6 + 0.2 + 0.7) / 4)


def test_calibration_error_cancels_within_a_bin_and_its_floor_falls_with_the_rows(module):
    scores = module("scores")
    error = scores.expected_calibration_error(np.full(10, 0.7), np.arange(10) < 7)
    assert error == pytest.approx(0)
    # Not the seed of the floor itself, whose numbers these would be.
    confidence = np.random.default_rng(1).uniform(0.5, 1.0, 40_000)
    few, many = (scores.calibration_floor(confidence[:n]) for n in (400, 40_000))
    assert 0.02 < few < 0.08 and few == pytest.approx(10 * many, rel=0.1)


def test_mcnemar_by_hand(module):
    scores = module("scores")
    right = np.array([True] * 6 + [False] * 4)
    other = np.array([True] * 1 + [False] * 9)
    assert scores.mcnemar(right, other) == pytest.approx(2 * 0.5**5)
    assert scores.mcnemar(other, other) == 1.0
    seeds = np.array([right, other, [True] * 10])
    assert (scores.median_seed(seeds) == right).all()
    assert (scores.median_seed(seeds[:2]) == other).all()


def test_paired_bootstrap_is_near_the_normal_limit_and_wider_where_seeds_differ(module):
    bootstrap = module("scores").paired_bootstrap
    other = np.random.default_rng(0).random(2000) < 0.8
    better = other.copy()
    better[np.flatnonzero(~other)[:40]] = True
    result = bootstrap(better[None], other)
    error = np.std(better.astype(float) - other) / np.sqrt(2000)
    assert result["difference"] == pytest.approx(0.02)
    assert result["low"] == pytest.approx(0.02 - 1.96 * error, abs=0.001)
    assert result["high"] == pytest.approx(0.02 + 1.96 * error, abs=0.001)
    assert result["p"] < 0.001
    assert bootstrap(np.array([other, other]), other)["p"] == 1.0

    alike = np.tile(np.arange(1000) < 500, (4, 1))
    differing = np.arange(1000) < np.array([[200], [400], [600], [800]])
    results = [bootstrap(rights, np.zeros(1000, dtype=bool)) for rights in (alike, differing)]
    widths = [result["high"] - result["low"] for result in results]
    assert results[0]["difference"] == results[1]["difference"] == 0.5
    assert widths[1] > 3 * widths[0]


# Data sets


@pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.7"),
    reason="the benchmark needs scikit-learn 1.7",
)
def test_validation_keeps_equal_texts_together_and_the_test_file_closed(folder, load):
    (folder / "data" / "docstrings" / "test.csv").unlink()
    data = load("validation")
    assert len(data.texts) + len(data.held_out_texts) == 130
    assert 16 <= len(data.held_out_texts) <= 36 and not data.seen.any()
    shares = [
        np.unique(labels, return_counts=True)[1] / len(labels)
        for labels in (data.labels, data.held_out_labels)
    ]
    assert np.abs(shares[0] - shares[1]).max() < 0.1
    assert load("validation").rows_hash == data.rows_hash
    with pytest.raises(SystemExit, match=r"must hold one test.csv, plain or compressed; got \[\]"):
        load("test")


def test_draws_are_nested_and_held_out_rows_fixed(load):
    data = load("test")
    assert len(data.texts) == 130 and data.seen.tolist() == [True] + [False] * 40
    small, large = data.draw(20, seed=1), data.draw(60, seed=1)
    assert large.texts[:20] == small.texts != data.draw(20, seed=2).texts[:20]
    label_of = dict(zip(data.texts, data.labels, strict=True))
    assert [label_of[text] for text in small.texts] == small.labels.tolist()
    few = data.hold_out(10)
    assert few.held_out_texts == data.hold_out(10).held_out_texts
    assert len(few.held_out_texts) == len(few.held_out_labels) == 10
    assert len({data.rows_hash, small.rows_hash, large.rows_hash, few.rows_hash}) == 4


# Systems


def test_specs_become_parameters(module, load):
    systems, data = module("systems"), load("validation")
    spec = "lstm:hidden_size=7,pooling=('max','mean'),cell=peephole,vectorizer__min_df=2,ema=None"
    system = systems.System(spec)
    model = system.make(data, seed=3)
    assert (model.hidden_size, model.pooling, model.cell) == (7, ("max", "mean"), "peephole")
    assert (model.vectorizer.min_df, model.ema, model.random_state) == (2, None, 3)
    assert system.random and system.title == f"`{spec}`"
    linear = systems.System("tfidf:logisticregression__C=3")
    assert linear.make(data, seed=0)[-1].C == 3 and not linear.random
    blended = systems.System("lstm:blend=mnb").make(data, seed=0)
    assert type(blended.blend[-1]).__name__ == "MultinomialNB"
    assert systems.System("lm400").make(data, 0).pretrained == systems.LANGUAGE_MODEL


@pytest.mark.parametrize("spec", ["lstm:3", "lstm:**a", "lstm:a=", "lstm:a=b(1)", "svm"])
def test_a_spec_that_is_none_is_refused(module, spec):
    message = "A system must be (written name:parameter=value|one of .* got 'svm')"
    with pytest.raises(SystemExit, match=message):
        module("systems").System(spec)


def test_descriptions_tell_configurations_apart(module, folder, load):
    systems, data = module("systems"), load("validation")

    def name(spec, seed=0):
        return systems.hash_description(systems.describe(systems.System(spec).make(data, seed)))

    assert name("lstm") == name("lstm:hidden_size=128") == name("lstm", seed=5)
    assert name("lstm") == name("lstm:vectorizer__max_length=256,verbose=1")
    specs = ["lstm", "lstm:ema=None", "lstm:vectorizer__min_df=3", "nbsvm", "mnb", "mnb2"]
    assert len(set(map(name, specs))) == len(specs)
    for file, content in (("one", "same"), ("two", "same"), ("three", "other")):
        (folder / file).write_text(content)
    files = [systems.describe(folder / file) for file in ("one", "two", "three")]
    assert files[0] == files[1] != files[2]  # the content counts, not the place


# Runs


def test_runs_are_kept_claimed_and_written_whole(module, load, results):
    runs, data, system = module("runs"), load("test"), module("systems").System("mnb")
    first = results.run(system, data, 0, threads=1)
    assert first["new"] and first["alone"] and first["n_iter"] is None
    assert not results.run(system, data, 0, threads=1)["new"]
    (record,) = results.load("test", "docstrings")
    arrays, path = runs.load_arrays(record), Path(record["path"])
    assert arrays["right"].mean() == first["accuracy"]
    assert (arrays["right"] == (arrays["probabilities"].argmax(axis=1) == arrays["targets"])).all()
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".json", ".npz"]
    path.unlink()
    with runs.claim(path.with_suffix(".lock")) as claimed:
        assert claimed
        assert results.run(system, data, 0, threads=1) is None  # another process runs it
    with runs.Results(results.folder) as other:
        assert not results.alone() and not other.alone()
    assert results.alone()


class Interrupt(Callback):
    """Ctrl-C after the first epoch."""

    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def test_an_interrupted_fit_is_not_kept(module, load, results, monkeypatch):
    system, data = module("systems").System(TINY), load("validation")
    whole = system.make
    monkeypatch.setattr(system, "make", lambda *a: whole(*a).set_params(callbacks=[Interrupt()]))
    with pytest.raises(KeyboardInterrupt):
        results.run(system, data, 0, threads=1)
    assert results.load("validation") == []


def test_parts_are_scored_of_one_fit(module, load, results, monkeypatch):
    systems, data = module("systems"), load("validation")
    parts = {"all": None, "net": systems.network_alone, "n": systems.ngrams_alone}
    for name, part in parts.items():
        monkeypatch.setitem(systems.VARIANTS, name, systems.Variant(name, TINY, part=part))
    fits, fit = [], LSTMTextClassifier.fit
    monkeypatch.setattr(LSTMTextClassifier, "fit", lambda *a: fits.append(1) or fit(*a))
    records = [results.run(systems.System(name), data, 0, threads=1) for name in parts]
    assert len(fits) == 1
    assert len({record["log_loss"] for record in records}) == 3
    assert [record["alone"] for record in records] == [True, False, False]  # no seconds of theirs
    classifier = LSTMTextClassifier(random_state=0, **TINY_SETTINGS).fit(data.texts, data.labels)
    score = classifier.member_.predict(data.held_out_texts) == data.held_out_labels
    assert records[2]["accuracy"] == pytest.approx(np.mean(score))


def test_classes_missing_in_training_have_probability_0(module, load, results):
    data = load("test")
    rows = np.flatnonzero(data.labels != data.classes[0])
    data = replace(data, texts=[data.texts[row] for row in rows], labels=data.labels[rows])
    record = results.run(module("systems").System("mnb"), data, 0, threads=1)
    (kept,) = results.load("test")
    assert (module("runs").load_arrays(kept)["probabilities"][:, 0] == 0).all()
    assert record["accuracy"] < 1 and np.isfinite(record["log_loss"])


# Tables


def test_seconds_are_quoted_only_of_two_threads(module, load, results):
    tables, system = module("tables"), module("systems").System("nbsvm")
    results.run(system, load("validation"), 0, threads=1)
    (row,) = tables.collect(results, "validation", "docstrings")
    assert row.fit_s == []
    timed = results.run(system, load("validation"), 0, threads=2, timing=True)
    assert "accuracy" not in timed
    (row,) = tables.collect(results, "validation", "docstrings")
    assert row.fit_s == [timed["fit_s"]] and len(row.runs) == 1


def test_only_the_newest_configuration_counts(module, load, results, monkeypatch):
    runs, systems = module("runs"), module("systems")
    for C in (1.0, 2.0):
        variant = systems.Variant("Linear", f"tfidf:logisticregression__C={C}")
        monkeypatch.setitem(systems.VARIANTS, "linear", variant)
        finished = {"commit": None, "finished": f"2030-01-0{C:.0f}"}
        monkeypatch.setattr(runs, "surroundings", lambda finished=finished: finished)
        results.run(systems.System("linear"), load("validation"), 0, threads=1)
    (row,) = module("tables").collect(results, "validation", "docstrings")
    (run,) = row.runs
    assert run["finished"] == "2030-01-02" and row.against is None


def test_seeds_together_are_a_voting_classifier(module, load, results, monkeypatch):
    tables, systems, data = module("tables"), module("systems"), load("test")
    variant = systems.Variant("Tiny", f"{TINY},blend=None,lr=0.1", together="Tiny together")
    monkeypatch.setitem(systems.VARIANTS, "tiny", variant)
    for seed in range(3):
        assert len(tables.collect(results, "test", "docstrings")) == min(seed, 1)
        results.run(systems.System("tiny"), data, seed, threads=1)
    tiny = LSTMTextClassifier(**TINY_SETTINGS, blend=None, lr=0.1)
    members = [(str(seed), clone(tiny).set_params(random_state=seed)) for seed in range(3)]
    votes = VotingClassifier(members, voting="soft").fit(data.texts, data.labels)
    one, together = tables.collect(results, "test", "docstrings")
    expected = log_loss(data.held_out_labels, votes.predict_proba(data.held_out_texts))
    assert together.mean("log_loss") == pytest.approx(expected, rel=1e-6)
    assert one.mean("log_loss") > expected * 1.001
    assert together.mean("accuracy") == votes.score(data.held_out_texts, data.held_out_labels)


# The commands


@pytest.fixture
def run(module, folder, monkeypatch):
    """Return a function that runs a script in this process, with the options of a command line."""
    monkeypatch.setenv("MPLBACKEND", "agg")

    def run(script, *options):
        command = [script, *map(str, options), "--results", str(folder / "results")]
        monkeypatch.setattr(sys, "argv", command)
        module(script).main()

    return run


def records(folder, part):
    paths = sorted((folder / "results" / part / "docstrings").glob("*.json"))
    return pd.DataFrame([json.loads(path.read_text()) for path in paths])


def test_command_of_accuracy(folder, run, capsys):
    options = ["--systems", "mnb", "tfidf", TINY, "--seeds", "0", "1", "--threads", "1"]
    run("accuracy", *options)
    found = records(folder, "validation")
    assert sorted(found["spec"]) == [TINY, TINY, "mnb", "tfidf"]
    path = next((folder / "results").glob("validation/docstrings/mnb*.json"))
    path.unlink()  # as if the benchmark had been ended before
    capsys.readouterr()
    run("accuracy", *options)
    assert capsys.readouterr().out.count("(kept)") == 3 and path.exists()

    # One system fails; the others run.
    options[1:3] = ["lstm:dropout=2", "nbsvm"]
    with pytest.raises(SystemExit, match="2 runs failed"):
        run("accuracy", "docstrings", "--split", "test", *options)
    assert "'dropout' parameter" in capsys.readouterr().err
    assert set(records(folder, "test")["spec"]) == {"nbsvm", TINY}

    run("accuracy", "--render", folder / "page.md")
    page = (folder / "page.md").read_text().replace("\xa0", " ")
    assert page.count("old") == 1 and "| unseen texts |" in page and "NB-SVM, bigrams" in page
    tried = found[found["spec"] == TINY]
    means = f"{100 * tried['accuracy'].mean():.1f} ({tried['log_loss'].mean():.3f}), 2"
    assert f"| `{TINY}` | {means} |" in page and "1 different ones in 2 runs" in page


def test_command_of_learning_curves(folder, run):
    options = ["--seeds", "2", "--threads", "1"]
    run("learning_curves", "--systems", "nbsvm", TINY, "--sizes", "40", *options)
    counts = records(folder, "curves-validation").groupby(["spec", "n_train"]).size()
    sizes = (40, counts.index.levels[1].max())
    assert 90 < sizes[-1] < 115
    assert counts.to_dict() == {(spec, size): 2 for spec in ("nbsvm", TINY) for size in sizes}
    with pytest.raises(SystemExit, match="must hold runs of curves-test; got none"):
        run("learning_curves", "--split", "test", "--render", folder / "page.md")
    run("learning_curves", "--render", folder / "page.md")
    assert (folder / "images" / "learning_curves.svg").read_text().startswith("<?xml")
    page = (folder / "page.md").read_text()
    assert "(images/learning_curves.svg)" in page and "| docstrings, accuracy | 40 |" in page
