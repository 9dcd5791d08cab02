"""The layer with a compiled recurrence, ``compiled.c``; torch computes its large products.

It runs in float32 on the CPU, if the package was installed on a machine with a C compiler. The rows
in this file are the tokens of all texts without padding, one text after another. Rows of gates have
those of all directions, one direction after another, so that one product serves them all.
"""

import ctypes
import warnings
from pathlib import Path

import torch
from torch import Tensor

from sklstm.kernels.contract import DIFFERENTIABLE, Inputs, Outputs
from sklstm.kernels.library import Layer, load
from sklstm.kernels.memory import empty
from sklstm.kernels.pools import empty_pools, share_gradients, take_pools
from sklstm.kernels.rows import (
    UNITS,
    Rows,
    find_rows,
    padded,
    padded_gates,
    padded_size,
    rows_of_x,
    unpadded,
    unpadded_gates,
)
from sklstm.kernels.workload import live_share, needs_backward

HAS_CELLS = frozenset({"lstm"})
SHARES_THREADS = ()  # its texts share the threads already
READS_BY_INDEX = True
DEVICES = ("cpu",)
RUNS_TOGETHER = True
POOLS = frozenset({"last", "max", "mean"})
CAN_BE_EXPORTED = False

# Below this number of multiplications in the recurrences a second thread saves little, and must be
# waited for where other processes keep it from running.
MIN_WORK = 4_000_000


def library() -> ctypes.CDLL | None:
    """Return the compiled library, or None where there is none that can be used."""
    return load()[0]


def instructions() -> int:
    """Return the number of the best instruction set that library and processor have."""
    return library().sklstm_instructions()


_NOT_BUILT_HERE = (
    "in the folder of the source, from which this process imports sklstm: run 'pip install -e .' "
    "there, or start Python in another folder"
)
_INSTALL = "Install sklstm again"


def _is_source() -> bool:
    return (Path(__file__).parents[2] / "setup.py").exists()


def warn_if_not_usable() -> None:
    """Warn of a library that is broken or stale, or of a clone that hides an installed one."""
    problem = load()[1]
    if problem is not None:
        warnings.warn(
            f"The compiled LSTM cannot be used: {problem}. {_INSTALL}. Until then fits take up to "
            "twice as long.",
            UserWarning,
            stacklevel=2,
        )
    elif library() is None and _is_source():
        warnings.warn(
            f"The compiled LSTM was not built {_NOT_BUILT_HERE}. Until then fits take up to twice "
            "as long.",
            UserWarning,
            stacklevel=2,
        )


def device_refusal(device: torch.device) -> str | None:
    """Return why there is no compiled recurrence for a device, or None."""
    if device.type != "cpu":
        return f"runs on the CPU only; got tensors on {device}"
    problem = load()[1]
    if problem is not None:
        return f"cannot be used: {problem} ({_INSTALL[0].lower()}{_INSTALL[1:]})"
    if library() is None and _is_source():
        return f"was not built {_NOT_BUILT_HERE}"
    if library() is None:
        return (
            "was not built when sklstm was installed, for which a C compiler with OpenMP is "
            "needed (then install sklstm again)"
        )
    return None


def refusal(inputs: Inputs, need_last: bool) -> str | None:
    """Return why the compiled recurrence cannot run these inputs, or None."""
    if inputs.cell not in HAS_CELLS:
        return f"has no cell {inputs.cell!r}: only the standard cell is compiled"
    if inputs.zone_h is not None:
        return "has no zoneout"
    if inputs.x.dtype != torch.float32:
        return f"computes in float32 only; got {inputs.x.dtype}"
    return None


def suits(directions: list[Inputs]) -> bool:
    """Return whether the compiled recurrence is faster than torch's layer.

    Torch's layer is faster in prediction without padding, but not if inputs come by index, since it
    multiplies equal ones again.
    """
    inputs = directions[0]
    if inputs.x.device.type != "cpu" or inputs.x.dtype != torch.float32:
        return False
    if needs_backward(directions) or inputs.index is not None:
        return True
    return live_share(inputs) <= 0.9


def gains_from_bfloat16(device: torch.device, *, cell: str, hidden: int, is_plain: bool) -> bool:
    """Return False."""
    return False


def forward(inputs: Inputs, for_backward: bool) -> Outputs:
    """Run one direction of a layer; see ``contract.py``."""
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


def forward_all(
    directions: list[Inputs], for_backward: bool, pools: frozenset[str] = frozenset()
) -> list[Outputs]:
    """Run the directions of a layer; see ``contract.py``."""
    n_steps, n_texts, _, hidden = directions[0].sizes
    rows, units = find_rows(directions[0]), padded_size(hidden)
    xs, source = rows_of_x(directions, rows)
    projected = _project(directions, xs)
    gates = projected
    if for_backward and source is not None:
        gates = _split(_empty_gates(len(rows.place), units, directions), len(directions))
    calls, kept, places = [], [], []
    for number, inputs in enumerate(directions):
        if pools:
            fields = empty_pools(pools, n_texts, units, for_backward)
        else:
            fields = {"out": empty(n_steps * n_texts, units).view(n_steps, n_texts, units)}
        if for_backward:
            fields |= {"c": empty(len(rows.place), units), "h_in": empty(len(rows.place), units)}
            fields |= {"gates": gates[number], "gates_row": gates[number].stride(0)}
            kept += [fields["c"], fields["h_in"]]
        places += [fields["where"]] if "where" in fields else []
        calls.append(_prepare(inputs, rows, source, projected[number], **fields))
    _run(library().sklstm_forward, calls, _n_threads(directions, rows))
    results = [
        Outputs(None, None, pools=take_pools(pools, inputs, rows, call.tensors))
        if pools
        else _take_states(inputs, rows, call.tensors)
        for inputs, call in zip(directions, calls, strict=True)
    ]
    if for_backward:
        results[0] = results[0]._replace(saved=(*rows, *kept, *gates, *places, *xs))
    return results


def _take_states(inputs: Inputs, rows: Rows, tensors: dict[str, Tensor]) -> Outputs:
    """Return the states of a direction that has run."""
    out, c_last, (_, end) = tensors["out"], tensors["c_last"], rows.ends(inputs)
    if "c" in tensors:
        c_last = tensors["c"][end]
    states = (out, out.flatten(0, 1)[rows.place[end]], c_last)
    return Outputs(*(unpadded(state, inputs.sizes[3]) for state in states))


def _prepare(inputs, rows, source, projected, **fields) -> "_Call":
    """Return the call of the forward of a direction, with further fields; ``out`` is one."""
    mask, units = padded(inputs.mask_h), padded_size(inputs.weight_hh.shape[1])
    fields |= {"h0": padded(inputs.h0), "mask": mask, "c_last": padded(inputs.c0).clone()}
    if mask is not None and "h_in" not in fields:
        fields["h_in"] = empty(len(rows.place), units)
    if "h_in" in fields:
        begin, _ = rows.ends(inputs)
        fields["h_in"][begin] = fields["h0"] if mask is None else fields["h0"] * mask
    fields |= {"out_step": fields["out"].stride(0), "out_text": fields["out"].stride(1)}
    fields |= {"projected": projected, "projected_row": projected.stride(0), "source": source}
    call = _Call(inputs, rows, forward_panels=torch.empty(units, 4 * units), **fields)
    call.pack(inputs)
    return call


def tabulate(inputs: Inputs) -> Tensor:
    """Return the input's share of the gates of each row of x (U, I), for many calls with it."""
    return _project([inputs], [inputs.x])[0]


def backward_all(
    directions: list[Inputs],
    saved: tuple[Tensor, ...],
    grads: list[dict[str, Tensor | None]],  # of a direction's outputs, by name
    need_grad_x: list[bool],
) -> list[tuple[Tensor | None, ...]]:
    """Return the gradients of ``DIFFERENTIABLE`` of each direction; see ``contract.py``."""
    n = len(directions)
    rows, saved = Rows(*saved[: len(Rows._fields)]), saved[len(Rows._fields) :]
    kept, gates, rest = saved[: 2 * n], saved[2 * n : 3 * n], saved[3 * n :]
    places, xs = (rest[:n], rest[n:]) if "max" in grads[0] else ((None,) * n, rest)
    hidden, units = directions[0].weight_hh.shape[1], kept[0].shape[1]
    n_texts = len(rows.first)
    d = _split(_empty_gates(len(rows.place), units, directions), n)
    n_threads = _n_threads(directions, rows)  # once: another thread may change it meanwhile
    calls = []
    for number, (inputs, own) in enumerate(zip(directions, grads, strict=True)):
        fields = {}
        if (grad_h := own.get("h")) is not None:
            if hidden % UNITS != 0 or grad_h.stride(-1) != 1:  # otherwise it is read by its strides
                grad_h = padded(grad_h)
            fields = {"grad": grad_h, "grad_step": grad_h.stride(0), "grad_text": grad_h.stride(1)}
        fields |= share_gradients(own, rows, places[number])
        dh, dc = (
            d[number].new_zeros(n_texts, units) if grad is None else padded(grad).clone()
            for grad in (own.get("h_last", own.get("last")), own.get("c_last"))
        )
        call = _Call(
            inputs,
            rows,
            backward_panels=torch.empty(units, 4 * units),
            mask=padded(inputs.mask_h),
            c0=padded(inputs.c0),
            gates=gates[number],
            gates_row=gates[number].stride(0),
            c=kept[2 * number],
            dh=dh,
            dc=dc,
            d=d[number],
            d_row=d[number].stride(0),
            grad_bias=torch.zeros(n_threads, 4 * units),
            **fields,
        )
        call.pack(inputs)
        calls.append(call)
    _run(library().sklstm_backward, calls, n_threads)
    found = [
        {
            "weight_hh": unpadded_gates(d[k].t() @ kept[2 * k + 1], hidden)[:, :hidden],
            "bias": unpadded_gates(call.tensors["grad_bias"].sum(0), hidden),
            "h0": unpadded(call.tensors["dh"], hidden),
            "c0": unpadded(call.tensors["dc"], hidden),
        }
        for k, call in enumerate(calls)
    ]
    for own, more in zip(
        found, _project_backward(directions, rows, xs, d, need_grad_x), strict=True
    ):
        own |= more
    return [tuple(own.get(name) for name in DIFFERENTIABLE) for own in found]


def _empty_gates(n_rows: int, units: int, directions: list[Inputs]) -> Tensor:
    """Return uninitialised rows of the gates of all directions (n_rows, directions * 4H).

    A row does not begin a power of two behind the row before: the places of a cache are chosen by
    the low bits of an address, and rows of like ones would push each other out.
    """
    width = len(directions) * 4 * units
    return empty(n_rows, width + UNITS)[:, :width]


def _split(gates: Tensor, n: int) -> tuple[Tensor, ...]:
    """Return the columns (N, 4H) of each of n directions."""
    return gates.split(gates.shape[1] // n, dim=1)


def _joined(parts: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """Return the columns of all directions, undoing ``_split`` without a copy."""
    if len(parts) == 1:
        return parts[0]
    n_columns = sum(part.shape[1] for part in parts)
    return parts[0].as_strided((len(parts[0]), n_columns), parts[0].stride())


def _project(directions: list[Inputs], xs: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the share of the gates (U, 4H) that each direction's inputs x (U, I) have."""
    if directions[0].table is not None:
        return tuple(inputs.table for inputs in directions)
    biases = [padded_gates(inputs.bias, inputs) for inputs in directions]
    weights = [padded_gates(inputs.weight_ih, inputs) for inputs in directions]
    projected = _empty_gates(len(xs[0]), len(weights[0]) // 4, directions)
    if len(xs) == 1:
        bias, weight = (own[0] if len(own) == 1 else torch.cat(own) for own in (biases, weights))
        torch.addmm(bias, xs[0], weight.t(), out=projected)
        return _split(projected, len(directions))
    parts = _split(projected, len(directions))
    for part, bias, x, weight in zip(parts, biases, xs, weights, strict=True):
        torch.addmm(bias, x, weight.t(), out=part)
    return parts


def _project_backward(
    directions: list[Inputs],
    rows: Rows,
    xs: tuple[Tensor, ...],
    d: tuple[Tensor, ...],
    need_grad_x: list[bool],
) -> list[dict[str, Tensor]]:
    """Return the gradients of the inputs and of their weights, from those of the gates.

    Where the directions share their inputs, the first one gets the gradient for all.
    """
    if len(xs) < len(directions):
        groups = [(directions, xs[0], _joined(d))]
    else:
        groups = [([own], *rest) for own, *rest in zip(directions, xs, d, strict=True)]
    found = []
    for group, x, of_gates in groups:
        inputs, hidden = group[0], group[0].weight_hh.shape[1]
        if inputs.index is not None:  # equal inputs get the sum of their gradients
            source = inputs.index.flatten()[rows.place]
            # Of rows that lie apart, index_add_ adds each by a call of its own.
            of_gates = of_gates.contiguous()
            of_gates = torch.zeros(len(x), of_gates.shape[1]).index_add_(0, source, of_gates)
        of_weights = (of_gates.t() @ x).chunk(len(group))
        grads = [{"weight_ih": unpadded_gates(own, hidden)} for own in of_weights]
        if any(need_grad_x):
            weights = [padded_gates(own.weight_ih, own) for own in group]
            grad = of_gates @ (weights[0] if len(weights) == 1 else torch.cat(weights))
            if inputs.index is None:
                grad = torch.zeros_like(inputs.x).flatten(0, 1).index_copy_(0, rows.place, grad)
            grads[0]["x"] = grad.view(inputs.x.shape)
        found += grads
    return found


class _Call:
    """What the library gets of a direction: the struct, and the tensors its pointers point into."""

    def __init__(self, inputs: Inputs, rows: Rows, **fields: Tensor | int | None):
        fields |= {"lengths": rows.lengths, "order": rows.order, "first_row": rows.first}
        self.tensors = fields  # alive as long as the pointers
        for name, value in fields.items():
            by_strides = name == "grad" or f"{name}_row" in fields
            if isinstance(value, Tensor) and not (by_strides or value.is_contiguous()):
                raise AssertionError(f"{name} must be contiguous.")  # an error of ours
        self.layer = Layer(
            n_steps=inputs.sizes[0],
            n_texts=inputs.sizes[1],
            hidden=padded_size(inputs.weight_hh.shape[1]),
            reverse=inputs.reverse,
            instructions=instructions(),
            **{
                name: value.data_ptr() if isinstance(value, Tensor) else value
                for name, value in fields.items()
            },
        )

    def pack(self, inputs: Inputs) -> None:
        """Give the library the recurrent weights in the order in which it reads them."""
        weight = padded_gates(padded(inputs.weight_hh), inputs).contiguous()
        library().sklstm_pack(self.layer, weight.data_ptr())


def _run(function, calls: list[_Call], n_threads: int) -> None:
    """Run a function of the library on all directions; Python's other threads run meanwhile."""
    layers = (Layer * len(calls))(*(call.layer for call in calls))
    function(layers, len(calls), n_threads)


def _n_threads(directions: list[Inputs], rows: Rows) -> int:
    """Return how many threads share the recurrences: one where there is little to share."""
    hidden = directions[0].weight_hh.shape[1]
    work = len(directions) * len(rows.place) * 4 * hidden * hidden
    return torch.get_num_threads() if work >= MIN_WORK else 1
