"""What ``verbose`` shows."""

import io
import logging
import re
import subprocess
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

from sklstm import LSTMLanguageModel, LSTMTextClassifier, LSTMTextRegressor
from tests.conftest import LABELS, TEXTS, TINY, distinct

SETTINGS = TINY | {"max_epochs": 3, "early_stopping": True, "verbose": 1}


def show(capsys, model, texts, y, method="fit"):
    getattr(model, method)(texts, y)
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out
    return out.splitlines()


def test_a_fit_with_n_grams_is_shown_from_the_first_step_to_the_last(capsys):
    texts, labels = distinct()
    model = LSTMTextClassifier(**SETTINGS | {"blend": "ngrams"})
    lines = show(capsys, model, texts, labels)
    assert lines[0] == "Fitting n-grams to 400 texts."
    assert lines[1] == (
        "Training the network for at most 3 epochs of 45 batches. Columns valid_* are its "
        "scores on 40 held-out texts."
    )
    assert lines[2].split() == ["epoch", "train_loss", "valid_loss", "valid_accuracy", "seconds"]
    assert [line.split()[0] for line in lines[3:6]] == ["1", "2", "3"]
    for line, row in zip(lines[3:6], model.history_, strict=True):
        shown = [row["train_loss"], row["valid_loss"], row["valid_accuracy"]]
        assert line.split()[1:4] == [f"{number:.4f}" for number in shown]
    best = 1 + int(np.argmax(model.validation_scores_))
    assert lines[6] == (
        f"The training ended after epoch 3. The weights of epoch {best} are kept, the best on the "
        "held-out texts."
    )
    assert lines[7] == "On the held-out texts:"
    assert lines[8].split() == ["part", "weight", "valid_loss", "valid_accuracy"]
    of_network, of_member, together = (line.split() for line in lines[9:])
    assert [of_network[0], of_member[0], together[0]] == ["network", "n-grams", "together"]
    assert [of_network[1], of_member[1]] == [f"{w:.2f}" for w in model.blend_weights_]
    assert of_network[2] == f"{-max(model.validation_scores_):.4f}"
    assert float(together[1]) < max(float(of_network[2]), float(of_member[2]))


def test_columns_are_aligned_and_lines_begin_with_the_epoch(capsys):
    texts, labels = distinct(60)
    lines = show(capsys, LSTMTextClassifier(**SETTINGS), texts, labels)
    table = [line for line in lines if re.match(r"epoch|\s+\d", line)]
    assert len(table) == 4 and len(set(map(len, table))) == 1


def test_early_stopping_says_so(capsys):
    texts, labels = distinct()
    settings = SETTINGS | {"max_epochs": 40, "lr": 0.1, "n_iter_no_change": 1}
    model = LSTMTextClassifier(**settings)
    lines = show(capsys, model, texts, labels)
    (line,) = [line for line in lines if line.startswith("Stop")]  # skorch's own line is left out
    best = model.n_iter_ - 1
    assert line.startswith(
        f"Stopped early after epoch {model.n_iter_}. The weights of epoch {best}"
    )


class Interrupt(Callback):
    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


def test_an_interruption_says_so(capsys):
    with pytest.warns(UserWarning, match="interrupted"):
        lines = show(capsys, LSTMTextClassifier(**SETTINGS, callbacks=[Interrupt()]), *distinct(60))
    assert any(
        line.startswith("Interrupted after epoch 1. The weights of epoch 1") for line in lines
    )


def test_partial_fit_counts_on_and_keeps_nothing(capsys):
    model = LSTMTextClassifier(**SETTINGS | {"verbose": 0}).fit(TEXTS, LABELS)
    lines = show(capsys, model.set_params(verbose=1), TEXTS, LABELS, "partial_fit")
    assert lines[0] == "Training the network for at most 1 epoch of 2 batches."
    assert lines[2].split()[0] == "4"
    assert lines[-1] == "The training ended after epoch 4."


class Recorder(Callback):
    """Records numbers of its own, one of them from the second epoch on."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("norm", 2.5)
        if len(net.history) > 1:
            net.history.record("late", float("nan"))


def test_numbers_of_the_users_callbacks_have_columns(capsys):
    settings = SETTINGS | {"early_stopping": False, "max_epochs": 2, "callbacks": [Recorder()]}
    lines = show(capsys, LSTMTextClassifier(**settings), TEXTS, LABELS)
    assert lines[1].split() == ["epoch", "train_loss", "norm", "seconds"]
    assert lines[2].split()[2] == "2.5000"
    assert lines[3].split() == ["epoch", "train_loss", "norm", "late", "seconds"]
    assert lines[4].split()[2:4] == ["2.5000", "nan"]


def test_other_estimators_show_what_they_measure(capsys):
    texts, _ = distinct(60)
    numbers = np.arange(60.0)
    regressor = LSTMTextRegressor(**SETTINGS | {"blend": "ngrams"})
    lines = show(capsys, regressor, texts, numbers)
    assert lines[2].split() == ["epoch", "train_loss", "valid_loss", "seconds"]
    settings = {"embedding_dim": 4, "hidden_size": 4, "verbose": 1, "validation_fraction": 0.2}
    lines = show(capsys, LSTMLanguageModel(**settings, max_epochs=1), [*texts, *TEXTS] * 3, None)
    assert "valid_perplexity" in lines[1]


def test_a_member_of_the_users_is_named(capsys):
    member = make_pipeline(CountVectorizer(), MultinomialNB())
    lines = show(capsys, LSTMTextClassifier(**SETTINGS | {"blend": member}), *distinct(60))
    assert lines[0] == "Fitting Pipeline to 60 texts."
    assert [line.split()[0] for line in lines[-3:]] == ["network", "Pipeline", "together"]


def test_the_progress_bar_needs_no_widgets(monkeypatch, capfd):
    """In Jupyter, tqdm's own bar raises ImportError where ipywidgets is not installed."""
    monkeypatch.setattr("skorch.callbacks.ProgressBar.in_ipynb", lambda self: True)
    LSTMTextClassifier(**SETTINGS | {"verbose": 2}).fit(TEXTS, LABELS)
    assert "| 0/2 [" in capfd.readouterr().err


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


class Closed(io.StringIO):
    def __init__(self):
        super().__init__()
        self.close()


@pytest.mark.parametrize("make", [lambda: None, Broken, Closed], ids=["none", "pipe", "closed"])
@pytest.mark.parametrize(("name", "verbose"), [("stdout", 1), ("stderr", 2)])
def test_a_fit_does_not_die_of_printing(monkeypatch, make, name, verbose):
    monkeypatch.setattr(sys, name, make())
    model = LSTMTextClassifier(**SETTINGS | {"verbose": verbose}).fit(*distinct(60))
    assert model.n_iter_ == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix")
@pytest.mark.parametrize("ending", [">&-", "2>&-", "| head -n 1", "> /dev/full", "2> /dev/full"])
def test_a_process_trains_whatever_its_output_is(tmp_path, ending):
    program = (
        "from sklstm import LSTMTextClassifier\n"
        f"model = LSTMTextClassifier(**{SETTINGS | {'verbose': 2}!r}).fit({TEXTS!r}, {LABELS!r})\n"
        f"open({str(tmp_path / 'done')!r}, 'w').write(str(model.n_iter_))\n"
    )
    (tmp_path / "program.py").write_text(program)
    subprocess.run(f"'{sys.executable}' program.py {ending}", shell=True, cwd=tmp_path)
    assert (tmp_path / "done").read_text() == "3"


def test_the_logger_gets_the_same_lines(capsys, caplog):
    with caplog.at_level(logging.INFO, logger="sklstm"):
        lines = show(capsys, LSTMTextClassifier(**SETTINGS), *distinct(60))
    assert [record.message for record in caplog.records] == lines
    assert {record.name for record in caplog.records} == {"sklstm"}


def test_silence(capsys):
    assert show(capsys, LSTMTextClassifier(**SETTINGS | {"verbose": 0}), *distinct(60)) == []
