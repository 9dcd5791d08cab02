"""The products that do not depend on the recurrence: of the inputs, and of their gradients.

Rows of gates have those of all directions, one direction after another, so that one product serves
them all.
"""

import torch
from torch import Tensor

from sklstm.kernels.contract import Inputs
from sklstm.kernels.library import instructions, load
from sklstm.kernels.rows import (
    UNITS,
    Rows,
    empty_rows,
    n_for_products,
    padded_gates,
    unpadded_gates,
)


def empty_gates(n_rows: int, units: int, directions: list[Inputs]) -> Tensor:
    """Return rows of the gates of all directions (n_rows, directions * 4H), as ``empty_rows``.

    A row does not begin a power of two behind the row before: the places of a cache are chosen by
    the low bits of an address, and rows of like ones would push each other out.
    """
    width = len(directions) * 4 * units
    return empty_rows(n_rows, width + UNITS, directions[0].x.dtype)[:, :width]


def split(gates: Tensor, n: int) -> tuple[Tensor, ...]:
    """Return the columns (N, 4H) of each of n directions."""
    return gates.split(gates.shape[1] // n, dim=1)


def joined(parts: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """Return the columns of all directions, undoing ``split`` without a copy."""
    if len(parts) == 1:
        return parts[0]
    n_columns = sum(part.shape[1] for part in parts)
    return parts[0].as_strided((len(parts[0]), n_columns), parts[0].stride())


def project(directions: list[Inputs], xs: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the share of the gates (U, 4H) that each direction's inputs x (U, I) have."""
    if directions[0].table is not None:
        return tuple(inputs.table for inputs in directions)
    biases = [padded_gates(inputs.bias, inputs) for inputs in directions]
    weights = [padded_gates(inputs.weight_ih, inputs) for inputs in directions]
    projected = empty_gates(len(xs[0]), len(weights[0]) // 4, directions)
    if len(xs) == 1:
        bias, weight = (own[0] if len(own) == 1 else torch.cat(own) for own in (biases, weights))
        torch.addmm(bias, xs[0], weight.t(), out=projected)
        return split(projected, len(directions))
    parts = split(projected, len(directions))
    for part, bias, x, weight in zip(parts, biases, xs, weights, strict=True):
        torch.addmm(bias, x, weight.t(), out=part)
    return parts


def project_backward(
    directions: list[Inputs],
    rows: Rows,
    xs: tuple[Tensor, ...],
    d: tuple[Tensor, ...],
    need_grad_x: list[bool],
    n_threads: int,
) -> list[dict[str, Tensor]]:
    """Return the gradients of the inputs and of their weights, from those of the gates.

    Where the directions share their inputs, the first one gets the gradient for all.
    """
    if len(xs) < len(directions):
        groups = [(directions, xs[0], joined(d))]
    else:
        groups = [([own], *rest) for own, *rest in zip(directions, xs, d, strict=True)]
    found = []
    for group, x, of_gates in groups:
        inputs, hidden = group[0], group[0].weight_hh.shape[1]
        if inputs.index is not None:  # equal inputs get the sum of their gradients
            source = inputs.index.flatten()[rows.place]
            of_gates = sum_rows(of_gates, source, len(inputs.x), n_threads)
        of_weights = (of_gates.t() @ x).chunk(len(group))
        grads = [{"weight_ih": unpadded_gates(own, hidden)} for own in of_weights]
        if any(need_grad_x):
            weights = [padded_gates(own.weight_ih, own) for own in group]
            grad = of_gates @ (weights[0] if len(weights) == 1 else torch.cat(weights))
            if inputs.index is None:
                grad = grad[: len(rows.place)]
                grad = torch.zeros_like(inputs.x).flatten(0, 1).index_copy_(0, rows.place, grad)
                grad = grad.view(inputs.x.shape)
            grads[0]["x"] = grad[: len(inputs.x)]
        found += grads
    return found


def sum_rows(
    rows: Tensor,  # (N, F)
    source: Tensor,  # (N',) the first rows of them: the sum to which each belongs
    n: int,
    n_threads: int,
) -> Tensor:
    """Return n sums of rows (n, F) by the library, and the rows of 0 that products should have.

    In bfloat16 the sums are rounded once. (torch's index_add_ rounds after each row, and takes rows
    that lie apart by a call each.)
    """
    library, _ = load()
    sums = torch.empty(n_for_products(n, rows.dtype), rows.shape[1], dtype=rows.dtype)
    sums[n:] = 0
    order, is_bfloat16 = torch.argsort(source, stable=True), rows.dtype == torch.bfloat16
    first = torch.zeros(n + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(source, minlength=n), 0, out=first[1:])
    library.sklstm_sum_rows(
        is_bfloat16,
        instructions(rows.dtype),
        rows.shape[1],
        rows.stride(0),
        rows.data_ptr(),
        order.data_ptr(),
        first.data_ptr(),
        n,
        sums.data_ptr(),
        n_threads,
    )
    return sums
