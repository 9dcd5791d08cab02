"""The fits of n-grams use one thread for BLAS.

Their vectors are long and their products are sparse, so that BLAS is asked for sums of products
only. Several threads gain nothing there. They wait for each other busily, which beside other
processes takes many times as long as the work.
"""

from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread():
    """Limit the BLAS of numpy and scipy to one thread, as scikit-learn does in its own loops."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries, which takes milliseconds
