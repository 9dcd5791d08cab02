"""The member of a blend: an estimator of raw texts that is pooled with the network."""

import sys
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import (
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from sklstm.ngrams.label_sets import LinearLabelSets
from sklstm.ngrams.linear import make_ngram_member
from sklstm.ngrams.prediction import can_predict, predict_proba
from sklstm.ngrams.vectorizer import NgramCounts, NgramVectorizer
from sklstm.tasks.protocol import Task
from sklstm.text.examples import Examples

# These pass weights on to their members, whatever these are.
ENSEMBLES = (VotingClassifier, StackingClassifier, VotingRegressor, StackingRegressor)


def choose_member(blend, vectorizer, task: Task):
    """Return the unfitted estimator that the parameter ``blend`` names, or None.

    Parameters
    ----------
    blend : estimator, 'ngrams' or None
        The parameter.
    vectorizer : SequenceVectorizer or None
        Says what a token is, where 'ngrams' counts n-grams of them.
    task : Task
        What y is.
    """
    if not isinstance(blend, str):
        return blend
    return make_ngram_member(task.kind, vectorizer, n_outputs=task.n_outputs)


def fit_member(estimator, examples: Examples, task: Task):
    """Return a fitted clone of an estimator.

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
    weights = _find_weights(estimator, examples, task)
    weighted = {} if weights is None else {_name_of_weights(estimator, task): weights}
    fresh = clone(estimator)
    with _one_error(estimator, task):
        return fresh.fit(examples.texts, task.decode(examples.targets), **weighted)


def _fit_counted(estimator: Pipeline, counts: NgramCounts, rows, examples: Examples, task: Task):
    """Return fitted n-grams, as ``fit_member`` does; the examples are these rows of the counts."""
    weights, (ngrams, linear) = _find_weights(estimator, examples, task), map(clone, estimator)
    weighted = {} if weights is None else {"sample_weight": weights}
    with _one_error(estimator, task):
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


def ask_member(member, texts: list[str], task: Task) -> np.ndarray:
    """Return the outputs (n_texts, n_outputs) that say what a fitted member predicts."""
    if can_predict(member):
        response = predict_proba(member, texts)
    else:
        response = getattr(member, task.response_method)(texts)
    outputs = task.read_response(response, getattr(member, "classes_", None))
    if not np.isfinite(outputs).all():
        raise ValueError(
            f"blend must predict finite numbers; got NaN or infinity from {type(member).__name__}. "
            f"Give another one, such as {task.example}."
        )
    return outputs


def fit_and_validate(
    estimator,
    everything: Examples,
    train: Examples,
    held_out: Examples | None,
    task: Task,
):
    """Return the fitted member, and its outputs for the held-out texts.

    The outputs are those of a fit without these texts; the member that is returned has learnt from
    all texts.

    Parameters
    ----------
    estimator : estimator or None
        The unfitted member.
    everything, train, held_out : Examples
        All texts, those that the network is trained on, and those held out, None without any.
    task : Task
        What y is.

    Returns
    -------
    member : estimator or None
        None without an estimator, or where all texts have the same target.
    outputs : ndarray of shape (n_held_out, n_outputs) or None
        None without a member or held-out texts.
    """
    if estimator is None or len(np.unique(train.targets, axis=0)) < 2:
        return None, None
    if held_out is None:
        fitted = fit_member(estimator, everything, task)
        ask_member(fitted, everything.texts[:1], task)  # so that its errors come now
        return fitted, None
    if len(train.texts) == len(everything.texts):
        fitted = fit_member(estimator, train, task)
        return fitted, ask_member(fitted, held_out.texts, task)
    if not (isinstance(estimator, Pipeline) and isinstance(estimator[0], NgramVectorizer)):
        outputs = ask_member(fit_member(estimator, train, task), held_out.texts, task)
        return fit_member(estimator, everything, task), outputs
    # The texts are counted once for both fits.
    fit = partial(_fit_counted, estimator, estimator[0].count(everything.texts))
    outputs = ask_member(fit(train.rows, train, task), held_out.texts, task)
    return fit(None, everything, task), outputs


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
