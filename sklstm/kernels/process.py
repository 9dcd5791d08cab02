"""What a process needs before it computes: as many threads as it may use, and one after a fork.

Torch starts as many threads as the machine has processors. In a container with a quota that is too
many: they wait for each other, and two are several times slower than one where one processor is
allowed.

Servers load a model, use it, and then fork workers. Torch's operators and ours share their work by
OpenMP. Its threads do not exist in a forked process, and GNU's runtime waits for them for ever.
With one thread it needs no others. So a forked process gets one thread, as a worker of several has
no use for more.
"""

import os
from functools import cache

import joblib
import torch

from sklstm.kernels.compiled import warn_if_not_usable


@cache
def prepare_process() -> None:
    """Limit torch's threads to the processors of the process, and those of forks to one.

    It is called before the first computation and not on import, so that importing the package
    changes nothing of torch. More threads may be set in a forked process only if nothing was
    computed before the fork.
    """
    allowed = joblib.cpu_count()  # of the machine, the affinity and the quota of the control group
    if torch.get_num_threads() > allowed:
        torch.set_num_threads(allowed)
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(after_in_child=_use_one_thread)
    warn_if_not_usable()


def _use_one_thread() -> None:
    torch.set_num_threads(1)
