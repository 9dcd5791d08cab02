"""Our kernels for CUDA cards, in Triton: ``triton_forward.py`` and ``triton_backward.py``.

The kernels compute only the recurrence, of all D directions of a layer in one launch. Torch
computes the rest, each in one matrix product over all rows of (T, B): before them the projection of
x, after them the gradients of the weights. A layer is many short calls, and a card often waits for
the next one: so the tensors of the directions are joined, and each call is made once for all.
Triton is imported where it is first needed, so that this file works without it.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

from sklstm.kernels.contract import DIFFERENTIABLE, NORM_EPS, Inputs, Outputs

HAS_CELLS = frozenset({"lstm", "peephole", "peephole_previous", "layer_norm", "coupled"})
SHARES_THREADS = ()
READS_BY_INDEX = False
DEVICES = ("cuda",)
RUNS_TOGETHER = True
POOLS = frozenset()
CAN_BE_EXPORTED = False

#: The largest H in float32 whose recurrent weights stay on every card.
LARGEST_RESIDENT_FLOAT32 = 64

#: The largest H: with more units, h, c and the gates of a program do not fit its registers.
LARGEST_HIDDEN = 256


#: What was found out about devices: why Triton cannot run there, or None.
refusals: dict[torch.device, str | None] = {}


def device_refusal(device: torch.device) -> str | None:
    """Return why Triton cannot run on a device, or None."""
    if device not in refusals:
        try:
            refusals[device] = _find_refusal(device) or _try_to_launch(device)
        except torch.OutOfMemoryError as error:  # it may pass
            return f"cannot launch a kernel on {device}: {_first_line(error)}"
    return refusals[device]


def _find_refusal(device):
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
    return None


def _try_to_launch(device):
    from sklstm.kernels import triton_block

    if triton_block.INTERPRETED:
        return None
    try:
        triton_block.probe(device)
    except torch.OutOfMemoryError:
        raise
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
    if inputs.x.device.type != "cuda" and dtype == torch.bfloat16:
        return "has no bfloat16 in Triton's interpreter, which cannot multiply it"
    if hidden > LARGEST_HIDDEN:
        return f"has H up to {LARGEST_HIDDEN}; got H={hidden}"
    return None


def suits(directions: list[Inputs]) -> bool:
    """Return whether the kernels are faster than ``aten``, as ``benchmarks/speed/gpu.py`` measured.

    They are in half precisions, and in float32 as long as the weights stay on the chip. (Not always
    than ``torch.nn.LSTM``, which hands cuDNN both directions at once, and knows no lengths.)
    """
    inputs = directions[0]
    if inputs.x.device.type != "cuda":
        return False
    return inputs.x.dtype.itemsize == 2 or inputs.sizes[3] <= LARGEST_RESIDENT_FLOAT32


def gains_from_bfloat16(
    device: torch.device, *, cell: str, hidden: int, masked: bool, zoned: bool
) -> bool:
    """Return whether the kernels run the layer, on a card that does not emulate bfloat16."""
    if device.type != "cuda" or device_refusal(device) is not None:
        return False
    has_units = torch.cuda.get_device_capability(device) >= (8, 0)
    return has_units and cell in HAS_CELLS and hidden <= LARGEST_HIDDEN


def forward(inputs: Inputs, for_backward: bool) -> Outputs:
    """Run one direction of a layer."""
    return forward_all([inputs], for_backward)[0]


def backward(
    inputs: Inputs,
    saved: tuple[Tensor, ...],
    grad_h: Tensor,  # (T, B, H)
    grad_h_last: Tensor,  # (B, H)
    grad_c_last: Tensor,  # (B, H)
    need_grad_x: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``DIFFERENTIABLE``."""
    grads = [{"h": grad_h, "h_last": grad_h_last, "c_last": grad_c_last}]
    return backward_all([inputs], saved, grads, [need_grad_x])[0]


def forward_all(directions: list[Inputs], for_backward: bool) -> list[Outputs]:
    """Run all directions of a layer in one launch; the first ``Outputs`` has what all saved."""
    from sklstm.kernels import triton_block, triton_forward

    inputs, n = directions[0], len(directions)
    n_steps, n_texts, _, hidden = inputs.sizes
    states, n_rows = (n, n_steps, n_texts, hidden), len(inputs.bias)
    gates_x, projections = _project(directions)
    # Of one direction without its axis: autograd refuses to change a view of several outputs.
    shapes = [states, (n, n_texts, hidden)] if n > 1 else [states[1:], (n_texts, hidden)]
    h, h_last, c_last = (inputs.x.new_empty(shapes[k]) for k in (0, 1, 1))
    saved = dict.fromkeys(("gates", "cells", "h_in_all", "units", "scales"))
    if for_backward:
        # Only sums of some cells read what is saved for the padding, which must then be 0.
        create = torch.zeros if _sums_saved(inputs) else torch.empty
        like = {"device": inputs.x.device, "dtype": inputs.x.dtype}
        saved["gates"] = create(n_steps, n_texts, n, n_rows, **like)
        saved["cells"] = create(states, device=inputs.x.device)
        saved["h_in_all"] = inputs.x.new_empty(states)
        if inputs.norm_hh is not None:
            saved["units"] = create(n_steps, n_texts, n, n_rows, **like)
            saved["scales"] = create(states[:3], device=inputs.x.device)
    first = {"h0": triton_block.stacked([own.h0 for own in directions])}
    first["c0"] = triton_block.stacked([own.c0 for own in directions])
    written = {"h_all": h, "h_last": h_last, "c_last": c_last} | saved
    arguments = {"gates_x": gates_x} | first | written
    triton_forward.run(triton_block.shared_arguments(directions) | arguments, inputs.x.device)
    ends = zip(h, h_last, c_last, strict=True) if n > 1 else [(h, h_last, c_last)]
    results = [Outputs(*own) for own in ends]
    if for_backward:
        kept = [tensor for tensor in saved.values() if tensor is not None]
        results[0] = results[0]._replace(saved=(*kept, *projections))
    return results


def backward_all(
    directions: list[Inputs],
    saved: tuple[Tensor, ...],  # by ``forward_all``
    grads: list[dict[str, Tensor | None]],  # of h (T, B, H), h_last, c_last (B, H), by direction
    need_grad_x: list[bool],
) -> list[tuple[Tensor | None, ...]]:
    """Return the gradients of ``DIFFERENTIABLE`` of each direction.

    Where the directions share their x, the first one's gradient of it is that of all.
    """
    inputs, n = directions[0], len(directions)
    gates, cells, h_in, *of_norms = saved
    units, scales, *projections = of_norms or (None, None)
    incoming = {"gates": gates, "cells": cells, "units": units, "scales": scales}
    ordered = [(own["h"], own["h_last"], own["c_last"]) for own in grads]
    found = _recurrence_backward(directions, incoming, ordered)
    n_rows = len(inputs.bias)
    grad_gates = found["grad_gates"].view(-1, n, n_rows)
    d_recurrent = grad_gates if units is None else found["grad_recurrent"].view(-1, n, n_rows)
    d_weight_hh = torch.bmm(d_recurrent.permute(1, 2, 0), h_in.flatten(1, 2))
    by_name = {
        "weight_hh": d_weight_hh,
        "bias": grad_gates.sum(0),
        "h0": found["grad_h0"],
        "c0": found["grad_c0"],
        "norm_hh": None if units is None else (grad_gates * units.view_as(grad_gates)).sum(0),
    }
    d_projections = grad_gates
    if inputs.norm_ih is not None:
        d_projections, by_name["norm_ih"] = _norm_backward(directions, grad_gates, projections)
    by_name["weight_ih"] = _weight_gradient(directions, d_projections)
    if any(need_grad_x):
        by_name["x"] = _x_gradient(directions, d_projections)
    result = []
    for d, own in enumerate(directions):
        mine = {name: grad[d] for name, grad in by_name.items() if grad is not None}
        of_gates = gates[:, :, d], cells[d]
        mine["peephole"] = _peephole_gradient(own, *of_gates, found["grad_gates"][:, :, d])
        if own.norm_c is not None:
            mine["norm_c"] = _norm_c_gradient(own, *of_gates, found["grad_normed_c"][d])
        result.append(tuple(mine.get(name) for name in DIFFERENTIABLE))
    return result


def _recurrence_backward(directions, incoming, grads):
    """Return by name what the kernel writes."""
    from sklstm.kernels import triton_backward, triton_block

    inputs, gates = directions[0], incoming["gates"]
    of_h, of_h_last, of_c_last = zip(*grads, strict=True)
    states = incoming["cells"].shape
    normed = inputs.norm_hh is not None
    last = (states[0], *states[2:])
    outputs = {
        "grad_gates": torch.empty_like(gates),
        "grad_recurrent": torch.empty_like(gates) if normed else None,
        "grad_normed_c": inputs.x.new_empty(states) if normed else None,
        "grad_h0": inputs.x.new_empty(last),
        "grad_c0": inputs.x.new_empty(last),
    }
    above = {
        "grad_h_all": _stacked_gradients(of_h, inputs.x, states[1:]),
        "grad_h_last": _stacked_gradients(of_h_last, inputs.x, last[1:], optional=True),
        "grad_c_last": _stacked_gradients(of_c_last, inputs.x, last[1:], optional=True),
    }
    arguments = triton_block.shared_arguments(directions) | incoming | above | outputs
    triton_backward.run(arguments, inputs.x.device)
    return outputs


def _stacked_gradients(grads, x, shape, optional=False):
    """Return the gradients of all directions as one tensor; one that autograd left out is 0."""
    from sklstm.kernels import triton_block

    if optional and all(grad is None for grad in grads):
        return None
    return triton_block.stacked([x.new_zeros(shape) if g is None else g for g in grads])


def _sums_saved(inputs):
    return inputs.peephole is not None or inputs.norm_hh is not None


def _share_x(directions):
    return all(own.x is directions[0].x for own in directions)


def _project(directions):
    """Return the input's share of the gates (T, B, D, G*H), and what the norm's backward wants."""
    inputs, n = directions[0], len(directions)
    n_steps, n_texts, _, _ = inputs.sizes
    if inputs.norm_ih is None and _share_x(directions):
        weight_ih, bias = (_joined(directions, name) for name in ("weight_ih", "bias"))
        gates_x, kept = torch.addmm(bias, inputs.x.flatten(0, 1), weight_ih.T), []
    elif inputs.norm_ih is None:
        each = [torch.addmm(own.bias, own.x.flatten(0, 1), own.weight_ih.T) for own in directions]
        gates_x, kept = torch.stack(each, dim=1), []
    else:
        each, kept = [], []
        for own in directions:
            product = own.x.flatten(0, 1) @ own.weight_ih.T
            normed, *statistics = torch.native_layer_norm(
                product, own.norm_ih.shape, own.norm_ih, own.bias, NORM_EPS
            )
            each.append(normed)
            kept += [product, *statistics]
        gates_x = torch.stack(each, dim=1)
    return gates_x.view(n_steps, n_texts, n, -1), kept


def _joined(directions, name):
    """Return the rows of a parameter of all directions, one after another."""
    tensors = [getattr(own, name) for own in directions]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _weight_gradient(directions, d_projections):
    """Return the gradients of weight_ih, (D, G*H, I)."""
    if _share_x(directions):
        joined = d_projections.flatten(1).T @ directions[0].x.flatten(0, 1)
        return joined.view(len(directions), -1, joined.shape[1])
    x = torch.stack([own.x.flatten(0, 1) for own in directions])
    return torch.bmm(d_projections.permute(1, 2, 0), x)


def _x_gradient(directions, d_projections):
    """Return the gradient of each direction's x; of a shared one the sum, then None."""
    shape = directions[0].x.shape
    if _share_x(directions):
        d_x = d_projections.flatten(1) @ _joined(directions, "weight_ih")
        return [d_x.view(shape), *[None] * (len(directions) - 1)]
    return [(d_projections[:, d] @ own.weight_ih).view(shape) for d, own in enumerate(directions)]


def _norm_backward(directions, grad_gates, projections):
    """Return the gradients of x @ weight_ih.T, (T * B, D, 4H), and of norm_ih, (D, 4H)."""
    d_products, d_norms = [], []
    for d, own in enumerate(directions):
        product, mean, scale = projections[3 * d : 3 * d + 3]
        d_product, d_norm, _ = torch.ops.aten.native_layer_norm_backward(
            grad_gates[:, d].contiguous(),
            product,
            own.norm_ih.shape,
            mean,
            scale,
            own.norm_ih,
            own.bias,
            [True, True, False],
        )
        d_products.append(d_product)
        d_norms.append(d_norm)
    return torch.stack(d_products, dim=1), torch.stack(d_norms)


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
    unit = torch.layer_norm(_new_cells(gates, cells), cells.shape[2:], None, None, NORM_EPS)
    grad = torch.stack([(grad_normed_c * unit).sum((0, 1)), grad_normed_c.sum((0, 1))])
    return grad.to(inputs.norm_c.dtype)
