"""The definition: for each cell one step and its backward, each in the order of its formula.

``lstm_loop`` is what the words of ``contract.py`` mean; autograd can differentiate it. ``backward``
is the same mathematics with the chain rule written out (derivation: ``docs/kernels.md``). Every
other backend is tested against this file, and this file against ``torch.nn.LSTM`` and by
``gradcheck``.

To read a cell, read its two functions. The loops at the end of the file are the same for all cells.

A step takes the inputs of the layer, the input's share of the gates (B, G*H), the product
``h_in @ weight_hh.T`` (B, G*H) and the states before the step, each (B, H). It returns the states
after the step and what its backward needs. The backward takes the inputs of the layer, what the
step kept for it, and the gradients of the states after the step. It returns ``Gradients``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sklstm.kernels.contract import (
    DIFFERENTIABLE,
    NORM_EPS,
    STEEPEST_NORM,
    Inputs,
    Outputs,
    mirror_index,
)


class Gradients(NamedTuple):
    """What the backward of a step returns."""

    gates_x: Tensor  # (B, G*H) of the input's share of the gates
    recurrent: Tensor  # (B, G*H) of the product h_in @ weight_hh.T
    states: tuple[Tensor | float, ...]  # of the states before, but for what flows through h_in
    parameters: dict[str, Tensor] = {}  # of the cell's own parameters, this step's share


# Cells


def standard(inputs, gates_x, recurrent, h_prev, c_prev):
    """Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000)."""
    i, f, g, o = (gates_x + recurrent).chunk(4, dim=1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c_prev + i * g
    tanh_c = c.tanh()
    h = o * tanh_c
    return (h, c), (c_prev, i, f, g, o, tanh_c)


def standard_backward(inputs, kept, dh, dc):
    """Return the gradients of a step of ``standard``."""
    c_prev, i, f, g, o, tanh_c = kept
    d_o = dh * tanh_c * o * (1 - o)
    dc = dc + dh * o * (1 - tanh_c**2)
    d_i = dc * g * i * (1 - i)
    d_f = dc * c_prev * f * (1 - f)
    d_g = dc * i * (1 - g**2)
    d_gates = torch.cat([d_i, d_f, d_g, d_o], dim=1)
    return Gradients(d_gates, d_gates, (0.0, dc * f))


def peephole(inputs, gates_x, recurrent, h_prev, c_prev):
    """Gers & Schmidhuber (2000): i and f see c before the step, o sees c after it."""
    p_i, p_f, p_o = inputs.peephole
    i, f, g, o = (gates_x + recurrent).chunk(4, dim=1)
    i, f, g = (i + p_i * c_prev).sigmoid(), (f + p_f * c_prev).sigmoid(), g.tanh()
    c = f * c_prev + i * g
    o = (o + p_o * c).sigmoid()
    tanh_c = c.tanh()
    h = o * tanh_c
    return (h, c), (c_prev, i, f, g, o, c, tanh_c)


def peephole_backward(inputs, kept, dh, dc):
    """Return the gradients of a step of ``peephole``."""
    p_i, p_f, p_o = inputs.peephole
    c_prev, i, f, g, o, c, tanh_c = kept
    d_o = dh * tanh_c * o * (1 - o)
    dc = dc + dh * o * (1 - tanh_c**2) + d_o * p_o
    d_i = dc * g * i * (1 - i)
    d_f = dc * c_prev * f * (1 - f)
    d_g = dc * i * (1 - g**2)
    dc_prev = dc * f + d_i * p_i + d_f * p_f
    d_peephole = torch.stack([(d_i * c_prev).sum(0), (d_f * c_prev).sum(0), (d_o * c).sum(0)])
    d_gates = torch.cat([d_i, d_f, d_g, d_o], dim=1)
    return Gradients(d_gates, d_gates, (0.0, dc_prev), {"peephole": d_peephole})


def peephole_previous(inputs, gates_x, recurrent, h_prev, c_prev):
    """As many tutorials print the peepholes: i, f and o all see c before the step."""
    p_i, p_f, p_o = inputs.peephole
    i, f, g, o = (gates_x + recurrent).chunk(4, dim=1)
    i, f, g = (i + p_i * c_prev).sigmoid(), (f + p_f * c_prev).sigmoid(), g.tanh()
    c = f * c_prev + i * g
    o = (o + p_o * c_prev).sigmoid()
    tanh_c = c.tanh()
    h = o * tanh_c
    return (h, c), (c_prev, i, f, g, o, tanh_c)


def peephole_previous_backward(inputs, kept, dh, dc):
    """Return the gradients of a step of ``peephole_previous``."""
    p_i, p_f, p_o = inputs.peephole
    c_prev, i, f, g, o, tanh_c = kept
    d_o = dh * tanh_c * o * (1 - o)
    dc = dc + dh * o * (1 - tanh_c**2)
    d_i = dc * g * i * (1 - i)
    d_f = dc * c_prev * f * (1 - f)
    d_g = dc * i * (1 - g**2)
    dc_prev = dc * f + d_i * p_i + d_f * p_f + d_o * p_o
    d_peephole = torch.stack([(d_gate * c_prev).sum(0) for d_gate in (d_i, d_f, d_o)])
    d_gates = torch.cat([d_i, d_f, d_g, d_o], dim=1)
    return Gradients(d_gates, d_gates, (0.0, dc_prev), {"peephole": d_peephole})


def layer_norm(inputs, gates_x, recurrent, h_prev, c_prev):
    """Ba, Kiros & Hinton (2016). The loops have normed the input's share of the gates."""
    scale, shift = inputs.norm_c
    i, f, g, o = (gates_x + _normed(recurrent, inputs.norm_hh)).chunk(4, dim=1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c_prev + i * g
    tanh_c = (_normed(c, scale) + shift).tanh()
    h = o * tanh_c
    return (h, c), (recurrent, c_prev, i, f, g, o, c, tanh_c)


def layer_norm_backward(inputs, kept, dh, dc):
    """Return the gradients of a step of ``layer_norm``."""
    recurrent, c_prev, i, f, g, o, c, tanh_c = kept
    d_o = dh * tanh_c * o * (1 - o)
    d_normed_c = dh * o * (1 - tanh_c**2)
    through_norm, d_scale = _normed_backward(d_normed_c, c, inputs.norm_c[0], recurrent=True)
    dc = dc + through_norm
    d_i = dc * g * i * (1 - i)
    d_f = dc * c_prev * f * (1 - f)
    d_g = dc * i * (1 - g**2)
    d_gates = torch.cat([d_i, d_f, d_g, d_o], dim=1)
    d_recurrent, d_norm_hh = _normed_backward(d_gates, recurrent, inputs.norm_hh, recurrent=True)
    own = {"norm_hh": d_norm_hh, "norm_c": torch.stack([d_scale, d_normed_c.sum(0)])}
    return Gradients(d_gates, d_recurrent, (0.0, dc * f), own)


def coupled(inputs, gates_x, recurrent, h_prev, c_prev):
    """Greff et al. (2017): the forget gate is 1 - i."""
    i, g, o = (gates_x + recurrent).chunk(3, dim=1)
    i, g, o = i.sigmoid(), g.tanh(), o.sigmoid()
    f = 1 - i
    c = f * c_prev + i * g
    tanh_c = c.tanh()
    h = o * tanh_c
    return (h, c), (c_prev, i, f, g, o, tanh_c)


def coupled_backward(inputs, kept, dh, dc):
    """Return the gradients of a step of ``coupled``."""
    c_prev, i, f, g, o, tanh_c = kept
    d_o = dh * tanh_c * o * (1 - o)
    dc = dc + dh * o * (1 - tanh_c**2)
    d_i = dc * (g - c_prev) * i * (1 - i)
    d_g = dc * i * (1 - g**2)
    d_gates = torch.cat([d_i, d_g, d_o], dim=1)
    return Gradients(d_gates, d_gates, (0.0, dc * f))


#: Cell -> its step and the backward of it.
STEPS = {
    "lstm": (standard, standard_backward),
    "peephole": (peephole, peephole_backward),
    "peephole_previous": (peephole_previous, peephole_previous_backward),
    "layer_norm": (layer_norm, layer_norm_backward),
    "coupled": (coupled, coupled_backward),
}

# The backend

HAS_CELLS = frozenset(STEPS)
SHARES_THREADS = ()
READS_BY_INDEX = False
DEVICES = ()
RUNS_TOGETHER = False
POOLS = frozenset()
CAN_BE_EXPORTED = True


def device_refusal(device: torch.device) -> str | None:
    """Return None: the definition runs on every device."""
    return None


def refusal(inputs: Inputs, need_last: bool) -> str | None:
    """Return why the backend does not have the cell, or None; each cell has every feature."""
    return None if inputs.cell in HAS_CELLS else f"has no cell {inputs.cell!r}"


def suits(directions: list[Inputs]) -> bool:
    """Return True: it is the last resort for all inputs."""
    return True


def gains_from_bfloat16(
    device: torch.device, *, cell: str, hidden: int, masked: bool, zoned: bool
) -> bool:
    """Return False."""
    return False


def forward(inputs: Inputs, for_backward: bool) -> Outputs:
    """Run the layer. Nothing is saved: ``backward`` runs the steps again."""
    return Outputs(*lstm_loop(inputs))


def lstm_loop(inputs: Inputs) -> tuple[Tensor, ...]:
    """Run the layer; return h (T, B, H) and the last of each state, (B, H): h_last, c_last."""
    gates_x = _normed(_mirrored(inputs, inputs.x) @ inputs.weight_ih.T, inputs.norm_ih)
    steps = _run(inputs, gates_x + inputs.bias)
    h = torch.stack([torch.where(step.live, step.states[0], 0.0) for step in steps])
    return _mirrored(inputs, h), *steps[-1].states


def backward(
    inputs: Inputs,
    saved: tuple[Tensor, ...],
    grad_h: Tensor,  # (T, B, H)
    grad_h_last: Tensor,  # (B, H)
    grad_c_last: Tensor,  # (B, H)
    need_grad_x: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``DIFFERENTIABLE``."""
    x = _mirrored(inputs, inputs.x)
    product = x @ inputs.weight_ih.T
    steps = _run(inputs, _normed(product, inputs.norm_ih) + inputs.bias)
    last = {"h": grad_h_last, "c": grad_c_last}
    of_last = [last[name] for name in inputs.properties.states]
    d_gates_x, grads = _run_back(inputs, steps, _mirrored(inputs, grad_h), of_last)
    grads["bias"] = d_gates_x.sum((0, 1))
    d_product, grads["norm_ih"] = _normed_backward(d_gates_x, product, inputs.norm_ih)
    d_product = d_product.flatten(0, 1)
    grads["weight_ih"] = d_product.T @ x.flatten(0, 1)
    if need_grad_x:
        grads["x"] = _mirrored(inputs, (d_product @ inputs.weight_ih).view(x.shape))
    return tuple(grads.get(name) for name in DIFFERENTIABLE)


# The loops over the steps


class Step(NamedTuple):
    """One step of all texts."""

    h_in: Tensor  # (B, H) the state before the step, under the mask
    kept: tuple[Tensor, ...]  # what the cell's backward needs
    states: tuple[Tensor, ...]  # (B, H) each, after the step
    live: Tensor  # (B, 1) whether the text has this step


def _run(inputs: Inputs, gates_x: Tensor) -> list[Step]:
    """Return all steps in the order they are read; gates_x is (T, B, G*H)."""
    step_of_cell, _ = STEPS[inputs.cell]
    zones = _zones(inputs)
    states = tuple(getattr(inputs, f"{name}0") for name in inputs.properties.states)
    steps = []
    for t in range(gates_x.shape[0]):
        h_in = states[0] if inputs.mask_h is None else states[0] * inputs.mask_h
        new, kept = step_of_cell(inputs, gates_x[t], h_in @ inputs.weight_hh.T, *states)
        if zones is not None:
            shares = [zone[t] for zone in zones]
            new = [torch.lerp(*each) for each in zip(new, states, shares, strict=True)]
        live = _live(inputs, t)
        states = tuple(torch.where(live, *each) for each in zip(new, states, strict=True))
        steps.append(Step(h_in, kept, states, live))
    return steps


def _run_back(
    inputs: Inputs,
    steps: list[Step],
    grad_h: Tensor,  # (T, B, H) in the order they are read
    d_states: list[Tensor],  # (B, H) each, of the last states
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the gradients of gates_x (T, B, G*H) and, by name, of what the steps read besides."""
    _, backward_of_cell = STEPS[inputs.cell]
    zones = _zones(inputs)
    names = ("weight_hh", *inputs.properties.parameters)
    grads = {name: torch.zeros_like(getattr(inputs, name)) for name in names}
    d_gates_x = inputs.x.new_zeros(*grad_h.shape[:2], len(inputs.weight_hh))
    for t in reversed(range(len(steps))):
        step = steps[t]
        d_after = [d_states[0] + grad_h[t], *d_states[1:]]
        d_kept = [0.0] * len(d_after)
        if zones is not None:
            shares = [zone[t] for zone in zones]
            d_kept = [z * d for z, d in zip(shares, d_after, strict=True)]
            d_after = [(1 - z) * d for z, d in zip(shares, d_after, strict=True)]
        # A text that has ended has no gradient at this step; d_states keep its gradients.
        d_after = [torch.where(step.live, d, 0.0) for d in d_after]
        found = backward_of_cell(inputs, step.kept, *d_after)
        d_gates_x[t] = found.gates_x
        grads["weight_hh"] += found.recurrent.T @ step.h_in
        for name, share in found.parameters.items():
            grads[name] += share
        d_h_in = found.recurrent @ inputs.weight_hh
        d_h = d_h_in if inputs.mask_h is None else d_h_in * inputs.mask_h
        d_before = [d_h + found.states[0], *found.states[1:]]
        d_states = [
            torch.where(step.live, before + kept, waiting)
            for before, kept, waiting in zip(d_before, d_kept, d_states, strict=True)
        ]
    first = {f"{name}0": d for name, d in zip(inputs.properties.states, d_states, strict=True)}
    return d_gates_x, grads | first


def _zones(inputs: Inputs) -> list[Tensor] | None:
    """Return for each state the share (T, B, H) that zoneout keeps, in the order they are read."""
    if inputs.zone_h is None:
        return None
    names = inputs.properties.states
    return [_mirrored(inputs, getattr(inputs, f"zone_{name}")) for name in names]


def _live(inputs: Inputs, t: int) -> Tensor:
    """Return which texts have a step t, (B, 1)."""
    _, n_texts, _, _ = inputs.sizes
    if inputs.lengths is None:
        return inputs.x.new_ones((n_texts, 1), dtype=torch.bool)
    return (t < inputs.own_lengths).unsqueeze(1)


def _mirrored(inputs: Inputs, x: Tensor) -> Tensor:
    """Return x (T, B, F) in the order it is read, or back from it."""
    if not inputs.reverse:
        return x
    n_steps, n_texts, _ = x.shape
    index = mirror_index(inputs.own_lengths, n_steps=n_steps, n_texts=n_texts, device=x.device)
    return x.flatten(0, 1)[index].view(x.shape)


def _normed(x: Tensor, scale: Tensor | None) -> Tensor:
    """Return the layer norm of x over its last axis, times scale; x itself without a scale."""
    return x if scale is None else torch.layer_norm(x, scale.shape, scale, None, NORM_EPS)


def _normed_backward(
    grad: Tensor, x: Tensor, scale: Tensor | None, *, recurrent: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of x and of scale, from that of ``_normed(x, scale)``.

    Inside the recurrence, an x of almost no variance gets none (``STEEPEST_NORM``).
    """
    if scale is None:
        return grad, None
    slope = (x.var(-1, correction=0, keepdim=True) + NORM_EPS).rsqrt()
    unit = (x - x.mean(-1, keepdim=True)) * slope
    d_unit = grad * scale
    along = d_unit.mean(-1, keepdim=True) + unit * (d_unit * unit).mean(-1, keepdim=True)
    if recurrent:
        slope = torch.where(slope > STEEPEST_NORM, 0.0, slope)
    return (d_unit - along) * slope, (grad * unit).flatten(0, -2).sum(0)
