"""The rows in which the compiled backend keeps tokens, and hidden sizes of whole vectors."""

from typing import NamedTuple

import torch
from torch import Tensor

from sklstm.kernels.contract import Inputs
from sklstm.kernels.memory import empty

# Hidden sizes are rounded up to whole vectors of the widest kind; the added units stay 0.
UNITS = 16


class Rows(NamedTuple):
    """The rows of a batch, and the places of their tokens in (T, B)."""

    lengths: Tensor  # (B,)
    order: Tensor  # (B,) the texts from the longest on
    first: Tensor  # (B,) the row of each text's first token
    last: Tensor  # (B,) the row of each text's last token
    place: Tensor  # (N,) row -> its place in (T * B,)

    def ends(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the rows of the tokens (B,) that are read first, and of those read last."""
        return (self.last, self.first) if inputs.reverse else (self.first, self.last)


def rows_of_x(directions: list[Inputs], rows: Rows) -> tuple[list[Tensor], Tensor | None]:
    """Return the inputs (U, I), once where the directions share them, and what each token reads.

    None: each token reads the row of its own.
    """
    shared = all(inputs.x is directions[0].x for inputs in directions)
    xs = [inputs.x for inputs in (directions[:1] if shared else directions)]
    if directions[0].index is not None:
        if directions[0].table is None:
            xs = [with_more_rows(x) for x in xs]
        return xs, directions[0].index.flatten()[rows.place]
    n = len(rows.place)
    read = [empty_rows(n, x.shape[2], x.dtype) for x in xs]
    for x, out in zip(xs, read, strict=True):
        torch.index_select(x.flatten(0, 1), 0, rows.place, out=out[:n])
    return read, None


def n_for_products(n: int, dtype: torch.dtype) -> int:
    """Return how many rows a product should have that needs ``n``: at most an eighth more.

    For products in bfloat16 torch's library compiles code for each number of rows, which takes
    milliseconds, and the number of tokens differs from batch to batch.
    """
    step = 1 if dtype == torch.float32 else 1 << max(0, (n - 1).bit_length() - 4)
    return -(-n // step) * step


def empty_rows(n: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return ``n`` uninitialised rows, and behind them those of 0 that a product should have."""
    rows = empty(n_for_products(n, dtype), width, dtype)
    rows[n:] = 0
    return rows


def with_more_rows(x: Tensor) -> Tensor:
    """Return x (n, I) with the rows of 0 that ``empty_rows`` has as well."""
    more = n_for_products(len(x), x.dtype) - len(x)
    return torch.nn.functional.pad(x, (0, 0, 0, more)) if more else x


def find_rows(inputs: Inputs) -> Rows:
    """Return the rows of a batch."""
    n_steps, n_texts, _, _ = inputs.sizes
    lengths = (
        torch.full((n_texts,), n_steps)
        if inputs.lengths is None
        else inputs.lengths.long().contiguous()
    )
    first = lengths.cumsum(0) - lengths
    last = first + lengths - 1
    text = torch.repeat_interleave(lengths)
    token = torch.arange(len(text)) - first[text]
    return Rows(
        lengths=lengths,
        order=torch.argsort(lengths, descending=True, stable=True),
        first=first,
        last=last,
        place=token * n_texts + text,
    )


def padded_size(hidden: int) -> int:
    """Return the number of units of whole vectors that hold so many."""
    return -(-hidden // UNITS) * UNITS


def padded(x: Tensor | None) -> Tensor | None:
    """Return x (..., H), contiguous, with columns of 0 up to the padded size."""
    if x is None or x.shape[-1] % UNITS == 0:
        return x if x is None else x.contiguous()
    return torch.nn.functional.pad(x, (0, padded_size(x.shape[-1]) - x.shape[-1]))


def padded_gates(x: Tensor, inputs: Inputs) -> Tensor:
    """Return x (4H, ...) with rows of 0 after each gate."""
    hidden = inputs.weight_hh.shape[1]
    if hidden % UNITS == 0:
        return x
    by_gate = x.unflatten(0, (4, hidden))
    more = by_gate.new_zeros(4, padded_size(hidden) - hidden, *x.shape[1:])
    return torch.cat([by_gate, more], dim=1).flatten(0, 1)


def unpadded(x: Tensor, hidden: int) -> Tensor:
    """Return x (..., H) without the columns that ``padded`` added."""
    return x if x.shape[-1] == hidden else x[..., :hidden].contiguous()


def unpadded_gates(x: Tensor, hidden: int) -> Tensor:
    """Return x (4H, ...) without the rows that ``padded_gates`` added."""
    return x if len(x) == 4 * hidden else x.unflatten(0, (4, -1))[:, :hidden].flatten(0, 1)
