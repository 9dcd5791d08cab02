"""What one update computes: the loss of a batch, and its gradients.

A step is handed to the training loop. It is called with a network and a batch, adds the gradients
to those of the weights, and returns the loss and the outputs of the batch (None without outputs).
"""

from dataclasses import dataclass

from torch import Tensor

from sklstm.kernels.transfer import send
from sklstm.network.language_network import LSTMLanguageNetwork
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.tasks.protocol import Task
from sklstm.text.batching import Batch
from sklstm.text.windows import WindowBatch


@dataclass(frozen=True)
class Supervised:
    """The mean of weight times loss; the weights have a mean of 1 over all texts."""

    task: Task

    def __call__(self, network: LSTMTextNetwork, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss and the outputs (B, n_outputs)."""
        device = network.embedding.weight.device
        outputs = network(send(batch.ids, device), batch.lengths)
        loss = mean_loss(self.task, outputs, batch)
        loss.backward()
        return loss.detach(), outputs


@dataclass(frozen=True)
class NextToken:
    """The loss of a language model, whose targets are the texts themselves."""

    def __call__(self, network: LSTMLanguageNetwork, batch: WindowBatch) -> tuple[Tensor, None]:
        """Return the loss."""
        device = network.embedding.weight.device
        loss = network(*(send(tensor, device) for tensor in batch[1:]))
        loss.backward()
        return loss.detach(), None


def mean_loss(task: Task, outputs: Tensor, batch: Batch) -> Tensor:
    """Return the mean of weight times loss of a batch."""
    losses = task.loss(outputs, send(batch.targets, outputs.device))
    return (losses * send(batch.weights, outputs.device)).mean()
