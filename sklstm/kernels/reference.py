"""The definition: one readable step for every cell, and its backward by hand.

``lstm_loop`` is what the words of ``contract.py`` mean; autograd can differentiate it. ``backward``
is the same mathematics with the chain rule written out (derivation: ``docs/kernels.md``). Every
other backend is judged by this file, and this file by ``torch.nn.LSTM`` and by ``gradcheck``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sklstm.kernels.contract import NORM_EPS, Inputs, Outputs, mirror_index

SHARES_THREADS = ()
READS_BY_INDEX = False


class Step(NamedTuple):
    """What one step reads and makes; each (B, H) but for ``recurrent`` (B, G*H)."""

    h_in: Tensor  # the state before the step, under the mask
    c_prev: Tensor
    recurrent: Tensor  # h_in @ weight_hh.T, before any norm
    i: Tensor
    f: Tensor
    g: Tensor
    o: Tensor
    c_new: Tensor  # before zoneout
    tanh_c: Tensor  # of c_new, or of its norm
    h: Tensor  # the states after the step
    c: Tensor
    live: Tensor  # (B, 1) whether the text has this step


def refusal(inputs: Inputs, need_last: bool) -> str | None:
    """Return None: the definition has everything."""
    return None


def forward(inputs: Inputs, for_backward: bool) -> Outputs:
    """Run the layer. Nothing is saved: ``backward`` runs the steps again."""
    return Outputs(*lstm_loop(inputs))


def lstm_loop(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Run the layer; return h (T, B, H), h_last (B, H) and c_last (B, H)."""
    gates_x = _normed(_mirrored(inputs, inputs.x) @ inputs.weight_ih.T, inputs.norm_ih)
    steps = _steps(inputs, gates_x + inputs.bias)
    h = torch.stack([torch.where(step.live, step.h, 0.0) for step in steps])
    return _mirrored(inputs, h), steps[-1].h, steps[-1].c


def _steps(inputs: Inputs, gates_x: Tensor) -> list[Step]:
    """Return all steps in the order they are read; gates_x is (T, B, G*H)."""
    zone_h, zone_c = _mirrored(inputs, inputs.zone_h), _mirrored(inputs, inputs.zone_c)
    h, c, steps = inputs.h0, inputs.c0, []
    for t in range(gates_x.shape[0]):
        zones = None if zone_h is None else (zone_h[t], zone_c[t])
        step = _step(inputs, gates_x[t], h, c, zones, _live(inputs, t))
        h, c = step.h, step.c
        steps.append(step)
    return steps


def _step(inputs, gates_x, h_prev, c_prev, zones, live) -> Step:
    h_in = h_prev if inputs.mask_h is None else h_prev * inputs.mask_h
    recurrent = h_in @ inputs.weight_hh.T
    gates = gates_x + _normed(recurrent, inputs.norm_hh)
    if inputs.cell == "coupled":
        i, g, o = gates.chunk(3, dim=1)
        i, g, o = i.sigmoid(), g.tanh(), o.sigmoid()
        f = 1 - i
        c_new = f * c_prev + i * g
    else:
        i, f, g, o = gates.chunk(4, dim=1)
        if inputs.peephole is not None:
            i, f = i + inputs.peephole[0] * c_prev, f + inputs.peephole[1] * c_prev
        i, f, g = i.sigmoid(), f.sigmoid(), g.tanh()
        c_new = f * c_prev + i * g
        if inputs.peephole is not None:
            seen = c_prev if inputs.cell == "peephole_previous" else c_new
            o = o + inputs.peephole[2] * seen
        o = o.sigmoid()
    scale_and_shift = (None, 0.0) if inputs.norm_c is None else inputs.norm_c
    tanh_c = (_normed(c_new, scale_and_shift[0]) + scale_and_shift[1]).tanh()
    h, c = o * tanh_c, c_new
    if zones is not None:
        h, c = torch.lerp(h, h_prev, zones[0]), torch.lerp(c, c_prev, zones[1])
    h, c = torch.where(live, h, h_prev), torch.where(live, c, c_prev)
    return Step(h_in, c_prev, recurrent, i, f, g, o, c_new, tanh_c, h, c, live)


def backward(
    inputs: Inputs,
    saved: tuple[Tensor, ...],
    grad_h: Tensor,  # (T, B, H)
    grad_h_last: Tensor,  # (B, H)
    grad_c_last: Tensor,  # (B, H)
    need_grad_x: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``DIFFERENTIABLE``."""
    x, grad_h = _mirrored(inputs, inputs.x), _mirrored(inputs, grad_h)
    zone_h, zone_c = _mirrored(inputs, inputs.zone_h), _mirrored(inputs, inputs.zone_c)
    product = x @ inputs.weight_ih.T
    steps = _steps(inputs, _normed(product, inputs.norm_ih) + inputs.bias)
    grads = {
        name: None if (tensor := getattr(inputs, name)) is None else torch.zeros_like(tensor)
        for name in ("weight_hh", "peephole", "norm_hh", "norm_c")
    }
    grad_gates = torch.zeros_like(product)
    dh, dc = grad_h_last, grad_c_last
    for t in reversed(range(len(steps))):
        step = steps[t]
        dh_t, dc_t, h_carry, c_carry = dh + grad_h[t], dc, 0.0, 0.0
        if zone_h is not None:
            h_carry, dh_t = zone_h[t] * dh_t, (1 - zone_h[t]) * dh_t
            c_carry, dc_t = zone_c[t] * dc_t, (1 - zone_c[t]) * dc_t
        # A text that has ended has no gradient at this step; its dh and dc wait for it.
        dh_t, dc_t = torch.where(step.live, dh_t, 0.0), torch.where(step.live, dc_t, 0.0)
        grad_gates[t], dc_prev = _step_backward(inputs, step, dh_t, dc_t, grads)
        d_recurrent, grad_scale = _normed_backward(grad_gates[t], step.recurrent, inputs.norm_hh)
        if inputs.norm_hh is not None:
            grads["norm_hh"] += grad_scale
        grads["weight_hh"] += d_recurrent.T @ step.h_in
        dh_prev = d_recurrent @ inputs.weight_hh
        if inputs.mask_h is not None:
            dh_prev = dh_prev * inputs.mask_h
        dh = torch.where(step.live, dh_prev + h_carry, dh)
        dc = torch.where(step.live, dc_prev + c_carry, dc)
    d_product, grads["norm_ih"] = _normed_backward(grad_gates, product, inputs.norm_ih)
    d_product = d_product.flatten(0, 1)
    return (
        _mirrored(inputs, (d_product @ inputs.weight_ih).view(x.shape)) if need_grad_x else None,
        d_product.T @ x.flatten(0, 1),
        grads["weight_hh"],
        grad_gates.sum((0, 1)),
        dh,
        dc,
        grads["peephole"],
        grads["norm_ih"],
        grads["norm_hh"],
        grads["norm_c"],
    )


def _step_backward(inputs, step, dh, dc, grads) -> tuple[Tensor, Tensor]:
    """Return the gradients of the gates (B, G*H) and of c before the step; add to ``grads``."""
    d_o = dh * step.tanh_c * step.o * (1 - step.o)
    d_normed_c = dh * step.o * (1 - step.tanh_c**2)
    if inputs.norm_c is None:
        dc = dc + d_normed_c
    else:
        d_c, grad_scale = _normed_backward(d_normed_c, step.c_new, inputs.norm_c[0])
        dc = dc + d_c
        grads["norm_c"] += torch.stack([grad_scale, d_normed_c.sum(0)])
    if inputs.cell == "peephole":
        dc = dc + d_o * inputs.peephole[2]
    d_g = dc * step.i * (1 - step.g**2)
    if inputs.cell == "coupled":
        d_i = dc * (step.g - step.c_prev) * step.i * (1 - step.i)
        return torch.cat([d_i, d_g, d_o], dim=1), dc * step.f
    d_i = dc * step.g * step.i * (1 - step.i)
    d_f = dc * step.c_prev * step.f * (1 - step.f)
    dc_prev = dc * step.f
    if inputs.peephole is not None:
        seen = step.c_prev if inputs.cell == "peephole_previous" else step.c_new
        for_each = (d_i * step.c_prev, d_f * step.c_prev, d_o * seen)
        grads["peephole"] += torch.stack([each.sum(0) for each in for_each])
        dc_prev = dc_prev + d_i * inputs.peephole[0] + d_f * inputs.peephole[1]
        if inputs.cell == "peephole_previous":
            dc_prev = dc_prev + d_o * inputs.peephole[2]
    return torch.cat([d_i, d_f, d_g, d_o], dim=1), dc_prev


def _normed(x: Tensor, scale: Tensor | None) -> Tensor:
    """Return the layer norm of x over its last axis, times scale; x itself without a scale."""
    return x if scale is None else torch.layer_norm(x, scale.shape, scale, None, NORM_EPS)


def _normed_backward(grad: Tensor, x: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of x and of scale, from that of ``_normed(x, scale)``."""
    if scale is None:
        return grad, None
    deviation = (x.var(-1, correction=0, keepdim=True) + NORM_EPS).sqrt()
    unit = (x - x.mean(-1, keepdim=True)) / deviation
    d_unit = grad * scale
    along = d_unit.mean(-1, keepdim=True) + unit * (d_unit * unit).mean(-1, keepdim=True)
    return (d_unit - along) / deviation, (grad * unit).flatten(0, -2).sum(0)


def _mirrored(inputs: Inputs, x: Tensor | None) -> Tensor | None:
    """Return x (T, B, F) in the order it is read, or back from it."""
    if x is None or not inputs.reverse:
        return x
    index = mirror_index(inputs.lengths, n_steps=x.shape[0], n_texts=x.shape[1], device=x.device)
    return x.flatten(0, 1)[index].view(x.shape)


def _live(inputs: Inputs, t: int) -> Tensor:
    """Return which texts have a step t, (B, 1)."""
    n_steps, n_texts, _, _ = inputs.sizes
    lengths = torch.full((n_texts,), n_steps) if inputs.lengths is None else inputs.lengths
    return (t < lengths.to(inputs.x.device)).unsqueeze(1)
