"""The sentences of texts, and what the network says of each."""

from typing import NamedTuple

import numpy as np

from sklstm.model.prediction import compute_sentences, predict_in_chunks
from sklstm.model.text_model import TextModel


class Sentence(NamedTuple):
    """A sentence of a text, and what the network says of it.

    Attributes
    ----------
    tokens : list of str
        The tokens of the sentence, as the vectorizer cuts it.
    probabilities : ndarray of shape (n_classes,)
        Those of the classes, columns in the order of ``classes_``.
    weight : float
        The sentence's share in the prediction for the text; those of a text add up to 1.
    """

    tokens: list[str]
    probabilities: np.ndarray
    weight: float


def check_reads_sentences(model: TextModel) -> None:
    """Raise ValueError unless a network was fitted with read_by='sentence'."""
    read_by = model.network.settings.read_by
    if read_by != "sentence":
        raise ValueError(
            "predict_sentences needs a classifier fitted with read_by='sentence'; got one fitted "
            f"with read_by={read_by!r}. Set it and fit again."
        )


def predict_sentences(model: TextModel, texts: list[str]) -> list[list[Sentence]]:
    """Return the sentences of each text, in order."""

    def read(chunk):
        result = np.empty(len(chunk), dtype=object)
        for k, (outputs, *others) in enumerate(
            compute_sentences(model.network, model.encode(chunk))
        ):
            outputs = outputs.astype(np.float64) / model.blend.temperature
            result[k] = (model.task.probabilities(outputs), *others)
        return result

    tokens = model.vectorizer.tokenize(texts)
    found = predict_in_chunks(texts, read)
    return [list(_cut(*pair)) for pair in zip(tokens, found, strict=True)]


def _cut(tokens, sentences):
    """Yield the sentences of a text from its tokens and what was computed of its sentences."""
    begin = 0
    for probabilities, weight, length in zip(*sentences, strict=True):
        yield Sentence(tokens[begin : begin + length], probabilities, float(weight))
        begin += length
