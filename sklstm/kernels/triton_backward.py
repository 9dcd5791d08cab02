"""The backward of the recurrence: one program computes the steps from the last to the first.

It writes the gradient of the gates at each step and carries those of h and c. The gradients of the
parameters are sums over all steps. ``triton_layer.py`` leaves them to torch, since they would take
the registers that every step needs.
"""

import triton
import triton.language as tl

from sklstm.kernels.contract import NORM_EPS, STEEPEST_NORM
from sklstm.kernels.triton_block import (
    RUNTIME,
    launch,
    load_columns,
    load_tile,
    load_vector,
    normed,
    row_of_step,
    store_tile,
    tanh,
    texts_of_program,
)


@triton.jit
def _weight(
    weight_hh, first, GATE: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr
):
    """Return one gate's rows of weight_hh: (ROWS, PADDED) from its row ``first`` on."""
    n = first + tl.arange(0, ROWS)[:, None]
    k = tl.arange(0, PADDED)[None, :]
    inside = (n < H) & (k < H)
    return tl.load(weight_hh + (GATE * H + n) * H + k, mask=inside, other=0.0)


@triton.jit
def _stream(
    weight_hh, d_gates, row, live,
    WIDTH: tl.constexpr, G: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr,
    TEXTS: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return ``d_gates @ weight_hh`` of a step, whose gradients are in memory."""
    dh = tl.zeros((TEXTS, PADDED), tl.float32)
    for first in tl.range(0, PADDED, CHUNK, num_stages=STAGES):
        for gate in tl.static_range(G):
            d_gate = load_columns(d_gates, row, live, first, WIDTH, H, CHUNK, gate)
            weight = _weight(weight_hh, first, gate, H, PADDED, CHUNK)
            dh = tl.dot(d_gate, weight, dh, input_precision=PRECISION)
    return dh


@triton.jit
def _before_norm(
    d_gate, unit, mean, along, scale, STEEPEST: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr
):
    """Return the gradient of x from that of the unit of x; 0 for an x of almost no variance."""
    inside = (tl.arange(0, PADDED) < H)[None, :]
    scale = tl.where(scale > STEEPEST, 0.0, scale)
    return tl.where(inside, (d_gate - mean - unit * along) * scale, 0.0)


@triton.jit(do_not_specialize=RUNTIME)
def backward_kernel(  # noqa: C901 every branch is decided when the kernel is compiled
    grad_h_all,  # (D, T, B, H)
    grad_h_last, grad_c_last,  # (D, B, H) or None
    gates, cells, units, scales,  # what the forward saved
    weight_hh, peephole, norm_hh, norm_c, mask_h, zone_h, zone_c,  # as in Inputs, D of each
    lengths,  # (B,)
    grad_gates,  # (T, B, D, G*H) written: before their sigmoid or tanh
    grad_recurrent,  # (T, B, D, 4H) written with norm_hh: of h @ weight_hh.T before the norm
    grad_normed_c,  # (D, T, B, H) written with norm_c: of c after the norm
    grad_h0, grad_c0,  # (D, B, H) written
    n_steps, n_texts,
    D: tl.constexpr, REVERSED: tl.constexpr, G: tl.constexpr, OUTPUT_SEES_NEW_C: tl.constexpr,
    H: tl.constexpr, PADDED: tl.constexpr, TEXTS: tl.constexpr,
    STREAMED: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr, FAST: tl.constexpr, EPS: tl.constexpr, STEEPEST: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of the steps of ``TEXTS`` texts."""
    dtype = weight_hh.dtype.element_ty
    WIDTH: tl.constexpr = D * G * H
    direction = tl.program_id(1).to(tl.int64)
    text, length = texts_of_program(lengths, n_steps, n_texts, TEXTS)
    exists = text < n_texts
    n_rows = n_steps.to(tl.int64) * n_texts
    # Each tensor from the program's direction on.
    grad_h_all += direction * (n_rows * H)
    gates += direction * (G * H)
    cells += direction * (n_rows * H)
    weight_hh += direction * (G * H * H)
    grad_gates += direction * (G * H)
    grad_h0 += direction * (n_texts * H)
    grad_c0 += direction * (n_texts * H)
    if grad_h_last is not None:
        grad_h_last += direction * (n_texts * H)
    if grad_c_last is not None:
        grad_c_last += direction * (n_texts * H)
    if peephole is not None:
        peephole += direction * (3 * H)
    if norm_hh is not None:
        norm_hh += direction * (4 * H)
        norm_c += direction * (2 * H)
        units += direction * (G * H)
        scales += direction * n_rows
        grad_recurrent += direction * (G * H)
        grad_normed_c += direction * (n_rows * H)
    if mask_h is not None:
        mask_h += direction * (n_texts * H)
    if zone_h is not None:
        zone_h += direction * (n_rows * H)
        zone_c += direction * (n_rows * H)

    nothing = tl.zeros((TEXTS, PADDED), tl.float32)
    dh, dc = nothing, nothing
    if grad_h_last is not None:
        dh = load_tile(grad_h_last, text, exists, H, H, PADDED)
    if grad_c_last is not None:
        dc = load_tile(grad_c_last, text, exists, H, H, PADDED)
    if mask_h is not None:
        mask = load_tile(mask_h, text, exists, H, H, PADDED)
    if not STREAMED:
        weight_i = _weight(weight_hh, 0, 0, H, PADDED, PADDED)
        if G == 4:
            weight_f = _weight(weight_hh, 0, 1, H, PADDED, PADDED)
        weight_g = _weight(weight_hh, 0, G - 2, H, PADDED, PADDED)
        weight_o = _weight(weight_hh, 0, G - 1, H, PADDED, PADDED)

    longest = tl.max(length, axis=0)
    for done in tl.range(0, longest, num_stages=STAGES):
        step = longest - 1 - done
        live = length > step
        row = row_of_step(step, text, length, n_texts, REVERSED)
        i = load_tile(gates, row, live, WIDTH, H, PADDED, 0)
        if G == 4:
            f = load_tile(gates, row, live, WIDTH, H, PADDED, 1)
        else:
            f = 1 - i
        g = load_tile(gates, row, live, WIDTH, H, PADDED, G - 2)
        o = load_tile(gates, row, live, WIDTH, H, PADDED, G - 1)
        c_prev = load_tile(cells, row, live, H, H, PADDED)
        c_new = f * c_prev + i * g

        # A text that has ended has no gradient at this step; it keeps its dh and dc.
        dh_step = dh + load_tile(grad_h_all, row, live, H, H, PADDED)
        dh_step = tl.where(live[:, None], dh_step, 0.0)
        dc_step = tl.where(live[:, None], dc, 0.0)
        if zone_h is not None:
            dh_kept = load_tile(zone_h, row, live, H, H, PADDED) * dh_step
            dc_kept = load_tile(zone_c, row, live, H, H, PADDED) * dc_step
            dh_step -= dh_kept
            dc_step -= dc_kept

        if norm_c is None:
            tanh_c = tanh(c_new, FAST)
            dc_step += dh_step * o * (1 - tanh_c * tanh_c)
        else:
            unit_c, scale_c = normed(c_new, EPS, H, PADDED)
            weight_c = load_vector(norm_c, 0, H, PADDED)
            tanh_c = tanh(unit_c * weight_c + load_vector(norm_c, 1, H, PADDED), FAST)
            d_normed = dh_step * o * (1 - tanh_c * tanh_c)
            store_tile(d_normed, grad_normed_c, row, exists, H, H, PADDED)
            d_unit = d_normed * weight_c
            mean = tl.sum(d_unit, axis=1, keep_dims=True) / H
            along = tl.sum(d_unit * unit_c, axis=1, keep_dims=True) / H
            dc_step += _before_norm(d_unit, unit_c, mean, along, scale_c, STEEPEST, H, PADDED)
        d_o = dh_step * tanh_c * o * (1 - o)
        if OUTPUT_SEES_NEW_C:
            dc_step += d_o * load_vector(peephole, 2, H, PADDED)
        d_g = dc_step * i * (1 - g * g)
        dc_prev = dc_step * f
        if G == 4:
            d_i = dc_step * g * i * (1 - i)
            d_f = dc_step * c_prev * f * (1 - f)
            store_tile(d_f, grad_gates, row, exists, WIDTH, H, PADDED, 1)
        else:
            d_i = dc_step * (g - c_prev) * i * (1 - i)
        if peephole is not None:
            dc_prev += d_i * load_vector(peephole, 0, H, PADDED)
            dc_prev += d_f * load_vector(peephole, 1, H, PADDED)
            if not OUTPUT_SEES_NEW_C:
                dc_prev += d_o * load_vector(peephole, 2, H, PADDED)
        store_tile(d_i, grad_gates, row, exists, WIDTH, H, PADDED, 0)
        store_tile(d_g, grad_gates, row, exists, WIDTH, H, PADDED, G - 2)
        store_tile(d_o, grad_gates, row, exists, WIDTH, H, PADDED, G - 1)

        if norm_hh is not None:
            d_i *= load_vector(norm_hh, 0, H, PADDED)
            d_f *= load_vector(norm_hh, 1, H, PADDED)
            d_g *= load_vector(norm_hh, 2, H, PADDED)
            d_o *= load_vector(norm_hh, 3, H, PADDED)
            unit_i = load_tile(units, row, live, WIDTH, H, PADDED, 0)
            unit_f = load_tile(units, row, live, WIDTH, H, PADDED, 1)
            unit_g = load_tile(units, row, live, WIDTH, H, PADDED, 2)
            unit_o = load_tile(units, row, live, WIDTH, H, PADDED, 3)
            products = d_i * unit_i + d_f * unit_f + d_g * unit_g + d_o * unit_o
            mean = tl.sum(d_i + d_f + d_g + d_o, axis=1, keep_dims=True) / (4 * H)
            along = tl.sum(products, axis=1, keep_dims=True) / (4 * H)
            scale = tl.load(scales + row[:, None], mask=live[:, None], other=0.0)
            d_i = _before_norm(d_i, unit_i, mean, along, scale, STEEPEST, H, PADDED)
            d_f = _before_norm(d_f, unit_f, mean, along, scale, STEEPEST, H, PADDED)
            d_g = _before_norm(d_g, unit_g, mean, along, scale, STEEPEST, H, PADDED)
            d_o = _before_norm(d_o, unit_o, mean, along, scale, STEEPEST, H, PADDED)
            store_tile(d_i, grad_recurrent, row, exists, WIDTH, H, PADDED, 0)
            store_tile(d_f, grad_recurrent, row, exists, WIDTH, H, PADDED, 1)
            store_tile(d_g, grad_recurrent, row, exists, WIDTH, H, PADDED, 2)
            store_tile(d_o, grad_recurrent, row, exists, WIDTH, H, PADDED, 3)

        if STREAMED:
            tl.debug_barrier()  # the gradients are in memory, stored by other threads
            d_gates = grad_gates if norm_hh is None else grad_recurrent
            dh_prev = _stream(
                weight_hh, d_gates, row, live,
                WIDTH, G, H, PADDED, TEXTS, CHUNK, STAGES, PRECISION,
            )  # fmt: skip
        else:
            dh_prev = tl.dot(d_i.to(dtype), weight_i, input_precision=PRECISION)
            if G == 4:
                dh_prev = tl.dot(d_f.to(dtype), weight_f, dh_prev, input_precision=PRECISION)
            dh_prev = tl.dot(d_g.to(dtype), weight_g, dh_prev, input_precision=PRECISION)
            dh_prev = tl.dot(d_o.to(dtype), weight_o, dh_prev, input_precision=PRECISION)
        if mask_h is not None:
            dh_prev *= mask
        if zone_h is not None:
            dh_prev += dh_kept
            dc_prev += dc_kept
        dh = tl.where(live[:, None], dh_prev, dh)
        dc = tl.where(live[:, None], dc_prev, dc)

    store_tile(dh, grad_h0, text, exists, H, H, PADDED)
    store_tile(dc, grad_c0, text, exists, H, H, PADDED)
    for step in tl.range(longest, n_steps):
        row = row_of_step(step, text, length, n_texts, REVERSED)
        for gate in tl.static_range(G):
            store_tile(nothing, grad_gates, row, exists, WIDTH, H, PADDED, gate)
            if norm_hh is not None:
                store_tile(nothing, grad_recurrent, row, exists, WIDTH, H, PADDED, gate)
        if norm_c is not None:
            store_tile(nothing, grad_normed_c, row, exists, H, H, PADDED)


def run(arguments: dict, device) -> None:
    """Write the outputs."""
    launch(
        "backward",
        backward_kernel,
        arguments | {"EPS": NORM_EPS, "STEEPEST": STEEPEST_NORM},
        device,
    )
