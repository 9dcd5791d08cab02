"""The layer with a compiled recurrence, ``compiled.c``; torch computes its large products.

It runs in float32 on the CPU, if the package was installed on a machine with a C compiler. The rows
in this file are the tokens of all texts without padding, one text after another.
"""

import ctypes
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sklstm.kernels.contract import DIFFERENTIABLE, Inputs, Outputs
from sklstm.kernels.library import Layer, load
from sklstm.kernels.memory import empty
from sklstm.kernels.workload import live_share, needs_backward

HAS_CELLS = frozenset({"lstm"})
SHARES_THREADS = ()  # its texts share the threads already
READS_BY_INDEX = True
DEVICES = ("cpu",)
RUNS_TOGETHER = False
CAN_BE_EXPORTED = False

# Hidden sizes are rounded up to whole vectors of the widest kind; the added units stay 0.
UNITS = 16


def library() -> ctypes.CDLL | None:
    """Return the compiled library, or None where there is none that can be used."""
    return load()[0]


def instructions() -> int:
    """Return the number of the best instruction set that library and processor have."""
    return library().sklstm_instructions()


class Rows(NamedTuple):
    """The rows of a batch, and the places of their tokens in (T, B)."""

    lengths: Tensor  # (B,)
    order: Tensor  # (B,) the texts from the longest on
    first: Tensor  # (B,) the row of each text's first token
    place: Tensor  # (N,) row -> its place in (T * B,)
    begin: Tensor  # (B,) the row of the token that is read first
    end: Tensor  # (B,) the row of the token that is read last


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
    """Run the layer; see ``contract.py``."""
    n_steps, n_texts, _, hidden = inputs.sizes
    rows, units = _rows(inputs), _padded_size(hidden)
    x, source = _rows_of_x(inputs, rows)
    projected = _project(inputs, x) if inputs.table is None else inputs.table
    mask = _padded(inputs.mask_h)
    kept = {}
    if for_backward or mask is not None:
        kept["h_in"] = empty(len(rows.place), units)
        h0 = _padded(inputs.h0)
        kept["h_in"][rows.begin] = h0 if mask is None else h0 * mask
    if for_backward:
        kept["c"] = empty(len(rows.place), units)
        kept["gates"] = projected if source is None else empty(len(rows.place), 4 * units)
    out = empty(n_steps * n_texts, units).view(n_steps, n_texts, units)
    c_last = _padded(inputs.c0).clone()
    call = _Call(
        inputs,
        rows,
        forward_panels=torch.empty(units, 4 * units),
        h0=_padded(inputs.h0),
        mask=mask,
        projected=projected,
        source=source,
        out=out,
        out_step=out.stride(0),
        out_text=out.stride(1),
        c_last=c_last,
        **kept,
    )
    call.pack(inputs)
    call.run(library().sklstm_forward)
    h_last = out.flatten(0, 1)[rows.place[rows.end]]
    if for_backward:
        c_last = kept["c"][rows.end]
    saved = (x, kept["gates"], kept["c"], kept["h_in"]) if for_backward else ()
    return Outputs(*(_unpadded(state, hidden) for state in (out, h_last, c_last)), saved)


def tabulate(inputs: Inputs) -> Tensor:
    """Return the input's share of the gates of each row of x (U, I), for many calls with it."""
    return _project(inputs, inputs.x)


def backward(
    inputs: Inputs,
    saved: tuple[Tensor, ...],
    grad_h: Tensor,  # (T, B, H)
    grad_h_last: Tensor,  # (B, H)
    grad_c_last: Tensor,  # (B, H)
    need_grad_x: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``DIFFERENTIABLE``; see ``contract.py``."""
    x, gates, c, h_in = saved
    rows, hidden = _rows(inputs), inputs.weight_hh.shape[1]
    n_rows, units = h_in.shape
    if hidden % UNITS != 0 or grad_h.stride(-1) != 1:  # otherwise the library reads it by strides
        grad_h = _padded(grad_h)
    d, dh, dc = empty(n_rows, 4 * units), _padded(grad_h_last).clone(), _padded(grad_c_last).clone()
    n_threads = torch.get_num_threads()  # once: another thread may change it meanwhile
    grad_bias = torch.zeros(n_threads, 4 * units)
    call = _Call(
        inputs,
        rows,
        forward_panels=torch.empty(units, 4 * units),
        backward_panels=torch.empty(units, 4 * units),
        mask=_padded(inputs.mask_h),
        c0=_padded(inputs.c0),
        gates=gates,
        c=c,
        grad=grad_h,
        grad_step=grad_h.stride(0),
        grad_text=grad_h.stride(1),
        dh=dh,
        dc=dc,
        d=d,
        grad_bias=grad_bias,
        n_threads=n_threads,
    )
    call.pack(inputs)
    call.run(library().sklstm_backward)
    grads = {
        "weight_hh": _unpadded_gates(d.t() @ h_in, hidden)[:, :hidden],
        "bias": _unpadded_gates(grad_bias.sum(0), hidden),
        "h0": _unpadded(dh, hidden),
        "c0": _unpadded(dc, hidden),
    }
    grads |= _project_backward(inputs, rows, x, d, need_grad_x)
    return tuple(grads.get(name) for name in DIFFERENTIABLE)


def _project(inputs: Inputs, x: Tensor) -> Tensor:
    """Return the share of the gates (U, 4H) of the inputs x (U, I)."""
    projected = empty(len(x), 4 * _padded_size(inputs.weight_hh.shape[1]))
    bias, weight = _padded_gates(inputs.bias, inputs), _padded_gates(inputs.weight_ih, inputs)
    return torch.addmm(bias, x, weight.t(), out=projected)


def _project_backward(
    inputs: Inputs, rows: Rows, x: Tensor, d: Tensor, need_grad_x: bool
) -> dict[str, Tensor]:
    """Return the gradients of the input and of its weights, from those of the gates."""
    if inputs.index is not None:  # equal inputs get the sum of their gradients
        source = inputs.index.flatten()[rows.place]
        d = torch.zeros(len(x), d.shape[1]).index_add_(0, source, d)
    grads = {"weight_ih": _unpadded_gates(d.t() @ x, inputs.weight_hh.shape[1])}
    if need_grad_x:
        grad = d @ _padded_gates(inputs.weight_ih, inputs)
        if inputs.index is None:
            grad = torch.zeros_like(inputs.x).flatten(0, 1).index_copy_(0, rows.place, grad)
        grads["x"] = grad.view(inputs.x.shape)
    return grads


def _rows_of_x(inputs: Inputs, rows: Rows) -> tuple[Tensor, Tensor | None]:
    """Return the different inputs (U, I), and which of them each token reads; None: its own."""
    if inputs.index is not None:
        return inputs.x, inputs.index.flatten()[rows.place]
    x = empty(len(rows.place), inputs.x.shape[2])
    return torch.index_select(inputs.x.flatten(0, 1), 0, rows.place, out=x), None


def _rows(inputs: Inputs) -> Rows:
    n_steps, n_texts, _, _ = inputs.sizes
    lengths = (
        torch.full((n_texts,), n_steps)
        if inputs.lengths is None
        else inputs.lengths.long().contiguous()
    )
    first = lengths.cumsum(0) - lengths
    last = first + lengths - 1
    text = torch.repeat_interleave(lengths)
    token = torch.arange(len(text)) - first[text]
    return Rows(
        lengths=lengths,
        order=torch.argsort(lengths, descending=True, stable=True),
        first=first,
        place=token * n_texts + text,
        begin=last if inputs.reverse else first,
        end=first if inputs.reverse else last,
    )


class _Call:
    """A call of the library: the struct, and the tensors its pointers point into."""

    def __init__(
        self,
        inputs: Inputs,
        rows: Rows,
        *,
        n_threads: int | None = None,
        **fields: Tensor | int | None,
    ):
        fields |= {"lengths": rows.lengths, "order": rows.order, "first_row": rows.first}
        self.tensors = fields  # alive as long as the pointers
        for name, value in fields.items():
            if isinstance(value, Tensor) and name != "grad" and not value.is_contiguous():
                raise AssertionError(f"{name} must be contiguous.")  # an error of ours
        self.layer = Layer(
            n_steps=inputs.sizes[0],
            n_texts=inputs.sizes[1],
            hidden=_padded_size(inputs.weight_hh.shape[1]),
            reverse=inputs.reverse,
            n_threads=torch.get_num_threads() if n_threads is None else n_threads,
            instructions=instructions(),
            **{
                name: value.data_ptr() if isinstance(value, Tensor) else value
                for name, value in fields.items()
            },
        )

    def pack(self, inputs: Inputs) -> None:
        """Give the library the recurrent weights in the order in which it reads them."""
        weight = _padded_gates(_padded(inputs.weight_hh), inputs).contiguous()
        library().sklstm_pack(self.layer, weight.data_ptr())

    def run(self, function) -> None:
        """Run a function of the library; Python's other threads run meanwhile."""
        function(self.layer)


def _padded_size(hidden: int) -> int:
    return -(-hidden // UNITS) * UNITS


def _padded(x: Tensor | None) -> Tensor | None:
    """Return x (..., H), contiguous, with columns of 0 up to the padded size."""
    if x is None or x.shape[-1] % UNITS == 0:
        return x if x is None else x.contiguous()
    return torch.nn.functional.pad(x, (0, _padded_size(x.shape[-1]) - x.shape[-1]))


def _padded_gates(x: Tensor, inputs: Inputs) -> Tensor:
    """Return x (4H, ...) with rows of 0 after each gate."""
    hidden = inputs.weight_hh.shape[1]
    if hidden % UNITS == 0:
        return x
    by_gate = x.unflatten(0, (4, hidden))
    more = by_gate.new_zeros(4, _padded_size(hidden) - hidden, *x.shape[1:])
    return torch.cat([by_gate, more], dim=1).flatten(0, 1)


def _unpadded(x: Tensor, hidden: int) -> Tensor:
    return x if x.shape[-1] == hidden else x[..., :hidden].contiguous()


def _unpadded_gates(x: Tensor, hidden: int) -> Tensor:
    return x if len(x) == 4 * hidden else x.unflatten(0, (4, -1))[:, :hidden].flatten(0, 1)
