"""Training against perturbations of the embedded texts that change the outputs most."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sklstm.kernels.transfer import generator_on, send
from sklstm.network.encoder import Embedded
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.tasks.protocol import Task
from sklstm.text.batching import Batch, RaggedIds, stream_batches
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

    A text is moved in its embeddings, after look-up and dropout, in the direction of a gradient.
    The norm of the move of the whole text is ``size`` times the root mean square norm of one of its
    tokens: relative to it, so that a network gains nothing from larger embeddings, and to that of a
    token, since few tokens decide in a long text as in a short one. Miyato et al. (2017) normalise
    the embeddings instead and move each text by 5, about 0.3 of a token of theirs.
    All passes of a step have the same dropout masks, so that the effect of the move is not mixed
    with that of other masks.

    Parameters
    ----------
    task : Task
        What y is.
    size : float
        Size of the move in the direction in which the loss of the text's target rises fastest; the
        loss there is added. 0 leaves it out.
    virtual_size : float
        Size of the move in the direction in which the outputs change most, whatever the target: the
        task's divergence, of classes KL(clean || moved), is added. The direction is found by one
        power iteration from a random one (Miyato et al. 2018). 0 leaves it out.
    unlabelled : iterator of Batch or None
        Batches of texts without labels. For each batch of labelled texts one of these adds its
        divergence as well.

    References
    ----------
    Miyato, Dai & Goodfellow (2017), Adversarial Training Methods for Semi-Supervised Text
    Classification; Miyato, Maeda, Koyama & Ishii (2018), Virtual Adversarial Training. Sachan,
    Zaheer & Salakhutdinov (2019) add both.
    """

    task: Task
    size: float
    virtual_size: float
    unlabelled: Iterator[Batch] | None = None

    def __call__(self, network: LSTMTextNetwork, batch: Batch) -> tuple[Tensor, Tensor]:
        """Add the gradients of all losses to those of the weights; return the sum and the outputs.

        Each loss has its own backward, so that memory holds one pass at a time; the gradient of the
        embedded text, which the clean pass yields, is the adversarial direction. The embeddings get
        their gradient once, from all passes.
        """
        read = _Reading(network, batch, is_searched=self.virtual_size > 0)
        outputs = read.classify(read.x)
        losses = [_backward(mean_loss(self.task, outputs, batch))]
        outputs = outputs.detach()
        if self.size > 0:
            move = scale(read.x.grad, self.size * read.token_norms, read.live)
            losses.append(_backward(mean_loss(self.task, read.classify(read.x + move), batch)))
        if self.virtual_size > 0:
            losses.append(self._compare(read, outputs, batch))
        read.finish()
        if self.unlabelled is not None:
            losses.append(self._train_without_labels(network, next(self.unlabelled)))
        return sum(losses), outputs

    def _train_without_labels(self, network, batch):
        """Add the gradients of the divergence of texts without labels; return it."""
        read = _Reading(network, batch, is_searched=True)
        with torch.no_grad():
            outputs = read.classify(read.x)
        loss = self._compare(read, outputs, batch)
        read.finish()
        return loss

    def _compare(self, read, outputs, batch):
        """Add the gradients of the mean divergence in the virtual direction; return it."""
        norms = SEARCH_STEP * measure_texts(read.x.detach(), read.live)
        step = scale(read.noise, norms, read.live).requires_grad_()
        found = self.task.divergence(outputs, read.classify(read.x.detach() + step)).sum()
        (direction,) = torch.autograd.grad(found, step)
        move = scale(direction, self.virtual_size * read.token_norms, read.live)
        divergences = self.task.divergence(outputs, read.classify(read.x + move))
        return _backward((divergences * send(batch.weights, read.x.device)).mean())


class _Reading:
    """The embedded texts of a batch, which are classified under the same dropout masks anywhere.

    Parameters
    ----------
    network : LSTMTextNetwork
        What reads them.
    batch : Batch
        The texts.
    is_searched : bool
        Whether the virtual direction will be searched, which begins at random.
    """

    def __init__(self, network: LSTMTextNetwork, batch: Batch, *, is_searched: bool):
        self.network, self.lengths = network, batch.lengths
        self.ids = send(batch.ids, network.embedding.weight.device)
        self.embedded = network.embed(self.ids).each()
        self.x = self.embedded.detach().requires_grad_()
        self.live = (self.ids != PADDING).unsqueeze(2)
        self.token_norms = measure_tokens(self.embedded.detach(), self.live)
        self.noise = self._draw_noise() if is_searched else None
        self.masks = network.generator.get_state()

    def classify(self, moved: Tensor) -> Tensor:
        """Return the outputs (B, n_outputs) of texts that are moved to these embeddings."""
        self.network.generator.set_state(self.masks)
        states = self.network.read(Embedded(moved), self.ids, self.lengths)
        return self.network.classify(states)

    def finish(self) -> None:
        """Pass the gradient of all passes on to the embedding."""
        if self.embedded.requires_grad:  # unless a callback has frozen it
            self.embedded.backward(self.x.grad)

    def _draw_noise(self):
        """Return where the search for the virtual direction begins."""
        generator = generator_on(self.x.device, self.network.generator)
        noise = torch.empty(self.x.shape, dtype=self.x.dtype, device=generator.device)
        return noise.normal_(generator=generator).to(self.x.device)


def choose_step(
    task: Task,
    settings: TrainingSettings,
    unlabelled: Callable[[], RaggedIds] | None = None,
    rng: np.random.Generator | None = None,
) -> Supervised | Adversarial:
    """Return the step that the settings ask for.

    Unlabelled texts are read, by a call, and streamed to a step that can use them. Their order
    leaves that of the labelled ones, from ``rng``, as it is.
    """
    sizes = settings.adversarial, settings.virtual_adversarial
    if not any(sizes):
        return Supervised(task)
    stream = None
    if settings.virtual_adversarial and unlabelled is not None:
        (own,) = rng.spawn(1)
        stream = stream_batches(unlabelled(), batch_size=settings.batch_size, rng=own)
    return Adversarial(task, *sizes, stream)


def _backward(loss):
    loss.backward()
    return loss.detach()


def measure_texts(x: Tensor, live: Tensor) -> Tensor:
    """Return the norm of all embeddings of each text together, (1, B, 1)."""
    return (x * live).square().sum((0, 2), keepdim=True).sqrt()


def measure_tokens(x: Tensor, live: Tensor) -> Tensor:
    """Return the root mean square norm of a token of each text, (1, B, 1)."""
    return measure_texts(x, live) / live.sum(0, keepdim=True).clamp(min=1).sqrt()


@torch.no_grad()
def scale(
    direction: Tensor,  # (T, B, E)
    norm: Tensor,  # (1, B, 1)
    live: Tensor,  # (T, B, 1) which steps are tokens
) -> Tensor:
    """Return the direction of each text with a norm, 0 in the padding.

    A text without a direction (a gradient of 0) is not moved.
    """
    direction = direction * live
    # Gradients are so small that their squares may underflow.
    direction = direction / direction.abs().amax((0, 2), keepdim=True).clamp(min=TINY)
    return direction * (norm / measure_texts(direction, live).clamp(min=TINY))
