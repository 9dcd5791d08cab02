"""A set of labels for each text: one logistic loss a label."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.special import expit, log_expit
from torch.nn import functional

from sklstm.labels import LabelSets
from sklstm.tasks.multiclass import read_weights
from sklstm.tasks.predicted import PredictedClasses
from sklstm.tasks.protocol import SMALLEST_PROBABILITY, describe_wrong_kind, find_class


@dataclass(frozen=True, eq=False)
class Multilabel:
    """A set of labels for each text. The outputs are log-odds, the targets an indicator of bool.

    Parameters
    ----------
    classes : ndarray of shape (n_outputs,)
        The names of the labels, in the order of the columns.
    label_smoothing : float
        How far the targets 0 and 1 move towards each other, half of it each, while training.
    is_sparse : bool
        Whether predictions are sparse, as the labels were.
    class_weights : ndarray of shape (n_outputs,) or None
        Weight of the loss of each label where a text has it; None is 1.
    """

    classes: np.ndarray
    label_smoothing: float = 0.0
    is_sparse: bool = False
    class_weights: np.ndarray | None = None
    kind = "label sets"
    response_method = "predict_proba"
    example = "make_pipeline(TfidfVectorizer(), MultiOutputClassifier(LogisticRegression()))"

    @classmethod
    def of(cls, labels: LabelSets, *, label_smoothing: float = 0.0):
        """Return the task of checked labels; columns without names are numbered."""
        classes = labels.columns
        if classes is None:
            classes = np.arange(labels.values.shape[1])
        return cls(classes, label_smoothing, labels.is_sparse)

    @property
    def n_outputs(self) -> int:
        """Number of labels."""
        return len(self.classes)

    def encode(self, labels: LabelSets, *, name="y"):
        """Return the indicator (n, n_outputs), of bool.

        Raises
        ------
        ValueError
            If these are no label sets, or their columns are not those that are known.
        """
        if not isinstance(labels, LabelSets):
            raise ValueError(describe_wrong_kind(name, self.kind, "one class a text"))
        columns = labels.columns
        if labels.values.shape[1] != self.n_outputs:
            raise ValueError(
                f"{name} must have {self.n_outputs} columns, one for each label that is known; "
                f"got {labels.values.shape[1]}. Give the same columns, or fit anew."
            )
        if columns is not None and columns.tolist() != self.classes.tolist():
            remedy = "Reorder them" if set(columns) == set(self.classes) else "Rename them"
            raise ValueError(
                f"{name} must have the columns {self.classes.tolist()}, in this order; "
                f"got {columns.tolist()}. {remedy}, or give an array without names."
            )
        return labels.values

    def decode(self, targets):
        """Return an indicator of whole numbers; not a sparse one, which few estimators take."""
        return targets.astype(np.int64)

    def weighted(self, class_weight, targets):
        """Return the same task with weights of the labels where a text has them.

        Parameters
        ----------
        class_weight : dict, 'balanced' or None
            The estimator's parameter: the weight of each label, 1 where it has none. 'balanced' is
            the number of texts without a label divided by that of texts with it; 1 where one of
            them is 0.
        targets : ndarray of shape (n, n_outputs)
            Those of all texts of the fit: they decide what 'balanced' means.

        Raises
        ------
        ValueError
            If a weight is not a number of 0 or more, or of a label that is not known.
        """
        if class_weight is None:
            return self
        if isinstance(class_weight, str):  # "balanced"
            n_with = targets.sum(axis=0)
            n_without = len(targets) - n_with
            both = (n_with > 0) & (n_without > 0)
            return replace(self, class_weights=np.where(both, n_without / (n_with + ~both), 1.0))
        classes = self.classes.tolist()
        weights = read_weights([class_weight.get(label, 1.0) for label in classes])
        unknown = [label for label in class_weight if label not in classes]
        if weights is None or unknown:
            raise ValueError(
                "class_weight must hold numbers of 0 or more for some of the labels "
                f"{classes[:20]}; got {class_weight}."
            )
        return replace(self, class_weights=weights)

    def weigh(self, targets):
        """Return 1 for each text: ``class_weights`` are of labels, and part of the loss."""
        return np.ones(len(targets))

    def weigh_for_member(self, targets, weights):
        """Return the weights of texts, or (n, n_outputs) where labels have weights of their own."""
        if self.class_weights is None:
            return weights
        return weights[:, None] * np.where(targets, self.class_weights, 1.0)

    def strata(self, targets, fraction):
        """Return the indicator: a split keeps each label in proportion."""
        return targets

    def absent(self, targets):
        """Return the labels that no text has."""
        return self.classes[~targets.any(axis=0)].tolist()

    def can_scale(self, targets):
        """Whether some label is there and some is not: all labels have one temperature."""
        return bool(targets.any() and not targets.all())

    def loss(self, outputs, targets):
        """Return the sum over the labels of their logistic losses, (B,)."""
        smooth = targets.to(outputs.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(outputs, smooth, reduction="none")
        if self.class_weights is not None:
            # Not torch's pos_weight, which would weigh the smoothed part of the other labels too.
            weights = outputs.new_tensor(self.class_weights)
            losses = losses * weights.where(targets, outputs.new_ones(()))
        return losses.sum(dim=1)

    def divergence(self, outputs, moved):
        """Return the sum over the labels of KL(clean || moved), (B,)."""
        clean = outputs.detach()
        yes = clean.sigmoid()
        apart_if_yes = functional.logsigmoid(clean) - functional.logsigmoid(moved)
        apart_if_no = functional.logsigmoid(-clean) - functional.logsigmoid(-moved)
        return (yes * apart_if_yes + (1 - yes) * apart_if_no).sum(dim=1)

    def losses(self, outputs, targets):
        """Return the sum over the labels of their log losses, (n,)."""
        of_labels = np.where(targets, self._of_yes(log_expit(outputs)), log_expit(-outputs))
        return -of_labels.sum(axis=1)

    def slopes(self, outputs, targets, along):
        """Return the derivatives (n,) of the losses."""
        of_labels = np.where(targets, self._of_yes(-expit(-outputs)), expit(outputs))
        return (of_labels * along).sum(axis=1)

    def _of_yes(self, losses):
        """Weigh the losses of the labels that texts have."""
        return losses if self.class_weights is None else losses * self.class_weights

    def measure(self, outputs, targets, weights):
        """Return the weighted means of log loss and of the texts whose labels are all right."""
        right = ((outputs > 0) == targets).all(axis=1)
        return {
            "valid_loss": float(np.average(self.losses(outputs, targets), weights=weights)),
            "valid_accuracy": float(np.average(right, weights=weights)),
        }

    def read_response(self, response, classes):
        """Return the log-odds of a member's probabilities, held between 1e-6 and 1 - 1e-6.

        A member gives one array (n, n_outputs), as OneVsRestClassifier does, or a list with an
        array (n, n_classes) for each label, as MultiOutputClassifier and forests do.

        Raises
        ------
        ValueError
            If it gives another number of labels.
        """
        if isinstance(response, list):
            pairs = zip(response, classes, strict=True)
            response = np.stack([_probability_of_yes(*pair) for pair in pairs], axis=1)
        if np.shape(response)[1:] != (self.n_outputs,):
            raise ValueError(
                f"blend must predict the probabilities of {self.n_outputs} labels; got an array of "
                f"shape {np.shape(response)}. Fit it to the same labels, or give another one."
            )
        yes = np.clip(response, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
        return np.log(yes) - np.log1p(-yes)

    def decide(self, outputs):
        """Return an indicator of the labels that are more probable than not, sparse if y was."""
        indicator = self.decode(outputs > 0)
        return sparse.csr_array(indicator) if self.is_sparse else indicator

    def probabilities(self, outputs):
        """Return the probability of each label (n, n_outputs)."""
        return expit(outputs)

    def log_probabilities(self, outputs):
        """Return the logarithm of the probability of each label (n, n_outputs)."""
        return log_expit(outputs)

    def decision(self, outputs):
        """Return the log-odds (n, n_outputs)."""
        return outputs

    def as_estimator(self, outputs):
        """Return a fitted classifier that predicts these outputs, for scorers."""
        return PredictedClasses(replace(self, is_sparse=False), outputs)

    def choose_columns(self, outputs, target=None):
        """Return the place (n,) of the target among the labels; of None, the most probable one."""
        if target is None:
            return outputs.argmax(axis=1)
        return np.full(len(outputs), find_class(self.classes, target))

    def explained(self, outputs, columns):
        """Return the log-odds (B,) of one label of each text."""
        return outputs.gather(1, columns.unsqueeze(1))[:, 0]

    def name_column(self, column):
        """Return the label."""
        return self.classes[column]

    def probability_of(self, number):
        """Return the probability of these log-odds."""
        return float(expit(number))


def _probability_of_yes(probabilities, classes) -> np.ndarray:
    """Return the column of class 1 from those of 0 and 1, of which one may be absent."""
    columns = dict(zip(np.asarray(classes).tolist(), np.asarray(probabilities).T, strict=True))
    return columns.get(1, np.zeros(len(probabilities)))
