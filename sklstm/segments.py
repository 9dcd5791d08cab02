"""Long texts cut into rows that run side by side, and their states put together again."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Where each step of each text goes, as flat indexes; -1 where there is padding.

    A text takes as many of the R rows as it fills, so that no row is empty.
    """

    lengths: Tensor  # (R,)
    cut: Tensor  # (n, R) from steps and texts, T * B of them
    join: Tensor  # (T, B) from steps and rows, n * R of them


def find_rows(
    lengths: Tensor,  # (B,)
    *,
    n_steps: int,
    width: int,
    device: torch.device,
) -> Rows:
    """Return the rows of ``width`` steps that texts are cut into, the last of each may be shorter.

    Examples
    --------
    >>> import torch
    >>> from sklstm.segments import find_rows
    >>> rows = find_rows(torch.tensor([5, 1]), n_steps=5, width=3, device="cpu")
    >>> rows.lengths.tolist()  # the first text's first three, the second text, the first's last two
    [3, 1, 2]
    >>> rows.cut.tolist()
    [[0, 1, 6], [2, -1, 8], [4, -1, -1]]
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
        torch.where(step < row_lengths, cut, -1).to(device),
        torch.where(time.unsqueeze(1) < lengths, join, -1).to(device),
    )


class Rearranged(torch.autograd.Function):
    """Steps in another place, 0 where none comes; the gradient goes back by the inverse index.

    Both ways gather: the scatter that torch would make of the gradient is many times slower.
    """

    @staticmethod
    def forward(ctx, x, index, inverse):
        """Return what ``index`` (T', B') names of x (T, B, F), as (T', B', F)."""
        ctx.save_for_backward(index, inverse)
        flat = index.flatten()
        taken = x.flatten(0, 1).index_select(0, flat.clamp(min=0))
        taken.masked_fill_((flat < 0).unsqueeze(1), 0.0)
        return taken.view(*index.shape, x.shape[2])

    @staticmethod
    def backward(ctx, grad):
        """Return the gradient of x."""
        index, inverse = ctx.saved_tensors
        return Rearranged.apply(grad, inverse, index), None, None
