"""Texts cut into rows, and put together again."""

import pytest
import torch

from sklstm.segments import Rearranged, find_rows

LENGTHS = torch.tensor([11, 1, 8, 12, 4])
N_STEPS = 13  # one more than the longest text has, and no multiple of any width


@pytest.mark.parametrize("width", [1, 4, 5, 11, 40])
def test_rows_hold_the_pieces_of_the_texts(width):
    rows = find_rows(LENGTHS, n_steps=N_STEPS, width=width, device="cpu")
    pieces = {
        tuple((torch.arange(first, min(first + width, n)) * 5 + text).tolist())
        for text, n in enumerate(LENGTHS.tolist())
        for first in range(0, n, width)
    }
    assert rows.cut.shape == (width, len(pieces)) and rows.join.shape == (N_STEPS, 5)
    columns = zip(rows.cut.T.tolist(), rows.lengths.tolist(), strict=True)
    assert {tuple(column[:n]) for column, n in columns} == pieces
    for column, n in zip(rows.cut.T, rows.lengths.tolist(), strict=True):
        assert (column[n:] == -1).all()
    x = torch.arange(1.0, 13 * 5 * 2 + 1).view(13, 5, 2)
    there = Rearranged.apply(x, rows.cut, rows.join)
    back = Rearranged.apply(there, rows.join, rows.cut)
    live = (torch.arange(N_STEPS).unsqueeze(1) < LENGTHS).unsqueeze(2)
    assert torch.equal(back, x * live)


def test_gradients_are_those_of_a_gather():
    rows = find_rows(LENGTHS, n_steps=N_STEPS, width=5, device="cpu")
    x = torch.randn(13, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Rearranged.apply(x, rows.cut, rows.join), x)
    assert torch.autograd.gradgradcheck(lambda x: Rearranged.apply(x, rows.cut, rows.join), x)
