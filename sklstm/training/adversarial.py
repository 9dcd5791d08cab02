"""Training against perturbations of the embedded texts that change the outputs most."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sklstm.kernels.transfer import generator_on, send
from sklstm.network.encoder import Embedded
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.tasks.protocol import Task
from sklstm.text.batching import Batch
from sklstm.text.special_tokens import PADDING
from sklstm.training.settings import TrainingSettings
from sklstm.training.steps import Supervised, mean_loss

# Size of the step by which the virtual direction is found, relative to the norm of the text: large
# compared with the rounding of bfloat16, small compared with the curvature of the network.
SEARCH_STEP = 0.01
# The least number that a norm is divided by.
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Adversarial:
    """A step that trains on each text as it is and, once more, where the network errs most.

    A text is moved in its embeddings, after look-up and dropout, by ``share * ||x||`` in the
    direction of a gradient, where ||x|| is the norm of all its embeddings together. The share is
    relative to the norm, so that a network gains nothing from larger embeddings; Miyato et al.
    (2017) normalise the embeddings instead and move by 5, about 0.02 of a review of theirs.
    All passes of a step have the same dropout masks, so that the effect of the move is not mixed
    with that of other masks.

    Parameters
    ----------
    task : Task
        What y is.
    share : float
        Share for the direction in which the loss of the text's target rises fastest; the loss there
        is added. 0 leaves it out.
    virtual_share : float
        Share for the direction in which the outputs change most, whatever the target: the task's
        divergence, of classes KL(clean || moved), is added. The direction is found by one power
        iteration from a random one (Miyato et al. 2018). 0 leaves it out.

    References
    ----------
    Miyato, Dai & Goodfellow (2017), Adversarial Training Methods for Semi-Supervised Text
    Classification; Miyato, Maeda, Koyama & Ishii (2018), Virtual Adversarial Training. Sachan,
    Zaheer & Salakhutdinov (2019) add both.
    """

    task: Task
    share: float
    virtual_share: float

    def __call__(self, network: LSTMTextNetwork, batch: Batch) -> tuple[Tensor, Tensor]:
        """Add the gradients of all losses to those of the weights; return the sum and the outputs.

        Each loss has its own backward, so that memory holds one pass at a time; the gradient of the
        embedded text, which the clean pass yields, is the adversarial direction. The embeddings get
        their gradient once, from all passes.
        """
        ids = send(batch.ids, network.embedding.weight.device)
        embedded = network.embed(ids).each()
        x = embedded.detach().requires_grad_()
        live = (ids != PADDING).unsqueeze(2)
        noise = self._draw_noise(network, x)
        masks = network.generator.get_state()

        def classify(moved):
            network.generator.set_state(masks)
            return network.classify(network.read(Embedded(moved), ids, batch.lengths))

        outputs = classify(x)
        losses = [_backward(mean_loss(self.task, outputs, batch))]
        outputs = outputs.detach()
        if self.share > 0:
            move = scale_like(x.grad, x, self.share, live)
            losses.append(_backward(mean_loss(self.task, classify(x + move), batch)))
        if self.virtual_share > 0:
            step = scale_like(noise, x, SEARCH_STEP, live).requires_grad_()
            found = self.task.divergence(outputs, classify(x.detach() + step)).sum()
            (direction,) = torch.autograd.grad(found, step)
            move = scale_like(direction, x, self.virtual_share, live)
            divergences = self.task.divergence(outputs, classify(x + move))
            losses.append(_backward((divergences * send(batch.weights, x.device)).mean()))
        if embedded.requires_grad:  # unless a callback has frozen the embedding
            embedded.backward(x.grad)
        return sum(losses), outputs

    def _draw_noise(self, network, x):
        """Return where the search for the virtual direction begins."""
        if self.virtual_share == 0:
            return None
        generator = generator_on(x.device, network.generator)
        noise = torch.empty(x.shape, dtype=x.dtype, device=generator.device)
        return noise.normal_(generator=generator).to(x.device)


def choose_step(task: Task, settings: TrainingSettings) -> Supervised | Adversarial:
    """Return the step that the settings ask for."""
    if settings.adversarial > 0 or settings.virtual_adversarial > 0:
        return Adversarial(task, settings.adversarial, settings.virtual_adversarial)
    return Supervised(task)


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

    A text without a direction (a gradient of 0) is not moved.
    """
    direction, x = direction * live, x * live
    # Gradients are so small that their squares may underflow.
    direction = direction / direction.abs().amax((0, 2), keepdim=True).clamp(min=TINY)
    norm = direction.square().sum((0, 2), keepdim=True).sqrt().clamp(min=TINY)
    return direction * (share * x.square().sum((0, 2), keepdim=True).sqrt() / norm)
