"""Which n-grams speak for what, as the linear models have learnt it."""

from typing import NamedTuple

import numpy as np
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import Pipeline

from sklstm.ngrams.state import is_ngram_member
from sklstm.ngrams.updating import list_models
from sklstm.tasks.protocol import Task


class Feature(NamedTuple):
    """An n-gram, and how much it speaks for a class, a label or a larger number.

    Attributes
    ----------
    ngram : str
        The n-gram as it is in texts. A space among characters is the end of a token.
    kind : {'word', 'pair', 'characters'}
        What it is made of.
    weight : float
        What a text's log-odds rise by where it has the n-gram; of a regressor, its number.
    """

    ngram: str
    kind: str
    weight: float


def rank_features(members, task: Task, n: int) -> dict[object, list[Feature]]:
    """Return the n-grams with the largest weights for each output of a task.

    Parameters
    ----------
    members : sequence of (str, estimator)
        Names and fitted members of a blend; the first of n-grams counts.
    task : Task
        What y is.
    n : int
        Most n-grams for each output.

    Raises
    ------
    ValueError
        If no member is one of n-grams.
    """
    member = next((member for _, member in members if is_ngram_member(member)), None)
    if member is None:
        kinds = [type(member).__name__ for _, member in members]
        got = f"{', '.join(kinds)} as the blend" if kinds else "no second model"
        raise ValueError(
            "top_features needs blend='ngrams', since it shows what the linear models of n-grams "
            f"have learnt; got {got}. Fit with blend='ngrams'."
        )
    features, weights = member[0].list_features(), weigh_features(member)
    # A probability has a direction for each class. Numbers have both, so that sizes count.
    keys = weights if hasattr(task, "classes") else np.abs(weights)
    ranked = {}
    for name, of_output, key in zip(_name_rows(member, task), weights, keys, strict=True):
        best = np.argsort(-key, kind="stable")[:n]
        ranked[name] = [Feature(*features[k], float(of_output[k])) for k in best if key[k] > 0]
    return ranked


def weigh_features(member: Pipeline) -> np.ndarray:
    """Return what having each feature adds to the log-odds of each class, (n_classes, n_features).

    Of two models it is the mean. TF-IDF counts at the root mean square that it has in the texts of
    the fit that have the feature. A softmax compares classes, so that a coefficient of it is taken
    against the mean of the others'.
    """
    ngrams, linear = (step for _, step in member.steps)
    _, squares, counts = ngrams.estimate_sums()
    typical = np.sqrt(squares / counts)
    weights = []
    for model in list_models(linear):
        coef = model.arrays[0]
        if len(coef) > 1 and isinstance(linear, VotingClassifier) and not model.marks:
            coef = coef - (coef.sum(axis=0) - coef) / (len(coef) - 1)
        weights.append(coef if model.marks else coef * typical)
    weights = np.mean(weights, axis=0)
    if isinstance(linear, VotingClassifier) and len(linear.classes_) == 2:
        return np.concatenate([-weights, weights])
    return weights * linear.scale_[:, None] if hasattr(linear, "scale_") else weights


def _name_rows(member, task):
    """Return the class, label or column of each row of the weights."""
    if isinstance(member[-1], VotingClassifier):  # it may lack a class
        return member[-1].classes_.tolist()
    return getattr(task, "classes", np.arange(task.n_outputs)).tolist()
