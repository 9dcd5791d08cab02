"""The members of a blend: estimators of raw texts that are pooled with the network."""

import sys
import warnings
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import (
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from sklstm.composition import NGRAMS, list_members
from sklstm.ngrams.label_sets import LinearLabelSets
from sklstm.ngrams.linear import make_ngram_member
from sklstm.ngrams.prediction import can_predict, predict_proba
from sklstm.ngrams.threads import threads_of_ngrams
from sklstm.ngrams.vectorizer import NgramCounts, NgramVectorizer
from sklstm.tasks.protocol import Task
from sklstm.text.examples import Examples

# So many texts at most are also predicted out of fold, by several members or by a single one. With
# more texts, those held out say enough, and the fits of all folds take long.
MOST_TEXTS_OF_SEVERAL, MOST_TEXTS_OF_ONE = 2_000, 1_000
# With fewer different texts whose class is in another fold too, there are no such fits: a member
# that has learnt from ten texts says nothing of others.
FEWEST_OUT_OF_FOLD = 20
FOLDS = 5
# These pass weights on to their members, whatever these are.
ENSEMBLES = (VotingClassifier, StackingClassifier, VotingRegressor, StackingRegressor)


class FittedMembers(NamedTuple):
    """The members of a blend after their fit.

    Attributes
    ----------
    named : tuple of (str, estimator)
        Names and fitted members.
    outputs : list of ndarray of shape (n_held_out, n_outputs)
        What each predicts of the texts held out, fitted without them; empty without such texts.
    out_of_fold : list of ndarray of shape (n_texts, n_outputs)
        What each predicts of texts, of each from a fit without it; empty where there are no such
        fits. Texts whose class no such fit knows are left out: all members are wrong there.
    examples : Examples or None
        The texts of ``out_of_fold``.
    """

    named: tuple[tuple[str, object], ...] = ()
    outputs: list[np.ndarray] = []
    out_of_fold: list[np.ndarray] = []
    examples: Examples | None = None


def choose_members(blend, vectorizer, task: Task) -> list[tuple[str, object]]:
    """Return the names and unfitted estimators that the parameter ``blend`` means.

    Parameters
    ----------
    blend : estimator, 'ngrams', list or None
        The parameter, checked.
    vectorizer : SequenceVectorizer or None
        Says what a token is, where 'ngrams' counts n-grams of them.
    task : Task
        What y is.
    """
    chosen = []
    for name, member in list_members(blend):
        if isinstance(member, str) and member == NGRAMS:
            member = make_ngram_member(task.kind, vectorizer, n_outputs=task.n_outputs)
        if not isinstance(member, str):  # 'drop'
            chosen.append((name, member))
    return chosen


def counts_ngrams(estimator) -> bool:
    """Whether an estimator, fitted or not, is a pipeline that begins with our n-grams."""
    return isinstance(estimator, Pipeline) and isinstance(estimator[0], NgramVectorizer)


def fit_member(estimator, examples: Examples, task: Task):
    """Return a fitted clone of an estimator; a FrozenEstimator as it is.

    Parameters
    ----------
    estimator : estimator
        Takes raw texts; predicts by ``task.response_method``.
    examples : Examples
        What it is fitted to. Equal weights are not passed on; others are scaled to a mean of 1,
        as in the network's loss, since their sum would count against an estimator's penalty or
        prior.
    task : Task
        Turns the targets into labels.

    Raises
    ------
    ValueError
        If the weights differ and the estimator takes none, or it cannot be fitted to these texts.
    """
    if isinstance(estimator, FrozenEstimator):
        return estimator
    weights = _find_weights(estimator, examples, task)
    weighted = {} if weights is None else {_name_of_weights(estimator, task): weights}
    fresh = clone(estimator)
    threads = threads_of_ngrams(task.n_outputs) if counts_ngrams(estimator) else nullcontext()
    with _one_error(estimator, task), threads:
        return fresh.fit(examples.texts, task.decode(examples.targets), **weighted)


def _fit_counted(estimator: Pipeline, counts: NgramCounts, rows, examples: Examples, task: Task):
    """Return fitted n-grams, as ``fit_member`` does; the examples are these rows of the counts."""
    weights, (ngrams, linear) = _find_weights(estimator, examples, task), map(clone, estimator)
    weighted = {} if weights is None else {"sample_weight": weights}
    with _one_error(estimator, task), threads_of_ngrams(task.n_outputs):
        features = ngrams.fit_counts(counts, rows)
        linear.fit(features, task.decode(examples.targets), **weighted)
    names = [name for name, _ in estimator.steps]
    return Pipeline(list(zip(names, (ngrams, linear), strict=True)))


def _find_weights(estimator, examples: Examples, task: Task) -> np.ndarray | None:
    """Return the weights for an estimator, of mean 1; None where all are equal."""
    weights = task.weigh_for_member(examples.targets, examples.weights)
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if weights.ndim == 2 and not isinstance(last, LinearLabelSets):
        raise ValueError(
            "blend must be 'ngrams' or None with class_weight of label sets, since estimators of "
            f"scikit-learn take one weight a text; got {type(estimator).__name__}. Give the "
            "weights to its own class_weight instead."
        )
    return weights / weights.mean(axis=0) if np.ptp(weights) > 0 else None


@contextmanager
def _one_error(estimator, task: Task):
    """Turn what a fit raises into one sentence."""
    try:
        # The weights are passed by their names, whatever the user's own code is routed by.
        with config_context(enable_metadata_routing=False), _no_autologging():
            yield
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"blend must be an estimator that can be fitted to these raw texts, such as "
            f"{task.example}; got the error "
            f"{str(error).partition(chr(10))[0]!r} from {type(estimator).__name__}. Give another "
            "one, or blend=None."
        ) from error


def _no_autologging():
    """Keep MLflow's autologging, where it is loaded, from taking the member for the model."""
    mlflow = sys.modules.get("mlflow.utils.autologging_utils")
    return nullcontext() if mlflow is None else mlflow.disable_autologging()


def ask_member(member, texts: list[str], task: Task, name: str = "") -> np.ndarray:
    """Return the outputs (n_texts, n_outputs) that say what a fitted member predicts.

    Raises
    ------
    ValueError
        If they are not finite; the message has the ``name``.
    """
    if can_predict(member):
        response = predict_proba(member, texts)
    else:
        response = getattr(member, task.response_method)(texts)
    outputs = task.read_response(response, getattr(member, "classes_", None))
    if not np.isfinite(outputs).all():
        raise ValueError(
            f"blend must predict finite numbers; got NaN or infinity from "
            f"{name or type(member).__name__}. "
            f"Give another one, such as {task.example}."
        )
    return outputs


def fit_early(blend, everything: Examples, task: Task, *, tell) -> dict[str, object]:
    """Return the user's own members by name, fitted to all texts.

    A fit that learns a language model first calls it before that, so that the errors of members do
    not come after an hour. The n-grams are left out: they need the vectorizer, and cannot fail.

    Raises
    ------
    ValueError
        As ``fit_members`` does.
    """
    members = list_members(blend)
    if len(np.unique(everything.targets, axis=0)) < 2:
        return {}
    early = {}
    for name, estimator in members:
        if isinstance(estimator, str) or counts_ngrams(estimator):
            continue
        tell(name, len(everything.texts))
        with _naming(name, len(members)):
            early[name] = fit_member(estimator, everything, task)
            ask_member(early[name], everything.texts[:1], task)
    return early


def fit_members(
    unfitted: list[tuple[str, object]],
    everything: Examples,
    train: Examples,
    held_out: Examples | None,
    task: Task,
    *,
    tell,
    compares: bool,
    early: Mapping[str, object] = MappingProxyType({}),
) -> FittedMembers:
    """Return the fitted members, and their outputs for the held-out texts.

    The outputs are those of a fit without these texts; the members that are returned have learnt
    from all texts. Where there are few texts, the members also predict all of them out of fold.

    Parameters
    ----------
    unfitted : list of (str, estimator)
        Names and unfitted members. There is none in what is returned if all texts have the same
        target.
    everything, train, held_out : Examples
        All texts, those that the network is trained on, and those held out, None without any.
    task : Task
        What y is.
    tell : callable
        Is called with the name of a member and the number of texts before its fit.
    compares : bool
        Whether members may predict few texts out of fold.
    early : mapping of str to estimator
        Members that have been fitted to all texts, by name.

    Raises
    ------
    ValueError
        If a member cannot be fitted to these texts, or does not predict what it must.
    """
    if len(np.unique(train.targets, axis=0)) < 2:
        return FittedMembers()
    named, outputs, out_of_fold, folds, known = [], [], [], None, None
    most_texts = MOST_TEXTS_OF_SEVERAL if len(unfitted) > 1 else MOST_TEXTS_OF_ONE
    if compares and unfitted and len(everything.texts) <= most_texts:
        folds = _choose_folds(everything, task)
    if folds is not None:
        known = _find_known(everything.targets, folds)
        n_different = len({everything.texts[row] for row in known})
        folds = folds if n_different >= FEWEST_OUT_OF_FOLD else None
    for name, estimator in unfitted:
        tell(name, len(everything.texts))
        with _naming(name, len(unfitted)):
            member, of_member = _fit_and_validate(
                estimator, everything, train, held_out, task, early.get(name)
            )
            if folds is not None:
                predicted = _predict_out_of_fold(estimator, everything, folds, task)
                out_of_fold.append(predicted[known])
        named.append((name, member))
        outputs += [] if held_out is None else [of_member]
    compared = everything.take(known) if out_of_fold else None
    return FittedMembers(tuple(named), outputs, out_of_fold, compared)


def _choose_folds(examples: Examples, task: Task) -> np.ndarray | None:
    """Return the fold (n_texts,) of each text; None if the rest of a fold has one target only.

    Equal texts are in one fold. Classes, and ranges of numbers, are in proportion.
    """
    _, groups = np.unique(np.asarray(examples.texts, dtype=object), return_inverse=True)
    if len(np.unique(groups)) < FOLDS:
        return None
    strata = task.strata(examples.targets, 1 / FOLDS)
    # scikit-learn refuses to stratify where no class has a text for each fold.
    if strata.ndim == 2 or np.unique(strata, return_counts=True)[1].max() < FOLDS:
        splitter = GroupKFold(FOLDS, shuffle=True, random_state=0)
    else:
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    folds = np.empty(len(groups), dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer texts than folds
        for fold, (_, rows) in enumerate(splitter.split(groups, strata, groups)):
            folds[rows] = fold
    rests = [examples.targets[folds != fold] for fold in range(FOLDS)]
    return folds if all(len(np.unique(rest, axis=0)) > 1 for rest in rests) else None


def _find_known(targets: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the rows whose class is in another fold too; all rows of numbers and label sets."""
    if targets.ndim > 1 or not np.issubdtype(targets.dtype, np.integer):
        return np.arange(len(targets))
    pairs = np.unique(np.stack([targets, folds]), axis=1)
    return np.flatnonzero(np.bincount(pairs[0])[targets] > 1)


def _predict_out_of_fold(estimator, examples: Examples, folds: np.ndarray, task: Task):
    """Return what a member predicts of each text without it, (n_texts, n_outputs)."""
    counts = estimator[0].count(examples.texts) if counts_ngrams(estimator) else None
    outputs = np.empty((len(folds), task.n_outputs))
    for fold in range(FOLDS):
        rows, others = (np.flatnonzero(where) for where in (folds == fold, folds != fold))
        rest = examples.take(others)
        if counts is None:
            member = fit_member(estimator, rest, task)
        else:
            member = _fit_counted(estimator, counts, others, rest, task)
        outputs[rows] = ask_member(member, examples.take(rows).texts, task)
    return outputs


@contextmanager
def _naming(name: str, n_members: int):
    """Say which of several members an error is about."""
    try:
        yield
    except ValueError as error:
        if n_members == 1:
            raise
        raise ValueError(f"{error} This is about the member {name!r}.") from error


def _fit_and_validate(estimator, everything, train, held_out, task, fitted=None):
    """Return a member fitted to all texts, and its outputs for the held-out texts or None.

    ``fitted`` is the first of the two, where it is known.
    """
    apart = held_out is not None and len(train.texts) < len(everything.texts)
    if apart and counts_ngrams(estimator):
        # The texts are counted once for both fits.
        fit = partial(_fit_counted, estimator, estimator[0].count(everything.texts))
        outputs = ask_member(fit(train.rows, train, task), held_out.texts, task)
        return fit(None, everything, task), outputs
    if apart:
        outputs = ask_member(fit_member(estimator, train, task), held_out.texts, task)
    if fitted is None:
        fitted = fit_member(estimator, everything, task)
    if held_out is None:
        ask_member(fitted, everything.texts[:1], task)  # so that its errors come now
        return fitted, None
    return fitted, outputs if apart else ask_member(fitted, held_out.texts, task)


def _name_of_weights(estimator, task: Task) -> str:
    """Return the argument of ``fit`` that takes the weights of texts."""
    if _takes_weights(estimator):
        return "sample_weight"
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        if _takes_weights(last):
            return f"{name}__sample_weight"
    raise ValueError(
        "blend must be an estimator whose fit takes sample_weight, since texts or classes have "
        f"different weights; got {estimator!r}. Give another one, such as {task.example}, or "
        "blend=None."
    )


def _takes_weights(estimator) -> bool:
    if isinstance(estimator, ENSEMBLES):
        members = [member for _, member in estimator.estimators if member != "drop"]
        last = getattr(estimator, "final_estimator", None)
        return all(map(_takes_weights, [*members, *([] if last is None else [last])]))
    return has_fit_parameter(estimator, "sample_weight")
