"""The fits of n-grams use one thread for BLAS, and one for each of their linear models.

Their vectors are long and their products are sparse, so that BLAS is asked for sums of products
only. Several threads gain nothing there. They wait for each other busily, which takes many
times as long as the work where other processes are busy. The products of sparse matrices let other
threads of Python run, so that two models are fitted at the same time.
"""

import threading
from contextlib import contextmanager
from functools import cache

import torch
from joblib import parallel_config
from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread():
    """Limit the BLAS of numpy and scipy to one thread, as scikit-learn does in its own loops.

    The limit is the process's. Where fits in several threads overlap, the first sets it and the
    last one resets it.
    """
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()


@contextmanager
def threads_of_ngrams(n_outputs: int):
    """Fit n-grams with one thread of BLAS, and their linear models in as many as torch uses.

    With one or two outputs the models are fitted one after the other: they wait for memory, and
    threads gain nothing.
    """
    n_threads = torch.get_num_threads() if n_outputs > 2 else 1
    with one_blas_thread(), parallel_config(backend="threading", n_jobs=n_threads):
        yield


class _Limit:
    """A limit that holds while anyone needs it."""

    def __init__(self):
        self.lock, self.n_users, self.limiter = threading.Lock(), 0, None

    def enter(self) -> None:
        with self.lock:
            if self.n_users == 0:
                self.limiter = _controller().limit(limits=1, user_api="blas")
            self.n_users += 1

    def leave(self) -> None:
        with self.lock:
            self.n_users -= 1
            if self.n_users == 0:
                self.limiter.restore_original_limits()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries, which takes milliseconds


_limit = _Limit()
