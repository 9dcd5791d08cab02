"""Whatever a process has set in torch: the same bits as without, and nothing else changes."""

import copy
import pickle
import threading
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch

import sklstm
from sklstm import LSTMLanguageModel, LSTMTextClassifier
from sklstm.kernels import available_backends
from sklstm.kernels.surroundings import own_defaults, own_surroundings
from sklstm.lstm import LSTM
from tests.conftest import LABELS, TEXTS, TINY

SETTINGS = TINY | {"max_epochs": 2, "pooling": ("last", "max", "attention", "embedding_mean")}
BACKENDS = sorted(available_backends("cpu"), key=lambda name: name != "compiled")


@contextmanager
def dtype(of):
    torch.set_default_dtype(of)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def device(name):
    """Set a default device for the whole thread, as a program does at its start."""
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SURROUNDINGS = {
    "float64": lambda: dtype(torch.float64),
    "float16": lambda: dtype(torch.float16),
    "bfloat16": lambda: dtype(torch.bfloat16),
    "device": lambda: device("meta"),
    "device for a block": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "deterministic": deterministic,
    "anomaly": lambda: torch.autograd.detect_anomaly(check_nan=True),
}
# torch says that anomaly mode is for debugging.
pytestmark = pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")


def do_all(backend, folder):
    """Return what everything that computes returns, in a few epochs."""
    results = []
    clf = LSTMTextClassifier(**SETTINGS | {"backend": backend, "early_stopping": True})
    clf.fit(TEXTS * 4, LABELS * 4)
    results += [clf.predict_proba(TEXTS), clf.transform(TEXTS)]
    results += [part for found in clf.explain(TEXTS[:2]) for part in (found.network, found.base)]
    clf.save(folder / "clf.safetensors")
    loaded = sklstm.load(folder / "clf.safetensors")
    for model in (loaded, pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        results += [model.predict_proba(TEXTS), model.partial_fit(TEXTS, LABELS).transform(TEXTS)]
    language_model = LSTMLanguageModel(
        embedding_dim=8, hidden_size=8, max_epochs=1, backend=backend, random_state=0
    ).fit(TEXTS)
    results += [language_model.score(TEXTS), language_model.generate(2, random_state=0)]
    clf = LSTMTextClassifier(**SETTINGS | {"pretrained": language_model, "backend": backend})
    clf.set_params(embedding_dim="auto", hidden_size=8, adversarial=0.2, warm_start=True)
    for _ in range(2):
        results.append(clf.fit(TEXTS, LABELS).predict_proba(TEXTS))
    by_sentence = LSTMTextClassifier(**SETTINGS | {"read_by": "sentence", "backend": backend})
    sentences = by_sentence.fit(TEXTS, LABELS).predict_sentences(TEXTS[:2])
    return [*results, *(s.probabilities for text in sentences for s in text)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return cache(lambda name: do_all(name, tmp_path_factory.mktemp(name)))


@pytest.mark.parametrize(
    "backend", [BACKENDS[0], *(pytest.param(n, marks=pytest.mark.slow) for n in BACKENDS[1:])]
)
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_everything_has_the_same_bits(name, backend, expected, tmp_path):
    wanted_results = expected(backend)
    with SURROUNDINGS[name]():
        before = describe()
        results = do_all(backend, tmp_path)
        assert describe() == before
    for result, wanted in zip(results, wanted_results, strict=True):
        assert np.asarray(result).dtype == np.asarray(wanted).dtype
        np.testing.assert_array_equal(result, wanted)


def describe():
    """Return what a program can see of torch's settings."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
    )


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_an_error_restores_the_settings(name):
    with SURROUNDINGS[name]():
        before = describe()
        with pytest.raises(ValueError, match="inside"), own_surroundings():
            assert describe()[:5] == (torch.float32, torch.device("cpu"), False, False, True)
            raise ValueError("inside")
        with pytest.raises(ValueError, match="No token occurs"):
            LSTMTextClassifier(vectorizer=sklstm.SequenceVectorizer(min_df=99)).fit(TEXTS, LABELS)
        assert describe() == before


def test_the_last_thread_restores_the_default_dtype():
    inside, may_leave = threading.Event(), threading.Event()

    def stay():
        with own_defaults():
            inside.set()
            may_leave.wait()

    with dtype(torch.float64):
        first = threading.Thread(target=stay)
        first.start()
        inside.wait()
        with own_defaults():
            may_leave.set()
            first.join()
            assert torch.get_default_dtype() == torch.float32
        assert torch.get_default_dtype() == torch.float64


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [n for n in SURROUNDINGS if n not in ("autocast", "no_grad")])
def test_a_layer_that_was_made_before(name, backend):
    """As torch.nn.LSTM, which also has the dtype and the device that it was made with."""
    layer, x = LSTM(5, 7, bidirectional=True, backend=backend), torch.randn(4, 3, 5)
    lengths = None if backend == "aten" else [4, 1, 2]

    def run():
        layer.zero_grad()
        output, _ = layer(x, lengths=lengths)
        if output.requires_grad:
            output.square().sum().backward()
        return [output.detach(), *(p.grad for p in layer.parameters() if p.grad is not None)]

    wanted = run()
    with SURROUNDINGS[name]():
        results = run()
    # Without gradients torch's own layer has another path, with other rounding.
    tolerance = 1e-6 if name == "inference mode" else 0
    for result, want in zip(results, wanted, strict=False):
        torch.testing.assert_close(result, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_number_of_threads_between_forward_and_backward(backend):
    layer, x = LSTM(5, 7, bidirectional=True, backend=backend), torch.randn(40, 13, 5)
    grads = []
    for forward, backward in ((1, 1), (1, 2), (2, 1)):
        layer.zero_grad()
        torch.set_num_threads(forward)
        output, _ = layer(x)
        torch.set_num_threads(backward)
        output.square().sum().backward()
        grads.append([p.grad.clone() for p in layer.parameters()])
    for other in grads[1:]:
        for grad, want in zip(other, grads[0], strict=True):
            torch.testing.assert_close(grad, want, rtol=1e-5, atol=1e-5)
