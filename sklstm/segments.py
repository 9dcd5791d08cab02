"""Long texts cut into rows that run side by side, and their states put together again."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Where the steps of rows and texts come from, as flat indexes; the padding's mean nothing.

    A text takes as many of the R rows as it fills, so that no row is empty.
    """

    lengths: Tensor  # (R,)
    cut: Tensor  # (n, R) the place among the T * B of the texts
    join: Tensor  # (T, B) the place among the n * R of the rows


def find_rows(
    lengths: Tensor,  # (B,)
    *,
    n_steps: int,
    width: int,
    device: torch.device,
) -> Rows:
    """Return the rows of ``width`` steps that texts are cut into; a text's last may be shorter.

    Examples
    --------
    >>> import torch
    >>> from sklstm.segments import find_rows
    >>> rows = find_rows(torch.tensor([5, 1]), n_steps=5, width=3, device="cpu")
    >>> rows.lengths.tolist()  # the first text's first three, the second text, the first's last two
    [3, 1, 2]
    >>> rows.cut.tolist()
    [[0, 1, 6], [2, 0, 8], [4, 0, 0]]
    """
    lengths, n_texts = lengths.cpu(), len(lengths)
    first = torch.arange(0, n_steps, width).unsqueeze(1)
    row_lengths = (lengths - first).clamp(0, width)  # (rows a text, B)
    segment, text = row_lengths.nonzero(as_tuple=True)
    row_lengths, n_rows = row_lengths[segment, text], len(text)

    step = torch.arange(width).unsqueeze(1)
    cut = (segment * width + step) * n_texts + text
    row = torch.zeros(len(first), n_texts, dtype=torch.int64)
    row[segment, text] = torch.arange(n_rows)
    time = torch.arange(n_steps)
    join = (time % width).unsqueeze(1) * n_rows + row[time // width]
    return Rows(
        row_lengths,
        torch.where(step < row_lengths, cut, 0).to(device),
        torch.where(time.unsqueeze(1) < lengths, join, 0).to(device),
    )


def rearrange(
    x: Tensor,  # (T, B, F)
    index: Tensor,  # (T', B') flat indexes
) -> Tensor:
    """Return the steps that an index names, (T', B', F)."""
    return x.flatten(0, 1).index_select(0, index.flatten()).view(*index.shape, x.shape[2])
