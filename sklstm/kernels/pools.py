"""The pools of the states that the compiled backend takes while it computes them.

The states need no memory then, and their gradients none: that of a pool says what each state gets.
"""

import torch
from torch import Tensor

from sklstm.kernels.contract import Inputs
from sklstm.kernels.rows import Rows, padded, unpadded


def empty_pools(
    pools: frozenset[str], n_texts: int, units: int, for_backward: bool
) -> dict[str, Tensor | int]:
    """Return the fields of a call that takes pools, as they begin."""
    fields = {"pooled": 1, "out": torch.empty(2, n_texts, units)}
    if "max" in pools:
        fields["greatest"] = torch.full((n_texts, units), -torch.inf)
        if for_backward:
            fields["where"] = torch.empty(n_texts, units, dtype=torch.int32)
    if "mean" in pools:
        fields |= {name: torch.zeros(n_texts, units) for name in ("sum", "lost")}
    return fields


def take_pools(
    pools: frozenset[str],
    inputs: Inputs,
    rows: Rows,
    fields: dict[str, Tensor],  # of a call that has run
) -> dict[str, Tensor]:
    """Return the pools (B, H) of a direction by name."""
    found = {}
    if "last" in pools:
        token = torch.zeros_like(rows.lengths) if inputs.reverse else rows.lengths - 1
        found["last"] = fields["out"][token % 2, torch.arange(len(token))]
    if "max" in pools:
        found["max"] = fields["greatest"]
    if "mean" in pools:
        found["mean"] = fields["sum"] / rows.lengths.unsqueeze(1)
    return {name: unpadded(pool, inputs.sizes[3]) for name, pool in found.items()}


def share_gradients(
    grads: dict[str, Tensor | None],  # of the pools (B, H), by name
    rows: Rows,
    where: Tensor | None,  # (B, H) the token of each maximum
) -> dict[str, Tensor]:
    """Return the fields of a backward by which the states of a text get the pools' gradients.

    That of the last state is where the backward begins, and not among them.
    """
    fields = {}
    if (of_mean := grads.get("mean")) is not None:
        fields["grad_mean"] = padded(of_mean / rows.lengths.unsqueeze(1))
    if (of_max := grads.get("max")) is not None:
        fields |= {"grad_max": padded(of_max), "where": where}
    return fields
