"""The classifier beside the network: how it is fitted, and what it says of texts."""

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from sklstm.ngrams.vectorizer import make_ngram_classifier

# A class that a baseline rules out is not impossible, and its logarithm must be a number.
SMALLEST_PROBABILITY = 1e-6
# These pass weights on to their members, whatever these are.
ENSEMBLES = (VotingClassifier, StackingClassifier)


def choose_baseline(baseline, vectorizer):
    """Return the unfitted estimator that a parameter names, or None.

    Parameters
    ----------
    baseline : estimator, 'auto' or None
        The parameter.
    vectorizer : SequenceVectorizer or None
        Says what a token is, where 'auto' counts n-grams of them.
    """
    return make_ngram_classifier(vectorizer) if baseline == "auto" else baseline


def fit_baseline(estimator, texts: list[str], labels: np.ndarray, weights: np.ndarray):
    """Return a fitted clone of an estimator.

    Parameters
    ----------
    estimator : estimator
        Has ``fit`` and ``predict_proba``; takes raw texts.
    texts : list of str
        The texts.
    labels : ndarray of shape (n_texts,)
        Their labels.
    weights : ndarray of shape (n_texts,)
        Their weights; where all are alike none are passed on. They get a mean of 1, as in the
        network's loss, since their sum would weigh against an estimator's penalty or prior.

    Raises
    ------
    ValueError
        If the weights differ and the estimator takes none, or it cannot be fitted to these texts.
    """
    weighted = {}
    if np.ptp(weights) > 0:
        weighted[_name_of_weights(estimator)] = weights / weights.mean()
    fresh = clone(estimator)
    try:
        # The weights are passed by the names below, whatever the user's own code is routed by.
        with config_context(enable_metadata_routing=False):
            return fresh.fit(texts, labels, **weighted)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "baseline must be an estimator that can be fitted to these raw texts, such as "
            "make_pipeline(CountVectorizer(), MultinomialNB()); got the error "
            f"{str(error).partition(chr(10))[0]!r} from {type(estimator).__name__}. Give another "
            "one, or baseline=None."
        ) from error


def fit_and_judge(estimator, everything, data, held_out, classes: np.ndarray):
    """Return the baseline, and its log-probabilities for the texts set aside.

    It gives these before it has seen them; what is kept has learnt from all texts.

    Parameters
    ----------
    estimator : estimator or None
        The unfitted baseline.
    everything, data, held_out : LabelledTexts
        All texts, those that the network is trained on, and those set aside, None without any.
    classes : ndarray of shape (n_classes,)
        The labels of the classes.

    Returns
    -------
    baseline : estimator or None
        None without an estimator, or where the texts are of one class.
    log_probabilities : ndarray of shape (n_held_out, n_classes) or None
        None without a baseline or texts set aside.
    """
    if estimator is None or len(np.unique(data.targets)) < 2:
        return None, None

    def fit(data):
        return fit_baseline(estimator, data.texts, classes[data.targets], data.weights)

    if held_out is None:
        return fit(everything), None
    fitted = fit(data)
    log_probabilities = compute_log_probabilities(fitted, held_out.texts, classes)
    saw_all = len(data.texts) == len(everything.texts)
    return fitted if saw_all else fit(everything), log_probabilities


def _name_of_weights(estimator) -> str:
    """Return the argument of ``fit`` that takes the weights of texts."""
    if _takes_weights(estimator):
        return "sample_weight"
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        if _takes_weights(last):
            return f"{name}__sample_weight"
    raise ValueError(
        "baseline must be an estimator whose fit takes sample_weight, since texts or classes have "
        f"different weights; got {estimator!r}. Give another one, or baseline=None."
    )


def _takes_weights(estimator) -> bool:
    if isinstance(estimator, ENSEMBLES):
        members = [member for _, member in estimator.estimators if member != "drop"]
        last = getattr(estimator, "final_estimator", None)
        return all(map(_takes_weights, [*members, *([] if last is None else [last])]))
    return has_fit_parameter(estimator, "sample_weight")


def compute_log_probabilities(baseline, texts: list[str], classes: np.ndarray) -> np.ndarray:
    """Return the log-probabilities that a fitted baseline gives the classes, (n_texts, C).

    A class it has not seen, or gives less than one in a million, is given that.

    Raises
    ------
    ValueError
        If it knows other classes, as one that was fitted before and frozen may.
    """
    others = np.setdiff1d(baseline.classes_, classes).tolist()
    if others:
        raise ValueError(
            f"baseline must know the classes {classes.tolist()} only; got one that also knows "
            f"{others}. Fit it to the same labels, or give another one."
        )
    result = np.full((len(texts), len(classes)), np.log(SMALLEST_PROBABILITY))
    probabilities = np.asarray(baseline.predict_proba(texts), dtype=np.float64)
    columns = np.searchsorted(classes, baseline.classes_)
    result[:, columns] = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY))
    return result
