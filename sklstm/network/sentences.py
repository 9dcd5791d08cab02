"""Texts read sentence by sentence: where they are in a batch, and how they merge."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sklstm.kernels.transfer import send
from sklstm.text.sentences import CLOSES, ENDS

# Sentences of up to this many tokens share a tensor, those of up to twice as many the next, and so
# on: a batch holds sentences of 2 tokens and of 200.
SHORT = 16


class Rows(NamedTuple):
    """Sentences of a batch as rows of a tensor, and where their steps come from."""

    lengths: Tensor  # (R,)
    cut: Tensor  # (n, R) the place among the T * B of the texts; of the padding, any place


def cut_out(
    x: Tensor,  # (T, B, F)
    index: Tensor,  # (T', B') places among the T * B
) -> Tensor:
    """Return the steps that an index names, (T', B', F)."""
    return x.flatten(0, 1).index_select(0, index.flatten()).view(*index.shape, x.shape[2])


class Sentences(NamedTuple):
    """The sentences of a batch in groups of like length, and where those of each text are."""

    groups: list[Rows]
    place: Tensor  # (S, B) the row, of those of all groups, of a text's first, second, ... sentence
    live: Tensor  # (S, B, 1) whether a text has that many
    lengths: Tensor  # (S, B) the tokens of each


def find_sentences(
    marks: Tensor,  # (T, B) on the CPU (``sklstm.text.sentences``)
    lengths: Tensor,  # (B,)
    *,
    device: torch.device | str,  # of the result
) -> Sentences:
    """Return where the sentences of a batch are.

    Examples
    --------
    >>> import torch
    >>> from sklstm.network.sentences import find_sentences
    >>> marks = torch.tensor([[0, 0], [3, 0], [3, 0], [0, 0]])  # "so ? . so", "so"
    >>> sentences = find_sentences(marks, torch.tensor([4, 1]), device="cpu")
    >>> sentences.lengths.tolist()
    [[3, 1], [1, 0]]
    """
    n_steps, n_texts = marks.shape
    step = torch.arange(n_steps).unsqueeze(1)
    # What only closes leaves the sentence as the last token before it that does more.
    ends, closes = (marks & ENDS) > 0, (marks & CLOSES) > 0
    speaks = torch.where(closes & ~ends, -1, step).cummax(dim=0).values
    is_over = ends.gather(0, speaks.clamp(min=0))
    begins = step < lengths.cpu()
    begins[1:] &= is_over[:-1] & ~closes[1:]
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
        groups.append(_rows_from(text[rows], first[rows], row_lengths[rows], n_texts, device))
    number = first.new_empty(len(text))
    number[torch.cat(order)] = torch.arange(len(text))
    rank = torch.arange(len(text)) - torch.searchsorted(text, text)
    place = torch.zeros(2, int(rank.max()) + 1, n_texts, dtype=torch.int64)
    place[:, rank, text] = torch.stack([number, row_lengths])
    live = (place[1] > 0).unsqueeze(2)
    return Sentences(groups, send(place[0], device), send(live, device), place[1])


def _rows_from(text, first, lengths, n_texts, device):
    """Return rows that begin at the step ``first`` of a text."""
    step = torch.arange(int(lengths[0])).unsqueeze(1)
    cut = torch.where(step < lengths, (first + step) * n_texts + text, 0)
    return Rows(lengths, send(cut, device))


class Merge(nn.Module):
    """The mean over a text's sentences, weighted by a learnt score of each.

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
