"""One direction of one LSTM layer: which backend runs it, and why not another."""

import torch
from torch import Tensor
from torch.nn.functional import linear

from sklstm.kernels import aten, autograd, cpu, reference
from sklstm.kernels.contract import check_lengths, check_sequence

#: The backends that compute the recurrence alone, by name. ``aten`` computes the projection too.
RECURRENCES = {"cpu": cpu, "reference": reference}
BACKENDS = ("aten", *RECURRENCES)


def available_backends(device: str | torch.device = "cpu") -> tuple[str, ...]:
    """Return the names of the backends that run on a device.

    Examples
    --------
    >>> from sklstm.kernels import available_backends
    >>> available_backends("cpu")
    ('aten', 'cpu', 'reference')
    """
    device = torch.device(device)
    return tuple(name for name in BACKENDS if name != "cpu" or device.type == "cpu")


def lstm_sequence(
    *,
    x: Tensor,  # (T, B, I)
    weight_ih: Tensor,  # (4H, I)
    weight_hh: Tensor,  # (4H, H)
    bias_ih: Tensor | None,  # (4H,)
    bias_hh: Tensor | None,  # (4H,)
    h0: Tensor,  # (B, H)
    c0: Tensor,  # (B, H)
    lengths: Tensor | None,  # (B,) None: every text has length T
    mask_h: Tensor | None,  # (B, H) recurrent dropout; None: none
    backend: str,  # a name of BACKENDS, or "auto"
    need_last: bool,  # whether h_last and c_last are wanted
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Run one direction of one layer; return h (T, B, H), h_last and c_last (B, H) or None.

    From a text's length on, ``h`` means nothing: torch's fused layer runs through the padding, and
    those who mask their pooling need not pay for clearing it.
    """
    ragged = lengths is not None
    if ragged:
        check_lengths(lengths, n_steps=x.shape[0], n_texts=x.shape[1])
    name = _choose(
        backend,
        device=x.device,
        dtype=x.dtype,
        ragged=ragged,
        need_last=need_last,
        masked=mask_h is not None,
    )
    if name == "aten":
        h, h_last, c_last = aten.lstm(
            x=x,
            weight_ih=weight_ih,
            weight_hh=weight_hh,
            bias_ih=bias_ih,
            bias_hh=bias_hh,
            h0=h0,
            c0=c0,
        )
    else:
        bias = None if bias_ih is None else bias_ih + bias_hh
        sequence = {
            "gates_x": linear(x, weight_ih, bias),
            "weight_hh": weight_hh,
            "h0": h0,
            "c0": c0,
            "lengths": lengths,
            "mask_h": mask_h,
        }
        check_sequence(**sequence)
        h, h_last, c_last = autograd.run(RECURRENCES[name], **sequence)
    return (h, h_last, c_last) if need_last else (h, None, None)


def _choose(
    backend: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    ragged: bool,
    need_last: bool,
    masked: bool,
) -> str:
    """Return the name of the backend to run, or say why the one asked for cannot.

    The rule for "auto" is measured by ``benchmarks/end_to_end.py --backends auto cpu``: on padded
    batches of like length torch's fused layer is the fastest in float32. In float64 on the CPU
    torch has no fused layer.
    """
    if backend == "auto":
        can = not masked and not (ragged and need_last)
        if can and (device.type != "cpu" or dtype != torch.float64):
            return "aten"
        return "cpu" if device.type == "cpu" else "reference"
    if backend not in BACKENDS:
        names = ", ".join(repr(name) for name in sorted((*BACKENDS, "auto")))
        raise ValueError(f"backend must be one of {names}; got {backend!r}.")
    if backend == "cpu" and device.type != "cpu":
        raise ValueError(
            f"backend='cpu' runs on the CPU only; got tensors on {device}. Use backend='auto'."
        )
    if backend == "aten" and masked:
        raise ValueError(
            "backend='aten' has no recurrent dropout, since torch's fused layer has none. "
            "Use backend='auto'."
        )
    if backend == "aten" and ragged and need_last:
        raise ValueError(
            "backend='aten' cannot return the last cell state of texts of different lengths: "
            "torch's fused layer does not keep it. Use backend='auto'."
        )
    return backend
