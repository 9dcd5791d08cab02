"""The language model that a fit learns first, where it is given texts without labels."""

import copy
import os
import warnings

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sklstm.checks import check_texts, level_of_user
from sklstm.language_model import LSTMLanguageModel
from sklstm.model.text_model import TextModel
from sklstm.training.start import AUTO_EMBEDDING_DIM, check_agrees

#: Parameters of the classifier that the language model has as well, with the same meaning.
SHARED = (
    "vectorizer",
    "hidden_size",
    "num_layers",
    "bidirectional",
    "cell",
    "device",
    "precision",
    "backend",
    "random_state",
    "verbose",
)
#: So many texts of each kind are compared, and fewer known tokens than this share are suspicious.
COMPARED, LEAST_SHARE = 2000, 0.5


def check_unlabelled(estimator, X_unlabelled) -> list[str] | None:
    """Return the unlabelled texts, checked; None without any.

    Raises
    ------
    TypeError, ValueError
        If they hold no texts, or the estimator's parameters leave nothing to learn from them.
    """
    if X_unlabelled is None:
        return None
    texts = check_texts(X_unlabelled, name="X_unlabelled")
    given = estimator.pretrained
    if estimator.warm_start and hasattr(estimator, "model_"):
        raise ValueError(
            "X_unlabelled must be given to the first fit; got it for a fit that resumes an earlier "
            "one. Use warm_start=False to start anew."
        )
    if estimator.embeddings is not None:
        raise ValueError(
            "embeddings and X_unlabelled cannot be given together, since the language model has an "
            "embedding of its own. Leave one of them out."
        )
    is_fitted = isinstance(given, str | os.PathLike | FrozenEstimator) or hasattr(given, "model_")
    if given is not None and (is_fitted or not isinstance(given, LSTMLanguageModel)):
        raise ValueError(
            "pretrained must be None or an unfitted LSTMLanguageModel where X_unlabelled is given, "
            f"since a language model is learnt from these texts; got {type(given).__name__}"
            f"{', fitted' * is_fitted}. Leave one of them out."
        )
    return texts


def make_recipe(estimator) -> LSTMLanguageModel:
    """Return an unfitted language model: the estimator's ``pretrained``, or one of its sizes.

    Raises
    ------
    ValueError
        If parameters of the estimator contradict it.
    """
    if estimator.pretrained is None:
        recipe = LSTMLanguageModel(**{name: getattr(estimator, name) for name in SHARED})
        width = estimator.embedding_dim
        recipe.embedding_dim = AUTO_EMBEDDING_DIM if width == "auto" else width
    else:
        recipe = clone(estimator.pretrained)
    if recipe.vectorizer is not None:
        recipe.vectorizer = clone(recipe.vectorizer)
    check_agrees(estimator, recipe)
    return recipe


def learn_language(recipe: LSTMLanguageModel, texts: list[str], unlabelled: list[str]) -> TextModel:
    """Return what the language model learns from texts with and without labels.

    It warns where the two have little in common.
    """
    model = recipe.fit([*texts, *unlabelled]).model_
    _warn_of_other_kind(model, texts, unlabelled)
    return model


def _warn_of_other_kind(model: TextModel, texts: list[str], unlabelled: list[str]) -> None:
    """Warn where the unlabelled texts hardly have the tokens of the others."""
    whole = copy.copy(model.vectorizer).set_params(max_length=None)
    ids, others = (whole.transform_ragged(some[:COMPARED])[0] for some in (texts, unlabelled))
    share = np.isin(ids, others).mean() if len(ids) else 1.0
    if share < LEAST_SHARE:
        warnings.warn(
            f"X_unlabelled has only {share:.0%} of the tokens of X. Texts of another language or "
            "kind teach little; check that both are of the same kind.",
            UserWarning,
            stacklevel=level_of_user(),
        )
