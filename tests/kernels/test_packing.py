"""Rows without padding: where they come from, and where they go back to."""

import pytest
import torch

from sklstm.kernels.packing import Scratch, pack

LENGTHS = torch.tensor([2, 4, 1])


def test_rows_of_each_step_are_the_texts_that_have_it():
    packing = pack(LENGTHS, reverse=False, n_steps=5, n_texts=3)
    assert packing.counts == [3, 2, 1, 1]  # the fifth step has none
    assert packing.order.tolist() == [1, 0, 2]
    # A row is step * 3 + text.
    assert packing.rows.tolist() == [1, 0, 2, 4, 3, 7, 10]
    # Before them stand the states before the first step: 3 rows.
    assert packing.previous.tolist() == [0, 1, 2, 3, 4, 6, 8]
    assert packing.last.tolist() == [3 + 4, 3 + 6, 3 + 2]


def test_reverse_reads_each_text_from_its_end():
    packing = pack(LENGTHS, reverse=True, n_steps=5, n_texts=3)
    assert packing.rows.tolist() == [10, 3, 2, 7, 0, 4, 1]
    assert packing.counts == [3, 2, 1, 1]


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("reverse", [False, True])
def test_put_undoes_take_block_by_block(lengths, reverse):
    packing = pack(lengths, reverse=reverse, n_steps=5, n_texts=3)
    x = torch.arange(5 * 3 * 2.0).view(5, 3, 2)
    back, n_rows = torch.zeros(5, 3, 2), 0
    for block, counts in packing.blocks(4):
        assert block.start == n_rows and block.stop - block.start == sum(counts) <= 4
        n_rows = block.stop
        packing.put(packing.take(x, block, Scratch(4), "x"), back, block)
    steps = torch.full((3,), 5) if lengths is None else lengths
    assert n_rows == steps.sum()
    live = torch.arange(5).view(5, 1, 1) < steps.view(1, 3, 1)
    assert torch.equal(back, torch.where(live, x, 0.0))


def test_a_step_larger_than_a_block_is_a_block():
    packing = pack(None, reverse=False, n_steps=2, n_texts=3)
    assert list(packing.blocks(1)) == [(slice(0, 3), [3]), (slice(3, 6), [3])]


def test_sorting_can_be_undone():
    packing = pack(LENGTHS, reverse=False, n_steps=5, n_texts=3)
    x = torch.arange(6.0).view(3, 2)
    assert packing.sorted(x)[:, 0].tolist() == [2, 0, 4]
    assert torch.equal(packing.unsorted(packing.sorted(x)), x)
    assert packing.sorted(None) is None
