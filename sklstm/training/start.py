"""Where a fit starts: fresh, from a pre-trained language model, or from the fit before.

A start gives what is known before the first text is read: the vectorizer, the sizes, the weights,
the random state. What it leaves open is learnt from the texts, taken from the parameters, or drawn.
"""

import copy
import os
from inspect import signature

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state

from sklstm.model.blending import Blend
from sklstm.model.persistence import load
from sklstm.model.text_model import TextModel
from sklstm.network.encoder import Encoder
from sklstm.network.language_network import LSTMLanguageNetwork
from sklstm.network.settings import NetworkSettings
from sklstm.text.batching import RaggedIds
from sklstm.text.sentences import ID_MASK
from sklstm.text.special_tokens import SPECIAL_TOKENS
from sklstm.text.vectorizer import SequenceVectorizer
from sklstm.text.word_vectors import find_vectors
from sklstm.training.fine_tuning import count_stages
from sklstm.training.reporting import Report

#: Parameters that a language model determines.
SIZES = ("embedding_dim", "hidden_size", "num_layers", "bidirectional", "cell")
#: Parameters of a vectorizer that may differ from the language model's: how much of a text is read.
OWN = ("max_length", "keep")
#: What ``embedding_dim="auto"`` is without word vectors.
AUTO_EMBEDDING_DIM = 128


def find_start(estimator, *, resume: bool) -> "Fresh":
    """Return where a fit of an estimator starts; ``resume`` an earlier fit, if there is one.

    Raises
    ------
    NotFittedError
        If ``pretrained`` is not fitted.
    TypeError, ValueError
        If ``pretrained`` is no language model, or parameters contradict it or the earlier fit.
    FileNotFoundError
        If ``pretrained`` is a path and there is no such file.
    """
    if estimator.pretrained is not None and estimator.embeddings is not None:
        raise ValueError(
            "embeddings and pretrained cannot be given together, since the language model has an "
            "embedding of its own. Leave one of them out."
        )
    pretrained = None if estimator.pretrained is None else _check_pretrained(estimator.pretrained)
    if resume and hasattr(estimator, "model_"):
        return Resumed(estimator, estimator.model_)
    if pretrained is not None:
        return Pretrained(estimator, _find_language_model(pretrained))
    return Fresh(estimator)


class Fresh:
    """A fit that starts from nothing but parameters: vocabulary and weights are new."""

    task = None
    blend = Blend()
    history: list[dict] = []
    moments: dict = {}
    coverage: tuple[float, float] | None = None
    vectors = None
    model: TextModel | None = None
    precisions: tuple[np.ndarray, ...] = ()

    def __init__(self, estimator):
        self.estimator = estimator
        #: Parameters of the network that the start determines, and not the user.
        self.given = ("embedding_dim",) if estimator.embedding_dim == "auto" else ()

    def generators(self) -> tuple[np.random.Generator, torch.Generator]:
        """Return numpy's generator for the order of texts and torch's for weights and masks."""
        random = check_random_state(self.estimator.random_state)
        seed = random.randint(np.iinfo(np.int32).max)
        return np.random.default_rng(seed), torch.Generator().manual_seed(int(seed))

    def vectorize(self, texts: list[str]) -> tuple[SequenceVectorizer, RaggedIds]:
        """Return a vectorizer fitted on the texts and their ids; look up the word vectors."""
        given = self.estimator.vectorizer
        vectorizer = SequenceVectorizer() if given is None else clone(given)
        _choose_end(vectorizer, self.estimator, bidirectional=self.estimator.bidirectional)
        ids = RaggedIds(*vectorizer.fit_ragged(texts, marks=self.marks))
        self._find_vectors(vectorizer, ids)
        return vectorizer, ids

    def _find_vectors(self, vectorizer, ids):
        """Read the word vectors of the vocabulary; measure and print what they cover."""
        estimator = self.estimator
        if estimator.embeddings is None:
            if estimator.freeze_embeddings:
                raise ValueError(
                    "freeze_embeddings=True needs word vectors to freeze; got embeddings=None. "
                    "Give embeddings or pretrained, or set freeze_embeddings=False."
                )
            return
        width = None if estimator.embedding_dim == "auto" else estimator.embedding_dim
        self.vectors = find_vectors(
            estimator.embeddings,
            vectorizer.tokens_,
            n_special=len(SPECIAL_TOKENS),
            width=width,
        )
        self.coverage = of_tokens, of_vocabulary = self.vectors.coverage(ids.ids & ID_MASK)
        if estimator.verbose:
            Report(estimator.verbose).line(
                f"Word vectors of {self.vectors.width} numbers cover {of_tokens:.1%} of the tokens "
                f"and {of_vocabulary:.1%} of the vocabulary."
            )

    def network_settings(self) -> NetworkSettings:
        """Return what the network is built from, once the texts are vectorized."""
        width = self.estimator.embedding_dim
        if width == "auto":
            width = AUTO_EMBEDDING_DIM if self.vectors is None else self.vectors.width
        return NetworkSettings.of(self.estimator, embedding_dim=width)

    def load_into(self, network: Encoder) -> None:
        """Give a network the weights that are known."""
        if self.vectors is not None:
            self.vectors.copy_into(network.embedding.weight)

    def count_stages(self) -> int:
        """Return in how many epochs the network unfreezes; 1 is all at once.

        Raises
        ------
        ValueError
            If there is nothing to unfreeze, or there are fewer epochs than that.
        """
        estimator = self.estimator
        if not estimator.gradual_unfreezing:
            return 1
        if not self.has_learnt:
            raise ValueError(
                "gradual_unfreezing=True needs weights that have learnt before; got "
                "pretrained=None and embeddings=None. Give one of them, or set "
                "gradual_unfreezing=False."
            )
        return _count_unfreezing(estimator, self.num_layers)

    def encode(self, texts: list[str], vectorizer: SequenceVectorizer) -> RaggedIds:
        """Return the ids of texts by a fitted vectorizer."""
        return RaggedIds(*vectorizer.transform_ragged(texts, marks=self.marks))

    @property
    def marks(self) -> bool:
        """Whether the ends of sentences are marked in the ids."""
        return self.estimator.read_by == "sentence"

    @property
    def has_learnt(self) -> bool:
        """Whether there are weights that have learnt before."""
        return self.estimator.embeddings is not None

    @property
    def num_layers(self) -> int:
        """Number of LSTM layers."""
        return self.estimator.num_layers


class Pretrained(Fresh):
    """A fit that starts from the vectorizer, sizes and weights of a language model."""

    has_learnt = True

    def __init__(self, estimator, model: TextModel):
        super().__init__(estimator)
        settings = model.network.settings
        self.sizes, self.given = {name: getattr(settings, name) for name in SIZES}, SIZES
        self.weights = {
            name: weight
            for name, weight in model.network.named_parameters()
            if name.startswith(("embedding.", "lstm."))
        }
        _check_sizes(estimator, self.sizes)
        self.vectorizer = _choose_vectorizer(model.vectorizer, estimator.vectorizer)
        _choose_end(self.vectorizer, estimator, bidirectional=settings.bidirectional)

    def vectorize(self, texts):
        """Return the language model's vectorizer and the ids of the texts."""
        return self.vectorizer, self.encode(texts, self.vectorizer)

    def network_settings(self):
        """Return what the network is built from, with the language model's sizes."""
        return NetworkSettings.of(self.estimator, **self.sizes)

    @torch.no_grad()
    def load_into(self, network):
        """Copy the weights of the language model's embedding and LSTM."""
        for name, parameter in network.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])

    @property
    def num_layers(self):
        """Number of LSTM layers of the language model."""
        return self.sizes["num_layers"]


class Resumed(Fresh):
    """A fit that resumes an earlier one: its vectorizer, weights, moments and random state."""

    def __init__(self, estimator, model: TextModel):
        super().__init__(estimator)
        self.model = model
        self.task, self.blend, self.history = model.task, model.blend, model.history
        self.precisions = model.precisions
        self.moments, self.coverage, self.given = model.moments, model.coverage, model.given
        if estimator.embeddings is not None and model.coverage is None:
            raise ValueError(
                "embeddings must be given to the first fit; got them for a network that was fitted "
                "without. Use fit with warm_start=False to start anew."
            )
        self.network_settings().check_resumes(model.network.settings)

    def generators(self):
        """Return copies of the earlier generators.

        With new ones, each call of ``partial_fit`` would repeat the order and masks of the last.
        Torch's gets its state when the weights are loaded, since a new network draws weights.
        """
        return copy.deepcopy(self.model.rng), torch.Generator()

    def vectorize(self, texts):
        """Return the earlier vectorizer and the ids of the texts."""
        return self.model.vectorizer, self.model.encode(texts)

    def network_settings(self):
        """Return what the network is built from, with the sizes that parameters leave open."""
        earlier = self.model.network.settings
        known = {
            name: getattr(earlier, name)
            for name in self.given
            if getattr(self.estimator, name) == _default(self.estimator, name)
        }
        if self.estimator.embedding_dim == "auto":
            known["embedding_dim"] = earlier.embedding_dim
        return NetworkSettings.of(self.estimator, **known)

    def load_into(self, network):
        """Copy the earlier weights and the state of the generator."""
        network.load_state_dict(self.model.network.state_dict())
        network.generator.set_state(self.model.network.generator.get_state())

    def count_stages(self):
        """Return 1: a network that has been fitted is trained all at once."""
        return 1


def check_agrees(estimator, recipe) -> None:
    """Raise ValueError where parameters contradict an unfitted language model to start from.

    Parameters
    ----------
    estimator : LSTMTextEstimator
        What will start from it.
    recipe : LSTMLanguageModel
        Has the sizes and the vectorizer.
    """
    _check_sizes(estimator, {name: getattr(recipe, name) for name in SIZES})
    _choose_vectorizer(recipe.vectorizer or SequenceVectorizer(), estimator.vectorizer)
    if estimator.gradual_unfreezing:
        _count_unfreezing(estimator, recipe.num_layers)


def _check_sizes(estimator, sizes: dict) -> None:
    for name, size in sizes.items():
        got = getattr(estimator, name)
        if got not in (_default(estimator, name), size):
            raise ValueError(
                f"{name} is the language model's, {size!r}, where pretrained is given; got "
                f"{got!r}. Leave it out."
            )


def _count_unfreezing(estimator, num_layers: int) -> int:
    """Return in how many epochs a network of so many layers unfreezes."""
    n_stages = count_stages(num_layers, freeze_embeddings=estimator.freeze_embeddings)
    if estimator.max_epochs != "auto" and estimator.max_epochs < n_stages:
        raise ValueError(
            f"max_epochs must be at least {n_stages} with gradual_unfreezing=True, which "
            f"unfreezes one layer an epoch; got {estimator.max_epochs}. Raise it, or set "
            "gradual_unfreezing=False."
        )
    return n_stages


def _check_pretrained(pretrained):
    """Return a path, or the estimator behind ``pretrained``, if that is a language model."""
    given = pretrained.estimator if isinstance(pretrained, FrozenEstimator) else pretrained
    if not (isinstance(given, str | os.PathLike) or hasattr(given, "perplexity")):
        raise TypeError(
            "pretrained must be a fitted LSTMLanguageModel, a FrozenEstimator of one or the path "
            f"of one that was saved; got {type(given).__name__}."
        )
    return given


def _find_language_model(given) -> TextModel:
    """Return what the language model of a path, or an estimator, has learnt."""
    if isinstance(given, str | os.PathLike):
        try:
            return load(given, expected="LSTMLanguageModel").model
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"pretrained={str(given)!r} must be a file that LSTMLanguageModel.save has "
                "written; there is no such file. Check the name and the working directory."
            ) from error
        except ValueError as error:
            raise ValueError(f"pretrained={str(given)!r} cannot be loaded: {error}") from error
    model = getattr(given, "model_", None)
    if isinstance(model, TextModel) and isinstance(model.network, LSTMLanguageNetwork):
        return model
    raise NotFittedError(
        "pretrained must be a fitted LSTMLanguageModel; got one that is not. Call its fit "
        "first; in a grid of several give paths, or wrap each in "
        "sklearn.frozen.FrozenEstimator, since a search clones what it tries."
    )


def _default(estimator, name: str):
    """Return what a parameter is where the user gives none."""
    kinds = [signature(kind.__init__).parameters for kind in type(estimator).__mro__]
    return next(parameters[name].default for parameters in kinds if name in parameters)


def _choose_vectorizer(theirs: SequenceVectorizer, own: SequenceVectorizer | None):
    """Return a copy of the language model's vectorizer, which reads as much as ``own`` says."""
    vectorizer = copy.copy(theirs)
    if own is None:
        return vectorizer
    before, now = theirs.get_params(deep=False), own.get_params(deep=False)
    # A language model from an earlier file has other values of these than the defaults of today.
    defaults = SequenceVectorizer().get_params(deep=False)
    not_given = {name for name in ("normalize", "token_pattern") if now[name] == defaults[name]}
    different = [
        name
        for name in before
        if name not in {*OWN, *not_given} and not _is_same(before[name], now[name])
    ]
    if different or type(own) is not type(theirs):
        raise ValueError(
            "vectorizer may differ from the language model's in max_length and keep only, where "
            f"pretrained is given; got another {(different or ['class'])[0]}. Leave it out, or fit "
            "a language model with it."
        )
    return vectorizer.set_params(**{name: now[name] for name in OWN})


def _choose_end(vectorizer: SequenceVectorizer, estimator, *, bidirectional: bool) -> None:
    """Set what is kept of long texts, where the user leaves it open.

    The last state of one direction remembers the end of a text best, so the end is read without a
    gap.
    """
    if vectorizer.keep == "auto":
        only_last = estimator.pooling in ("last", ("last",), ["last"])
        vectorizer.set_params(keep="tail" if only_last and not bidirectional else "both")


def _is_same(one, other) -> bool:
    """Return whether two values of a parameter are; an array or series counts as its list."""
    one, other = (value.tolist() if hasattr(value, "tolist") else value for value in (one, other))
    return one is other or bool(one == other)
