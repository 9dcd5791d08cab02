"""A corpus one can check by eye, and classifiers small enough to fit in a blink."""

import copy

import numpy as np
import pytest
import torch

from sklstm import LSTMTextClassifier

# Networks this small run fastest on one thread, and two threads stall where the machine is busy.
torch.set_num_threads(1)

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

#: Parameters of a network that learns the corpus by heart within a second, and answers alone.
TINY = {
    "baseline": None,
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
def _fitted_once():
    return LSTMTextClassifier(**TINY).fit(list(TEXTS) * 4, LABELS * 4)


@pytest.fixture
def fitted(_fitted_once):
    """Return a fitted classifier; a copy, so that a test may change it."""
    return copy.deepcopy(_fitted_once)
