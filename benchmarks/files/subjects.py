"""The estimators whose files are damaged, small so that thousands of files are quick to read."""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from sklearn.base import clone

from sklstm import (
    LSTMLanguageModel,
    LSTMTextClassifier,
    LSTMTextRegressor,
    SequenceVectorizer,
)
from sklstm.model.container import DESCRIPTION, DIGEST, LENGTH, NO_DIGEST

GOOD = ["a good film", "so good!", "not bad. A good one", "fine and good", "the good film . So so"]
BAD = ["a bad film", "so bad!", "not good. A bad one", "dull and bad", "the bad film . So so"]
TEXTS, LABELS = [*GOOD, *BAD] * 6, [*["pos"] * 5, *["neg"] * 5] * 6
#: What every loaded estimator is asked.
ASKED = ["a good film", "bad, bad! Not good.", "", "unheard of words", "so so"]
VOCABULARY = {word: k for k, word in enumerate(["good", "bad", "so", *map(str, range(100))])}
SMALL = {"embedding_dim": 6, "hidden_size": 4, "max_epochs": 2, "random_state": 0}


@dataclass(frozen=True)
class Subject:
    """A file that was saved, and its parts."""

    name: str
    content: bytes
    description: dict
    arrays: dict[str, np.ndarray]
    has_digest: bool = True

    def pack(self, text: str, arrays: dict[str, np.ndarray] | None = None) -> bytes:
        """Return a file of another description or other arrays, with its right digest."""
        metadata = {DESCRIPTION: text} | ({DIGEST: NO_DIGEST} if self.has_digest else {})
        arrays = self.arrays if arrays is None else arrays
        return sign(safetensors.numpy.save(arrays, metadata=metadata))


def sign(content: bytes) -> bytes:
    """Return a file with the right digest in the place of zeros."""
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(NO_DIGEST.encode(), digest.encode(), 1)


def make_subjects() -> list[Subject]:
    """Return the files of all kinds of estimators."""
    numbers = [k % 3 for k in range(len(TEXTS))]
    default = LSTMTextClassifier(**SMALL).fit(TEXTS, LABELS)
    sentence = LSTMTextClassifier(
        **SMALL, read_by="sentence", blend=None, pooling=("attention", "last"), cell="peephole"
    ).fit(TEXTS, [label == "pos" for label in LABELS])
    partial = LSTMTextClassifier(
        **SMALL | {"random_state": np.random.RandomState(0)},
        class_weight={0: 1.0, 1: 2.0, 2: 1.0},
        num_layers=2,
        vectorizer=SequenceVectorizer(stop_words=["dull"], vocabulary=VOCABULARY),
    )
    partial.fit(TEXTS, numbers).partial_fit(TEXTS, numbers)
    partial.model_.history += partial.model_.history[-1:] * 110  # enough to become arrays
    sets = np.array([[k % 2, k % 3 == 0, 0] for k in range(len(TEXTS))])
    label_sets = LSTMTextClassifier(**SMALL).fit(TEXTS, sets)
    regressor = LSTMTextRegressor(**SMALL).fit(TEXTS, numbers)
    language_model = LSTMLanguageModel(
        **SMALL, batch_size=4, window=8, n_negatives=4, vectorizer=SequenceVectorizer(min_df=1)
    ).fit(TEXTS)
    subjects = [
        _save("default", default),
        _save("sentence", sentence),
        _save("partial_fit", partial),
        _save("label sets", label_sets),
        _save("numbers", regressor),
        _save("language model", language_model),
    ]
    return [*subjects, _as_version_1(language_model)]


def _save(name, estimator) -> Subject:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        estimator.save(path)
        content = path.read_bytes()
    header = json.loads(content[LENGTH : LENGTH + int.from_bytes(content[:LENGTH], "little")])
    description = json.loads(header["__metadata__"][DESCRIPTION])
    return Subject(name, content, description, safetensors.numpy.load(content))


def _as_version_1(language_model) -> Subject:
    """Return a file of a language model as sklstm 0.1.0 wrote it, which knew no digest."""
    model = language_model.model_
    parameters = clone(language_model).get_params(deep=False)
    vectorizer = model.vectorizer.get_params(deep=False)
    parameters["vectorizer"] = vectorizer
    description = {
        "kind": "language model",
        "version": 1,
        "parameters": parameters,
        "vectorizer": vectorizer,
        "vocabulary": list(model.vectorizer.vocabulary_),
        "history": model.history,
    }
    arrays = {name: weight.numpy() for name, weight in model.network.state_dict().items()}
    subject = Subject("version 1", b"", json.loads(json.dumps(description)), arrays, False)
    content = subject.pack(json.dumps(description, ensure_ascii=False))
    return Subject("version 1", content, subject.description, arrays, False)
