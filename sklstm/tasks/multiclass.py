"""One class a text: cross-entropy, softmax, and the most probable class."""

from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
from scipy.special import expit, log_softmax, softmax
from torch.nn import functional

from sklstm.labels import LabelSets
from sklstm.tasks.predicted import PredictedClasses
from sklstm.tasks.protocol import SMALLEST_PROBABILITY, describe_wrong_kind, find_class


@dataclass(frozen=True, eq=False)
class Multiclass:
    """One class a text. The outputs are logits, the targets places among the classes.

    Parameters
    ----------
    classes : ndarray of shape (n_outputs,)
        The labels, sorted.
    label_smoothing : float
        Share of each target given to all classes alike, while training.
    class_weights : ndarray of shape (n_outputs,) or None
        Weight of the texts of each class; None is 1.
    """

    classes: np.ndarray
    label_smoothing: float = 0.0
    class_weights: np.ndarray | None = None
    kind = "one class a text"
    response_method = "predict_proba"
    example = "make_pipeline(CountVectorizer(), MultinomialNB())"

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
            If these are label sets, or a label is none of the classes.
        """
        if isinstance(labels, LabelSets):
            raise ValueError(describe_wrong_kind(name, self.kind, "label sets"))
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

    def weighted(self, class_weight, targets):
        """Return the same task with weights of the classes: of a dict, 1 where it has none.

        As in scikit-learn, a dict may leave classes out, and may have other keys if it has all
        classes.

        Parameters
        ----------
        class_weight : dict, 'balanced' or None
            The estimator's parameter.
        targets : ndarray of shape (n,)
            Those of all texts of the fit: they decide what 'balanced' means.

        Raises
        ------
        ValueError
            If keys name no class, so that classes are left out; if a weight is not a number of 0 or
            more; or if no target has a weight above 0.
        """
        if class_weight is None:
            return self
        if isinstance(class_weight, str):  # "balanced"
            n_texts = np.bincount(targets, minlength=self.n_outputs)
            weights = len(targets) / (self.n_outputs * np.maximum(n_texts, 1))
            return replace(self, class_weights=weights)
        classes = self.classes.tolist()
        left_out = [label for label in classes if label not in class_weight]
        if left_out and len(classes) - len(left_out) < len(class_weight):
            unknown = [key for key in class_weight if key not in classes]
            raise ValueError(
                f"class_weight must have classes of y as keys, some of {classes[:20]}; got "
                f"{unknown}. The classes, {left_out[:20]}, are not in class_weight."
            )
        weights = read_weights([class_weight.get(label, 1.0) for label in classes])
        if weights is None or not weights[targets].any():
            raise ValueError(
                "class_weight must hold numbers of 0 or more, and one above 0 for a class of y; "
                f"got {class_weight}."
            )
        return replace(self, class_weights=weights)

    def weigh(self, targets):
        """Return the weight of each text's class."""
        return np.ones(len(targets)) if self.class_weights is None else self.class_weights[targets]

    def weigh_for_member(self, targets, weights):
        """Return the weights, which are those of the classes too."""
        return weights

    def strata(self, targets, fraction):
        """Return the targets: a split keeps the classes in proportion."""
        return targets

    def absent(self, targets):
        """Return the classes without a target."""
        return np.delete(self.classes, np.unique(targets)).tolist()

    def can_scale(self, targets):
        """Whether there is a target of each class."""
        return not self.absent(targets)

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
        response = np.asarray(response, dtype=np.float64)
        outputs = np.full((len(response), self.n_outputs), np.log(SMALLEST_PROBABILITY))
        columns = np.searchsorted(self.classes, classes)
        outputs[:, columns] = np.log(np.maximum(response, SMALLEST_PROBABILITY))
        return outputs

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
        return PredictedClasses(self, outputs)

    def choose_columns(self, outputs, target=None):
        """Return the place (n,) of the target among the classes; of None, the most probable one."""
        if target is None:
            return outputs.argmax(axis=1)
        return np.full(len(outputs), find_class(self.classes, target))

    def explained(self, outputs, columns):
        """Return the log-odds (B,) of one class of each text against all others."""
        columns = columns.unsqueeze(1)
        others = outputs.scatter(1, columns, -np.inf).logsumexp(dim=1)
        return outputs.gather(1, columns)[:, 0] - others

    def name_column(self, column):
        """Return the class."""
        return self.classes[column]

    def probability_of(self, number):
        """Return the probability of these log-odds."""
        return float(expit(number))


def read_weights(weights: list) -> np.ndarray | None:
    """Return weights as an array, or None unless all are numbers of 0 or more."""
    if not all(isinstance(weight, Real) for weight in weights):
        return None
    weights = np.array(weights, dtype=float)
    return weights if np.isfinite(weights).all() and (weights >= 0).all() else None
