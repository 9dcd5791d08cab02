"""The texts set aside to judge the network while it trains."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer

from sklstm.batching import RaggedIds
from sklstm.network import LSTMTextNetwork
from sklstm.prediction import compute_logits, fit_temperature, mean_log_loss

# With fewer texts a fitted temperature is worse than none (Guo et al. 2017 use thousands).
MIN_TEXTS_FOR_TEMPERATURE = 100


def split_validation(
    texts: list[str], targets: np.ndarray, *, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and the rows to validate on.

    Each class gives its share. Equal texts stay on one side: a repeated text in both would be
    judged by heart. A class too small to give one text stays in training altogether.
    """
    _, first, group = np.unique(
        np.asarray(texts, dtype=object), return_index=True, return_inverse=True
    )
    chosen = np.zeros(len(first), dtype=bool)
    class_of_group = targets[first]
    for target in np.unique(class_of_group):
        groups = np.flatnonzero(class_of_group == target)
        n_chosen = min(round(fraction * len(groups)), len(groups) - 1)
        chosen[rng.permutation(groups)[:n_chosen]] = True
    validates = chosen[group]
    return np.flatnonzero(~validates), np.flatnonzero(validates)


class Validation:
    """Judges a network by texts it is not trained on.

    Parameters
    ----------
    X : list of str
        The texts, for scorers that look at them.
    texts : RaggedIds
        The same texts as ids.
    targets : ndarray of shape (n_texts,)
        Their classes as whole numbers.
    weights : ndarray of shape (n_texts,)
        Their weights in the log loss.
    classes : ndarray of shape (n_classes,)
        The labels of the classes.
    scoring : str, callable or None
        A scorer of scikit-learn; None is the negative log loss.
    """

    def __init__(
        self,
        X: list[str],
        texts: RaggedIds,
        targets: np.ndarray,
        weights: np.ndarray,
        *,
        classes: np.ndarray,
        scoring,
    ):
        self.X = X
        self.texts = texts
        self.targets = targets
        self.weights = weights
        self.classes = classes
        self.scorer = get_scorer(scoring) if isinstance(scoring, str) else scoring
        self.monitor = "valid_loss" if scoring is None else "valid_score"

    def judge(self, network: LSTMTextNetwork) -> dict[str, float]:
        """Return ``valid_loss``, ``valid_accuracy`` and, with a scorer, ``valid_score``."""
        logits = compute_logits(network, self.texts)
        right = logits.argmax(axis=1) == self.targets
        judgement = {
            "valid_loss": mean_log_loss(logits, self.targets, self.weights),
            "valid_accuracy": float(np.average(right, weights=self.weights)),
        }
        if self.scorer is not None:
            answers = _Answers(logits, self.classes)
            score = self.scorer(answers, self.X, self.classes[self.targets])
            judgement["valid_score"] = float(score)
        return judgement

    def temperature(self, network: LSTMTextNetwork) -> float:
        """Return the temperature that calibrates the network, or 1 where too little tells it."""
        all_classes = len(np.unique(self.targets)) == len(self.classes)
        if len(self.targets) < MIN_TEXTS_FOR_TEMPERATURE or not all_classes:
            return 1.0
        return fit_temperature(compute_logits(network, self.texts), self.targets, self.weights)


class _Answers(ClassifierMixin, BaseEstimator):
    """The network's answers to the validation texts, in the form that scorers ask for."""

    def __init__(self, logits, classes):
        self.logits = logits
        self.classes_ = classes

    def decision_function(self, X):
        return self.logits[:, 1] - self.logits[:, 0] if len(self.classes_) == 2 else self.logits

    def predict_proba(self, X):
        odds = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.logits.argmax(axis=1)]
