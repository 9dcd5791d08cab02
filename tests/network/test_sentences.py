"""Texts cut into sentences, and merged again."""

import numpy as np
import torch

from sklstm.network.sentences import (
    SHORT,
    Merge,
    cut_out,
    find_sentences,
)
from sklstm.text.sentences import CLOSES, ENDS


def test_cut_out_reads_the_steps_that_an_index_names():
    x = torch.arange(13 * 5 * 2).view(13, 5, 2)
    step, text = torch.tensor([[3, 12], [0, 7], [3, 0]]), torch.tensor([[4, 1], [0, 2], [4, 3]])
    assert torch.equal(cut_out(x, step * 5 + text), x[step, text])


def cut_by_hand(marks):
    """Return the lengths of the sentences of one text, token by token."""
    lengths, over = [0], False
    for mark in marks:
        if over and not mark & CLOSES:
            lengths.append(0)
        over = bool(mark & ENDS) or (over and mark == CLOSES)
        lengths[-1] += 1
    return lengths


def test_sentences_of_a_batch_are_those_of_each_text():
    rng = np.random.default_rng(0)
    lengths = torch.tensor([150, 90, 40, 17, 1, 1])
    shares = [0] * 24 + [CLOSES, CLOSES, ENDS, ENDS | CLOSES]
    marks = torch.from_numpy(rng.choice(shares, size=(160, 6)).astype(np.int32))
    marks[60:, 0] = 0  # a long sentence
    marks[:3, 1] = CLOSES
    marks *= torch.arange(160).unsqueeze(1) < lengths
    found = find_sentences(marks, lengths, device="cpu")
    expected = [cut_by_hand(marks[:n, k]) for k, n in enumerate(lengths.tolist())]
    rows = [
        (column[:n].tolist(), n)
        for group in found.groups
        for column, n in zip(group.cut.T, group.lengths.tolist(), strict=True)
    ]
    assert len(rows) == sum(map(len, expected)) and len(found.groups) > 2
    for text, of_text in enumerate(expected):
        n = len(of_text)
        assert found.lengths[:, text].tolist() == of_text + [0] * (len(found.place) - n)
        assert found.live[:, text, 0].sum() == found.live[:n, text, 0].sum() == n
        steps = [step for place in found.place[:n, text] for step in rows[place][0]]
        assert steps == [step * 6 + text for step in range(lengths[text])]
        assert [rows[place][1] for place in found.place[:n, text]] == of_text
    for group in found.groups:  # little padding
        assert len(group.cut) == group.lengths[0] == group.lengths.max()
        assert group.lengths.max() <= max(SHORT, 2 * group.lengths.min() - 1)


def test_sentences_are_merged_by_weights_that_are_equal_at_first():
    live = torch.tensor([[1, 1], [1, 0], [1, 0]]).bool().unsqueeze(2)
    sentences = torch.arange(24.0).view(3, 2, 4) / 10
    merge = Merge(4)
    torch.testing.assert_close(merge.weigh(sentences, live)[:, 0, 0], torch.full((3,), 1 / 3))
    torch.testing.assert_close(merge(sentences, live)[0], sentences[:, 0].mean(0))
    with torch.no_grad():
        merge.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 1.0]))
    weights = merge.weigh(sentences, live).detach()
    scores = np.exp(sentences[:, 0].numpy() @ [1.0, -2.0, 0.5, 1.0])
    np.testing.assert_allclose(weights[:, 0, 0], scores / scores.sum(), rtol=1e-6)
    assert weights[:, 1, 0].tolist() == [1, 0, 0]
    torch.testing.assert_close(merge(sentences, live)[1], sentences[0, 1])
