"""Our kernels for CUDA cards, in Triton: ``triton_forward.py`` and ``triton_backward.py``.

The kernels compute only the recurrence. Torch computes the rest, each in one matrix product over
all rows of (T, B): before them the projection of x, after them the gradients of the weights. Triton
is imported where it is first needed, so that this file works without it.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from sklstm.kernels.contract import DIFFERENTIABLE, NORM_EPS, Inputs, Outputs

HAS_CELLS = frozenset({"lstm", "peephole", "peephole_previous", "layer_norm", "coupled"})
SHARES_THREADS = ()
READS_BY_INDEX = False
IS_FUSED = False

#: Kilobytes of shared memory a program may have -> the largest H, by the bytes of a number. The
#: weights of all gates stay there. Each row is compiled for its cards in ``test_triton.py``.
LARGEST_HIDDEN = {2: {160: 128, 96: 64}, 4: {96: 64}}

#: The largest H of a cell with norms in float32. With more units, some of its kernels need a few
#: more registers than a thread has.
LARGEST_NORMED_FLOAT32 = 32


@cache
def device_refusal(device: torch.device) -> str | None:
    """Return why Triton cannot run on a device, or None."""
    if find_spec("triton") is None:
        return 'needs triton, which is not installed (pip install "sklstm[triton]")'
    try:
        from sklstm.kernels import triton_block
    except Exception as error:
        return f"cannot import triton: {_first_line(error)}"
    if triton_block.INTERPRETED:
        return None
    if device.type != "cuda":
        return f"runs on CUDA cards; got tensors on {device}"
    if torch.version.cuda is None or not torch.cuda.is_available():
        return "needs a CUDA card, and torch finds none"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        name = torch.cuda.get_device_name(device)
        return "needs compute capability 8.0 or newer; {} has {}.{}".format(name, *capability)
    try:
        triton_block.probe(device)
    except Exception as error:  # no C compiler, a driver too old: whatever stops a launch
        return f"cannot launch a kernel on {device}: {_first_line(error)}"
    return None


def _first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def refusal(inputs: Inputs, need_last: bool) -> str | None:
    """Return why the kernels cannot run these inputs, or None."""
    problem = device_refusal(inputs.x.device)
    if problem is not None:
        return problem
    if inputs.cell not in HAS_CELLS:
        return f"has no cell {inputs.cell!r}"
    dtype, hidden = inputs.x.dtype, inputs.sizes[3]
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"computes in float32, float16 or bfloat16; got {dtype}"
    place, shared_memory = "in Triton's interpreter", max(LARGEST_HIDDEN[dtype.itemsize]) * 1024
    if inputs.x.device.type == "cuda":
        card = torch.cuda.get_device_properties(inputs.x.device)
        place, shared_memory = f"on {card.name}", card.shared_memory_per_block_optin
    elif dtype == torch.bfloat16:
        return "has no bfloat16 in Triton's interpreter, which cannot multiply it"
    largest = largest_hidden(dtype, shared_memory, has_norms=inputs.properties.has_norms)
    if hidden > largest:
        return f"has H up to {largest} for {inputs.cell!r} in {dtype} {place}; got H={hidden}"
    return None


def largest_hidden(
    dtype: torch.dtype,
    shared_memory: int,  # bytes a program may have
    *,
    has_norms: bool,  # whether the cell has norms
) -> int:
    """Return the largest H whose recurrent weights fit on the chip; 0 where none is proven."""
    rows = LARGEST_HIDDEN[dtype.itemsize]
    largest = max((rows[size] for size in rows if size * 1024 <= shared_memory), default=0)
    if has_norms and dtype == torch.float32:
        return min(largest, LARGEST_NORMED_FLOAT32)
    return largest


def suits(directions: list[Inputs]) -> bool:
    """Return whether the inputs are on a CUDA card; elsewhere Triton only interprets kernels."""
    return directions[0].x.device.type == "cuda"


def forward(inputs: Inputs, for_backward: bool) -> Outputs:
    """Run the layer."""
    from sklstm.kernels import triton_forward

    n_steps, n_texts, _, hidden = inputs.sizes
    gates_x, projection = _projected(inputs)
    h, saved = _new(inputs, hidden), dict.fromkeys(("gates", "cells", "units", "scales"))
    if for_backward:
        saved["gates"] = _new(inputs, inputs.bias.numel())
        saved["cells"] = _new(inputs, hidden, torch.float32)
        if inputs.norm_hh is not None:
            saved["units"] = _new(inputs, inputs.bias.numel())
            saved["scales"] = _new(inputs, 1, torch.float32)
    h_last, c_last = inputs.x.new_empty(n_texts, hidden), inputs.x.new_empty(n_texts, hidden)
    outputs = {"h_all": h, "h_last": h_last, "c_last": c_last} | saved
    triton_forward.run(inputs, gates_x, _lengths(inputs), outputs)
    if not for_backward:
        return Outputs(h, h_last, c_last)
    kept = [tensor for tensor in saved.values() if tensor is not None]
    return Outputs(h, h_last, c_last, (h, *kept, *projection))


def backward(
    inputs: Inputs,
    saved: tuple[Tensor, ...],
    grad_h: Tensor,  # (T, B, H)
    grad_h_last: Tensor,  # (B, H)
    grad_c_last: Tensor,  # (B, H)
    need_grad_x: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``DIFFERENTIABLE``."""
    h, gates, cells, *of_norms = saved
    units, scales, *projection = of_norms or (None, None)
    incoming = {
        "grad_h_all": grad_h.contiguous(),
        "grad_h_last": grad_h_last.contiguous(),
        "grad_c_last": grad_c_last.contiguous(),
        "gates": gates,
        "cells": cells,
        "units": units,
        "scales": scales,
    }
    grads = _recurrence_backward(inputs, incoming)
    grad_gates = grads["grad_gates"].flatten(0, 1)
    d_recurrent, grad_norm_hh, d_projection, grad_norm_ih = grad_gates, None, grad_gates, None
    if inputs.norm_hh is not None:
        d_recurrent = grads["grad_recurrent"].flatten(0, 1)
        grad_norm_hh = (grad_gates * units.flatten(0, 1)).sum(0)
        d_projection, grad_norm_ih = _norm_backward(inputs, grad_gates, projection)
    h_in = _states_before(inputs, h).flatten(0, 1)
    by_name = {
        "weight_ih": d_projection.T @ inputs.x.flatten(0, 1),
        "weight_hh": d_recurrent.T @ h_in,
        "bias": grad_gates.sum(0),
        "h0": grads["grad_h0"],
        "c0": grads["grad_c0"],
        "peephole": _peephole_gradient(inputs, gates, cells, grads["grad_gates"]),
        "norm_ih": grad_norm_ih,
        "norm_hh": grad_norm_hh,
        "norm_c": _norm_c_gradient(inputs, gates, cells, grads["grad_normed_c"]),
    }
    if need_grad_x:
        by_name["x"] = (d_projection @ inputs.weight_ih).view(inputs.x.shape)
    return tuple(by_name.get(name) for name in DIFFERENTIABLE)


def _recurrence_backward(inputs, incoming):
    """Return by name what the kernel writes."""
    from sklstm.kernels import triton_backward

    _, n_texts, _, hidden = inputs.sizes
    n_rows, normed = inputs.bias.numel(), inputs.norm_hh is not None
    outputs = {
        "grad_gates": _new(inputs, n_rows),
        "grad_recurrent": _new(inputs, n_rows) if normed else None,
        "grad_normed_c": _new(inputs, hidden) if normed else None,
        "grad_h0": inputs.x.new_empty(n_texts, hidden),
        "grad_c0": inputs.x.new_empty(n_texts, hidden),
    }
    triton_backward.run(inputs, incoming, _lengths(inputs), outputs)
    return outputs


def _new(inputs, width, dtype=None):
    """Return memory (T, B, width): 0 where there is padding, which the kernels do not write."""
    n_steps, n_texts, _, _ = inputs.sizes
    create = inputs.x.new_empty if inputs.lengths is None else inputs.x.new_zeros
    return create(n_steps, n_texts, width, dtype=dtype or inputs.x.dtype)


def _lengths(inputs):
    if inputs.lengths is None:
        return None
    return inputs.lengths.to(device=inputs.x.device, dtype=torch.int32).contiguous()


def _projected(inputs):
    """Return the input's share of the gates (T, B, G*H), and what the norm's backward wants."""
    n_steps, n_texts, _, _ = inputs.sizes
    x = inputs.x.flatten(0, 1)
    if inputs.norm_ih is None:
        gates_x, kept = torch.addmm(inputs.bias, x, inputs.weight_ih.T), ()
    else:
        product = x @ inputs.weight_ih.T
        gates_x, *statistics = torch.native_layer_norm(
            product, inputs.norm_ih.shape, inputs.norm_ih, inputs.bias, NORM_EPS
        )
        kept = (product, *statistics)
    return gates_x.view(n_steps, n_texts, -1), kept


def _norm_backward(inputs, grad_gates, projection):
    """Return the gradients of x @ weight_ih.T and of norm_ih."""
    product, mean, scale = projection
    d_projection, grad_norm_ih, _ = torch.ops.aten.native_layer_norm_backward(
        grad_gates,
        product,
        inputs.norm_ih.shape,
        mean,
        scale,
        inputs.norm_ih,
        inputs.bias,
        [True, True, False],
    )
    return d_projection, grad_norm_ih


def _states_before(inputs, h):
    """Return the h each step read (T, B, H), under the mask; 0 or another state in the padding."""
    before = torch.empty_like(h)
    if not inputs.reverse:
        before[0], before[1:] = inputs.h0, h[:-1]
    else:
        before[:-1], before[-1] = h[1:], 0.0
        n_steps, n_texts, _, _ = inputs.sizes
        lengths = _lengths(inputs)
        last = n_steps - 1 if lengths is None else lengths.long() - 1
        before[last, torch.arange(n_texts, device=h.device)] = inputs.h0
    return before if inputs.mask_h is None else before.mul_(inputs.mask_h)


def _new_cells(gates, cells):
    """Return c after each step, before zoneout (T, B, H)."""
    i, f, g, _ = gates.chunk(4, dim=2)
    return f * cells + i * g


def _peephole_gradient(inputs, gates, cells, grad_gates):
    if inputs.peephole is None:
        return None
    seen = _new_cells(gates, cells) if inputs.properties.output_sees_new_c else cells
    d_i, d_f, _, d_o = grad_gates.chunk(4, dim=2)
    products = ((d_i, cells), (d_f, cells), (d_o, seen))
    grad = torch.stack([(d_gate * c).sum((0, 1)) for d_gate, c in products])
    return grad.to(inputs.peephole.dtype)


def _norm_c_gradient(inputs, gates, cells, grad_normed_c):
    if inputs.norm_c is None:
        return None
    unit = torch.layer_norm(_new_cells(gates, cells), cells.shape[2:], None, None, NORM_EPS)
    grad = torch.stack([(grad_normed_c * unit).sum((0, 1)), grad_normed_c.sum((0, 1))])
    return grad.to(inputs.norm_c.dtype)
