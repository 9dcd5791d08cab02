"""Real forks: a process that was forked after a computation computes as well.

Each script runs in a fresh process with two threads, since what hangs is OpenMP's threads.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sklstm.kernels import available_backends

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

PREPARE = """
import multiprocessing, os, sys, warnings
import numpy as np, torch
torch.set_num_threads(2)
# Python warns of forks in processes with threads, which is what is tested.
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
from sklstm import LSTMLanguageModel, LSTMTextClassifier
TEXTS, LABELS = ["good film", "so good", "bad film", "so bad"] * 10, ["p", "p", "n", "n"] * 10
LONG = ["good film so bad " * 40] * 40
SETTINGS = {"max_epochs": 1, "hidden_size": 64, "embedding_dim": 64, "random_state": 0}

def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 3)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(4)
    assert os.waitpid(child, 0)[1] == 0
"""

SCRIPTS = {
    f"backend {name}": f"""
clf = LSTMTextClassifier(**SETTINGS, backend={name!r}, blend=None).fit(TEXTS, LABELS)
expected = clf.predict_proba(LONG)
in_child(lambda: np.allclose(clf.predict_proba(LONG), expected, atol=1e-6))
assert np.array_equal(clf.predict_proba(LONG), expected) and torch.get_num_threads() == 2
"""
    for name in available_backends("cpu")
}
SCRIPTS |= {
    "n-grams": """
clf = LSTMTextClassifier(**SETTINGS).fit(TEXTS, LABELS)
expected = clf.predict_proba(LONG)
in_child(lambda: np.allclose(clf.predict_proba(LONG), expected, atol=1e-6))
""",
    "fit in the child": """
clf = LSTMTextClassifier(**SETTINGS).fit(TEXTS, LABELS)
in_child(lambda: clf.partial_fit(LONG, LABELS).fit(LONG, LABELS).score(TEXTS, LABELS) >= 0)
""",
    "a child of a child": """
clf = LSTMTextClassifier(**SETTINGS, blend=None).fit(TEXTS, LABELS)
def work():
    in_child(lambda: len(clf.predict(LONG)) == 40)
    return len(clf.predict(LONG)) == 40
in_child(work)
""",
    "a pool of processes": """
clf = LSTMTextClassifier(**SETTINGS, blend=None).fit(TEXTS, LABELS)
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map(clf.predict, [LONG, TEXTS, LONG])
assert [len(labels) for labels in found] == [40, 40, 40]
""",
    "a language model": """
model = LSTMLanguageModel(**SETTINGS, window=16).fit(LONG)
expected = model.perplexity(LONG)
in_child(lambda: abs(model.perplexity(LONG) - expected) < 1e-3)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_forked_process_computes(script):
    result = subprocess.run(
        [sys.executable, "-c", PREPARE + script],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,  # what fails does so by hanging
    )
    assert result.returncode == 0, result.stderr


def test_importing_the_package_registers_nothing():
    script = """
import os, torch, skorch, sklearn, joblib
calls = []
os.register_at_fork = lambda **calls_: calls.append(calls_)
import sklstm, sklstm.lstm
assert calls == []
sklstm.lstm.LSTM(2, 2)(torch.zeros(3, 1, 2))
sklstm.lstm.LSTM(2, 2)(torch.zeros(3, 1, 2))
assert len(calls) == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
