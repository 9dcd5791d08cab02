"""Which backend runs a layer, and why not another."""

import warnings
from functools import cache

import torch
from torch import Tensor

from sklstm.kernels import aten, autograd, compiled, reference, torch_layer, triton_layer
from sklstm.kernels.contract import Inputs, Outputs, check_inputs
from sklstm.kernels.process import prepare_process
from sklstm.kernels.transfer import send

#: Name -> module, in the order in which "auto" tries those that suit the inputs. The last one runs
#: all inputs on all devices, many times slower than the others.
BACKENDS = {
    "compiled": compiled,
    "triton": triton_layer,
    "aten": aten,
    "torch": torch_layer,
    "reference": reference,
}


def available_backends(device: str | torch.device = "cpu") -> tuple[str, ...]:
    """Return the names of the backends that run on a device.

    Examples
    --------
    >>> from sklstm.kernels import available_backends
    >>> set(available_backends("cpu")) >= {"aten", "reference", "torch"}
    True
    """
    device = torch.device(device)
    return tuple(name for name in sorted(BACKENDS) if BACKENDS[name].device_refusal(device) is None)


def lstm_layer(
    directions: list[Inputs],  # of one layer, over the same batch
    *,
    backend: str,  # a name of BACKENDS, or "auto"
    need_last: bool,  # whether h_last and c_last are wanted
    pools: frozenset[str] = frozenset(),  # what the caller makes of the states; see ``contract.py``
) -> list[Outputs]:
    """Run the directions of one layer; return the outputs of each.

    With ``pools`` the outputs have only these where the backend can take them all while it computes
    the states. Otherwise they have the states, for the caller to pool.

    Raises
    ------
    ValueError
        If sizes, dtypes or devices do not fit together, or the backend lacks something.
    """
    prepare_process()
    directions = _autocast(directions)
    for inputs in directions:
        check_inputs(inputs)
    chosen = BACKENDS[choose(backend, directions, need_last=need_last)]
    if not chosen.READS_BY_INDEX:
        directions = _read(directions)
    return autograd.run(chosen, _with_lengths_there(directions), pools)


def _with_lengths_there(directions: list[Inputs]) -> list[Inputs]:
    """Return the inputs with their lengths on the device of x, sent once for all directions."""
    inputs = directions[0]
    if inputs.lengths is None:
        return directions
    there = send(inputs.lengths, inputs.x.device)
    return [own._replace(lengths_there=there) for own in directions]


def tabulate(directions: list[Inputs], *, backend: str) -> list[Tensor | None]:
    """Return a ``table`` for each direction, for predictions whose ``index`` reads these x (U, I).

    None where the backend that is going to run does not use one.
    """
    chosen = BACKENDS[choose(backend, _autocast(directions), need_last=False)]
    if not chosen.READS_BY_INDEX:
        return [None] * len(directions)
    return [chosen.tabulate(inputs) for inputs in directions]


def _read(directions: list[Inputs]) -> list[Inputs]:
    """Return the inputs with x (T, B, I) in place of an index into the rows of it."""
    if directions[0].index is None:
        return directions
    read = {}  # the directions share their x, so that its gradient is summed only once
    for inputs in directions:
        if id(inputs.x) not in read:
            read[id(inputs.x)] = torch.nn.functional.embedding(inputs.index, inputs.x)
    return [inputs._replace(x=read[id(inputs.x)], index=None, table=None) for inputs in directions]


def _autocast(directions: list[Inputs]) -> list[Inputs]:
    """Return the inputs in the dtype of autocast where that is on, as torch.nn.LSTM does."""
    device_type = directions[0].x.device.type
    if not torch.is_autocast_enabled(device_type):
        return directions
    dtype, cast = torch.get_autocast_dtype(device_type), {}
    return [_cast(inputs, dtype, cast) for inputs in directions]


def _cast(inputs: Inputs, dtype: torch.dtype, cast: dict[int, Tensor]) -> Inputs:
    """Return the inputs in another dtype.

    A tensor that directions share is cast once, so that they still share it: ``cast`` has by the
    identity of a tensor what has become of it.
    """

    def to_dtype(value):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if id(value) not in cast:
            cast[id(value)] = value.to(dtype)
        return cast[id(value)]

    return Inputs(*map(to_dtype, inputs))


def check_backend(backend: str) -> None:
    """Raise ValueError unless there is such a backend."""
    if backend not in ("auto", *BACKENDS):
        names = ", ".join(repr(name) for name in sorted((*BACKENDS, "auto")))
        raise ValueError(f"backend must be one of {names}; got {backend!r}.")


def gains_from_bfloat16(
    backend: str, device: torch.device, *, cell: str, hidden: int, masked: bool, zoned: bool
) -> bool:
    """Return whether training a layer on a device is faster in bfloat16 than in float32."""
    modules = BACKENDS.values() if backend == "auto" else [BACKENDS[backend]]
    layer = {"cell": cell, "hidden": hidden, "masked": masked, "zoned": zoned}
    return any(module.gains_from_bfloat16(device, **layer) for module in modules)


def choose(backend: str, directions: list[Inputs], *, need_last: bool) -> str:
    """Return the name of the backend to run, or raise ValueError if the one asked for cannot."""
    if backend == "auto":
        return _first_that_runs(directions, need_last=need_last)
    check_backend(backend)
    reason = refusal(backend, directions[0], need_last)
    if reason is not None:
        raise ValueError(f"backend={backend!r} {reason}. Use backend='auto'.")
    return backend


def refusal(name: str, inputs: Inputs, need_last: bool) -> str | None:
    """Return why a backend cannot run these inputs, or None if it can."""
    module = BACKENDS[name]
    if torch.compiler.is_exporting() and not module.CAN_BE_EXPORTED:
        return "cannot be traced by torch.export"
    return module.device_refusal(inputs.x.device) or module.refusal(inputs, need_last)


def _first_that_runs(directions: list[Inputs], *, need_last: bool) -> str:
    """Return the first backend that suits the inputs and runs them, or the first that runs them."""
    inputs, problems = directions[0], []
    *preferred, last = [name for name in BACKENDS if _is_meant_for(BACKENDS[name], inputs)]
    suitable = [name for name in preferred if BACKENDS[name].suits(directions)]
    for name in dict.fromkeys(suitable + preferred):
        problem = refusal(name, inputs, need_last)
        if problem is None:
            return name
        problems.append(f"backend={name!r} {problem}.")
    if problems and not torch.compiler.is_exporting():  # the user may be able to mend them
        _warn_once(" ".join([*problems, "The LSTM runs in plain torch, many times slower."]))
    return last


def _is_meant_for(module, inputs):
    device = inputs.x.device.type
    return inputs.cell in module.HAS_CELLS and (not module.DEVICES or device in module.DEVICES)


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
