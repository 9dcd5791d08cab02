"""Texts cut into rows, and put together again."""

import pytest
import torch

from sklstm.segments import find_rows, rearrange

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
    x = torch.arange(13 * 5 * 2).view(13, 5, 2)
    back = rearrange(rearrange(x, rows.cut), rows.join)
    live = torch.arange(N_STEPS).unsqueeze(1) < LENGTHS
    assert torch.equal(back[live], x[live])
