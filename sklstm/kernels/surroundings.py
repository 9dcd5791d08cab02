"""What a process has set in torch, and what is computed whatever it has set.

Torch's default dtype and device, autocast and inference mode belong to the program that calls us. A
fit or a prediction that followed them would fail, or have other bits.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

DEVICE_TYPES = ("cpu", "cuda", "xpu", "mps")


class _DefaultDtype:
    """float32 as the default dtype while anyone computes.

    Torch has one default for all threads, so that the first who needs another changes it, and the
    last one restores it.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.n_users = 0
        self.theirs = None

    @contextmanager
    def float32(self) -> Iterator[None]:
        if self.n_users == 0 and torch.get_default_dtype() == torch.float32:
            yield
            return
        with self.lock:
            self.n_users += 1
            if torch.get_default_dtype() != torch.float32:
                self.theirs = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            with self.lock:
                self.n_users -= 1
                if self.n_users == 0 and self.theirs is not None:
                    torch.set_default_dtype(self.theirs)
                    self.theirs = None


_default_dtype = _DefaultDtype()


@contextmanager
def own_defaults() -> Iterator[None]:
    """Make new tensors float32 and on the CPU unless the code says otherwise.

    The default dtype is that of all threads of the process: others see float32 meanwhile.
    """
    with ExitStack() as stack:
        stack.enter_context(_default_dtype.float32())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def own_surroundings() -> Iterator[None]:
    """Compute as in a process that has set nothing in torch, with gradients."""
    with ExitStack() as stack:
        stack.enter_context(own_defaults())
        for kind in DEVICE_TYPES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield
