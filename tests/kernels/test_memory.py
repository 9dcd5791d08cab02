"""Memory is lent to one tensor at a time, and given back at the end."""

import gc
import threading
import weakref

import torch

from sklstm.kernels import memory
from sklstm.kernels.memory import MIN_SIZE, empty, reused_memory


def test_memory_comes_back_when_the_last_view_is_gone():
    with reused_memory():
        first = empty(MIN_SIZE, 2)
        view, place = first[5:].t(), first.data_ptr()
        del first
        second = empty(MIN_SIZE, 2)
        assert second.data_ptr() != place  # the view still holds it
        del view
        assert empty(MIN_SIZE, 2).data_ptr() == place
        assert empty(MIN_SIZE, 1).data_ptr() == place  # a smaller one fits as well


def test_a_graph_holds_what_it_has_saved():
    with reused_memory():
        weight = torch.ones((), requires_grad=True)
        saved = empty(MIN_SIZE, 1).fill_(3.0)
        product = (weight * saved).sum()
        del saved
        empty(MIN_SIZE, 1).fill_(7.0)
        product.backward()
    assert weight.grad == 3.0 * MIN_SIZE


def test_blocks_that_are_too_small_are_replaced():
    with reused_memory():
        for n in (1, 2, 3, 4):
            empty(MIN_SIZE, n)
        assert [block.size for block in memory._current.pool.free] == [4 * MIN_SIZE]


def test_lines_of_the_cache():
    with reused_memory():
        assert empty(MIN_SIZE, 3).data_ptr() % memory.ALIGNMENT == 0


def test_nothing_is_kept_after_the_end():
    with reused_memory():
        kept = empty(MIN_SIZE, 1).fill_(1.0)
        empty(MIN_SIZE, 1)
        pool = weakref.ref(memory._current.pool)
    assert memory._current.pool is None and (kept == 1.0).all()
    del kept
    gc.collect()
    assert pool() is None


def test_small_tensors_and_other_threads_are_torchs():
    others = []
    with reused_memory():
        assert empty(2, 3).shape == (2, 3)
        thread = threading.Thread(target=lambda: others.append(memory._current.pool))
        thread.start()
        thread.join()
    assert others == [None]
