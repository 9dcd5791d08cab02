"""How much work a layer is, as far as the choice of a backend and of the threads depends on it."""

import math

import torch

from sklstm.kernels.contract import DIFFERENTIABLE, Inputs
from sklstm.kernels.lanes import number_of_lanes

# The fewest texts of a shard, the part of a batch that one thread computes.
MIN_SHARD = 8


def needs_backward(directions: list[Inputs]) -> bool:
    """Return whether gradients are recorded and any of the inputs wants one."""
    return torch.is_grad_enabled() and any(
        (tensor := getattr(inputs, name)) is not None and tensor.requires_grad
        for inputs in directions
        for name in DIFFERENTIABLE
    )


def live_share(inputs: Inputs) -> float:
    """Return the share of the steps that is not padding."""
    n_steps, n_texts, _, _ = inputs.sizes
    return 1.0 if inputs.lengths is None else float(inputs.lengths.sum()) / (n_steps * n_texts)


def n_shards(directions: list[Inputs]) -> int:
    """Return into how many shards to cut each direction, so that every thread has work."""
    by_texts = max(1, directions[0].sizes[1] // MIN_SHARD)
    return max(1, min(number_of_lanes() // len(directions), by_texts))


def texts_a_shard(directions: list[Inputs]) -> int:
    """Return how many texts a step computes at once where threads are shared."""
    return math.ceil(directions[0].sizes[1] / n_shards(directions))
