"""Texts of different lengths as rows without padding: where each row comes from.

The texts are sorted by length, the longest first, so that the texts which still have a step ``s``
are the first ``counts[s]``; the rows of all steps follow each other without gaps. (torch's
PackedSequence holds the same order; its layers leave the fast path for it.)
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sklstm.kernels.contract import mirror_index


class Scratch:
    """Memory for one block of rows, used again for the next.

    So what the steps of a block need is taken once a call, not once a block.
    """

    def __init__(self, n_rows: int):
        self.n_rows = n_rows
        self.memory: dict[str, Tensor] = {}

    def rows(self, name: str, n: int, width: int, dtype: torch.dtype) -> Tensor:
        """Return uninitialised memory (n, width), the same for the same name."""
        if name not in self.memory:
            self.memory[name] = torch.empty(self.n_rows, width, dtype=dtype)
        return self.memory[name][:n]


class Packing(NamedTuple):
    """The rows of a batch, and of the states: those before the first step, then a row for each."""

    counts: list[int]  # step -> how many texts have it
    order: Tensor | None  # (B,) the texts from the longest on; None: as they stand
    rows: Tensor | None  # (N,) row -> its place in (T * B,); None: as they stand
    previous: Tensor | None  # (N,) row -> the row of the state before it; None: B rows earlier
    last: Tensor  # (B,) text, as it stood -> the row of its last state

    def sorted(self, x: Tensor | None) -> Tensor | None:
        """Return x (B, F) with the longest text first."""
        return x if x is None or self.order is None else x[self.order]

    def unsorted(self, x: Tensor) -> Tensor:
        """Undo ``sorted``."""
        if self.order is None:
            return x
        return torch.empty_like(x).index_copy_(0, self.order, x)

    def take(self, x: Tensor, block: slice, scratch: Scratch, name: str) -> Tensor:
        """Return the rows of a block from x (T, B, F); they may stand in the scratch ``name``."""
        flat = x.flatten(0, 1)
        return flat[block] if self.rows is None else _gather(flat, self.rows[block], scratch, name)

    def put(self, rows: Tensor, into: Tensor, block: slice) -> None:
        """Undo ``take``: write the rows of a block to their places in (T, B, F)."""
        flat = into.flatten(0, 1)
        if self.rows is None:
            flat[block] = rows
        else:
            flat.index_copy_(0, self.rows[block], rows)

    def before(self, states: Tensor, block: slice, scratch: Scratch, name: str) -> Tensor:
        """Return the states (B + N, H) before the rows of a block, perhaps in the scratch."""
        if self.previous is None:
            return states[block]
        return _gather(states, self.previous[block], scratch, name)

    def blocks(self, n_rows: int) -> Iterator[tuple[slice, list[int]]]:
        """Yield the rows and the counts of successive steps, up to about ``n_rows`` at a time."""
        begin = end = 0
        counts: list[int] = []
        for count in self.counts:
            if counts and end + count - begin > n_rows:
                yield slice(begin, end), counts
                begin, counts = end, []
            counts.append(count)
            end += count
        yield slice(begin, end), counts


def pack(lengths: Tensor | None, *, reverse: bool, n_steps: int, n_texts: int) -> Packing:
    """Return the packing of a batch (T, B); ``reverse`` reads each text from its end."""
    if lengths is None:
        rows = mirror_index(None, n_steps=n_steps, n_texts=n_texts, device="cpu")
        last = n_steps * n_texts + torch.arange(n_texts)
        return Packing([n_texts] * n_steps, None, rows if reverse else None, None, last)
    order = torch.argsort(lengths, descending=True, stable=True)
    n = lengths[order].long()  # as sorted
    step, rank = torch.arange(int(n[0])).unsqueeze(1), torch.arange(n_texts)
    live = step < n
    counts = live.sum(1)
    # The state of step s and rank r stands at first[s + 1] + r; first[0] = 0 holds the states
    # before the first step.
    first = torch.cat([torch.tensor([0, n_texts]), n_texts + counts.cumsum(0)])
    place = (n - 1 - step if reverse else step) * n_texts + order
    last = torch.empty_like(n)
    last[order] = first[n] + rank
    return Packing(
        counts.tolist(), order, place[live], (first[:-2].unsqueeze(1) + rank)[live], last
    )


def _gather(x, index, scratch, name):
    out = scratch.rows(name, len(index), x.shape[1], x.dtype)
    return torch.index_select(x, 0, index, out=out)
