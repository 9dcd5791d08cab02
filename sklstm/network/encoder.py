"""Embedding and LSTM: what the networks of all estimators have in common."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sklstm.lstm import LSTM, dropout_mask
from sklstm.network.settings import NetworkSettings
from sklstm.text.special_tokens import PADDING


class Prepared(NamedTuple):
    """The embeddings of the different ids of many batches, and their products with the weights."""

    embedded: Tensor  # (U, E)
    place: Tensor  # (V,) id -> its row
    tables: list[Tensor | None]  # for each direction of the first layer
    inputs: Tensor  # (U, E) the embeddings in the precision of the LSTM, once for all batches


class Embedded(NamedTuple):
    """The embeddings of a batch's tokens: one a token, or of the different ids with an index."""

    vectors: Tensor  # (T, B, E), or (U, E) with an index
    index: Tensor | None = None  # (T, B) the row that is read at a step of a text
    tables: list[Tensor | None] | None = None  # products of the vectors, where prepared
    prepared: Tensor | None = None  # (U, E) the vectors in the precision of the LSTM

    @property
    def inputs(self) -> Tensor:
        """What the LSTM reads."""
        return self.vectors if self.prepared is None else self.prepared

    def each(self) -> Tensor:
        """Return the embedding of each token, (T, B, E)."""
        if self.index is None:
            return self.vectors
        return nn.functional.embedding(self.index, self.vectors)


class Encoder(nn.Module):
    """Embedding -> LSTM: the base class of the networks, so that weights have one name in all.

    A subclass draws the first weights of its further modules, and then calls ``draw_embedding``.

    Parameters
    ----------
    settings : NetworkSettings
        Sizes, cell, dropouts, backend and precision.
    n_ids : int
        Number V of ids, the special ones included.
    generator : torch.Generator
        Source of the first weights and of all dropout.
    """

    def __init__(self, settings: NetworkSettings, *, n_ids: int, generator: torch.Generator):
        super().__init__()
        self.settings = settings
        self.generator = generator
        # Made from a weight, so that torch draws none from its global random state.
        undrawn = torch.empty(n_ids, settings.embedding_dim)
        self.embedding = nn.Embedding.from_pretrained(undrawn, freeze=False, padding_idx=PADDING)
        self.lstm = LSTM(
            settings.embedding_dim,
            settings.hidden_size,
            num_layers=settings.num_layers,
            bidirectional=settings.bidirectional,
            dropout=settings.dropout,
            input_dropout=settings.input_dropout,
            recurrent_dropout=settings.recurrent_dropout,
            weight_dropout=settings.weight_dropout,
            zoneout=settings.zoneout,
            cell=settings.cell,
            backend=settings.backend,
            generator=generator,
        )

    @torch.no_grad()
    def draw_embedding(self) -> None:
        """Draw the first weights of the embedding; the LSTM drew its own.

        On the meta device, which has no memory, there is nothing to draw. Torch could pretend to,
        and would import a compiler for that.
        """
        if self.embedding.weight.is_meta:
            return
        nn.init.normal_(self.embedding.weight, std=0.1, generator=self.generator)
        self.embedding.weight[PADDING] = 0.0

    def drop(self, x: Tensor, p: float) -> Tensor:
        """Return x with a share p of it dropped, while training."""
        return x * self.mask(x, x.shape, p) if self.training and p > 0 else x

    def mask(self, like: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
        """Return a dropout mask of the dtype and device of ``like``."""
        return dropout_mask(like, shape, p=p, generator=self.generator)


def find_different(ids: list[Tensor], n_ids: int) -> tuple[Tensor, Tensor]:
    """Return the different ids (U,), padding included, and the place of each id (V,) in them."""
    occurs = torch.zeros(n_ids, dtype=torch.bool, device=ids[0].device)
    # index_fill_ takes the number itself; an assignment would send it to a card, and wait.
    for some in ids:
        occurs.index_fill_(0, some.long().flatten(), True)
    occurs[PADDING : PADDING + 1].fill_(True)
    return occurs.nonzero()[:, 0], occurs.cumsum(0) - 1
