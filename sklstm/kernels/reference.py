"""The definition: one readable loop, and its backward by hand.

``lstm_loop`` is what the words of ``contract.py`` mean; autograd can differentiate it. ``forward``
and ``backward`` are the same mathematics with the chain rule written out (derivation:
``docs/kernels.md``). Every other backend is judged by this file, and this file by
``torch.nn.LSTM`` and by ``gradcheck``.
"""

import torch
from torch import Tensor


def lstm_loop(
    *,
    gates_x: Tensor,  # (T, B, 4H)
    weight_hh: Tensor,  # (4H, H)
    h0: Tensor,  # (B, H)
    c0: Tensor,  # (B, H)
    lengths: Tensor | None,  # (B,)
    mask_h: Tensor | None,  # (B, H)
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence; return h (T, B, H), h_last (B, H) and c_last (B, H)."""
    h_prev, c_prev, outputs = h0, c0, []
    for t in range(gates_x.shape[0]):
        gates = gates_x[t] + _masked(h_prev, mask_h) @ weight_hh.T
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c_prev + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        live = _live(lengths, t, h)
        outputs.append(torch.where(live, h, 0.0))
        h_prev, c_prev = torch.where(live, h, h_prev), torch.where(live, c, c_prev)
    return torch.stack(outputs), h_prev, c_prev


def forward(
    *,
    gates_x: Tensor,  # (T, B, 4H)
    weight_hh: Tensor,  # (4H, H)
    h0: Tensor,  # (B, H)
    c0: Tensor,  # (B, H)
    lengths: Tensor | None,  # (B,)
    mask_h: Tensor | None,  # (B, H)
    for_backward: bool,
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Run the recurrence and keep the gates and cell states of every step."""
    h_prev, c_prev = h0, c0
    outputs, all_gates, cells = [], [], [c0]
    for t in range(gates_x.shape[0]):
        gates = gates_x[t] + _masked(h_prev, mask_h) @ weight_hh.T
        i, f, g, o = gates.chunk(4, dim=1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c_prev + i * g
        h = o * c.tanh()
        live = _live(lengths, t, h)
        h_prev, c_prev = torch.where(live, h, h_prev), torch.where(live, c, c_prev)
        outputs.append(torch.where(live, h, 0.0))
        all_gates.append(torch.cat([i, f, g, o], dim=1))
        cells.append(c_prev)
    saved = (torch.stack(all_gates), torch.stack(cells)) if for_backward else ()
    return torch.stack(outputs), h_prev, c_prev, saved


def backward(
    *,
    grad_h: Tensor,  # (T, B, H)
    grad_h_last: Tensor,  # (B, H)
    grad_c_last: Tensor,  # (B, H)
    h: Tensor,  # (T, B, H)
    weight_hh: Tensor,  # (4H, H)
    h0: Tensor,  # (B, H)
    c0: Tensor,  # (B, H)
    lengths: Tensor | None,  # (B,)
    mask_h: Tensor | None,  # (B, H)
    saved: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of gates_x, weight_hh, h0 and c0."""
    all_gates, cells = saved  # (T, B, 4H), (T + 1, B, H)
    grad_gates = torch.zeros_like(all_gates)
    grad_weight_hh = torch.zeros_like(weight_hh)
    dh, dc = grad_h_last, grad_c_last
    for t in reversed(range(h.shape[0])):
        live = _live(lengths, t, h0)
        i, f, g, o = all_gates[t].chunk(4, dim=1)
        tanh_c = cells[t + 1].tanh()
        dh_t = dh + grad_h[t]
        dc_t = dc + dh_t * o * (1 - tanh_c**2)
        step = torch.cat(
            [
                dc_t * g * i * (1 - i),
                dc_t * cells[t] * f * (1 - f),
                dc_t * i * (1 - g**2),
                dh_t * tanh_c * o * (1 - o),
            ],
            dim=1,
        )
        grad_gates[t] = torch.where(live, step, 0.0)
        # A live text has no pause in it, so its state before step t is h[t - 1].
        grad_weight_hh += grad_gates[t].T @ _masked(h[t - 1] if t > 0 else h0, mask_h)
        dh = torch.where(live, _masked(grad_gates[t] @ weight_hh, mask_h), dh)
        dc = torch.where(live, dc_t * f, dc)
    return grad_gates, grad_weight_hh, dh, dc


def _masked(h: Tensor, mask_h: Tensor | None) -> Tensor:
    return h if mask_h is None else h * mask_h


def _live(lengths: Tensor | None, t: int, like: Tensor) -> Tensor:
    """Which texts still run at step t, as a column (B, 1)."""
    if lengths is None:
        return torch.ones(like.shape[0], 1, dtype=torch.bool, device=like.device)
    return (t < lengths.to(like.device)).unsqueeze(1)
