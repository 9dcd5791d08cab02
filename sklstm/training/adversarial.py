"""Training against perturbations of the embedded texts that change the answer most."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sklstm.network.text_network import Embedded, LSTMTextNetwork
from sklstm.text.batching import Batch
from sklstm.text.vectorizer import PADDING

# Size of the step by which the virtual direction is found, relative to the norm of the text: large
# beside the rounding of bfloat16, small beside the curvature of the network.
SEARCH_STEP = 0.01
# What a norm is divided by at least.
TINY = torch.finfo(torch.float32).tiny


class Adversary(NamedTuple):
    """How far, and by which measure, each text is moved to where the network errs most.

    A text is moved in its embeddings, after look-up and dropout, by ``share * ||x||`` in the
    direction of a gradient, where ||x|| is the norm of all its embeddings together. The share is
    relative to the norm, so that a network gains nothing from larger embeddings; Miyato et al.
    (2017) normalise the embeddings instead and move by 5, about 0.02 of a review of theirs.
    All passes of a step have the same dropout masks, so that what the move does is not mixed with
    what other masks do.

    Parameters
    ----------
    adversarial : float
        Share for the direction in which the loss of the text's target rises fastest; the loss there
        is added. 0 leaves it out.
    virtual : float
        Share for the direction in which the probabilities change most, whatever the target: the
        divergence KL(clean || moved) is added. The direction is found by one power iteration from a
        random one (Miyato et al. 2018). 0 leaves it out.

    References
    ----------
    Miyato, Dai & Goodfellow (2017), Adversarial Training Methods for Semi-Supervised Text
    Classification; Miyato, Maeda, Koyama & Ishii (2018), Virtual Adversarial Training. Sachan,
    Zaheer & Salakhutdinov (2019) add both.
    """

    adversarial: float
    virtual: float

    def __bool__(self) -> bool:
        """Return whether any text is moved."""
        return self.adversarial > 0 or self.virtual > 0

    def accumulate_gradients(
        self,
        network: LSTMTextNetwork,
        batch: Batch,
        loss_of: Callable[[Tensor], Tensor],  # from logits (B, C)
    ) -> tuple[Tensor, Tensor]:
        """Add the gradients of all losses to those of the weights; return the sum and the logits.

        Each loss has its own backward, so that memory holds one pass at a time; the gradient of the
        embedded text, which the clean pass yields, is the adversarial direction. The embeddings get
        their gradient once, from all passes.
        """
        ids = batch.ids.to(network.head.weight.device)
        embedded = network.embed(ids).each()
        x = embedded.detach().requires_grad_()
        live = (ids != PADDING).unsqueeze(2)
        noise = self._draw_noise(network, x)
        masks = network.generator.get_state()

        def classify(moved):
            network.generator.set_state(masks)
            return network.classify(network.read(Embedded(moved), ids, batch.lengths))

        logits = classify(x)
        losses = [_backward(loss_of(logits))]
        logits = logits.detach()
        if self.adversarial > 0:
            move = scale_like(x.grad, x, self.adversarial, live)
            losses.append(_backward(loss_of(classify(x + move))))
        if self.virtual > 0:
            step = scale_like(noise, x, SEARCH_STEP, live).requires_grad_()
            found = divergence(logits, classify(x.detach() + step)).sum()
            (direction,) = torch.autograd.grad(found, step)
            move = scale_like(direction, x, self.virtual, live)
            divergences = divergence(logits, classify(x + move))
            losses.append(_backward((divergences * batch.weights.to(x.device)).mean()))
        if embedded.requires_grad:  # unless a callback has frozen the embedding
            embedded.backward(x.grad)
        return sum(losses), logits

    def _draw_noise(self, network, x):
        """Return where the search for the virtual direction begins, drawn where the seed lives."""
        if self.virtual == 0:
            return None
        generator = network.generator
        noise = torch.empty(x.shape, dtype=x.dtype, device=generator.device)
        return noise.normal_(generator=generator).to(x.device)


def _backward(loss):
    loss.backward()
    return loss.detach()


@torch.no_grad()
def scale_like(
    direction: Tensor,  # (T, B, E)
    x: Tensor,  # (T, B, E)
    share: float,
    live: Tensor,  # (T, B, 1) which steps are tokens
) -> Tensor:
    """Return the direction of each text with the norm ``share * ||x||``, 0 in the padding.

    A text without a direction (a gradient of 0) stays where it is.
    """
    direction, x = direction * live, x * live
    # Gradients are so small that their squares may underflow.
    direction = direction / direction.abs().amax((0, 2), keepdim=True).clamp(min=TINY)
    norm = direction.square().sum((0, 2), keepdim=True).sqrt().clamp(min=TINY)
    return direction * (share * x.square().sum((0, 2), keepdim=True).sqrt() / norm)


def divergence(
    logits: Tensor,  # (B, C) a constant
    moved: Tensor,  # (B, C)
) -> Tensor:
    """Return the Kullback-Leibler divergence of the moved probabilities from the clean, (B,)."""
    clean = logits.detach().log_softmax(dim=1)
    return (clean.exp() * (clean - moved.log_softmax(dim=1))).sum(dim=1)
