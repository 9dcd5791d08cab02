"""Texts without labels as one stream, cut into windows; and the negatives of each batch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklstm.text.batching import RaggedIds
from sklstm.text.special_tokens import BOUNDARY, PADDING

# Negatives are drawn by the counts of the words to this power (Mikolov et al. 2013): frequent words
# matter most in the sum of the softmax, and rare ones must be seen there at all.
POWER = 0.75


class WindowBatch(NamedTuple):
    """What one training step of a language model needs. skorch takes its size from the first."""

    begins: Tensor  # (B,) int64, where in the stream each window begins
    ids: Tensor  # (T, B) int32, no padding
    negatives: Tensor  # (n,) int64, ids of which none comes twice
    log_share: Tensor  # (n,) float32, log of the chance with which each was to be drawn


class TrainingWindows:
    """The stream of all texts once, in an order and with cuts that are new each time.

    The texts follow each other in a circle, a boundary before each. A window begins at the last
    token of the one before it, so that each token is predicted once from the left and once from the
    right.

    Parameters
    ----------
    texts : RaggedIds
        The texts.
    n_ids : int
        Number V of ids.
    window : int
        Tokens in a window; fewer where the stream is shorter.
    batch_size : int
        Windows in a batch; the last one may be smaller.
    n_negatives : int
        Ids that each batch compares its own with; at most V - 1, all but the padding.
    rng : numpy.random.Generator
        Source of the order, the cuts and the negatives.
    """

    def __init__(
        self,
        texts: RaggedIds,
        *,
        n_ids: int,
        window: int,
        batch_size: int,
        n_negatives: int,
        rng: np.random.Generator,
    ):
        self.stream, self.begins = add_boundaries(texts)
        self.n_tokens = len(self.stream)
        self.window = min(window, self.n_tokens + 1)
        self.n_windows = -(-self.n_tokens // (self.window - 1))
        self.batch_size = batch_size
        self.rng = rng
        self.counts = np.bincount(self.stream, minlength=n_ids)
        self.shares = inclusion_shares(self.counts, n_negatives)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.n_windows // self.batch_size)

    @property
    def most_steps(self) -> int:
        """The tokens of a window."""
        return self.window

    def __iter__(self) -> Iterator[WindowBatch]:
        """Shuffle, cut anew, then yield the batches."""
        stream = self._shuffled()
        begins = (self.window - 1) * np.arange(self.n_windows) + self.rng.integers(self.n_tokens)
        begins = self.rng.permutation(begins % self.n_tokens)
        step = np.arange(self.window)[:, None]
        for first in range(0, self.n_windows, self.batch_size):
            own = begins[first : first + self.batch_size]
            ids = stream[(own + step) % self.n_tokens]
            negatives = sample_ids(self.shares, self.rng)
            yield WindowBatch(
                torch.from_numpy(own),
                torch.from_numpy(ids),
                torch.from_numpy(negatives),
                torch.from_numpy(np.log(self.shares[negatives])).float(),
            )

    def _shuffled(self) -> np.ndarray:
        """Return the stream of all texts in a new order."""
        order = self.rng.permutation(len(self.begins) - 1)
        lengths = np.diff(self.begins)[order]
        move = self.begins[:-1][order] - (np.cumsum(lengths) - lengths)
        return self.stream[np.arange(self.n_tokens) + np.repeat(move, lengths)]


def add_boundaries(texts: RaggedIds) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of all texts, a boundary before each, and where each (and the end) begins."""
    begins = texts.offsets + np.arange(len(texts.offsets))
    stream = np.full(begins[-1], BOUNDARY, dtype=np.int32)
    is_word = np.ones(len(stream), dtype=bool)
    is_word[begins[:-1]] = False
    stream[is_word] = texts.ids
    return stream, begins


def add_both_boundaries(texts: RaggedIds) -> RaggedIds:
    """Return the texts with a boundary before and after each."""
    stream, begins = add_boundaries(texts)
    return RaggedIds(np.insert(stream, begins[1:], BOUNDARY), begins + np.arange(len(begins)))


def inclusion_shares(counts: np.ndarray, n: int) -> np.ndarray:
    """Return the chance of each id (V,) to be among ``n`` that are drawn, none twice.

    Proportional to a power of the counts, at most 1, and 0 for the padding; they sum to ``n``.
    """
    weights = (counts + 1.0) ** POWER
    weights[PADDING] = 0.0
    n = min(n, len(counts) - 1)
    by_weight = np.argsort(-weights, kind="stable")
    sorted_weights = weights[by_weight]
    # The k heaviest are certain, for the smallest k with which no other would be more than that.
    rest = sorted_weights.sum() - np.concatenate([[0.0], np.cumsum(sorted_weights)[:-1]])
    left = n - np.arange(len(weights))
    certain = int(np.argmax(left * sorted_weights <= rest * (1 + 1e-12)))
    shares = np.ones(len(weights))
    if n < len(weights) - 1:
        shares[by_weight[certain:]] = (
            sorted_weights[certain:] * (n - certain) / sorted_weights[certain:].sum()
        )
    shares[PADDING] = 0.0
    return np.minimum(shares, 1.0)


def sample_ids(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return ids, none twice, each with its share of chance: systematic sampling (Madow 1949)."""
    ends = np.cumsum(shares)
    n = round(ends[-1])
    places = (np.arange(n) + rng.random()) * (ends[-1] / n)
    return np.minimum(np.searchsorted(ends, places, side="right"), len(shares) - 1)
