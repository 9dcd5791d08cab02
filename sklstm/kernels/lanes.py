"""Several calls in parallel: on a CPU each on its thread, on a card each on its stream.

A step of a recurrence is too small to share: handing a part of it to a second processor costs as
much as the part. So the directions of a layer, or shards of a batch, run at the same time, each
on its thread with its share of the processors. Torch's operators release Python's lock while they
compute. A card runs the directions at the same time, since each fills little of it.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

# Every step passes through Python, whose lock lets one thread through at a time: beyond some
# lanes they would stand in line. Four are a cautious guess; two are measured.
MAX_LANES = 4


def number_of_lanes() -> int:
    """Return how many calls may run side by side: never more than torch may use threads."""
    return min(torch.get_num_threads(), MAX_LANES)


def side_by_side(calls: list[Callable]) -> list:
    """Return what the calls return, in their order; they run without recording gradients."""
    n_lanes = min(number_of_lanes(), len(calls))
    if n_lanes == 1:
        with torch.no_grad():
            return [call() for call in calls]
    pool = _pool(n_lanes, torch.get_num_threads(), os.getpid())
    inference = torch.is_inference_mode_enabled()  # a matter of each thread

    def without_gradients(call):
        with torch.inference_mode(inference), torch.no_grad():
            return call()

    return list(pool.map(without_gradients, calls))


def on_streams(calls: list[Callable], device: torch.device) -> list:
    """Return what the calls return, in their order; they run without recording gradients.

    The first runs on the card's current stream, which waits for the others at the end.
    """
    main = torch.cuda.current_stream(device)
    streams = [main, *(_side_stream(device, number) for number in range(1, len(calls)))]
    results = []
    for stream in streams[1:]:
        stream.wait_stream(main)
    with torch.no_grad():
        for stream, call in zip(streams, calls, strict=True):
            with torch.cuda.stream(stream):
                results.append(call())
    for stream, result in zip(streams[1:], results[1:], strict=True):
        main.wait_stream(stream)
        for tensor in result:
            if isinstance(tensor, Tensor):
                tensor.record_stream(main)  # its memory is not used again before main has read it
    return results


@cache
def _side_stream(device: torch.device, number: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@cache
def _pool(n_lanes: int, n_threads: int, process: int) -> ThreadPoolExecutor:
    """Return waiting threads, each with its share; a forked process needs its own."""
    pool = ThreadPoolExecutor(n_lanes, thread_name_prefix="sklstm")
    all_there = threading.Barrier(n_lanes)

    def take_share(_):
        torch.get_num_threads()  # torch sets up a thread at its first question, so ask first
        torch.set_num_threads(n_threads // n_lanes)
        # Gradients that fade over many steps become numbers so small that processors compute
        # them many times slower; on our own threads they may as well be 0.
        torch.set_flush_denormal(True)
        all_there.wait()

    try:
        list(pool.map(take_share, range(n_lanes)))
    except BaseException:  # a thread that could not start, or Ctrl-C: let the others go
        all_there.abort()
        pool.shutdown(wait=False)
        raise
    finally:
        # torch keeps the last count set on any thread for the threads to come: give back the old.
        torch.set_num_threads(n_threads)
    return pool
