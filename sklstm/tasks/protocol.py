"""What every task has: targets and their loss, what is measured of them, and what is predicted.

A task knows the user's labels and the outputs of a network. It knows nothing of texts, skorch,
devices or kernels, and no other module asks which task it has. Sizes: ``n`` texts, ``B`` texts in
a batch.
"""

from typing import Protocol

import numpy as np
from sklearn.base import BaseEstimator
from torch import Tensor

# A class that a member of a blend rules out is not impossible, and its logarithm must be finite.
SMALLEST_PROBABILITY = 1e-6


class Task(Protocol):
    """What y is.

    ``loss`` and ``divergence`` are in torch, since they are differentiated. ``losses`` is the same
    loss in numpy's float64, without label smoothing: it scores validation texts and fits blends,
    and the tests compare ``loss`` with it. Tasks of classes and of label sets also have
    ``probabilities``, ``log_probabilities``, ``decision`` and ``weighted``.
    """

    kind: str  # what y holds, in words
    response_method: str  # the method by which a member of a blend predicts
    example: str  # a member, as a user would write it

    @property
    def n_outputs(self) -> int:
        """Number of columns of the network's head."""

    def encode(self, labels, *, name: str = "y") -> np.ndarray:
        """Return the targets (n, ...) of checked labels."""

    def decode(self, targets: np.ndarray):
        """Return the labels of targets, as ``predict`` would: the inverse of ``encode``."""

    def weigh(self, targets: np.ndarray) -> np.ndarray:
        """Return the weight (n,) of each text that follows from its target."""

    def weigh_for_member(self, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the weights for a member of a blend: (n,), or (n, n_outputs) of single labels."""

    def strata(self, targets: np.ndarray, fraction: float) -> np.ndarray:
        """Return what a split that holds out this fraction keeps in proportion.

        Either whole numbers from 0 (n,), or an indicator (n, n_strata) where a text can be in
        several strata or in none.
        """

    def absent(self, targets: np.ndarray) -> list:
        """Return the labels that none of the targets has."""

    def can_scale(self, targets: np.ndarray) -> bool:
        """Whether these targets can say by what temperature to divide the outputs."""

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

    def read_response(self, response, classes) -> np.ndarray:
        """Return the outputs (n, n_outputs) that say what a member of a blend predicts.

        ``response`` is what its method ``response_method`` returns; ``classes`` its ``classes_``,
        None where it has none.
        """

    def decide(self, outputs: np.ndarray):
        """Return what ``predict`` returns."""

    def as_estimator(self, outputs: np.ndarray) -> BaseEstimator:
        """Return a fitted estimator that predicts these outputs, for scorers."""

    def choose_columns(self, outputs: np.ndarray, target=None) -> np.ndarray:
        """Return which output (n,) of each text to explain: of this target, or as predicted.

        Raises ValueError where there is no such target, or none that would be meant by None.
        """

    def explained(self, outputs: Tensor, columns: Tensor) -> Tensor:
        """Return the numbers (B,) to explain, from the outputs (B, n_outputs).

        Of classes and labels they are log-odds, log p - log(1 - p).
        """

    def name_column(self, column: int):
        """Return what ``target`` calls an output: its label, or the column of y."""

    def probability_of(self, number: float) -> float | None:
        """Return the probability that belongs to an explained number; None of numbers."""


def find_class(classes: np.ndarray, target) -> int:
    """Return the place of a target among the classes.

    Raises
    ------
    ValueError
        If it is none of them.
    """
    labels = classes.tolist()
    found = [k for k, label in enumerate(labels) if np.ndim(target) == 0 and label == target]
    if not found:
        raise ValueError(
            f"target must be one of {labels[:20]}, or None for what is predicted; got "
            f"{target!r:.60}."
        )
    return found[0]


def describe_wrong_kind(name: str, kind: str, got: str) -> str:
    """Return what is wrong with labels of another kind than those that are known."""
    if name == "y":
        remedy = "Start anew: fit with warm_start=False."
        return f"y must hold {kind}, as in the first fit; got {got}. {remedy}"
    return f"{name} must hold {kind}, as y does; got {got}."
