"""Where a network computes, and in which precision."""

from contextlib import nullcontext

import torch
from torch import nn

from sklstm.checks import shorten


def resolve_device(device: str) -> str:
    """Return the device to train on, ``"auto"`` resolved.

    Raises
    ------
    ValueError
        If the device is unknown or this machine does not have it.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(
            f"device must be 'auto' or a device of torch such as 'cpu' or 'cuda'; got {device!r}."
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r} needs a CUDA device, and torch finds none here. "
            "Use device='auto' or device='cpu'."
        )
    try:
        torch.ones(1, device=device).cpu()
    # torch raises different exceptions for devices that it knows and cannot use.
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"device={device!r} must be a device that torch can compute on here; got the error "
            f"{shorten(str(error), 100)}. Use device='auto' or device='cpu'."
        ) from error
    return device


def check_precision(precision: str, device: str) -> None:
    """Raise ValueError where bfloat16 is asked for on a device that torch cannot cast on."""
    if precision != "bfloat16":
        return
    try:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            pass
    except RuntimeError as error:
        raise ValueError(
            f"precision='bfloat16' needs a device that computes in it; got device={device!r}. "
            "Use precision='auto' or precision='float32'."
        ) from error


def casting(network: nn.Module, device: torch.device):
    """Return the context that makes a network's LSTM compute in bfloat16, or one without effect."""
    precision, layer = network.settings.precision, network.lstm
    automatic = precision == "auto" and network.training and layer.gains_from_bfloat16(device)
    if automatic or precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
