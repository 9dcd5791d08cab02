"""One layer: which backend runs it, and why not another."""

import warnings
from functools import cache

import torch
from torch import Tensor

from sklstm.kernels import aten, autograd, cpu, cuda, native, reference
from sklstm.kernels.contract import Inputs, Outputs, check_inputs

# Units of one step of one lane up to which calling torch's operators costs us more than they do.
SMALL_STEP = 8192
# Steps up to which small ragged batches are not worth the lanes either: fits of short texts.
SHORT = 64

BACKENDS = {"aten": aten, "cpu": cpu, "native": native, "reference": reference, "triton": cuda}


def available_backends(device: str | torch.device = "cpu") -> tuple[str, ...]:
    """Return the names of the backends that run on a device.

    Examples
    --------
    >>> from sklstm.kernels import available_backends
    >>> set(available_backends("cpu")) >= {"aten", "cpu", "reference"}
    True
    """
    return tuple(
        name for name in BACKENDS if _refusal_of_device(name, torch.device(device)) is None
    )


def lstm_layer(
    directions: list[Inputs],  # of one layer, over the same batch
    *,
    backend: str,  # a name of BACKENDS, or "auto"
    need_last: bool,  # whether h_last and c_last are wanted
) -> list[Outputs]:
    """Run the directions of one layer; return the outputs of each.

    Raises
    ------
    ValueError
        If sizes, dtypes or devices do not fit together, or the backend lacks something.
    """
    directions = _autocast(directions)
    for inputs in directions:
        check_inputs(inputs)
    chosen = BACKENDS[choose(backend, directions, need_last=need_last)]
    if not chosen.READS_BY_INDEX:
        directions = _read(directions)
    return autograd.run(chosen, directions)


def tabulate(directions: list[Inputs], *, backend: str) -> list[Tensor | None]:
    """Return a ``table`` for each direction, for predictions whose ``index`` reads these x (U, I).

    None where the backend that is going to run has no use for one.
    """
    if choose(backend, _autocast(directions), need_last=False) != "native":
        return [None] * len(directions)
    return [native.tabulate(inputs) for inputs in directions]


def _read(directions: list[Inputs]) -> list[Inputs]:
    """Return the inputs with x (T, B, I) in place of an index into the rows of it."""
    if directions[0].index is None:
        return directions
    read = {}  # the directions share their x, so that its gradient is summed up once
    for inputs in directions:
        if id(inputs.x) not in read:
            read[id(inputs.x)] = torch.nn.functional.embedding(inputs.index, inputs.x)
    return [inputs._replace(x=read[id(inputs.x)], index=None, table=None) for inputs in directions]


def _autocast(directions: list[Inputs]) -> list[Inputs]:
    """Return the inputs in the dtype of autocast where that is on, as torch.nn.LSTM does."""
    device_type = directions[0].x.device.type
    if not torch.is_autocast_enabled(device_type):
        return directions
    return [_cast(inputs, torch.get_autocast_dtype(device_type)) for inputs in directions]


def _cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Return the inputs in another dtype."""
    return Inputs(
        *(
            value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
            for value in inputs
        )
    )


def check_backend(backend: str) -> None:
    """Raise ValueError unless there is such a backend."""
    if backend not in ("auto", *BACKENDS):
        names = ", ".join(repr(name) for name in sorted((*BACKENDS, "auto")))
        raise ValueError(f"backend must be one of {names}; got {backend!r}.")


def choose(backend: str, directions: list[Inputs], *, need_last: bool) -> str:
    """Return the name of the backend to run, or say why the one asked for cannot."""
    inputs = directions[0]
    if backend == "auto":
        return _best(directions, need_last=need_last)
    check_backend(backend)
    reason = refusal(backend, inputs, need_last)
    if reason is not None:
        raise ValueError(f"backend={backend!r} {reason}. Use backend='auto'.")
    return backend


def refusal(name: str, inputs: Inputs, need_last: bool) -> str | None:
    """Return why a backend cannot run these inputs, or None where it can."""
    return _refusal_of_device(name, inputs.x.device) or BACKENDS[name].refusal(inputs, need_last)


def _refusal_of_device(name: str, device: torch.device) -> str | None:
    if name in ("cpu", "native") and device.type != "cpu":
        return f"runs on the CPU only; got tensors on {device}"
    if name == "native":
        return native.build_problem()
    if name == "triton":
        return cuda.launch_problem(device)
    return None


def _best(directions: list[Inputs], *, need_last: bool) -> str:
    """Return the first backend in the order of preference that can run the inputs."""
    inputs = directions[0]
    for name in _preferred(directions):
        if refusal(name, inputs, need_last) is None:
            return name
        if name == "triton" and (problem := cuda.launch_problem(inputs.x.device)) is not None:
            _warn_once(
                f"backend='triton' {problem}. The LSTM runs in plain torch, many times slower."
            )
    return "reference"


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _preferred(directions: list[Inputs]) -> tuple[str, ...]:
    """Return the names of the backends from the fastest on; "reference" is the last resort."""
    device_type = directions[0].x.device.type
    if device_type != "cpu":
        return ("aten", "triton") if device_type == "cuda" else ("aten",)
    theirs_and_ours = ("aten", "cpu") if _aten_is_faster(directions) else ("cpu",)
    if directions[0].x.dtype != torch.float32 or _predicts_full_batches(directions):
        return theirs_and_ours
    return ("native", *theirs_and_ours)


def _predicts_full_batches(directions: list[Inputs]) -> bool:
    """Return whether torch's layer beats even the compiled steps: in prediction, without padding.

    Where inputs come by index it loses, since it multiplies equal ones anew.
    """
    return (
        not autograd.needs_backward(directions)
        and directions[0].index is None
        and _live_share(directions[0]) > 0.9
    )


def _live_share(inputs: Inputs) -> float:
    """Return the share of the steps that is not padding."""
    n_steps, n_texts, _, _ = inputs.sizes
    return 1.0 if inputs.lengths is None else float(inputs.lengths.sum()) / (n_steps * n_texts)


def _aten_is_faster(directions: list[Inputs]) -> bool:
    """Return whether torch's layer beats ours on the CPU, by what ``benchmarks/lstm.py`` measured.

    Torch's layer computes the padding too, but spends less on each step. So it loses where much is
    padding, and where steps are large; in prediction it wins on full batches of any size. In
    float64 and float16 it is not fused; in bfloat16 it reaches matrix units better than ours does.
    """
    inputs = directions[0]
    if inputs.x.dtype != torch.float32:
        return inputs.x.dtype == torch.bfloat16
    n_steps, _, _, hidden = inputs.sizes
    live = _live_share(inputs)
    small = autograd.texts_a_lane(directions) * hidden <= SMALL_STEP
    if autograd.needs_backward(directions):
        return small and (live > 0.85 or n_steps <= SHORT)
    return live > (0.35 if small else 0.8)
