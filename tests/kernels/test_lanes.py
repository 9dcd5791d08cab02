"""Side by side: results in order, threads shared, no state of the caller's moved."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from sklstm.kernels import lanes
from sklstm.kernels.lanes import side_by_side


def where():
    return threading.current_thread().name, torch.get_num_threads(), torch.is_grad_enabled()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    lanes._pool.cache_clear()  # other tests of this process may have used its threads
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_runs_one_after_the_other():
    assert torch.get_num_threads() == 1  # tests/conftest.py
    name = threading.current_thread().name
    assert side_by_side([where, where]) == [(name, 1, False)] * 2


def test_lanes_have_one_thread_each(two_threads):
    meeting = threading.Barrier(2, timeout=60)  # passes only if both are there at once

    def meet():
        meeting.wait()
        return where()

    (one, n_one, grad), (other, n_other, _) = side_by_side([meet, meet])
    assert one != other and {one[:6], other[:6]} == {"sklstm"}
    assert n_one == n_other == 1 and not grad
    assert torch.get_num_threads() == 2


def test_new_threads_get_what_they_would_have_got(two_threads):
    side_by_side([where, where])
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2]


def test_results_stand_in_the_order_of_the_calls(two_threads):
    assert side_by_side([lambda k=k: k for k in range(20)]) == list(range(20))


def test_inference_mode_goes_along(two_threads):
    with torch.inference_mode():
        assert side_by_side([torch.is_inference_mode_enabled] * 2) == [True, True]
    assert side_by_side([torch.is_inference_mode_enabled] * 2) == [False, False]


def test_errors_come_back(two_threads):
    def fail():
        raise RuntimeError("from a lane")

    with pytest.raises(RuntimeError, match="from a lane"):
        side_by_side([fail, where])
    assert side_by_side([lambda: 1, lambda: 2]) == [1, 2]


def test_a_forked_process_has_lanes_of_its_own():
    """Threads do not survive a fork: the child must not wait for its parent's."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    program = """
import os, torch
torch.set_num_threads(2)
from sklstm.kernels.lanes import side_by_side
assert side_by_side([lambda: 1, lambda: 2]) == [1, 2]
child = os.fork()
if child == 0:
    os._exit(0 if side_by_side([lambda: 3, lambda: 4]) == [3, 4] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_thread_that_cannot_start_leaves_no_one_waiting(two_threads, monkeypatch):
    real, started = threading.Thread.start, []

    def start(thread):
        started.append(thread)
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        real(thread)

    lanes._pool.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            side_by_side([where, where])
    started[0].join(timeout=60)
    assert not started[0].is_alive() and torch.get_num_threads() == 2
    assert len(side_by_side([where, where])) == 2
