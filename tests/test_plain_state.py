"""A fitted estimator is plain data to whatever pickles, hashes or copies it."""

import copy
import io
import os
import pickle
import pickletools
import re
from pathlib import Path

import joblib
import numpy as np
import pytest
from joblib import Memory
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from sklstm import LSTMLanguageModel, LSTMTextClassifier, SequenceVectorizer
from tests.conftest import LABELS, TEXTS, TINY

FAST = TINY | {"max_epochs": 1}


@pytest.fixture(scope="session")
def _blended_once():
    return LSTMTextClassifier(**FAST | {"blend": "ngrams"}).fit(TEXTS * 2, LABELS * 2)


@pytest.fixture
def blended(_blended_once):
    """Return a fitted classifier with the default blend."""
    return copy.deepcopy(_blended_once)


def modules_of(pickled):
    """Return the packages whose classes and functions a pickle names."""
    names = [
        text
        for op, text, _ in pickletools.genops(pickled)
        if op.name in ("SHORT_BINUNICODE", "BINUNICODE", "GLOBAL")
    ]
    packages = ("torch", "skorch", "sklearn", "sklstm", "numpy")
    return {name.split(".")[0] for name in names if name.startswith(packages) and " " not in name}


def test_a_pickle_holds_no_code_of_torch_or_skorch(blended):
    blended.partial_fit(TEXTS, LABELS)  # which leaves moments
    assert modules_of(pickle.dumps(blended)) & {"torch", "skorch"} == set()


def test_the_types_to_trust_are_those_of_the_guide(blended):
    """The list that skops and MLflow are given."""
    found = set()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            found.add(f"{module}.{name}")
            return super().find_class(module, name)

    Unpickler(io.BytesIO(pickle.dumps(blended))).load()
    guide = (Path(__file__).parent.parent / "docs" / "files.md").read_text()
    listed = set(re.findall(r'^    "(sklstm\.\S+)",$', guide, flags=re.MULTILINE))
    assert listed == {name for name in found if name.startswith("sklstm.")}


def test_a_pickle_predicts_the_same(blended):
    again = pickle.loads(pickle.dumps(blended))
    for method in ("predict_proba", "transform"):
        expected = getattr(blended, method)(TEXTS)
        np.testing.assert_array_equal(getattr(again, method)(TEXTS), expected)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, copy.copy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_a_copy_goes_on_with_the_same_bits(blended, copied):
    """Also where dropout draws masks, and with the moments of an earlier call."""
    blended.set_params(dropout=0.5, word_dropout=0.2).partial_fit(TEXTS, LABELS)
    again = copied(blended)
    for estimator in (again, blended):
        for _ in range(2):
            estimator.partial_fit(TEXTS, LABELS)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), blended.predict_proba(TEXTS))


def test_a_deep_copy_shares_nothing(blended):
    before = blended.predict_proba(TEXTS)
    copy.deepcopy(blended).partial_fit(TEXTS, LABELS)
    again = copy.deepcopy(blended)
    for weight in again.model_.network.parameters():
        weight.data.zero_()
    np.testing.assert_array_equal(blended.predict_proba(TEXTS), before)


def test_numbers_of_numpy_as_parameters_survive(tmp_path):
    """As a search gives them."""
    settings = {"hidden_size": np.int64(4), "dropout": np.float32(0.5), "zoneout": False}
    fitted = LSTMTextClassifier(**FAST | settings).fit(TEXTS * 2, LABELS * 2)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))


def test_a_hash_is_one_value(blended):
    assert len({joblib.hash(blended) for _ in range(8)}) == 1
    blended.predict(TEXTS)
    again = [copy.deepcopy(blended), pickle.loads(pickle.dumps(blended))]
    assert len({joblib.hash(estimator) for estimator in [blended, *again]}) == 1
    assert joblib.hash(copy.deepcopy(blended).partial_fit(TEXTS, LABELS)) != joblib.hash(blended)


def test_a_hash_of_a_language_model_is_one_value():
    fitted = LSTMLanguageModel(embedding_dim=3, hidden_size=2, max_epochs=1).fit(TEXTS)
    assert len({joblib.hash(fitted) for _ in range(8)}) == 1


class Counting(LSTMTextClassifier):
    """A classifier that counts its fits."""

    n_fits = 0

    def fit(self, X, y, **arguments):
        Counting.n_fits += 1
        return super().fit(X, y, **arguments)


def test_a_pipeline_with_a_memory_fits_once(tmp_path, blended):
    texts, features = TEXTS * 2, Counting(**FAST | {"blend": "ngrams"})

    def fit():
        memory = Memory(tmp_path, verbose=0)
        steps = [("lstm", features), ("linear", LogisticRegression())]
        return Pipeline(steps, memory=memory).fit(texts, LABELS * 2).predict_proba(texts)

    np.testing.assert_array_equal(fit(), fit())
    assert Counting.n_fits == 1


def test_a_pipeline_behind_a_fitted_one_hits_its_memory(tmp_path, blended):
    """What is fitted on the features of a fitted estimator depends on its hash."""
    calls = []

    def use(estimator):
        calls.append(estimator)
        return estimator.transform(TEXTS)

    cached = Memory(tmp_path, verbose=0).cache(use)
    for estimator in (blended, blended, copy.deepcopy(blended)):
        cached(estimator)
    assert len(calls) == 1


def test_a_file_of_joblib_may_be_mapped(tmp_path, blended):
    """As joblib does with large arrays that it sends to other processes: they are read only."""
    joblib.dump(blended, tmp_path / "m")
    again = joblib.load(tmp_path / "m", mmap_mode="r")
    np.testing.assert_array_equal(again.predict_proba(TEXTS), blended.predict_proba(TEXTS))
    again.partial_fit(TEXTS, LABELS)


def test_a_pickle_is_about_as_large_as_the_file(tmp_path, docstrings):
    texts, labels = docstrings.data[:100], docstrings.target[:100]
    settings = FAST | {"blend": "ngrams", "vectorizer": SequenceVectorizer(max_length=20)}
    fitted = LSTMTextClassifier(**settings).fit(texts, labels)
    assert fitted.model_.moments == {}
    fitted.save(tmp_path / "m")
    assert len(pickle.dumps(fitted)) < 1.3 * os.path.getsize(tmp_path / "m")


def test_an_older_protocol_of_pickle(blended):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        file = io.BytesIO(pickle.dumps(blended, protocol=protocol))
        again = pickle.load(file)
        np.testing.assert_array_equal(again.predict_proba(TEXTS), blended.predict_proba(TEXTS))
