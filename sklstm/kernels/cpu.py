"""The same recurrence, arranged for speed on a CPU in plain torch.

What makes it fast: every step writes in place into memory taken once; texts are sorted by length,
so a step computes only the rows that are still live; the backward computes the factors that do not
depend on the recurrence for many steps at a time, in blocks that stay in the cache; and the weight
gradient is one matrix product over all steps.
"""

import numpy as np
import torch
from torch import Tensor

# Elements of one coefficient block of the backward: 2**17 floats are 512 KB, a quarter of a
# common second-level cache, so that the block is still there when the steps read it.
BLOCK_ELEMENTS = 2**17


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
    """Run the recurrence; see ``contract.py``."""
    order = _sorting_order(lengths)
    if order is not None:
        gates_x, h0, c0 = gates_x[:, order], h0[order], c0[order]
        lengths, mask_h = lengths[order], None if mask_h is None else mask_h[order]
    n_steps, n_texts, hidden = gates_x.shape[0], h0.shape[0], h0.shape[1]
    live = _live_rows(lengths, n_steps, n_texts)

    # Without a backward one step's memory serves all steps.
    n_kept = n_steps if for_backward else 1
    gates = gates_x.new_zeros(n_kept, n_texts, 4 * hidden)
    tanh_c = gates_x.new_zeros(n_kept, n_texts, hidden)
    cells = gates_x.new_zeros(n_kept, n_texts, hidden)
    h = gates_x.new_zeros(n_steps, n_texts, hidden)
    c = c0.clone()

    recurrent = weight_hh.t()
    h_prev, c_prev = h0, c0
    for t, n in enumerate(live):
        kept = t if for_backward else 0
        step = gates[kept, :n]
        h_in = h_prev[:n] if mask_h is None else h_prev[:n] * mask_h[:n]
        torch.addmm(gates_x[t, :n], h_in, recurrent, out=step)
        step[:, : 2 * hidden].sigmoid_()
        step[:, 2 * hidden : 3 * hidden].tanh_()
        step[:, 3 * hidden :].sigmoid_()
        i, f, g, o = step.chunk(4, dim=1)
        c_new = cells[kept, :n] if for_backward else c[:n]
        torch.mul(f, c_prev[:n], out=c_new).addcmul_(i, g)
        torch.tanh(c_new, out=tanh_c[kept, :n])
        torch.mul(o, tanh_c[kept, :n], out=h[t, :n])
        h_prev, c_prev = h[t], (cells[kept] if for_backward else c)

    h_last = _last_states(h, lengths)
    c_last = _last_states(cells, lengths) if for_backward else c
    if order is not None:
        inverse = torch.argsort(order)
        h, h_last, c_last = h[:, inverse], h_last[inverse], c_last[inverse]
    return h, h_last, c_last, (gates, cells, tanh_c) if for_backward else ()


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
    saved: tuple[Tensor, ...],  # in the sorted order
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of gates_x, weight_hh, h0 and c0; see ``contract.py``."""
    gates, cells, tanh_c = saved
    order = _sorting_order(lengths)
    if order is not None:
        grad_h, h = grad_h[:, order], h[:, order]
        grad_h_last, grad_c_last = grad_h_last[order], grad_c_last[order]
        h0, c0, lengths = h0[order], c0[order], lengths[order]
        mask_h = None if mask_h is None else mask_h[order]
    n_steps, n_texts, hidden = h.shape
    live = _live_rows(lengths, n_steps, n_texts)

    # Rows that are not live yet (going back in time) keep the gradient of their last state here.
    dh, dc = grad_h_last.clone(), grad_c_last.clone()
    grad_gates = torch.zeros_like(gates)
    block = max(1, BLOCK_ELEMENTS // (n_texts * 4 * hidden))
    for end in range(n_steps, 0, -block):
        begin = max(0, end - block)
        from_c, into_c = _coefficients(
            gates=gates[begin:end],
            tanh_c=tanh_c[begin:end],
            c_prev=_shifted(cells, c0, begin, end),
        )
        for t in reversed(range(begin, end)):
            n, k = live[t], t - begin
            dh_t, dc_t, step = dh[:n], dc[:n], grad_gates[t, :n]
            dh_t += grad_h[t, :n]
            dc_t.addcmul_(dh_t, into_c[k, :n])
            by_gate, coefficient = step.view(n, 4, hidden), from_c[k, :n].view(n, 4, hidden)
            torch.mul(coefficient[:, :3], dc_t.unsqueeze(1), out=by_gate[:, :3])
            torch.mul(coefficient[:, 3], dh_t, out=by_gate[:, 3])
            dc_t *= gates[t, :n, hidden : 2 * hidden]
            torch.mm(step, weight_hh, out=dh_t)
            if mask_h is not None:
                dh_t *= mask_h[:n]

    h_before, h_first = (h[:-1], h0) if mask_h is None else (h[:-1] * mask_h, h0 * mask_h)
    grad_weight_hh = grad_gates[0].T @ h_first
    if n_steps > 1:
        grad_weight_hh.addmm_(grad_gates[1:].flatten(0, 1).T, h_before.flatten(0, 1))
    if order is not None:
        inverse = torch.argsort(order)
        grad_gates, dh, dc = grad_gates[:, inverse], dh[inverse], dc[inverse]
    return grad_gates, grad_weight_hh, dh, dc


def _coefficients(
    *,
    gates: Tensor,  # (K, B, 4H)
    tanh_c: Tensor,  # (K, B, H)
    c_prev: Tensor,  # (K, B, H)
) -> tuple[Tensor, Tensor]:
    """Return the factors from dc (i, f, g) and dh (o) to the gates, and from dh into dc."""
    i, f, g, o = gates.chunk(4, dim=2)
    from_c = torch.empty_like(gates)
    d_i, d_f, d_g, d_o = from_c.chunk(4, dim=2)
    torch.addcmul(i, i, i, value=-1, out=d_i).mul_(g)
    torch.addcmul(f, f, f, value=-1, out=d_f).mul_(c_prev)
    torch.mul(g, g, out=d_g).neg_().add_(1).mul_(i)
    torch.addcmul(o, o, o, value=-1, out=d_o).mul_(tanh_c)
    into_c = tanh_c.square().neg_().add_(1).mul_(o)
    return from_c, into_c


def _shifted(
    cells: Tensor,  # (T, B, H)
    c0: Tensor,  # (B, H)
    begin: int,
    end: int,
) -> Tensor:
    """Return the cell states before the steps ``begin`` to ``end - 1``."""
    if begin > 0:
        return cells[begin - 1 : end - 1]
    return torch.cat([c0.unsqueeze(0), cells[: end - 1]])


def _sorting_order(lengths: Tensor | None) -> Tensor | None:
    """Return the order that puts long texts first, or None where they already stand so."""
    if lengths is None or bool((lengths[:-1] >= lengths[1:]).all()):
        return None
    return torch.argsort(lengths, descending=True, stable=True)


def _live_rows(lengths: Tensor | None, n_steps: int, n_texts: int) -> list[int]:
    """Return how many of the sorted texts are live at each step."""
    if lengths is None:
        return [n_texts] * n_steps
    ended = np.cumsum(np.bincount(lengths.numpy(), minlength=n_steps + 1))
    return (n_texts - ended[:n_steps]).tolist()


def _last_states(
    states: Tensor,  # (T, B, H)
    lengths: Tensor | None,  # (B,)
) -> Tensor:
    """Return each text's state at its last step, (B, H)."""
    if lengths is None:
        return states[-1].clone()
    return states[lengths - 1, torch.arange(states.shape[1])]
