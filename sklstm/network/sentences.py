"""Long texts cut into rows of so many tokens, or into sentences, and put together again."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

# What a token does to its sentence.
GOES_ON, ENDS, CLOSES = 0, 1, 2
_ENDING = frozenset(".!?\u2026\u3002\uff01\uff1f\uff0e\uff61")  # the last five: … 。 ！ ？ ． ｡
_CLOSING = frozenset("\"'\u2019\u201d)]}\u00bb\u300d\u300f\uff09\u3011\u300b")
# Sentences up to so many tokens share a tensor, those of up to twice as many the next, and so on: a
# batch holds sentences of 2 tokens and of 200.
SHORT = 16


class Rows(NamedTuple):
    """Where the steps of rows and texts come from, as flat indexes; the padding's mean nothing.

    A text takes as many of the R rows as it fills, so that no row is empty.
    """

    lengths: Tensor  # (R,)
    cut: Tensor  # (n, R) the place among the T * B of the texts
    join: Tensor | None  # (T, B) the place among the n * R of the rows


def find_rows(
    lengths: Tensor,  # (B,)
    *,
    n_steps: int,
    width: int,
    device: torch.device,
) -> Rows:
    """Return the rows of ``width`` steps that texts are cut into; a text's last may be shorter.

    Examples
    --------
    >>> import torch
    >>> from sklstm.network.sentences import find_rows
    >>> rows = find_rows(torch.tensor([5, 1]), n_steps=5, width=3, device="cpu")
    >>> rows.lengths.tolist()  # the first text's first three, the second text, the first's last two
    [3, 1, 2]
    >>> rows.cut.tolist()
    [[0, 1, 6], [2, 0, 8], [4, 0, 0]]
    """
    lengths, n_texts = lengths.cpu(), len(lengths)
    first = torch.arange(0, n_steps, width).unsqueeze(1)
    row_lengths = (lengths - first).clamp(0, width)  # (rows a text, B)
    segment, text = row_lengths.nonzero(as_tuple=True)
    row_lengths, n_rows = row_lengths[segment, text], len(text)

    step = torch.arange(width).unsqueeze(1)
    cut = (segment * width + step) * n_texts + text
    row = torch.zeros(len(first), n_texts, dtype=torch.int64)
    row[segment, text] = torch.arange(n_rows)
    time = torch.arange(n_steps)
    join = (time % width).unsqueeze(1) * n_rows + row[time // width]
    return Rows(
        row_lengths,
        torch.where(step < row_lengths, cut, 0).to(device),
        torch.where(time.unsqueeze(1) < lengths, join, 0).to(device),
    )


def rearrange(
    x: Tensor,  # (T, B, F)
    index: Tensor,  # (T', B') flat indexes
) -> Tensor:
    """Return the steps that an index names, (T', B', F)."""
    return x.flatten(0, 1).index_select(0, index.flatten()).view(*index.shape, x.shape[2])


class Segment(NamedTuple):
    """A sentence of a text, and what it says by itself.

    Attributes
    ----------
    tokens : list of str
        What the sentence consists of, as the vectorizer cuts it.
    probabilities : ndarray of shape (n_classes,)
        Those of the classes, columns in the order of ``classes_``.
    weight : float
        The sentence's say in the text's answer; those of a text add up to 1.
    """

    tokens: list[str]
    probabilities: np.ndarray
    weight: float


def mark_tokens(tokens: Iterable[str]) -> Tensor:
    """Return what each token does to its sentence: it goes on, the token ends or closes it.

    A sentence ends with a token whose last character is one of . ! ? and the ellipsis or a
    full-width form of them. All such tokens that follow, and closing quotes and brackets among
    and behind them, belong to it.

    Examples
    --------
    >>> from sklstm.network.sentences import mark_tokens
    >>> mark_tokens(["good", "!", ")", "end.", "“", "。"]).tolist()
    [0, 1, 2, 1, 0, 1]
    """
    return torch.tensor([_mark(token) for token in tokens], dtype=torch.int8)


def _mark(token):
    characters = list(token)
    while characters and characters[-1] in _CLOSING:
        characters.pop()
    if not characters:
        return CLOSES
    return ENDS if characters[-1] in _ENDING else GOES_ON


class Sentences(NamedTuple):
    """The sentences of a batch in groups of like length, and where those of each text stand."""

    groups: list[Rows]  # without ``join``
    place: Tensor  # (S, B) the row of all groups' that is a text's first, second, ... sentence
    live: Tensor  # (S, B, 1) whether a text has so many
    lengths: Tensor  # (S, B) the tokens of each


def find_sentences(
    ids: Tensor,  # (T, B) on the CPU
    lengths: Tensor,  # (B,)
    *,
    marks: Tensor,  # (V,) of ``mark_tokens``
    device: torch.device,
) -> Sentences:
    """Return where the sentences of a batch stand.

    Examples
    --------
    >>> import torch
    >>> from sklstm.network.sentences import find_sentences, mark_tokens
    >>> marks = mark_tokens(["<padding>", "<unknown>", "<boundary>", "so", ".", "?"])
    >>> ids = torch.tensor([[3, 3], [5, 0], [4, 0], [3, 0]])  # "so ? . so", "so"
    >>> sentences = find_sentences(ids, torch.tensor([4, 1]), marks=marks, device="cpu")
    >>> sentences.lengths.tolist()
    [[3, 1], [1, 0]]
    """
    n_steps, n_texts = ids.shape
    step = torch.arange(n_steps).unsqueeze(1)
    marked = marks[ids.long()]
    # What closes does as the last token before it that does not.
    speaks = torch.where(marked == CLOSES, -1, step).cummax(dim=0).values
    over = marked.gather(0, speaks.clamp(min=0)) == ENDS
    begins = step < lengths.cpu()
    begins[1:] &= over[:-1] & ~over[1:]
    text, first = begins.T.nonzero(as_tuple=True)  # text by text, in the order of reading
    begin = text * n_steps + first
    end = torch.cat([begin[1:], begin.new_tensor([n_texts * n_steps])])
    row_lengths = torch.minimum(end, text * n_steps + lengths.cpu()[text]) - begin

    order, groups = [], []
    size = torch.frexp((row_lengths.clamp(min=SHORT) - 1).double()).exponent
    for exponent in size.unique():
        rows = (size == exponent).nonzero()[:, 0]
        rows = rows[row_lengths[rows].argsort(descending=True, stable=True)]
        order.append(rows)
        groups.append(_cut_out(text[rows], first[rows], row_lengths[rows], n_texts, device))
    number = first.new_empty(len(text))
    number[torch.cat(order)] = torch.arange(len(text))
    rank = torch.arange(len(text)) - torch.searchsorted(text, text)
    place = torch.zeros(2, int(rank.max()) + 1, n_texts, dtype=torch.int64)
    place[:, rank, text] = torch.stack([number, row_lengths])
    live = (place[1] > 0).unsqueeze(2)
    return Sentences(groups, place[0].to(device), live.to(device), place[1])


def _cut_out(text, first, lengths, n_texts, device):
    """Return rows that begin at the step ``first`` of a text."""
    step = torch.arange(int(lengths[0])).unsqueeze(1)
    cut = torch.where(step < lengths, (first + step) * n_texts + text, 0)
    return Rows(lengths, cut.to(device), None)


class Merge(nn.Module):
    """The mean over a text's sentences, weighted by a learnt judgement of each.

    The weights are the softmax of a linear function of each sentence, which is 0 at first, so that
    training begins with the plain mean.

    Parameters
    ----------
    n_features : int
        Number F of features of a sentence.

    References
    ----------
    Kotzias et al. (2015), From Group to Individual Labels Using Deep Features; Angelidis & Lapata
    (2018), Multiple Instance Learning Networks for Fine-Grained Sentiment Analysis.
    """

    def __init__(self, n_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_features))

    def weigh(
        self,
        sentences: Tensor,  # (S, B, F)
        live: Tensor,  # (S, B, 1)
    ) -> Tensor:
        """Return the weight of each sentence, (S, B, 1); those of a text add up to 1."""
        scores = (sentences @ self.weight).unsqueeze(2)
        return scores.masked_fill(~live, -torch.inf).softmax(dim=0)

    def forward(
        self,
        sentences: Tensor,  # (S, B, F)
        live: Tensor,  # (S, B, 1)
    ) -> Tensor:
        """Return the representation of each text, (B, F)."""
        return (sentences * self.weigh(sentences, live)).sum(dim=0)
