"""Forked processes can compute: servers that load a model, use it, and then fork workers.

torch's operators and ours share their work by OpenMP. Its threads do not exist in a forked process,
and GNU's runtime waits for them for ever. With one thread it needs no others. So a forked process
gets one thread, as a worker of several has no use for more.
"""

import os
from functools import cache

import torch


@cache
def prepare_for_forks() -> None:
    """Let processes that are forked from now on compute on one thread.

    It is called before the first computation and not on import, so that importing the package
    changes nothing. More threads may be set in the child only if nothing was computed before the
    fork.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    torch.set_num_threads(1)
