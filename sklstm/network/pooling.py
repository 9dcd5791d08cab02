"""The states of a text in one vector: self-attention, and the pools by name."""

import torch
from torch import Tensor, nn

from sklstm.names import did_you_mean


class UndrawnLinear(nn.Linear):
    """A linear layer whose weights the network draws, from its own generator.

    (torch's ``skip_init`` would do, but it imports torch's compiler, which slows a fresh process.)
    """

    def reset_parameters(self) -> None:
        """Draw nothing."""


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
    """Turns states (T, B, F) and the mask of live steps (T, B, 1) into (B, F).

    States that are not live are finite and meaningless.

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
    """The mean over the tokens' embeddings, which bypasses the LSTM."""


class Max(Pool):
    """The maximum over the tokens."""

    def forward(self, states: Tensor, live: Tensor) -> Tensor:
        """Pool (T, B, F) into (B, F)."""
        states = states + torch.where(live, 0.0, -torch.inf)
        # With gradients, max is the faster one: it remembers where it was.
        return states.max(dim=0).values if states.requires_grad else states.amax(dim=0)


class Attention(Pool):
    """The mean over the tokens, weighted by a learnt score of each (Yang et al. 2016)."""

    def __init__(self, n_states: int, *, bidirectional: bool, generator: torch.Generator):
        super().__init__(n_states, bidirectional=bidirectional, generator=generator)
        self.hidden = UndrawnLinear(n_states, n_states)
        self.query = nn.Parameter(torch.empty(n_states))
        if self.query.is_meta:
            return
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


def check_pooling(pooling) -> None:
    """Raise ValueError unless every name of ``pooling`` is known and there is one."""
    names = [pooling] if isinstance(pooling, str) else list(pooling)
    wrong = [name for name in names if name not in list(POOLINGS)]
    if not names or wrong:
        raise ValueError(
            f"pooling must name one or more of {', '.join(map(repr, sorted(POOLINGS)))}; "
            f"got {pooling!r}.{did_you_mean(wrong[0], POOLINGS) if wrong else ''}"
        )
