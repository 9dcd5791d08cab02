"""Ids to the outputs of a text: embedding, LSTM, pooling, head."""

from collections import Counter

import torch
from torch import Tensor, nn

from sklstm.kernels.transfer import send
from sklstm.network.encoder import Embedded, Encoder, Prepared, find_different
from sklstm.network.pooling import POOLINGS, UndrawnLinear, attend
from sklstm.network.precision import casting
from sklstm.network.sentences import Merge, cut_out, find_sentences
from sklstm.network.settings import NetworkSettings
from sklstm.text.sentences import ID_BITS, ID_MASK
from sklstm.text.special_tokens import PADDING, UNKNOWN

# Floats of the largest tables of products that prediction makes: 256 MB.
MAX_TABLE = 2**26


class LSTMTextNetwork(Encoder):
    """Embedding -> LSTM -> (self-attention) -> pooling -> dropout -> linear.

    Parameters
    ----------
    settings : NetworkSettings
        Sizes, cell, pooling, dropouts, backend and precision.
    n_ids : int
        Number V of ids, the special ones included.
    n_outputs : int
        Number C of outputs: of the columns of the head.
    generator : torch.Generator
        Source of the first weights and of all dropout.

    With ``read_by='sentence'`` each id has, in bits above its own, what its token does to its
    sentence (``sklstm.text.sentences``).
    """

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        n_ids: int,
        n_outputs: int,
        generator: torch.Generator,
    ):
        super().__init__(settings, n_ids=n_ids, generator=generator)
        n_states = settings.hidden_size * self.lstm.num_directions
        self.pools = nn.ModuleList(
            POOLINGS[name](n_states, bidirectional=settings.bidirectional, generator=generator)
            for name in settings.pooling
        )
        #: The pools and their widths, in the order of the features.
        self.widths = [
            (name, settings.embedding_dim if name == "embedding_mean" else n_states)
            for name in settings.pooling
        ]
        self.n_pooled = sum(width for _, width in self.widths)
        if settings.read_by == "sentence":
            self.merge = Merge(self.n_pooled)
        self.head = UndrawnLinear(self.n_pooled, n_outputs)
        self.draw_embedding()
        self._draw_head()

    @torch.no_grad()
    def _draw_head(self):
        if self.head.weight.is_meta:
            return
        nn.init.xavier_uniform_(self.head.weight, generator=self.generator)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        ids: Tensor,  # (T, B) padded at the end with 0
        lengths: Tensor,  # (B,)
        prepared: Prepared | None = None,  # of ids that these are among
    ) -> Tensor:
        """Return the outputs (B, C)."""
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
        """Return the embeddings, after the dropouts of words and of numbers."""
        settings, ids = self.settings, self._without_marks(ids)
        if self.training and settings.word_dropout > 0:
            dropped = self.mask(self.embedding.weight, ids.shape, settings.word_dropout) == 0
            ids = torch.where(dropped & (ids != PADDING), UNKNOWN, ids)
        embedded = self._look_up(ids, prepared)
        if self.training and settings.embedding_dropout > 0:
            mask = self._mask_numbers(ids, embedded, settings.embedding_dropout)
            embedded = embedded._replace(vectors=embedded.vectors * mask)
        return embedded

    def _mask_numbers(self, ids, embedded, p):
        """Return a mask for the vectors in which equal tokens of a batch lose the same numbers.

        So they stay equal, and their products with the weights are computed once.
        """
        if embedded.index is not None:
            return self.mask(embedded.vectors, embedded.vectors.shape, p)
        mask = self.mask(self.embedding.weight, self.embedding.weight.shape, p)
        return nn.functional.embedding(ids, mask)

    def read(
        self,
        embedded: Embedded,  # of the ids
        ids: Tensor,  # (T, B)
        lengths: Tensor,  # (B,)
    ) -> Tensor:
        """Return the pooled representation (B, n_pooled) of embedded texts."""
        if self.settings.read_by == "sentence":
            sentences, found = self._read_sentences(embedded, ids, lengths)
            return self.merge(sentences, found.live)
        return self._read_rows(embedded, lengths, (ids != PADDING).unsqueeze(2))

    def classify(
        self,
        pooled: Tensor,  # (B, n_pooled)
    ) -> Tensor:
        """Return the outputs (B, C) of pooled representations."""
        return self.head(self.drop(pooled, self.settings.dropout))

    def classify_sentences(
        self,
        ids: Tensor,  # (T, B)
        lengths: Tensor,  # (B,)
        prepared: Prepared | None = None,  # of ids that these are among
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs of each sentence, its weight and its length: (S, B, C), twice (S, B).

        The weighted mean of the outputs is the text's. A text with fewer sentences has weights and
        lengths of 0.
        """
        sentences, found = self._read_sentences(self.embed(ids, prepared), ids, lengths)
        weights = self.merge.weigh(sentences, found.live)[:, :, 0]
        return self.classify(sentences), weights, found.lengths

    def prepare(self, ids: Tensor) -> Prepared | None:
        """Return what many predictions of these ids share, or None where that would be too large.

        Parameters
        ----------
        ids : Tensor of int32
            The ids that will occur, in any shape and number, on the CPU: to find the different
            ones on a card would be a wait for it.
        """
        different, place = find_different([self._without_marks(ids)], self.embedding.num_embeddings)
        n_gates = sum(len(p) for name, p in self.lstm.named_parameters() if "weight_ih_l0" in name)
        if len(different) * n_gates > MAX_TABLE:
            return None
        device = self.embedding.weight.device
        different, place = send(different, device), send(place, device)
        embedded = self.embedding(different)
        with casting(self, embedded.device):
            tables = self.lstm.tabulate(embedded)
        inputs = embedded if tables[0] is None else embedded.to(tables[0].dtype)
        return Prepared(embedded, place, tables, inputs)

    def _without_marks(self, ids):
        return ids & ID_MASK if self.settings.read_by == "sentence" else ids

    def _look_up(self, ids, prepared):
        """Return the embeddings (U, E) of the different ids, and which of them each id has (T, B).

        Most tokens of a batch occur more than once; what can be is computed once for all.
        """
        if prepared is not None:
            place = prepared.place[ids.long()]
            return Embedded(prepared.embedded, place, prepared.tables, prepared.inputs)
        if ids.is_cuda:  # to find the different ones there would be a wait for the card
            return Embedded(self.embedding(ids))
        different, index = ids.unique(return_inverse=True)
        return Embedded(self.embedding(different), index)

    def _read_sentences(self, embedded, ids, lengths):
        """Return the representation of each sentence (S, B, n_pooled), and where they are."""
        vectors = embedded.vectors
        found = find_sentences(ids.cpu() >> ID_BITS, lengths, device=vectors.device)
        pooled = []
        for rows in found.groups:
            own = _cut_out(embedded, rows.cut)
            step = torch.arange(len(rows.cut), device=vectors.device).unsqueeze(1)
            live = (step < send(rows.lengths, vectors.device)).unsqueeze(2)
            pooled.append(self._read_rows(own, rows.lengths, live))
        return torch.cat(pooled)[found.place], found

    def name_features(self) -> list[str]:
        """Return the names of the pooled features: pool and number."""
        names, count = [], Counter()
        for pool, width in self.widths:
            names += [f"{pool}_{k}" for k in range(count[pool], count[pool] + width)]
            count[pool] += width  # a pool that is named twice continues
        return names

    def _read_rows(self, embedded, lengths, live):
        """Return the pooled representation (B, n_pooled) of rows read from beginning to end."""
        vectors, names = embedded.vectors, self.settings.pooling
        of_states = frozenset(names) - {"embedding_mean"}
        with casting(self, vectors.device):
            states, pools = self.lstm.states_or_pools(
                *(embedded.inputs, lengths, embedded.index, embedded.tables),
                pools=frozenset() if self.settings.attention == "dot" else of_states,
            )
        if states is not None:
            # A sum over a text, or a softmax, has more digits than bfloat16.
            states = states.to(vectors.dtype)
            if self.settings.attention == "dot":
                states = attend(states, live)
        if "embedding_mean" in names:
            vectors = embedded.each()
        pooled = [
            pools[name]
            if name in pools
            else pool(vectors if name == "embedding_mean" else states, live)
            for name, pool in zip(names, self.pools, strict=True)
        ]
        return torch.cat(pooled, dim=1)


def _cut_out(embedded: Embedded, cut: Tensor) -> Embedded:
    """Return the embeddings of rows of a batch; ``cut`` (T', B') says which step each reads."""
    if embedded.index is None:
        return Embedded(cut_out(embedded.vectors, cut))
    return embedded._replace(index=embedded.index.flatten()[cut])
