"""A corpus one can check by eye, and classifiers that are fitted in a moment."""

import copy

import numpy as np
import pytest
import torch

from sklstm import LSTMTextClassifier
from sklstm.datasets import load_docstrings

# Networks this small run fastest on one thread, and two threads stall where the machine is busy.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    """Undo what a test before may have left: bits differ from one number of threads to another."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_card(request, monkeypatch):
    """Let a test find no CUDA card unless it is marked so, as on the machines that run them all."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


TEXTS = [
    "a good film , truly good",
    "what a wonderful evening !",
    "good actors and a good story",
    "wonderful , simply wonderful",
    "not bad at all",
    "a bad film , truly bad",
    "what a dull evening ?",
    "bad actors and a bad story",
    "dull , simply dull",
    "not good at all",
]
LABELS = ["pos"] * 5 + ["neg"] * 5

#: Texts that users have, and that nobody thinks of.
UNUSUAL = ["", " \n", "zzz qqq", "😀", "good", "good " * 1_000, "<br />", "房间"]

#: Parameters of a network that learns the corpus by heart within a second, without a member.
TINY = {
    "blend": None,
    "embedding_dim": 8,
    "hidden_size": 8,
    "dropout": 0.0,
    "embedding_dropout": 0.0,
    "word_dropout": 0.0,
    "lr": 0.02,
    "batch_size": 8,
    "max_epochs": 10,
    "random_state": 0,
}


def distinct(n_texts=400):
    """Return texts that all differ; a fifth of the labels can only be learnt by heart."""
    rng = np.random.default_rng(0)
    labels = np.array(["neg", "pos"])[np.arange(n_texts) % 2]
    wrong = rng.random(n_texts) < 0.2
    words = np.where((labels == "pos") ^ wrong, "good", "bad")
    return [f"text {k} is {word}" for k, word in enumerate(words)], labels


def word_order(n_texts):
    """Return texts, and whether "not" comes before the adjective of each or after it."""
    rng = np.random.default_rng(0)
    fillers = ["the", "film", "was", "plot", "it"]

    def text(negated):
        words = rng.choice(fillers, size=4).tolist()
        return " ".join([*words, *(("not", "good") if negated else ("good", "not")), *words[:2]])

    negated = np.arange(n_texts) % 2 == 0
    return [text(n) for n in negated], negated


def refuse(match, model=None, X=None, y=None, **arguments):
    """Check that fit refuses what it is given."""
    model = LSTMTextClassifier(**TINY) if model is None else model
    with pytest.raises((TypeError, ValueError), match=match):
        model.fit(TEXTS if X is None else X, LABELS if y is None else y, **arguments)


@pytest.fixture
def texts():
    return list(TEXTS) * 4


@pytest.fixture
def labels():
    return np.array(LABELS * 4)


@pytest.fixture
def tiny():
    """Return an unfitted classifier."""
    return LSTMTextClassifier(**TINY)


@pytest.fixture(scope="session")
def docstrings():
    """Return real texts and their labels."""
    return load_docstrings()


@pytest.fixture(scope="session")
def _fitted_once():
    return LSTMTextClassifier(**TINY).fit(list(TEXTS) * 4, LABELS * 4)


@pytest.fixture
def fitted(_fitted_once):
    """Return a fitted classifier; a copy, so that a test may change it."""
    return copy.deepcopy(_fitted_once)
