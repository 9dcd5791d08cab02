"""The recurrence on a CUDA card: one program computes all steps of its texts, in one direction.

h and c stay in registers. The comments at the arguments of the kernel say what a program saves for
the backward. In the padding of ``h_all`` and ``h_in_all`` it writes 0.
"""

import triton
import triton.language as tl

from sklstm.kernels.contract import NORM_EPS
from sklstm.kernels.triton_block import (
    RUNTIME,
    launch,
    load_columns,
    load_tile,
    load_vector,
    normed,
    row_of_step,
    sigmoid,
    store_tile,
    tanh,
    texts_of_program,
)


@triton.jit
def _weight(
    weight_hh, first, GATE: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr
):
    """Return one gate's rows of weight_hh, transposed: (ROWS, PADDED) from the column ``first``."""
    k = first + tl.arange(0, ROWS)[:, None]
    n = tl.arange(0, PADDED)[None, :]
    inside = (k < H) & (n < H)
    return tl.load(weight_hh + (GATE * H + n) * H + k, mask=inside, other=0.0)


@triton.jit
def _stream(
    i, f, g, o, weight_hh, state, mask_h, text, exists,
    G: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr, CHUNK: tl.constexpr,
    STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the sums of the gates and of ``state @ weight_hh.T``; f is not used if G is 3."""
    dtype = weight_hh.dtype.element_ty
    for first in tl.range(0, PADDED, CHUNK, num_stages=STAGES):
        h_in = load_columns(state, text, exists, first, H, H, CHUNK)
        if mask_h is not None:
            mask = load_columns(mask_h, text, exists, first, H, H, CHUNK)
            h_in = (h_in.to(tl.float32) * mask.to(tl.float32)).to(dtype)
        weight_i = _weight(weight_hh, first, 0, H, PADDED, CHUNK)
        i = tl.dot(h_in, weight_i, i, input_precision=PRECISION)
        if G == 4:
            weight_f = _weight(weight_hh, first, 1, H, PADDED, CHUNK)
            f = tl.dot(h_in, weight_f, f, input_precision=PRECISION)
        weight_g = _weight(weight_hh, first, G - 2, H, PADDED, CHUNK)
        g = tl.dot(h_in, weight_g, g, input_precision=PRECISION)
        weight_o = _weight(weight_hh, first, G - 1, H, PADDED, CHUNK)
        o = tl.dot(h_in, weight_o, o, input_precision=PRECISION)
    return i, f, g, o


@triton.jit
def _normed_gates(i, f, g, o, EPS: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr):
    """Return the four with mean 0 and variance 1 over all their 4H, and 1 / deviation."""
    inside = (tl.arange(0, PADDED) < H)[None, :]
    mean = tl.sum(i + f + g + o, axis=1, keep_dims=True) / (4 * H)
    i = tl.where(inside, i - mean, 0.0)
    f = tl.where(inside, f - mean, 0.0)
    g = tl.where(inside, g - mean, 0.0)
    o = tl.where(inside, o - mean, 0.0)
    squares = tl.sum(i * i + f * f + g * g + o * o, axis=1, keep_dims=True)
    scale = 1 / tl.sqrt(squares / (4 * H) + EPS)
    return i * scale, f * scale, g * scale, o * scale, scale


@triton.jit(do_not_specialize=RUNTIME)
def forward_kernel(  # noqa: C901 every branch is decided when the kernel is compiled
    gates_x,  # (T, B, D, G*H) x @ weight_ih.T + bias
    weight_hh, h0, c0, peephole, norm_hh, norm_c, mask_h, zone_h, zone_c,  # as in Inputs, D of each
    lengths,  # (B,)
    h_all,  # (D, T, B, H)
    h_last, c_last,  # (D, B, H)
    gates,  # (T, B, D, G*H) saved: the gates after their sigmoid or tanh
    cells,  # (D, T, B, H) saved: c before the step
    h_in_all,  # (D, T, B, H) saved: h before the step, under the mask
    units,  # (T, B, D, 4H) saved: h @ weight_hh.T with mean 0 and variance 1
    scales,  # (D, T, B) saved: 1 / its deviation
    n_steps, n_texts,
    D: tl.constexpr, REVERSED: tl.constexpr, G: tl.constexpr, OUTPUT_SEES_NEW_C: tl.constexpr,
    H: tl.constexpr, PADDED: tl.constexpr, TEXTS: tl.constexpr,
    STREAMED: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr, FAST: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Compute the steps of ``TEXTS`` texts."""
    dtype = weight_hh.dtype.element_ty
    WIDTH: tl.constexpr = D * G * H
    direction = tl.program_id(1).to(tl.int64)
    text, length = texts_of_program(lengths, n_steps, n_texts, TEXTS)
    exists = text < n_texts
    n_rows = n_steps.to(tl.int64) * n_texts
    # Each tensor from the program's direction on.
    gates_x += direction * (G * H)
    weight_hh += direction * (G * H * H)
    h0 += direction * (n_texts * H)
    c0 += direction * (n_texts * H)
    h_all += direction * (n_rows * H)
    h_last += direction * (n_texts * H)
    c_last += direction * (n_texts * H)
    if peephole is not None:
        peephole += direction * (3 * H)
    if norm_hh is not None:
        norm_hh += direction * (4 * H)
        norm_c += direction * (2 * H)
    if mask_h is not None:
        mask_h += direction * (n_texts * H)
    if zone_h is not None:
        zone_h += direction * (n_rows * H)
        zone_c += direction * (n_rows * H)
    if gates is not None:
        gates += direction * (G * H)
        cells += direction * (n_rows * H)
        h_in_all += direction * (n_rows * H)
    if units is not None:
        units += direction * (G * H)
        scales += direction * n_rows

    h = load_tile(h0, text, exists, H, H, PADDED)
    c = load_tile(c0, text, exists, H, H, PADDED)
    if mask_h is not None:
        mask = load_tile(mask_h, text, exists, H, H, PADDED)
    if STREAMED:
        store_tile(h, h_last, text, exists, H, H, PADDED)
    else:
        weight_i = _weight(weight_hh, 0, 0, H, PADDED, PADDED)
        if G == 4:
            weight_f = _weight(weight_hh, 0, 1, H, PADDED, PADDED)
        weight_g = _weight(weight_hh, 0, G - 2, H, PADDED, PADDED)
        weight_o = _weight(weight_hh, 0, G - 1, H, PADDED, PADDED)

    longest = tl.max(length, axis=0)
    for step in tl.range(0, longest, num_stages=STAGES):
        live = length > step
        row = row_of_step(step, text, length, n_texts, REVERSED)
        i = load_tile(gates_x, row, live, WIDTH, H, PADDED, 0)
        f = i
        if G == 4:
            f = load_tile(gates_x, row, live, WIDTH, H, PADDED, 1)
        g = load_tile(gates_x, row, live, WIDTH, H, PADDED, G - 2)
        o = load_tile(gates_x, row, live, WIDTH, H, PADDED, G - 1)

        h_in = h
        if mask_h is not None:
            h_in = h * mask
        if h_in_all is not None:
            store_tile(tl.where(live[:, None], h_in, 0.0), h_in_all, row, exists, H, H, PADDED)
        if norm_hh is None:
            sum_i, sum_f, sum_g, sum_o = i, f, g, o
        else:
            sum_i = tl.zeros((TEXTS, PADDED), tl.float32)
            sum_f, sum_g, sum_o = sum_i, sum_i, sum_i
        if STREAMED:
            tl.debug_barrier()  # the state is in memory, stored by other threads
            sum_i, sum_f, sum_g, sum_o = _stream(
                sum_i, sum_f, sum_g, sum_o, weight_hh, h_last, mask_h, text, exists,
                G, H, PADDED, CHUNK, STAGES, PRECISION,
            )  # fmt: skip
        else:
            h_in = h_in.to(dtype)
            sum_i = tl.dot(h_in, weight_i, sum_i, input_precision=PRECISION)
            if G == 4:
                sum_f = tl.dot(h_in, weight_f, sum_f, input_precision=PRECISION)
            sum_g = tl.dot(h_in, weight_g, sum_g, input_precision=PRECISION)
            sum_o = tl.dot(h_in, weight_o, sum_o, input_precision=PRECISION)
        if norm_hh is None:
            i, f, g, o = sum_i, sum_f, sum_g, sum_o
        else:
            unit_i, unit_f, unit_g, unit_o, scale = _normed_gates(
                sum_i, sum_f, sum_g, sum_o, EPS, H, PADDED
            )
            i += unit_i * load_vector(norm_hh, 0, H, PADDED)
            f += unit_f * load_vector(norm_hh, 1, H, PADDED)
            g += unit_g * load_vector(norm_hh, 2, H, PADDED)
            o += unit_o * load_vector(norm_hh, 3, H, PADDED)
            if units is not None:
                store_tile(unit_i, units, row, live, WIDTH, H, PADDED, 0)
                store_tile(unit_f, units, row, live, WIDTH, H, PADDED, 1)
                store_tile(unit_g, units, row, live, WIDTH, H, PADDED, 2)
                store_tile(unit_o, units, row, live, WIDTH, H, PADDED, 3)
                tl.store(scales + row[:, None], scale, mask=live[:, None])

        if peephole is not None:
            i += c * load_vector(peephole, 0, H, PADDED)
            f += c * load_vector(peephole, 1, H, PADDED)
            if not OUTPUT_SEES_NEW_C:
                o += c * load_vector(peephole, 2, H, PADDED)
        i = sigmoid(i, FAST)
        if G == 4:
            f = sigmoid(f, FAST)
        else:
            f = 1 - i
        g = tanh(g, FAST)
        c_new = f * c + i * g
        if OUTPUT_SEES_NEW_C:
            o += c_new * load_vector(peephole, 2, H, PADDED)
        o = sigmoid(o, FAST)
        if gates is not None:
            store_tile(i, gates, row, live, WIDTH, H, PADDED, 0)
            if G == 4:
                store_tile(f, gates, row, live, WIDTH, H, PADDED, 1)
            store_tile(g, gates, row, live, WIDTH, H, PADDED, G - 2)
            store_tile(o, gates, row, live, WIDTH, H, PADDED, G - 1)
            store_tile(c, cells, row, live, H, H, PADDED)

        if norm_c is not None:
            unit_c, _ = normed(c_new, EPS, H, PADDED)
            shift = load_vector(norm_c, 1, H, PADDED)
            h_new = o * tanh(unit_c * load_vector(norm_c, 0, H, PADDED) + shift, FAST)
        else:
            h_new = o * tanh(c_new, FAST)
        if zone_h is not None:
            h_new += load_tile(zone_h, row, live, H, H, PADDED) * (h - h_new)
            c_new += load_tile(zone_c, row, live, H, H, PADDED) * (c - c_new)
        h = tl.where(live[:, None], h_new, h)
        c = tl.where(live[:, None], c_new, c)
        store_tile(tl.where(live[:, None], h, 0.0), h_all, row, exists, H, H, PADDED)
        if STREAMED:
            tl.debug_barrier()  # all threads have read the state before
            store_tile(h, h_last, text, exists, H, H, PADDED)

    if not STREAMED:
        store_tile(h, h_last, text, exists, H, H, PADDED)
    store_tile(c, c_last, text, exists, H, H, PADDED)
    nothing = tl.zeros((TEXTS, PADDED), tl.float32)
    for step in tl.range(longest, n_steps):
        row = row_of_step(step, text, length, n_texts, REVERSED)
        store_tile(nothing, h_all, row, exists, H, H, PADDED)
        if h_in_all is not None:
            store_tile(nothing, h_in_all, row, exists, H, H, PADDED)


def run(arguments: dict, device) -> None:
    """Write the outputs."""
    launch("forward", forward_kernel, arguments | {"EPS": NORM_EPS}, device)
