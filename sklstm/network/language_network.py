"""Ids to the probabilities of the next id, and of the one before: embedding, LSTM, softmax."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sklstm.kernels.transfer import send
from sklstm.network.encoder import Encoder, find_different
from sklstm.network.pooling import UndrawnLinear
from sklstm.network.precision import casting
from sklstm.network.settings import NetworkSettings
from sklstm.text.special_tokens import PADDING

# Floats of the logits computed at a time: they stay in the processor's cache from the product to
# the softmax, and memory does not grow with the batch.
MAX_LOGITS = 2**19
# The product has a few columns more than negatives, for widths that processors like.
GRAIN = 16


class Candidates(NamedTuple):
    """What the softmax of a training step compares: rows of a table, and how they were drawn."""

    table: Tensor  # (U, E) the embeddings that the step reads
    bias: Tensor  # (U,) of the same ids
    negatives: Tensor  # (n,) rows of the table, none twice
    log_share: Tensor  # (n,) log of the chance with which each was drawn


class LSTMLanguageNetwork(Encoder):
    """Embedding -> LSTM -> projection -> softmax over all ids, with the embedding's weights.

    The forward states predict the token that follows, the backward states the one before. The two
    directions share nothing but the embedding. A second layer would see both, so two directions
    have one layer.

    Parameters
    ----------
    settings : NetworkSettings
        Sizes, cell, dropout, backend and precision.
    n_ids : int
        Number V of ids, the special ones included.
    generator : torch.Generator
        Source of the first weights and of all dropout.
    log_frequency : Tensor of shape (V,) or None
        First values of the biases: the logarithms of the frequencies of the ids.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        n_ids: int,
        generator: torch.Generator,
        log_frequency: Tensor | None = None,
    ):
        super().__init__(settings, n_ids=n_ids, generator=generator)
        self.projections = nn.ModuleList(
            UndrawnLinear(settings.hidden_size, settings.embedding_dim)
            for _ in range(self.lstm.num_directions)
        )
        self.bias = nn.Parameter(torch.zeros(n_ids))
        self.draw_embedding()
        self._draw_projections(log_frequency)

    @torch.no_grad()
    def _draw_projections(self, log_frequency):
        if self.bias.is_meta:
            return
        for projection in self.projections:
            nn.init.xavier_uniform_(projection.weight, generator=self.generator)
            nn.init.zeros_(projection.bias)
        if log_frequency is not None:
            self.bias.copy_(log_frequency)

    def forward(
        self,
        ids: Tensor,  # (T, B) without padding
        negatives: Tensor,  # (n,)
        log_share: Tensor,  # (n,)
    ) -> Tensor:
        """Return the mean loss of a token by the sampled softmax, over both directions."""
        different, place = find_different([ids, negatives], self.embedding.num_embeddings)
        table = self.embedding(different)
        candidates = Candidates(table, self.bias[different], place[negatives], log_share)
        index = place[ids.long()]
        with casting(self, ids.device):
            states = self.lstm.states(table, None, index)
        precision, states = states.dtype, states.to(table.dtype)
        contexts = torch.cat([c.flatten(0, 1) for c in self._contexts(states)])
        targets = torch.cat([index[1:].flatten(), index[:-1].flatten()][: len(self.projections)])
        return sampled_softmax_loss(contexts, targets, candidates, precision)

    def _contexts(self, states):
        """Return for each direction what predicts its targets, (T - 1, B, E).

        The forward states up to the last but one predict the tokens from the second on; the
        backward ones from the second on those up to the last but one.
        """
        states = self.drop(states, self.settings.dropout)
        halves = states.chunk(len(self.projections), dim=2)
        seen = (slice(None, -1), slice(1, None))
        return [p(half[s]) for p, half, s in zip(self.projections, halves, seen, strict=False)]

    def log_probabilities(
        self,
        ids: Tensor,  # (T, B) padded at the end with 0
        lengths: Tensor,  # (B,) on the CPU
    ) -> Tensor:
        """Return the log-probability of each token in each direction, (directions, T - 1, B).

        The first direction's are those of the tokens from the second on, the other's those of the
        tokens up to the last but one. Padding has 0.
        """
        if ids.is_cuda:  # to find the different ones there would be a wait for the card
            x, index = self.embedding(ids), None
        else:
            different, place = find_different([ids], self.embedding.num_embeddings)
            x, index = self.embedding(different), place[ids.long()]
        with casting(self, ids.device):
            states = self.lstm.states(x, lengths, index)
        contexts = self._contexts(states.to(self.bias.dtype))
        # Numbered on the CPU, since a card would have to say how many there are.
        is_live = torch.arange(1, len(ids)).unsqueeze(1) < lengths
        live = send(is_live.flatten().nonzero()[:, 0], ids.device)
        zeros = self.bias.new_zeros(is_live.shape).flatten()
        scores = [
            self._score(context.flatten(0, 1)[live], own.flatten()[live].long())
            for context, own in zip(contexts, (ids[1:], ids[:-1]), strict=False)
        ]
        return torch.stack([zeros.index_copy(0, live, own) for own in scores]).unflatten(
            1, is_live.shape
        )

    def _score(self, contexts, targets):
        """Return the log-probabilities of the targets (M,), by the softmax over all ids."""
        size = max(1, 16 * MAX_LOGITS // len(self.bias))
        return torch.cat(
            [
                -nn.functional.cross_entropy(self.logits(context), target, reduction="none")
                for context, target in zip(contexts.split(size), targets.split(size), strict=True)
            ]
        )

    def logits(
        self,
        contexts: Tensor,  # (M, E)
    ) -> Tensor:
        """Return the logits (M, V) of all ids; the padding's is minus infinity."""
        logits = torch.addmm(self.bias, contexts, self.embedding.weight.T)
        logits[:, PADDING] = -torch.inf
        return logits


def sampled_softmax_loss(
    contexts: Tensor,  # (M, E)
    targets: Tensor,  # (M,) rows of the table
    candidates: Candidates,
    precision: torch.dtype | None = None,
) -> Tensor:
    """Return the mean cross-entropy by a softmax over the target and the negatives.

    Each negative counts as often in the sum as it was likely to be left out: the sum is that over
    all ids on average, and exactly where all were drawn. A negative that is the target itself
    counts once (Jean et al. 2015, On Using Very Large Target Vocabulary).

    ``precision`` is that of the products, which may be lower than that of the rest; None is the
    same.
    """
    precision = precision or contexts.dtype
    return _SampledSoftmax.apply(contexts, targets, *candidates, precision)


class _SampledSoftmax(torch.autograd.Function):
    """The loss and its gradients, a few rows at a time, so that no (M, n) is ever in memory."""

    @staticmethod
    def forward(ctx, contexts, targets, table, bias, negatives, log_share, precision):
        n, m = len(negatives), len(targets)
        width = -(-(n + 1) // GRAIN) * GRAIN
        # The column behind the negatives is the target's; those behind it count for nothing.
        weight = table.new_zeros(width, table.shape[1])
        weight[:n] = table[negatives]
        offset = table.new_full((width,), -torch.inf)
        offset[:n] = bias[negatives] - log_share
        column = torch.full((len(table),), n, device=targets.device)
        column[negatives] = torch.arange(n, device=targets.device)
        column = column[targets]

        target_weight = table[targets]
        logit = (contexts * target_weight).sum(dim=1) + bias[targets]
        grad_contexts = torch.empty_like(contexts)
        grad_weight, grad_offset = torch.zeros_like(weight), torch.zeros_like(offset)
        p_target = torch.empty_like(logit)
        weight_there, contexts_there = weight.to(precision), contexts.to(precision)
        size = max(1, MAX_LOGITS // width)
        logits = contexts.new_empty(min(size, m), width)
        for begin in range(0, m, size):
            rows = slice(begin, begin + size)
            x = contexts_there[rows]
            p = logits[: len(x)]
            if precision == p.dtype:
                torch.addmm(offset, x, weight.T, out=p)
            else:
                p.copy_(x @ weight_there.T).add_(offset)
            p.scatter_(1, column[rows].unsqueeze(1), -torch.inf)
            p[:, n] = logit[rows]
            torch.softmax(p, dim=1, out=p)
            p_target[rows] = p[:, n]
            p[:, n] = 0.0
            grad_offset += p.sum(dim=0)
            p = p.to(precision)
            grad_contexts[rows] = p @ weight_there
            grad_weight += p.T @ contexts_there[rows]
        grad_target = p_target - 1.0
        grad_contexts.addcmul_(grad_target.unsqueeze(1), target_weight)
        grad_table = torch.zeros_like(table).index_add_(
            0, targets, contexts * grad_target.unsqueeze(1)
        )
        grad_table.index_add_(0, negatives, grad_weight[:n])
        grad_bias = torch.zeros_like(bias).index_add_(0, targets, grad_target)
        grad_bias.index_add_(0, negatives, grad_offset[:n])
        ctx.save_for_backward(grad_contexts, grad_table, grad_bias)
        ctx.n_rows = m
        tiny = torch.finfo(table.dtype).tiny
        return -p_target.clamp(min=tiny).log().mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        share = grad / ctx.n_rows
        grad_contexts, grad_table, grad_bias = (g * share for g in ctx.saved_tensors)
        return grad_contexts, None, grad_table, grad_bias, None, None, None


def log_frequencies(counts: np.ndarray) -> Tensor:
    """Return the log of the share of each id (V,), each counted once more than it came."""
    return torch.from_numpy(np.log((counts + 1.0) / (counts + 1.0).sum())).float()
