"""What a language model gives a classifier to start from: vectorizer, sizes, weights."""

import copy
import os
from typing import NamedTuple

import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn

from sklstm.language_model import LSTMLanguageModel
from sklstm.text.vectorizer import SequenceVectorizer

#: Parameters of a classifier that its language model has settled.
SIZES = ("embedding_dim", "hidden_size", "num_layers", "bidirectional", "cell")
#: Parameters of a vectorizer that may differ from the language model's: how much is read of a text.
OWN = ("max_length", "keep")


class Start(NamedTuple):
    """What a classifier takes over."""

    vectorizer: SequenceVectorizer
    sizes: dict
    weights: dict[str, Tensor]  # of embedding and LSTM

    @torch.no_grad()
    def give(self, network: nn.Module) -> None:
        """Copy the weights into a network of these sizes."""
        for name, parameter in network.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])


def find_start(pretrained, parameters: dict, defaults: dict) -> Start | None:
    """Return what a classifier of these parameters starts from, or None without ``pretrained``.

    Parameters
    ----------
    pretrained : LSTMLanguageModel, FrozenEstimator of one, path or None
        The language model.
    parameters, defaults : dict
        The parameters of the classifier, and those of one that was given none.

    Raises
    ------
    NotFittedError
        If the language model is not fitted.
    TypeError, ValueError
        If it is no language model, or the parameters contradict it.
    FileNotFoundError
        If it is a path and there is no such file.
    """
    if pretrained is None:
        return None
    model = _find_model(pretrained)
    lstm, embedding = model.network_.lstm, model.network_.embedding
    sizes = {name: getattr(lstm, name) for name in SIZES[1:]}
    sizes["embedding_dim"] = embedding.embedding_dim
    for name in SIZES:
        if parameters[name] not in (defaults[name], sizes[name]):
            raise ValueError(
                f"{name} is the language model's, {sizes[name]!r}, where pretrained is given; got "
                f"{parameters[name]!r}. Leave it out."
            )
    weights = {f"lstm.{name}": weight for name, weight in lstm.named_parameters()}
    weights["embedding.weight"] = embedding.weight
    return Start(_choose_vectorizer(model.vectorizer_, parameters["vectorizer"]), sizes, weights)


def keep_start(vectorizer: SequenceVectorizer, settings: dict) -> Start:
    """Return the start of a classifier that goes on with weights of its own."""
    return Start(vectorizer, {name: settings[name] for name in SIZES}, {})


def _find_model(pretrained) -> LSTMLanguageModel:
    """Return the fitted language model behind ``pretrained``."""
    if isinstance(pretrained, str | os.PathLike):
        return LSTMLanguageModel.load(pretrained)
    model = pretrained.estimator if isinstance(pretrained, FrozenEstimator) else pretrained
    if not isinstance(model, LSTMLanguageModel):
        raise TypeError(
            "pretrained must be a fitted LSTMLanguageModel, a FrozenEstimator of one or the path "
            f"of one that was saved; got {type(model).__name__}."
        )
    if not hasattr(model, "network_"):
        raise NotFittedError(
            "pretrained must be a fitted LSTMLanguageModel; got one that is not. Call its fit "
            "first; in a grid of several give paths, or wrap each in "
            "sklearn.frozen.FrozenEstimator, since a search clones what it tries."
        )
    return model


def _choose_vectorizer(theirs, own):
    """Return a copy of the language model's vectorizer, which reads as much as ``own`` says."""
    vectorizer = copy.copy(theirs)
    if own is None:
        return vectorizer
    before, now = theirs.get_params(deep=False), own.get_params(deep=False)
    different = [
        name for name in before if name not in OWN and not _is_same(before[name], now[name])
    ]
    if different or type(own) is not type(theirs):
        raise ValueError(
            "vectorizer may differ from the language model's in max_length and keep alone, where "
            f"pretrained is given; got another {(different or ['class'])[0]}. Leave it out, or fit "
            "a language model with it."
        )
    return vectorizer.set_params(**{name: now[name] for name in OWN})


def _is_same(one, other) -> bool:
    """Return whether two values of a parameter are; an array or series is as good as its list."""
    one, other = (value.tolist() if hasattr(value, "tolist") else value for value in (one, other))
    return one is other or bool(one == other)
