"""The texts of a fit with their targets and weights."""

from typing import NamedTuple

import numpy as np


class Examples(NamedTuple):
    """Texts, their targets as a task encodes them, and their weights in the loss."""

    texts: list[str]
    targets: np.ndarray  # (n_texts, ...)
    weights: np.ndarray  # (n_texts,)
    rows: np.ndarray | None = None  # (n_texts,) their places among those they were taken from

    def weigh(self, factors: np.ndarray) -> "Examples":
        """Return them with their weights multiplied by factors (n_texts,)."""
        return self._replace(weights=self.weights * factors)

    def take(self, rows: np.ndarray) -> "Examples":
        """Return the given rows."""
        texts = [self.texts[row] for row in rows]
        return Examples(texts, self.targets[rows], self.weights[rows], rows)
