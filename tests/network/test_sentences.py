"""Texts cut into sentences, and merged again."""

import numpy as np
import pytest
import torch

from sklstm.network.sentences import (
    CLOSES,
    ENDS,
    GOES_ON,
    SHORT,
    Merge,
    cut_out,
    find_sentences,
    mark_tokens,
)


def test_cut_out_reads_the_steps_that_an_index_names():
    x = torch.arange(13 * 5 * 2).view(13, 5, 2)
    step, text = torch.tensor([[3, 12], [0, 7], [3, 0]]), torch.tensor([[4, 1], [0, 2], [4, 3]])
    assert torch.equal(cut_out(x, step * 5 + text), x[step, text])


@pytest.mark.parametrize(
    ("tokens", "mark"),
    [
        (
            [
                ".",
                "!",
                "?",
                "…",
                "。",
                "！",
                "？",
                "．",
                "｡",
                "end.",
                "what?!",
                'so."',
                "...",
                "。」",
            ],
            ENDS,
        ),
        (['"', "'", "’", "”", ")", "]", "}", "»", "」", "』", "）", "】", "》", "”)"], CLOSES),
        (["good", ",", ";", ":", "(", "“", "「", "n't", "3", "<unknown>", "-", "、"], GOES_ON),
    ],
)
def test_marks_of_tokens(tokens, mark):
    assert mark_tokens(tokens).tolist() == [mark] * len(tokens)


def cut_by_eye(text):
    tokens = text.split()
    ids = torch.arange(len(tokens)).unsqueeze(1)
    lengths = torch.tensor([len(tokens)])
    sentences = find_sentences(ids, lengths, marks=mark_tokens(tokens), device="cpu")
    pieces = np.split(tokens, np.cumsum(sentences.lengths[:, 0].tolist())[:-1])
    return [" ".join(piece) for piece in pieces]


@pytest.mark.parametrize(
    "sentences",
    [
        ["good"],
        ["good film"],
        ["good film ."],
        ["good .", "bad !", "so"],
        ["what ? ! . . .", "no"],
        ['he said " no . "', "she left ( why ? ) ] .", "i"],
        ["( what ?! )", "yes ."],
        [") good .", "bad"],
        [". . .", "good"],
        ["好 。 」", "不 好 ！ ？", "嗯"],
    ],
    ids=str,
)
def test_cuts_by_eye(sentences):
    assert cut_by_eye(" ".join(sentences)) == sentences


def cut_by_hand(marks):
    """Return the lengths of the sentences of one text, token by token."""
    lengths, over = [0], False
    for mark in marks:
        if over and mark == GOES_ON:
            lengths.append(0)
            over = False
        over = over or mark == ENDS
        lengths[-1] += 1
    return lengths


def test_sentences_of_a_batch_are_those_of_each_text():
    rng = np.random.default_rng(0)
    lengths = torch.tensor([150, 90, 40, 17, 1, 1])
    marks = torch.tensor([GOES_ON] * 24 + [CLOSES, CLOSES, ENDS], dtype=torch.int8)
    ids = torch.from_numpy(rng.integers(1, 27, size=(160, 6)).astype(np.int32))
    ids[60:, 0] = 1  # a long sentence
    ids[:3, 1] = 25
    ids *= torch.arange(160).unsqueeze(1) < lengths
    found = find_sentences(ids, lengths, marks=marks, device="cpu")
    expected = [cut_by_hand(marks[ids[:n, k].long()]) for k, n in enumerate(lengths.tolist())]
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
