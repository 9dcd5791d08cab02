"""Scores of probabilities, and tests of whether one system is better than another."""

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, f1_score, log_loss

#: Equal-width bins of the calibration error (Guo et al. 2017).
BINS = 15
#: Draws of labels for its floor, and of rows and seeds for the paired bootstrap.
DRAWS = 200
BOOTSTRAPS = 10_000


def score(targets, probabilities, *, seen):
    """Return the scores of one run.

    ``targets`` (n,) are the true columns of ``probabilities`` (n, n_classes); ``seen`` (n,) marks
    texts that were trained on; there is also the accuracy without them.
    """
    predicted = probabilities.argmax(axis=1)
    right = predicted == targets
    confidence = probabilities.max(axis=1)
    classes = np.arange(probabilities.shape[1])
    rarest = np.bincount(targets, minlength=len(classes)).argmin()
    # The column of a class that is missing in training is 0, and scikit-learn clips it.
    return {
        "accuracy": float(right.mean()),
        "macro_f1": float(f1_score(targets, predicted, average="macro", zero_division=0)),
        "log_loss": float(log_loss(targets, probabilities, labels=classes)),
        "rarest_precision": average_precision(targets == rarest, probabilities[:, rarest]),
        "ece": expected_calibration_error(confidence, right),
        "ece_floor": calibration_floor(confidence),
        "n_seen": int(seen.sum()),
        "accuracy_unseen": float(right[~seen].mean()) if not seen.all() else None,
    }


def average_precision(is_class, probability):
    """Return the average precision of a class; None where no text is of the class."""
    return float(average_precision_score(is_class, probability)) if is_class.any() else None


def expected_calibration_error(confidence, right):
    """Return the mean gap between top probability and accuracy over bins, weighted by rows."""
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def calibration_floor(confidence):
    """Return the mean calibration error of perfect probabilities on so many rows.

    It is above 0, since rows are few. Labels are drawn from these probabilities, again and again.
    """
    rng = np.random.default_rng(0)
    draws = (rng.random(len(confidence)) < confidence for _ in range(DRAWS))
    return float(np.mean([expected_calibration_error(confidence, right) for right in draws]))


def mcnemar(right, other):
    """Return the exact two-sided p of McNemar's test of two systems' right answers."""
    only_one, only_other = int(np.sum(right & ~other)), int(np.sum(other & ~right))
    if only_one + only_other == 0:
        return 1.0
    return float(binomtest(only_one, only_one + only_other, 0.5).pvalue)


def median_seed(rights):
    """Return the run of median accuracy, the lower one of two, of (n_seeds, n) right answers."""
    order = np.argsort(rights.mean(axis=1), kind="stable")
    return rights[order[(len(order) - 1) // 2]]


def paired_bootstrap(rights, other):
    """Compare the mean accuracy over seeds with that of another system on the same rows.

    Rows and seeds are both drawn with replacement. ``rights`` is (n_seeds, n), ``other`` (n,).
    Returns the difference, its 95 % interval, and the two-sided p of no difference.
    """
    n_seeds, n_rows = rights.shape
    rng = np.random.default_rng(0)
    # Rows with equal answers are interchangeable, so only the number of each kind is drawn.
    kinds, counts = np.unique(np.vstack([rights, other]), axis=1, return_counts=True)
    rows = rng.multinomial(n_rows, counts / n_rows, size=BOOTSTRAPS) / n_rows
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=BOOTSTRAPS) / n_seeds
    accuracies = rows @ kinds.T  # (draws, n_seeds + 1)
    differences = np.sum(accuracies[:, :-1] * seeds, axis=1) - accuracies[:, -1]
    # A difference of 0 counts for both sides, whatever rounding made of it.
    tail = min(np.sum(differences <= 1e-12), np.sum(differences >= -1e-12))
    low, high = np.quantile(differences, [0.025, 0.975])
    return {
        "difference": float(rights.mean() - other.mean()),
        "low": float(low),
        "high": float(high),
        "p": float(min(1.0, 2 * (tail + 1) / (BOOTSTRAPS + 1))),
    }
