"""The texts of a fit with their targets and weights, and which of them are held out."""

from typing import NamedTuple

import numpy as np


class Examples(NamedTuple):
    """Texts, their targets as a task encodes them, and their weights in the loss."""

    texts: list[str]
    targets: np.ndarray  # (n_texts, ...)
    weights: np.ndarray  # (n_texts,)

    def weigh(self, factors: np.ndarray) -> "Examples":
        """Return them with their weights multiplied by factors (n_texts,)."""
        return self._replace(weights=self.weights * factors)

    def take(self, rows: np.ndarray) -> "Examples":
        """Return the given rows."""
        texts = [self.texts[row] for row in rows]
        return Examples(texts, self.targets[rows], self.weights[rows])


def split_rows(
    texts: list[str],
    strata: np.ndarray | None = None,  # (n_texts,) whole numbers from 0
    *,
    fraction: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the rows to train on and the rows held out, or None where none can be spared.

    Each stratum contributes its share, as nearly as it can; None is one stratum. Equal texts stay
    on one side: the network would know a text that is on both by heart. A stratum whose share
    rounds to 0 texts contributes none, and none contributes more than its share or its last text.
    """
    if round(fraction * len(texts)) == 0:
        return np.arange(len(texts)), None
    strata = np.zeros(len(texts), dtype=np.int64) if strata is None else strata
    _, group = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    in_group = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    in_stratum = np.bincount(strata)
    room = np.minimum(np.round(fraction * in_stratum).astype(np.int64), in_stratum - 1)
    held_out = np.zeros(len(texts), dtype=bool)
    for candidate in rng.permutation(len(in_group)):
        rows = in_group[candidate]
        # Equal texts can be of different strata.
        own, counts = np.unique(strata[rows], return_counts=True)
        if (counts <= room[own]).all():
            held_out[rows] = True
            room[own] -= counts
            if not (room > 0).any():
                break
    others = np.flatnonzero(held_out)
    return np.flatnonzero(~held_out), others if len(others) else None
