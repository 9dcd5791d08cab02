"""The layer with a compiled recurrence, ``compiled.c``; torch computes its large products.

It runs in float32 and bfloat16 on the CPU, if the package was installed on a machine with a C
compiler. The rows in this file are the tokens of all texts without padding, one text after another.
"""

import ctypes
import warnings
from pathlib import Path

import torch
from torch import Tensor

from sklstm.kernels.contract import DIFFERENTIABLE, Inputs, Outputs
from sklstm.kernels.library import TEXTS, Layer, instructions, load
from sklstm.kernels.memory import empty
from sklstm.kernels.pools import empty_pools, share_gradients, take_pools
from sklstm.kernels.products import empty_gates, project, project_backward, split
from sklstm.kernels.rows import (
    UNITS,
    Rows,
    empty_rows,
    find_rows,
    padded,
    padded_gates,
    padded_size,
    rows_of_x,
    unpadded,
    unpadded_gates,
    with_more_rows,
)
from sklstm.kernels.workload import live_share, needs_backward

HAS_CELLS = frozenset({"lstm"})
SHARES_THREADS = ()  # its texts share the threads already
READS_BY_INDEX = True
DEVICES = ("cpu",)
RUNS_TOGETHER = True
POOLS = frozenset({"last", "max", "mean"})
CAN_BE_EXPORTED = False
DTYPES = (torch.float32, torch.bfloat16)

# Below this number of multiplications in the recurrences a second thread saves little, and must be
# waited for where other processes keep it from running.
MIN_WORK = 4_000_000


def library() -> ctypes.CDLL | None:
    """Return the compiled library, or None where there is none that can be used."""
    return load()[0]


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
    if inputs.x.dtype not in DTYPES:
        return f"computes in float32 and bfloat16 only; got {inputs.x.dtype}"
    return None


def suits(directions: list[Inputs]) -> bool:
    """Return whether the compiled recurrence is faster than torch's layer.

    Torch's layer is faster in prediction without padding, but not if inputs come by index, since it
    multiplies equal ones again.
    """
    inputs = directions[0]
    if inputs.x.device.type != "cpu" or inputs.x.dtype not in DTYPES:
        return False
    if inputs.x.dtype == torch.bfloat16 and (library() is None or not instructions(torch.bfloat16)):
        return False
    if needs_backward(directions) or inputs.index is not None:
        return True
    return live_share(inputs) <= 0.9


def gains_from_bfloat16(
    device: torch.device, *, cell: str, hidden: int, masked: bool, zoned: bool
) -> bool:
    """Return whether the compiled recurrence runs the layer by instructions for bfloat16."""
    runs = device_refusal(device) is None and cell in HAS_CELLS and not zoned
    return runs and instructions(torch.bfloat16) > 0


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
    projected = project(directions, xs)
    gates = projected
    if for_backward and source is not None:
        gates = split(empty_gates(len(rows.place), units, directions), len(directions))
    calls, kept, places, n_threads = [], [], [], _n_threads(directions, rows)
    dtype = directions[0].x.dtype
    for number, inputs in enumerate(directions):
        if pools:
            fields = empty_pools(pools, n_texts, units, for_backward)
        else:
            out = empty(n_steps * n_texts, units, dtype)
            fields = {"out": out.view(n_steps, n_texts, units)}
        if for_backward:
            fields["c"] = empty(len(rows.place), units)
            fields["h_in"] = empty_rows(len(rows.place), units, dtype)
            fields |= {"gates": gates[number], "gates_row": gates[number].stride(0)}
            kept += [fields["c"], fields["h_in"]]
        places += [fields["where"]] if "where" in fields else []
        calls.append(_prepare(inputs, rows, source, projected[number], n_threads, **fields))
    _run(library().sklstm_forward, calls, n_threads)
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
    return Outputs(*(unpadded(state.to(out.dtype), inputs.sizes[3]) for state in states))


def _prepare(inputs, rows, source, projected, n_threads, **fields) -> "_Call":
    """Return the call of the forward of a direction, with further fields; ``out`` is one."""
    h0, mask = padded(inputs.h0), padded(inputs.mask_h)
    h0, units = h0 if mask is None else h0 * mask, h0.shape[1]
    fields |= {"h0": h0, "mask": _float32(mask), "c_last": _own_float32(inputs.c0)}
    if mask is not None and "h_in" not in fields:
        fields["h_in"] = empty(len(rows.place), units, h0.dtype)
    if "h_in" in fields:
        begin, _ = rows.ends(inputs)
        fields["h_in"][begin] = h0
    fields |= {"out_step": fields["out"].stride(0), "out_text": fields["out"].stride(1)}
    fields |= {"projected": projected, "projected_row": projected.stride(0), "source": source}
    panels = _panels(units, h0.dtype)
    call = _Call(inputs, rows, n_threads, forward_panels=panels, **fields)
    call.pack(inputs)
    return call


def tabulate(inputs: Inputs) -> Tensor:
    """Return the input's share of the gates of each row of x (U, I), for many calls with it."""
    return project([inputs], [with_more_rows(inputs.x)])[0]


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
    d = split(empty_gates(len(rows.place), units, directions), n)
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
            torch.zeros(n_texts, units) if grad is None else _own_float32(grad)
            for grad in (own.get("h_last", own.get("last")), own.get("c_last"))
        )
        call = _Call(
            inputs,
            rows,
            n_threads,
            backward_panels=_panels(units, inputs.x.dtype),
            mask=_float32(padded(inputs.mask_h)),
            c0=_float32(padded(inputs.c0)),
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
        found, project_backward(directions, rows, xs, d, need_grad_x, n_threads), strict=True
    ):
        own |= more
    dtype = directions[0].x.dtype
    grads = ([own.get(name) for name in DIFFERENTIABLE] for own in found)
    return [tuple(None if grad is None else grad.to(dtype) for grad in own) for own in grads]


def _panels(units: int, dtype: torch.dtype) -> Tensor:
    """Return uninitialised memory for the recurrent weights as the library reads them.

    In bfloat16 they are read 32 rows at a time.
    """
    return torch.empty(-(-units // 32) * 32, 4 * units, dtype=dtype)


def _float32(x: Tensor | None) -> Tensor | None:
    return x if x is None else x.float()


def _own_float32(x: Tensor) -> Tensor:
    """Return x (..., H) in float32, padded, in memory that the library may change."""
    return padded(x).to(torch.float32, copy=True)


class _Call:
    """What the library gets of a direction: the struct, and the tensors its pointers point into."""

    def __init__(self, inputs: Inputs, rows: Rows, n_threads: int, **fields: Tensor | int | None):
        fields |= {"lengths": rows.lengths, "order": rows.order, "first_row": rows.first}
        units, dtype = padded_size(inputs.weight_hh.shape[1]), inputs.x.dtype
        if dtype == torch.bfloat16:
            fields["scratch"] = torch.zeros(n_threads, TEXTS, 4 * units, dtype=dtype)
        self.tensors = fields  # alive as long as the pointers
        for name, value in fields.items():
            by_strides = name == "grad" or f"{name}_row" in fields
            if isinstance(value, Tensor) and not (by_strides or value.is_contiguous()):
                raise AssertionError(f"{name} must be contiguous.")  # an error of ours
        self.layer = Layer(
            n_steps=inputs.sizes[0],
            n_texts=inputs.sizes[1],
            hidden=units,
            reverse=inputs.reverse,
            instructions=instructions(dtype),
            is_bfloat16=dtype == torch.bfloat16,
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
