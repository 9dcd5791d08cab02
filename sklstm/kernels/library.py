"""The compiled library: the file, and whether it is that of our sources."""

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

#: That of ``compiled.c``, whose library must have it.
VERSION = 5

#: The texts that a thread runs at a time in bfloat16: TEXTS of ``compiled.c``.
TEXTS = 32

_INTEGER, _POINTER = ctypes.c_int64, ctypes.c_void_p


class Layer(ctypes.Structure):
    """The struct of that name in ``compiled.c``."""

    _fields_ = [
        ("n_steps", _INTEGER),
        ("n_texts", _INTEGER),
        ("hidden", _INTEGER),
        ("reverse", _INTEGER),
        ("instructions", _INTEGER),
        ("is_bfloat16", _INTEGER),
        ("lengths", _POINTER),
        ("order", _POINTER),
        ("first_row", _POINTER),
        ("mask", _POINTER),
        ("forward_panels", _POINTER),
        ("backward_panels", _POINTER),
        ("h0", _POINTER),
        ("c0", _POINTER),
        ("projected", _POINTER),
        ("projected_row", _INTEGER),
        ("source", _POINTER),
        ("gates", _POINTER),
        ("gates_row", _INTEGER),
        ("c", _POINTER),
        ("h_in", _POINTER),
        ("out", _POINTER),
        ("out_step", _INTEGER),
        ("out_text", _INTEGER),
        ("pooled", _INTEGER),
        ("greatest", _POINTER),
        ("where", _POINTER),
        ("sum", _POINTER),
        ("lost", _POINTER),
        ("c_last", _POINTER),
        ("grad", _POINTER),
        ("grad_step", _INTEGER),
        ("grad_text", _INTEGER),
        ("grad_mean", _POINTER),
        ("grad_max", _POINTER),
        ("dh", _POINTER),
        ("dc", _POINTER),
        ("d", _POINTER),
        ("d_row", _INTEGER),
        ("grad_bias", _POINTER),
        ("scratch", _POINTER),
    ]


@cache
def load() -> tuple[ctypes.CDLL | None, str | None]:
    """Return the compiled library, and what is wrong with the file if it cannot be used."""
    paths = [Path(__file__).parent / f"_compiled{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None, None
    return open_library(path)


@cache
def instructions(dtype: torch.dtype) -> int:
    """Return the number of the best instruction set that library and processor have.

    In bfloat16 it is 0 where the processor has no instructions for it: then it is widened, which
    takes longer than float32.
    """
    return load()[0].sklstm_instructions(dtype == torch.bfloat16)


def open_library(path: Path) -> tuple[ctypes.CDLL | None, str | None]:
    """Return the library of a file, or what is wrong with it.

    A library that was built from other sources would read memory that is not there, so that it
    must have our version.
    """
    try:
        found = ctypes.CDLL(str(path))
        for name in ("sklstm_version", "sklstm_size_of_layer", "sklstm_instructions"):
            getattr(found, name).restype = _INTEGER
        for function in (found.sklstm_forward, found.sklstm_backward):
            function.argtypes = [ctypes.POINTER(Layer), _INTEGER, _INTEGER]
        found.sklstm_instructions.argtypes = [_INTEGER]
        found.sklstm_sum_rows.argtypes = [
            *[_INTEGER] * 4,
            *[_POINTER] * 3,
            _INTEGER,
            _POINTER,
            _INTEGER,
        ]
        found.sklstm_pack.argtypes = [ctypes.POINTER(Layer), _POINTER]
        theirs = found.sklstm_version(), found.sklstm_size_of_layer()
    except (OSError, AttributeError) as error:  # no library of this system, or a function lacks
        return None, f"{path.name} cannot be loaded: {str(error)[:200]}"
    if theirs != (VERSION, ctypes.sizeof(Layer)):
        return None, f"{path.name} was built from another version of the source"
    return found, None
