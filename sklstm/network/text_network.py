"""Ids to logits: embedding, LSTM, pooling, head."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sklstm.lstm import LSTM, dropout_mask
from sklstm.network.sentences import Merge, find_rows, find_sentences, rearrange
from sklstm.text.vectorizer import PADDING, UNKNOWN

# Floats of the largest tables of products that prediction makes: 256 MB.
MAX_TABLE = 2**26


class Prepared(NamedTuple):
    """The embeddings of the different ids of many batches, and their products with the weights."""

    embedded: Tensor  # (U, E)
    place: Tensor  # (V,) id -> the row of it
    tables: list[Tensor | None]  # for each direction of the first layer


class Embedded(NamedTuple):
    """The embeddings of a batch's tokens: one a token, or of the different ids with an index."""

    vectors: Tensor  # (T, B, E), or (U, E) with an index
    index: Tensor | None = None  # (T, B) the row that is read at a step of a text
    tables: list[Tensor | None] | None = None  # what has been prepared of the vectors

    def each(self) -> Tensor:
        """Return the embedding of each token, (T, B, E)."""
        if self.index is None:
            return self.vectors
        return nn.functional.embedding(self.index, self.vectors)


class LSTMTextNetwork(nn.Module):
    """Embedding -> LSTM -> (self-attention) -> pooling -> dropout -> linear.

    Parameters
    ----------
    n_ids : int
        Number V of ids, the special ones included.
    n_classes : int
        Number C of classes.
    embedding_dim, hidden_size, num_layers : int
        Sizes of the embedding and of the LSTM.
    bidirectional : bool
        Whether the LSTM also reads each text backwards.
    attention : {'dot'} or None
        Whether each state is replaced by the mean of all states, weighted by the softmax of
        its dot products with them.
    segments : int, 'sentence' or None
        Tokens after which a text is cut: each row of so many runs through the LSTM by itself, and
        the states of all rows are those of the text. With 'sentence' each sentence is read and
        pooled by itself, and a weighted mean of these is the representation of the text.
    marks : Tensor of shape (V,) or None
        What each id does to its sentence (:func:`~sklstm.network.sentences.mark_tokens`),
        for 'sentence'.
    pooling : tuple of str
        Names of ``POOLINGS``, concatenated in this order.
    dropout : float
        Share of the pooled representation, and of the states between layers, to drop.
    embedding_dropout : float
        Share of the embedding's columns to drop, the same at all steps of a text.
    word_dropout : float
        Share of the tokens to replace by the unknown one.
    input_dropout, recurrent_dropout, weight_dropout, zoneout : float
        Of the LSTM; see :class:`~sklstm.lstm.LSTM`.
    cell, backend : str
        Of the LSTM; see :class:`~sklstm.lstm.LSTM`.
    precision : {'auto', 'float32', 'bfloat16'}
        What the LSTM computes in. 'auto' is bfloat16 while training on a device with units for
        it, and float32 otherwise. Everything around the LSTM is in the weights' dtype always.
    generator : torch.Generator
        Source of the first weights and of all dropout.
    """

    def __init__(
        self,
        *,
        n_ids: int,
        n_classes: int,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        attention: str | None,
        segments: int | str | None,
        marks: Tensor | None,
        pooling: tuple[str, ...],
        dropout: float,
        embedding_dropout: float,
        word_dropout: float,
        input_dropout: float,
        recurrent_dropout: float,
        weight_dropout: float,
        zoneout: float,
        cell: str,
        backend: str,
        precision: str,
        generator: torch.Generator,
    ):
        super().__init__()
        self.attention = attention
        self.segments = segments
        self.marks = marks
        self.pooling = pooling
        self.dropout = dropout
        self.embedding_dropout = embedding_dropout
        self.word_dropout = word_dropout
        self.precision = precision
        self.generator = generator
        # skip_init leaves torch's global random state alone; the weights are drawn below.
        self.embedding = nn.utils.skip_init(nn.Embedding, n_ids, embedding_dim, padding_idx=PADDING)
        self.lstm = LSTM(
            embedding_dim,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            input_dropout=input_dropout,
            recurrent_dropout=recurrent_dropout,
            weight_dropout=weight_dropout,
            zoneout=zoneout,
            cell=cell,
            backend=backend,
            generator=generator,
        )
        n_states = hidden_size * self.lstm.num_directions
        self.pools = nn.ModuleList(
            POOLINGS[name](n_states, bidirectional=bidirectional, generator=generator)
            for name in pooling
        )
        self.n_pooled = sum(
            embedding_dim if name == "embedding_mean" else n_states for name in pooling
        )
        if segments == "sentence":
            self.merge = Merge(self.n_pooled)
        self.head = nn.utils.skip_init(nn.Linear, self.n_pooled, n_classes)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the first weights of embedding and head; the other layers drew theirs."""
        nn.init.normal_(self.embedding.weight, std=0.1, generator=self.generator)
        self.embedding.weight[PADDING] = 0.0
        nn.init.xavier_uniform_(self.head.weight, generator=self.generator)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        ids: Tensor,  # (T, B) padded at the end with 0
        lengths: Tensor,  # (B,)
        prepared: Prepared | None = None,  # of ids that these are among
    ) -> Tensor:
        """Return the logits (B, C)."""
        return self.classify(self.pool(ids, lengths, prepared))

    def pool(
        self,
        ids: Tensor,  # (T, B)
        lengths: Tensor,  # (B,)
        prepared: Prepared | None = None,  # of ids that these are among
    ) -> Tensor:
        """Return the pooled representation (B, n_pooled)."""
        return self.read(self.embed(ids, prepared), ids, lengths)

    def embed(
        self,
        ids: Tensor,  # (T, B)
        prepared: Prepared | None = None,  # of ids that these are among
    ) -> Embedded:
        """Return the embeddings, after the dropouts of words and of columns."""
        if self.training and self.word_dropout > 0:
            dropped = self._mask(self.embedding.weight, ids.shape, self.word_dropout) == 0
            ids = torch.where(dropped & (ids != PADDING), UNKNOWN, ids)
        embedded = self._look_up(ids, prepared)
        if self.training and self.embedding_dropout > 0:
            vectors = embedded.each()
            mask = self._mask(vectors, vectors.shape[1:], self.embedding_dropout)
            embedded = Embedded(vectors * mask)
        return embedded

    def read(
        self,
        embedded: Embedded,  # of the ids
        ids: Tensor,  # (T, B)
        lengths: Tensor,  # (B,)
    ) -> Tensor:
        """Return the pooled representation (B, n_pooled) of embedded texts."""
        if self.segments == "sentence":
            sentences, found = self._read_sentences(embedded, ids, lengths)
            return self.merge(sentences, found.live)
        return self._read_rows(embedded, lengths, (ids != PADDING).unsqueeze(2))

    def classify_sentences(
        self,
        ids: Tensor,  # (T, B)
        lengths: Tensor,  # (B,)
        prepared: Prepared | None = None,  # of ids that these are among
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of each sentence, its weight and its length: (S, B, C), twice (S, B).

        The weighted mean of the logits is the text's. A text with fewer sentences has weights and
        lengths of 0.
        """
        sentences, found = self._read_sentences(self.embed(ids, prepared), ids, lengths)
        weights = self.merge.weigh(sentences, found.live)[:, :, 0]
        return self.classify(sentences), weights, found.lengths

    def _read_sentences(self, embedded, ids, lengths):
        """Return the representation of each sentence (S, B, n_pooled), and where they stand."""
        vectors = embedded.vectors
        found = find_sentences(ids.cpu(), lengths, marks=self.marks, device=vectors.device)
        pooled = []
        for rows in found.groups:
            own = _cut_out(embedded, rows.cut)
            step = torch.arange(len(rows.cut), device=vectors.device).unsqueeze(1)
            live = (step < rows.lengths.to(vectors.device)).unsqueeze(2)
            pooled.append(self._read_rows(own, rows.lengths, live))
        return torch.cat(pooled)[found.place], found

    def _read_rows(self, embedded, lengths, live):
        """Return the pooled representation (B, n_pooled) of rows read from beginning to end."""
        vectors = embedded.vectors
        with casting(self, vectors.device):
            states = self._states(vectors, lengths, embedded.index, embedded.tables)
        # A sum over a text, or a softmax, has more digits than bfloat16.
        states = states.to(vectors.dtype)
        if self.attention == "dot":
            states = attend(states, live)
        if "embedding_mean" in self.pooling:
            vectors = embedded.each()
        pooled = [
            pool(vectors if name == "embedding_mean" else states, live)
            for name, pool in zip(self.pooling, self.pools, strict=True)
        ]
        return torch.cat(pooled, dim=1)

    def classify(
        self,
        pooled: Tensor,  # (B, n_pooled)
    ) -> Tensor:
        """Return the logits (B, C) of pooled representations."""
        return self.head(self._drop(pooled, self.dropout))

    def _look_up(self, ids, prepared):
        """Return the embeddings (U, E) of the different ids, and which of them is each id's (T, B).

        Most tokens of a batch come more than once; what can be, is done once for all. And the
        tables of the LSTM, where they have been prepared.
        """
        if prepared is not None:
            return Embedded(prepared.embedded, prepared.place[ids.long()], prepared.tables)
        different, index = ids.unique(return_inverse=True)
        return Embedded(self.embedding(different), index)

    def prepare(self, ids: Tensor) -> Prepared | None:
        """Return what many predictions of these ids share, or None where that would be too large.

        Parameters
        ----------
        ids : Tensor of int32
            The ids that will come, in any shape, as often as they come.
        """
        different, place = find_different([ids], self.embedding.num_embeddings)
        n_gates = sum(len(p) for name, p in self.lstm.named_parameters() if "weight_ih_l0" in name)
        if len(different) * n_gates > MAX_TABLE:
            return None
        embedded = self.embedding(different)
        with casting(self, embedded.device):
            tables = self.lstm.tabulate(embedded)
        return Prepared(embedded, place, tables)

    def _states(self, embedded, lengths, index, tables):
        """Return the states (T, B, F) of the LSTM, which reads long texts in segments."""
        if self.segments in (None, "sentence") or int(lengths.max()) <= self.segments:
            return self.lstm.states(embedded, lengths, index, tables)
        n_steps = len(embedded if index is None else index)
        rows = find_rows(lengths, n_steps=n_steps, width=self.segments, device=embedded.device)
        embedded, index, _ = _cut_out(Embedded(embedded, index), rows.cut)
        return rearrange(self.lstm.states(embedded, rows.lengths, index, tables), rows.join)

    def _drop(self, x, p):
        if not self.training or p == 0:
            return x
        return x * self._mask(x, x.shape, p)

    def _mask(self, like, shape, p):
        return dropout_mask(like, shape, p=p, generator=self.generator)


def find_different(ids: list[Tensor], n_ids: int) -> tuple[Tensor, Tensor]:
    """Return the different ids (U,), padding among them, and the place of each id (V,) in them."""
    comes = torch.zeros(n_ids, dtype=torch.bool, device=ids[0].device)
    for some in ids:
        comes[some.long()] = True
    comes[PADDING] = True
    return comes.nonzero()[:, 0], comes.cumsum(0) - 1


def casting(network: nn.Module, device: torch.device):
    """Return the context that makes a network's LSTM compute in bfloat16, or one without effect."""
    by_itself = network.precision == "auto" and network.training and network.lstm.can_be_fused
    if (by_itself and has_bfloat16_units(device)) or network.precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def _cut_out(embedded: Embedded, cut: Tensor) -> Embedded:
    """Return the embeddings of rows of a batch, ``cut`` (T', B') saying which step each reads."""
    if embedded.index is None:
        return Embedded(rearrange(embedded.vectors, cut))
    return embedded._replace(index=embedded.index.flatten()[cut])


def has_bfloat16_units(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 in matrix units, faster than float32.

    On a CPU that is Intel's AMX. Vector units for it (AVX-512's) do not count: whether they make up
    for the casts has not been measured. A torch too old to tell of AMX is taken at its silence.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # older cards emulate it
    if device.type != "cpu":
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16", False))


def attend(
    states: Tensor,  # (T, B, F)
    live: Tensor,  # (T, B, 1)
) -> Tensor:
    """Return dot-product self-attention over the live states, (T, B, F) (Luong et al. 2015)."""
    h = states.transpose(0, 1)
    scores = h @ h.transpose(1, 2)
    scores = scores.masked_fill(~live.permute(1, 2, 0), -torch.inf)
    return (scores.softmax(dim=2) @ h).transpose(0, 1)


class Pool(nn.Module):
    """What turns states (T, B, F) and the mask of live steps (T, B, 1) into (B, F).

    States that are not live are finite, but mean nothing.

    Parameters
    ----------
    n_states : int
        Number F of features of a state.
    bidirectional : bool
        Whether the second half of the features comes from the backward direction.
    generator : torch.Generator
        Source of the first weights, where a pool has any.
    """

    def __init__(self, n_states: int, *, bidirectional: bool, generator: torch.Generator):
        super().__init__()
        self.n_states = n_states
        self.bidirectional = bidirectional


class Last(Pool):
    """The last state of each direction: the backward one ends at the first token."""

    def forward(self, states: Tensor, live: Tensor) -> Tensor:
        """Pool (T, B, F) into (B, F)."""
        last = (live.sum(dim=0) - 1).unsqueeze(0).expand(1, -1, self.n_states)
        forward = states.gather(0, last)[0]
        if not self.bidirectional:
            return forward
        hidden = self.n_states // 2
        return torch.cat([forward[:, :hidden], states[0, :, hidden:]], dim=1)


class Mean(Pool):
    """The mean over the tokens."""

    def forward(self, states: Tensor, live: Tensor) -> Tensor:
        """Pool (T, B, F) into (B, F)."""
        return (states * live.to(states.dtype)).sum(dim=0) / live.sum(dim=0)


class EmbeddingMean(Mean):
    """The mean over the tokens' embeddings, which goes past the LSTM."""


class Max(Pool):
    """The maximum over the tokens."""

    def forward(self, states: Tensor, live: Tensor) -> Tensor:
        """Pool (T, B, F) into (B, F)."""
        states = states + torch.where(live, 0.0, -torch.inf)
        # With gradients, max is the faster one: it remembers where it was.
        return states.max(dim=0).values if states.requires_grad else states.amax(dim=0)


class Attention(Pool):
    """The mean over the tokens, weighted by a learnt judgement of each (Yang et al. 2016)."""

    def __init__(self, n_states: int, *, bidirectional: bool, generator: torch.Generator):
        super().__init__(n_states, bidirectional=bidirectional, generator=generator)
        self.hidden = nn.utils.skip_init(nn.Linear, n_states, n_states)
        self.query = nn.Parameter(torch.empty(n_states))
        nn.init.xavier_uniform_(self.hidden.weight, generator=generator)
        nn.init.zeros_(self.hidden.bias)
        nn.init.normal_(self.query, std=n_states**-0.5, generator=generator)

    def forward(self, states: Tensor, live: Tensor) -> Tensor:
        """Pool (T, B, F) into (B, F)."""
        scores = (self.hidden(states).tanh() @ self.query).unsqueeze(2)
        weights = scores.masked_fill(~live, -torch.inf).softmax(dim=0)
        return (states * weights).sum(dim=0)


#: The pools by name.
POOLINGS = {
    "last": Last,
    "mean": Mean,
    "max": Max,
    "attention": Attention,
    "embedding_mean": EmbeddingMean,
}
