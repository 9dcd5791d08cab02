"""Memory that goes from one training step to the next instead of back to the system.

What a step keeps for its backward is tens of megabytes. Given back and taken anew at each step, it
comes as fresh pages, each of which the system first clears.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

# Floats of the smallest tensor worth it: the C library's allocator keeps smaller ones as it is.
MIN_SIZE = 2**18
ALIGNMENT = 64  # bytes of a line of the processor's cache


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice: numpy's, a card's, or a processor's.

    For that of processors torch has no type.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


class _Current(threading.local):
    pool: "Pool | None" = None


_current = _Current()


class Pool:
    """Blocks of floats of which one is lent until the last tensor in it is gone."""

    def __init__(self):
        self.free: list[np.ndarray] = []
        self.closed = False

    def lend(self, n: int) -> np.ndarray:
        """Return ``n`` uninitialised floats; they come back when nobody holds this very array.

        (Not: views of it, for numpy makes those hold the block.)
        """
        fitting = [k for k, block in enumerate(self.free) if block.size >= n]
        if fitting:
            block = self.free.pop(min(fitting, key=lambda k: self.free[k].size))
        else:
            if self.free:  # too small for what is needed now: replaced, not added to
                self.free.pop(max(range(len(self.free)), key=lambda k: self.free[k].size))
            block = _aligned(n)
        lent = block[:n]
        weakref.finalize(lent, self._take_back, block).atexit = False
        return lent

    def _take_back(self, block):
        if not self.closed:
            self.free.append(block)


def _aligned(n):
    raw = np.empty(n + ALIGNMENT // 4, dtype=np.float32)
    begin = -raw.ctypes.data % ALIGNMENT // 4
    return raw[begin : begin + n]


@contextmanager
def reused_memory() -> Iterator[None]:
    """Let ``empty`` of this thread use memory again, until the end of the block."""
    before, _current.pool = _current.pool, Pool()
    try:
        yield
    finally:
        _current.pool.free.clear()
        _current.pool.closed = True
        _current.pool = before


def empty(n_rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an uninitialised tensor (n_rows, width) on the CPU, of float32 or of half its size."""
    n = n_rows * width * dtype.itemsize // 4
    if _current.pool is None or n < MIN_SIZE:
        return torch.empty(n_rows, width, dtype=dtype)
    return torch.from_numpy(_current.pool.lend(n)).view(dtype).view(n_rows, width)
