"""Every address that an interpreted kernel reads or writes, checked.

All must lie within the tensors that the launch got. No two programs may write to one address, nor
one read what another writes: programs run in any order, and at the same time.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np


@contextmanager
def checked_addresses() -> Iterator[None]:
    """Raise AssertionError after a launch whose programs use an address that they must not."""
    from triton.runtime import interpreter

    builder, executor = type(interpreter.interpreter_builder), interpreter.GridExecutor
    load, store = builder.create_masked_load, builder.create_masked_store
    convert, call = interpreter._implicit_cvt, executor.__call__
    tensors, reads, writes = [], defaultdict(list), defaultdict(list)

    def checked_load(self, pointers, mask, *rest):
        reads[self.grid_idx].append(find_addresses(pointers, mask, tensors))
        return load(self, pointers, mask, *rest)

    def checked_store(self, pointers, value, mask, *rest):
        used = find_addresses(pointers, mask, tensors)
        assert len(np.unique(used)) == len(used), "two threads write to one address"
        writes[self.grid_idx].append(used)
        return store(self, pointers, value, mask, *rest)

    def noted(argument):
        if hasattr(argument, "data_ptr"):
            begin = argument.data_ptr()
            tensors.append((begin, begin + argument.numel() * argument.element_size()))
        return convert(argument)

    def checked_call(self, *args, **kwargs):
        for kept in (tensors, reads, writes):
            kept.clear()
        call(self, *args, **kwargs)
        check_programs(reads, writes)

    with ExitStack() as stack:
        for target, name, value in (
            (builder, "create_masked_load", checked_load),
            (builder, "create_masked_store", checked_store),
            (interpreter, "_implicit_cvt", noted),
            (executor, "__call__", checked_call),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        yield


def find_addresses(pointers, mask, tensors):
    """Return the addresses that are used; they must lie in the tensors (begin, end)."""
    every, wanted = np.broadcast_arrays(pointers.data, mask.data)
    size = pointers.get_element_ty().primitive_bitwidth // 8
    used = every[wanted].astype(np.int64)
    inside = np.zeros(len(used), dtype=bool)
    for begin, end in tensors:
        inside |= (used >= begin) & (used + size <= end)
    assert inside.all(), f"{(~inside).sum()} addresses lie in no tensor"
    return used


def check_programs(reads, writes):
    """Raise AssertionError if a program uses what another one writes."""
    own = {program: np.unique(np.concatenate(used)) for program, used in writes.items()}
    everything = np.concatenate(list(own.values()))
    assert len(np.unique(everything)) == len(everything), "two programs write to one address"
    for program, used in reads.items():
        of_others = np.setdiff1d(everything, own[program])
        shared = np.intersect1d(np.concatenate(used), of_others)
        assert not len(shared), f"{len(shared)} numbers are read that another program writes"
