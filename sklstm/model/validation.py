"""The texts set aside to judge the network while it trains."""

from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer

from sklstm.model.prediction import compute_logits, fit_blend, fit_temperature, mean_log_loss
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.text.batching import RaggedIds

# Fewer texts say too little of a temperature (Guo et al. 2017 use thousands).
MIN_TEXTS_FOR_TEMPERATURE = 100
# The weights of network and baseline: without one; with a baseline of which nothing is known; and
# with n-grams, before any text has told them. Where few can tell the network has learnt far less
# than these, and with thousands of texts weights like these are found.
ALONE = (1.0, 0.0)
ALIKE = (0.5, 0.5)
BESIDE_NGRAMS = (0.2, 0.8)


class LabelledTexts(NamedTuple):
    """Texts, their classes as whole numbers, their weights in the loss."""

    texts: list[str]
    targets: np.ndarray  # (n_texts,)
    weights: np.ndarray  # (n_texts,)

    def weigh(self, class_weights: np.ndarray) -> "LabelledTexts":
        """Return them with the weights of their classes multiplied in."""
        return self._replace(weights=self.weights * class_weights[self.targets])

    def choose(self, rows: np.ndarray) -> "LabelledTexts":
        """Return those of the given rows."""
        texts = [self.texts[row] for row in rows]
        return LabelledTexts(texts, self.targets[rows], self.weights[rows])


def split_validation(
    data: LabelledTexts, *, fraction: float, rng: np.random.Generator
) -> tuple[LabelledTexts, LabelledTexts | None]:
    """Return what to train on and what to judge by, or None where nothing can be spared.

    Each class gives its share, as nearly as it can. Equal texts stay on one side: a repeated text
    in both would be judged by heart. A class too small to give one text stays in training
    altogether, and no class gives more than its share or its last text.
    """
    _, group = np.unique(np.asarray(data.texts, dtype=object), return_inverse=True)
    in_group = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    in_class = np.bincount(data.targets)
    room = np.minimum(np.round(fraction * in_class).astype(np.int64), in_class - 1)
    validates = np.zeros(len(data.texts), dtype=bool)
    for candidate in rng.permutation(len(in_group)):
        rows = in_group[candidate]
        # Equal texts can have different labels.
        targets, counts = np.unique(data.targets[rows], return_counts=True)
        if (counts <= room[targets]).all():
            validates[rows] = True
            room[targets] -= counts
            if not (room > 0).any():
                break
    if not validates.any():
        return data, None
    return data.choose(np.flatnonzero(~validates)), data.choose(np.flatnonzero(validates))


class Validation:
    """Judges a network by texts it is not trained on.

    Parameters
    ----------
    data : LabelledTexts
        The texts; their weights count in the log loss and the accuracy.
    ids : RaggedIds
        The same texts as ids.
    classes : ndarray of shape (n_classes,)
        The labels of the classes.
    scoring : str, callable or None
        A scorer of scikit-learn; None is the negative log loss.
    """

    def __init__(
        self,
        data: LabelledTexts,
        ids: RaggedIds,
        *,
        classes: np.ndarray,
        scoring,
    ):
        self.data = data
        self.ids = ids
        self.classes = classes
        self.scorer = get_scorer(scoring) if isinstance(scoring, str) else scoring
        self.monitor = "valid_loss" if scoring is None else "valid_score"

    def judge(self, network: LSTMTextNetwork) -> dict[str, float]:
        """Return ``valid_loss``, ``valid_accuracy`` and, with a scorer, ``valid_score``."""
        logits = compute_logits(network, self.ids)
        right = logits.argmax(axis=1) == self.data.targets
        judgement = {
            "valid_loss": mean_log_loss(logits, self.data.targets, self.data.weights),
            "valid_accuracy": float(np.average(right, weights=self.data.weights)),
        }
        if self.scorer is not None:
            answers = _Answers(logits, self.classes)
            judgement["valid_score"] = self._score(answers)
        return judgement

    def _score(self, answers):
        """Return what the scorer says, which must be a number."""
        labels = self.classes[self.data.targets]
        absent = np.setdiff1d(self.classes, labels).tolist()
        where = f"the {len(labels)} validation texts"
        if absent:
            where += f", which hold none of the classes {absent}"
        remedy = "Use scoring=None, or give X_val and y_val with texts of every class."
        try:
            score = self.scorer(answers, self.data.texts, labels)
            number = float(score)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"scoring must be a scorer, called as scoring(estimator, X, y), that gives a "
                f"number on {where}; got the error {str(error).splitlines()[0]!r}. {remedy}"
            ) from error
        if not np.isfinite(number):
            raise ValueError(f"scoring must give a number on {where}; got {score}. {remedy}")
        return number

    def calibrate(
        self,
        network: LSTMTextNetwork,
        log_probabilities: np.ndarray | None,
        *,
        expected: tuple[float, float],
    ) -> tuple[float, tuple[float, float]]:
        """Return the network's temperature, and the weights of network and baseline.

        The weights are those of the logits, divided by the temperature, and of the baseline's
        ``log_probabilities``, None where there is no baseline. Where too little tells the
        temperature it is 1; the weights are held to the ``expected`` ones, and need less.
        """
        targets, weights = self.data.targets, self.data.weights
        heard = targets[weights > 0]
        all_classes = len(np.unique(heard)) == len(self.classes)
        logits, temperature = compute_logits(network, self.ids), 1.0
        if len(heard) >= MIN_TEXTS_FOR_TEMPERATURE and all_classes:
            temperature = fit_temperature(logits, targets, weights)
        if log_probabilities is None:
            return temperature, ALONE
        parts = [logits / temperature, log_probabilities]
        return temperature, fit_blend(parts, targets, weights, expected=expected)


class _Answers(ClassifierMixin, BaseEstimator):
    """The network's answers to the validation texts, in the form that scorers ask for."""

    def __init__(self, logits, classes):
        self.logits = logits
        self.classes = classes

    @property
    def classes_(self):
        return self.classes

    def decision_function(self, X):
        return self.logits[:, 1] - self.logits[:, 0] if len(self.classes_) == 2 else self.logits

    def predict_proba(self, X):
        odds = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.logits.argmax(axis=1)]
