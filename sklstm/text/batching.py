"""Ragged ids to padded batches of texts of like length, a whole batch at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Batches are made of texts of like length inside pools of this many batches, so that padding is
# rare and yet no two epochs have the same batches.
BATCHES_PER_POOL = 50
# Prediction has no batch size to honour: its batches are sized by ids, padding included. Long texts
# get at least FEW_TEXTS per batch, since a step with fewer texts is no cheaper.
IDS_PER_PREDICTION_BATCH = 2**14
MOST_IDS_PER_PREDICTION_BATCH = 2**16
FEW_TEXTS = 8
TEXTS_PER_PREDICTION_BATCH = 256


class RaggedIds:
    """The ids of many texts in one array.

    Parameters
    ----------
    ids : ndarray of int32
        The ids of all texts, one text after another.
    offsets : ndarray of shape (n_texts + 1,)
        Text ``k`` is ``ids[offsets[k]:offsets[k + 1]]``.
    """

    def __init__(self, ids: np.ndarray, offsets: np.ndarray):
        self.ids = ids
        self.offsets = offsets
        self.lengths = np.diff(offsets)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.lengths)

    def pad(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return a batch: ids (T, B), padded at the end with 0, and lengths (B,)."""
        lengths = self.lengths[rows]
        step = np.arange(quantise(int(lengths.max())))[:, None]
        live = step < lengths
        batch = np.zeros(live.shape, dtype=np.int32)
        batch[live] = self.ids[(self.offsets[rows] + step)[live]]
        return torch.from_numpy(batch), torch.from_numpy(lengths)


def quantise(length: int) -> int:
    """Round a length up to one of few values, an eighth apart at most.

    oneDNN and cuDNN prepare themselves anew for each shape they meet.

    Examples
    --------
    >>> from sklstm.text.batching import quantise
    >>> [quantise(n) for n in (1, 9, 100, 256, 257)]
    [8, 16, 104, 256, 288]
    """
    grain = max(8, 2 ** ((length - 1).bit_length() - 4))
    return -(-length // grain) * grain


class Batch(NamedTuple):
    """What one training step needs. skorch takes the size of a batch from the first field."""

    lengths: Tensor  # (B,) int64, the longest text first
    ids: Tensor  # (T, B) int32
    targets: Tensor  # (B, ...)
    weights: Tensor  # (B,) float32


class TrainingBatches:
    """All texts once, in an order that is new each time they are asked for.

    Parameters
    ----------
    texts : RaggedIds
        The texts.
    targets : ndarray of shape (n_texts, ...)
        The targets of the texts, as their task encodes them.
    weights : ndarray of shape (n_texts,)
        The weight of each text in the loss.
    batch_size : int
        Texts in a batch; the last one may be smaller.
    rng : numpy.random.Generator
        Source of the order.
    """

    def __init__(
        self,
        texts: RaggedIds,
        targets: np.ndarray,
        weights: np.ndarray,
        *,
        batch_size: int,
        rng: np.random.Generator,
    ):
        self.texts = texts
        self.targets = torch.as_tensor(targets)
        self.weights = torch.as_tensor(weights, dtype=torch.float32)
        self.batch_size = batch_size
        self.rng = rng

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.texts) // self.batch_size)

    @property
    def most_steps(self) -> int:
        """The tokens of the longest text."""
        return int(self.texts.lengths.max())

    def __iter__(self) -> Iterator[Batch]:
        """Shuffle, then yield the batches."""
        for rows in self._rows():
            ids, lengths = self.texts.pad(rows)
            yield Batch(lengths, ids, self.targets[rows], self.weights[rows])

    def _rows(self) -> list[np.ndarray]:
        """Return the rows of each batch: pools by chance, by length inside a pool."""
        order = self.rng.permutation(len(self.texts))
        pool = self.batch_size * BATCHES_PER_POOL
        batches = []
        for begin in range(0, len(order), pool):
            rows = order[begin : begin + pool]
            rows = rows[np.argsort(-self.texts.lengths[rows], kind="stable")]
            batches += np.split(rows, range(self.batch_size, len(rows), self.batch_size))
        # The batch with the longest text goes first: if memory does not suffice, that shows now.
        longest = max(range(len(batches)), key=lambda k: self.texts.lengths[batches[k][0]])
        rest = [batch for k, batch in enumerate(batches) if k != longest]
        return [batches[longest], *(rest[k] for k in self.rng.permutation(len(rest)))]


def stream_batches(
    texts: RaggedIds, *, batch_size: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Yield batches of texts without targets, and begin again when every text came once."""
    nothing = np.zeros(len(texts)), np.ones(len(texts))
    batches = TrainingBatches(texts, *nothing, batch_size=batch_size, rng=rng)
    while True:
        yield from batches


def prediction_batches(texts: RaggedIds) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Yield rows, ids (T, B) and lengths (B,), long texts first, until every text came once."""
    order = np.argsort(-texts.lengths, kind="stable")
    begin = 0
    while begin < len(order):
        longest = quantise(int(texts.lengths[order[begin]]))
        few = min(FEW_TEXTS, MOST_IDS_PER_PREDICTION_BATCH // longest)
        size = max(1, few, min(TEXTS_PER_PREDICTION_BATCH, IDS_PER_PREDICTION_BATCH // longest))
        rows = order[begin : begin + size]
        yield rows, *texts.pad(rows)
        begin += size
