"""The recurrence on a CUDA card: one program computes all steps of its texts.

It reads the weights of all gates once and keeps them on the chip; h and c stay in registers. The
comments at the arguments of the kernel say what a program saves for the backward.
"""

import triton
import triton.language as tl
from torch import Tensor

from sklstm.kernels.contract import NORM_EPS, Inputs
from sklstm.kernels.triton_block import (
    RUNTIME,
    launch,
    load_tile,
    load_vector,
    normed,
    row_of_step,
    shared_arguments,
    store_tile,
    tanh,
    texts_of_program,
)


@triton.jit
def _weight(weight_hh, GATE: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr):
    """Return one gate's rows of weight_hh, transposed."""
    k = tl.arange(0, PADDED)[:, None]
    n = tl.arange(0, PADDED)[None, :]
    inside = (k < H) & (n < H)
    return tl.load(weight_hh + (GATE * H + n) * H + k, mask=inside, other=0.0)


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
    gates_x,  # (T, B, G*H) x @ weight_ih.T + bias
    weight_hh, h0, c0, peephole, norm_hh, norm_c, mask_h, zone_h, zone_c,  # as in Inputs
    lengths,  # (B,)
    h_all, h_last, c_last,  # as in Outputs
    gates,  # (T, B, G*H) saved: the gates after their sigmoid or tanh
    cells,  # (T, B, H) saved: c before the step
    units,  # (T, B, 4H) saved: h @ weight_hh.T with mean 0 and variance 1
    scales,  # (T, B) saved: 1 / its deviation
    n_steps, n_texts,
    G: tl.constexpr, OUTPUT_SEES_NEW_C: tl.constexpr, REVERSE: tl.constexpr,
    H: tl.constexpr, PADDED: tl.constexpr, TEXTS: tl.constexpr,
    PRECISION: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Compute the steps of ``TEXTS`` texts."""
    dtype = weight_hh.dtype.element_ty
    text, length = texts_of_program(lengths, n_steps, n_texts, TEXTS)
    exists = text < n_texts
    h = load_tile(h0, text, exists, H, H, PADDED)
    c = load_tile(c0, text, exists, H, H, PADDED)
    if mask_h is not None:
        mask = load_tile(mask_h, text, exists, H, H, PADDED)
    weight_i = _weight(weight_hh, 0, H, PADDED)
    if G == 4:
        weight_f = _weight(weight_hh, 1, H, PADDED)
    weight_g = _weight(weight_hh, G - 2, H, PADDED)
    weight_o = _weight(weight_hh, G - 1, H, PADDED)

    for step in range(tl.max(length, axis=0)):
        live = length > step
        row = row_of_step(step, text, length, n_texts, REVERSE)
        # Read before the products, so that the memory's delay passes while they are computed.
        i = load_tile(gates_x, row, live, G * H, H, PADDED, 0)
        if G == 4:
            f = load_tile(gates_x, row, live, G * H, H, PADDED, 1)
        g = load_tile(gates_x, row, live, G * H, H, PADDED, G - 2)
        o = load_tile(gates_x, row, live, G * H, H, PADDED, G - 1)

        h_in = h
        if mask_h is not None:
            h_in = h * mask
        h_in = h_in.to(dtype)
        if norm_hh is None:
            i = tl.dot(h_in, weight_i, i, input_precision=PRECISION)
            if G == 4:
                f = tl.dot(h_in, weight_f, f, input_precision=PRECISION)
            g = tl.dot(h_in, weight_g, g, input_precision=PRECISION)
            o = tl.dot(h_in, weight_o, o, input_precision=PRECISION)
        else:
            unit_i, unit_f, unit_g, unit_o, scale = _normed_gates(
                tl.dot(h_in, weight_i, input_precision=PRECISION),
                tl.dot(h_in, weight_f, input_precision=PRECISION),
                tl.dot(h_in, weight_g, input_precision=PRECISION),
                tl.dot(h_in, weight_o, input_precision=PRECISION),
                EPS, H, PADDED,
            )  # fmt: skip
            i += unit_i * load_vector(norm_hh, 0, H, PADDED)
            f += unit_f * load_vector(norm_hh, 1, H, PADDED)
            g += unit_g * load_vector(norm_hh, 2, H, PADDED)
            o += unit_o * load_vector(norm_hh, 3, H, PADDED)
            if units is not None:
                store_tile(unit_i, units, row, live, G * H, H, PADDED, 0)
                store_tile(unit_f, units, row, live, G * H, H, PADDED, 1)
                store_tile(unit_g, units, row, live, G * H, H, PADDED, 2)
                store_tile(unit_o, units, row, live, G * H, H, PADDED, 3)
                tl.store(scales + row[:, None], scale, mask=live[:, None])

        if peephole is not None:
            i += c * load_vector(peephole, 0, H, PADDED)
            f += c * load_vector(peephole, 1, H, PADDED)
            if not OUTPUT_SEES_NEW_C:
                o += c * load_vector(peephole, 2, H, PADDED)
        i = tl.sigmoid(i)
        if G == 4:
            f = tl.sigmoid(f)
        else:
            f = 1 - i
        g = tanh(g)
        c_new = f * c + i * g
        if OUTPUT_SEES_NEW_C:
            o += c_new * load_vector(peephole, 2, H, PADDED)
        o = tl.sigmoid(o)
        if gates is not None:
            store_tile(i, gates, row, live, G * H, H, PADDED, 0)
            if G == 4:
                store_tile(f, gates, row, live, G * H, H, PADDED, 1)
            store_tile(g, gates, row, live, G * H, H, PADDED, G - 2)
            store_tile(o, gates, row, live, G * H, H, PADDED, G - 1)
            store_tile(c, cells, row, live, H, H, PADDED)

        if norm_c is not None:
            unit_c, _ = normed(c_new, EPS, H, PADDED)
            shift = load_vector(norm_c, 1, H, PADDED)
            h_new = o * tanh(unit_c * load_vector(norm_c, 0, H, PADDED) + shift)
        else:
            h_new = o * tanh(c_new)
        if zone_h is not None:
            h_new += load_tile(zone_h, row, live, H, H, PADDED) * (h - h_new)
            c_new += load_tile(zone_c, row, live, H, H, PADDED) * (c - c_new)
        h = tl.where(live[:, None], h_new, h)
        c = tl.where(live[:, None], c_new, c)
        store_tile(h, h_all, row, live, H, H, PADDED)

    store_tile(h, h_last, text, exists, H, H, PADDED)
    store_tile(c, c_last, text, exists, H, H, PADDED)


def arguments(
    inputs: Inputs,
    gates_x: Tensor,  # (T, B, G*H)
    lengths: Tensor | None,  # (B,) on the device of x
    outputs: dict[str, Tensor | None],  # what the kernel writes, by its names
) -> dict:
    """Return the arguments of ``forward_kernel``."""
    own = {"gates_x": gates_x, "h0": inputs.h0.contiguous(), "c0": inputs.c0.contiguous()}
    return shared_arguments(inputs, lengths) | own | outputs | {"EPS": NORM_EPS}


def run(
    inputs: Inputs, gates_x: Tensor, lengths: Tensor | None, outputs: dict[str, Tensor | None]
) -> None:
    """Write the outputs."""
    launch(forward_kernel, inputs, arguments(inputs, gates_x, lengths, outputs))
