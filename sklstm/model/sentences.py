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
    span : (int, int) or None
        Where it is in the original text: its first character, and the one behind its last. None
        where a function as ``preprocessor``, ``tokenizer`` or ``analyzer`` hides that.
    """

    tokens: list[str]
    probabilities: np.ndarray
    weight: float
    span: tuple[int, int] | None


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

    tokens, spans = model.vectorizer.tokenize(texts), model.vectorizer.locate_tokens(texts)
    found = predict_in_chunks(texts, read)
    return [list(_cut(*parts)) for parts in zip(tokens, spans, found, strict=True)]


def _cut(tokens, spans, sentences):
    """Yield the sentences of a text from its tokens and what was computed of its sentences."""
    begin = 0
    for probabilities, weight, length in zip(*sentences, strict=True):
        own = slice(begin, begin + length)
        yield Sentence(tokens[own], probabilities, float(weight), _join(spans[own]))
        begin += length


def _join(spans):
    """Return the span from the first to the last of some, or None where one of these is not known.

    The only sentence of a text without tokens is empty.
    """
    if not spans:
        return (0, 0)
    return (spans[0][0], spans[-1][1]) if spans[0] and spans[-1] else None
