"""What y is: its targets and their loss, what is measured of them, and what is predicted.

A task knows the user's labels and the outputs of a network. It knows nothing of texts, skorch,
devices or kernels, and no other module knows which task it has. Sizes: ``n`` texts, ``B`` texts in
a batch.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor
from torch.nn import functional

# A class that a member of a blend rules out is not impossible, and its logarithm must be finite.
SMALLEST_PROBABILITY = 1e-6


class Task(Protocol):
    """What every task has; one of classes also has those, and probabilities of them.

    ``loss`` and ``divergence`` are in torch, since they are differentiated. ``losses`` is the same
    loss in numpy's float64, without label smoothing: it scores validation texts and fits blends,
    and the tests compare ``loss`` with it.
    """

    response_method: str  # the method by which a member of a blend predicts

    @property
    def n_outputs(self) -> int:
        """Number of columns of the network's head."""

    def encode(self, labels: np.ndarray, *, name: str = "y") -> np.ndarray:
        """Return the targets (n,) of checked labels."""

    def decode(self, targets: np.ndarray) -> np.ndarray:
        """Return the labels of targets: the inverse of ``encode``."""

    def weigh(self, class_weight, targets: np.ndarray, of: np.ndarray | None = None) -> np.ndarray:
        """Return the weights (n,) of the texts that have the targets ``of`` (None: ``targets``).

        ``targets`` are those of all texts of the fit: they decide what "balanced" means.
        """

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return whole numbers from 0 (n,): a split keeps each in proportion."""

    def absent(self, targets: np.ndarray) -> list:
        """Return the labels that none of the targets has."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss (B,) of each text from the outputs (B, n_outputs)."""

    def divergence(self, outputs: Tensor, moved: Tensor) -> Tensor:
        """Return how far the moved outputs (B, n_outputs) are from constant ones, (B,)."""

    def losses(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the loss (n,) of each text from the outputs (n, n_outputs)."""

    def slopes(self, outputs: np.ndarray, targets: np.ndarray, along: np.ndarray) -> np.ndarray:
        """Return the derivatives (n,) of ``losses`` in the direction ``along`` (n, n_outputs)."""

    def measure(self, outputs, targets, weights) -> dict[str, float]:
        """Return what is recorded of validation texts, ``valid_loss`` among it."""

    def read_response(self, response: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
        """Return the outputs (n, n_outputs) that say what a member of a blend predicts.

        ``response`` is what its method ``response_method`` returns; ``classes`` its ``classes_``.
        """

    def pool(self, parts: list[np.ndarray], weights: tuple[float, ...]) -> np.ndarray:
        """Return one prediction (n, n_outputs) from those of network and members."""

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """Return what ``predict`` returns."""

    def as_estimator(self, outputs: np.ndarray) -> BaseEstimator:
        """Return a fitted estimator that predicts these outputs, for scorers."""


@dataclass(frozen=True, eq=False)
class Multiclass:
    """One class a text. The outputs are logits, the targets places among the classes.

    Parameters
    ----------
    classes : ndarray of shape (n_outputs,)
        The labels, sorted.
    label_smoothing : float
        Share of each target given to all classes alike, while training.
    """

    classes: np.ndarray
    label_smoothing: float = 0.0
    response_method = "predict_proba"

    @classmethod
    def of(cls, labels: np.ndarray, *, label_smoothing: float = 0.0, name: str = "y"):
        """Return the task of checked labels.

        Raises
        ------
        ValueError
            If there is one class only.
        """
        classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(
                f"{name} must hold at least two classes; got one class: {classes.tolist()[0]!r}."
            )
        return cls(classes, label_smoothing)

    @property
    def n_outputs(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def encode(self, labels, *, name="y"):
        """Return the place of each label among the classes.

        Raises
        ------
        ValueError
            If a label is none of the classes.
        """
        unknown = np.setdiff1d(labels, self.classes)
        if len(unknown):
            raise ValueError(
                f"{name} must hold the known classes {self.classes.tolist()} only; "
                f"got {unknown.tolist()} as well. Drop these rows, or fit anew with all classes."
            )
        return np.searchsorted(self.classes, labels)

    def decode(self, targets):
        """Return the labels of targets."""
        return self.classes[targets]

    def weigh(self, class_weight, targets, of=None):
        """Return the weight of each text's class: of a dict, 1 where it has none; or balanced.

        Raises
        ------
        ValueError
            If a weight is not a number of 0 or more, or no target has one above 0.
        """
        of = targets if of is None else of
        if class_weight is None:
            return np.ones(len(of))
        if isinstance(class_weight, str):  # "balanced"
            n_texts = np.bincount(targets, minlength=self.n_outputs)
            return (len(targets) / (self.n_outputs * np.maximum(n_texts, 1)))[of]
        weights = [class_weight.get(label, 1.0) for label in self.classes.tolist()]
        numbers = all(isinstance(weight, Real) for weight in weights)
        weights = np.array(weights if numbers else np.nan, dtype=float)
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights[targets].any()):
            raise ValueError(
                "class_weight must hold numbers of 0 or more, and one above 0 for a class of y; "
                f"got {class_weight}."
            )
        return weights[of]

    def strata(self, targets):
        """Return the targets: a split keeps the classes in proportion."""
        return targets

    def absent(self, targets):
        """Return the classes without a target."""
        return np.delete(self.classes, np.unique(targets)).tolist()

    def loss(self, outputs, targets):
        """Return the cross-entropy (B,) with label smoothing."""
        return functional.cross_entropy(
            outputs, targets, reduction="none", label_smoothing=self.label_smoothing
        )

    def divergence(self, outputs, moved):
        """Return KL(clean || moved) of the probabilities, (B,)."""
        clean = outputs.detach().log_softmax(dim=1)
        return (clean.exp() * (clean - moved.log_softmax(dim=1))).sum(dim=1)

    def losses(self, outputs, targets):
        """Return the log loss (n,) of each text."""
        return -log_softmax(outputs, axis=1)[np.arange(len(targets)), targets]

    def slopes(self, outputs, targets, along):
        """Return the derivatives (n,) of the log losses."""
        mean = (softmax(outputs, axis=1) * along).sum(axis=1)
        return mean - along[np.arange(len(targets)), targets]

    def measure(self, outputs, targets, weights):
        """Return the weighted means of log loss and accuracy."""
        right = outputs.argmax(axis=1) == targets
        return {
            "valid_loss": float(np.average(self.losses(outputs, targets), weights=weights)),
            "valid_accuracy": float(np.average(right, weights=weights)),
        }

    def read_response(self, response, classes):
        """Return the log-probabilities of the classes that a member gives.

        A class that the member has not seen, or gives less than one in a million, gets that much.

        Raises
        ------
        ValueError
            If the member knows other classes, as one that was fitted before and frozen may.
        """
        others = np.setdiff1d(classes, self.classes).tolist()
        if others:
            raise ValueError(
                f"blend must know the classes {self.classes.tolist()} only; got an estimator that "
                f"also knows {others}. Fit it to the same labels, or give another one."
            )
        outputs = np.full((len(response), self.n_outputs), np.log(SMALLEST_PROBABILITY))
        columns = np.searchsorted(self.classes, classes)
        outputs[:, columns] = np.log(np.maximum(response, SMALLEST_PROBABILITY))
        return outputs

    def pool(self, parts, weights):
        """Return the logits of a weighted geometric mean of probabilities (Genest & Zidek 1986)."""
        return sum(weight * part for weight, part in zip(weights, parts, strict=True))

    def decide(self, outputs):
        """Return the most probable class of each text."""
        return self.classes[outputs.argmax(axis=1)]

    def probabilities(self, outputs):
        """Return the probabilities of the classes (n, n_outputs)."""
        return softmax(outputs, axis=1)

    def log_probabilities(self, outputs):
        """Return the logarithms of the probabilities (n, n_outputs)."""
        return log_softmax(outputs, axis=1)

    def decision(self, outputs):
        """Return the logits (n, n_outputs), or of two classes the log-odds (n,) of the second."""
        return outputs[:, 1] - outputs[:, 0] if self.n_outputs == 2 else outputs

    def as_estimator(self, outputs):
        """Return a fitted classifier that predicts these outputs, for scorers."""
        return _PredictedClasses(self, outputs)


class _PredictedClasses(ClassifierMixin, BaseEstimator):
    """A classifier whose outputs for the only texts it is asked for are known."""

    def __init__(self, task, outputs):
        self.task = task
        self.outputs = outputs

    @property
    def classes_(self):
        return self.task.classes

    def decision_function(self, X):
        return self.task.decision(self.outputs)

    def predict_proba(self, X):
        return self.task.probabilities(self.outputs)

    def predict(self, X):
        return self.task.decide(self.outputs)
