"""AdamW whose cost does not grow with the vocabulary.

A batch reads a few thousand rows of the embedding; AdamW moves them all at every update, for a row
without a gradient goes on with its momentum and its decay. But how it goes on is known beforehand,
so that a row can stay behind until it is read again, and then make up for all it missed at once.

The row w with the moments m and v was last updated at step s. At a later step j without a gradient,
with b1 and b2 the decays of the moments and d = lr[j] * weight_decay, AdamW computes::

    w[j] = (1 - d) * w[j-1] - lr[j] * sqrt(1 - b2**j) / (1 - b1**j) * (b1 / sqrt(b2))**(j - s) * u
    u    = m / (sqrt(v) + eps * sqrt(1 - b2**s))

(but for eps, which it would compare to an ever smaller sqrt(v)). So w[t] is a number times w[s]
minus a number times u, and both depend on s alone. The moving average of the weights over the
same steps, a[j] = (1 - share[j]) * a[j-1] + share[j] * w[j], is three numbers times a[s], w[s] and
u. These five numbers are kept for each s and go on with every step; a row looks up its own.
"""

import inspect

import numpy as np
import torch
from torch import Tensor, nn

# Torch wraps the step of every class that has one in the calling of its hooks; called through
# super(), each hook would be called twice.
_step_of_adamw = inspect.unwrap(torch.optim.AdamW.step)

# Steps after which all rows make up, so that the numbers to carry on stay few; at 0 none stays
# behind.
MAX_STEPS_BEHIND = 1_000
# When all rows make up, so many do at a time, in memory that does not grow with the vocabulary.
ROWS_AT_ONCE = 2**13


class LazyAdamW(torch.optim.AdamW):
    """AdamW that updates the rows of an embedding only when they are read.

    The updates are those of :class:`torch.optim.AdamW` up to rounding; between ``begin`` and
    ``finish`` rows that no recent batch has read stand at earlier values.

    Parameters
    ----------
    params, lr, weight_decay, betas, eps
        As in :class:`torch.optim.AdamW`.

    References
    ----------
    Loshchilov & Hutter (2019), Decoupled Weight Decay Regularization. Of the other optimisers that
    leave rows alone, such as ``torch.optim.SparseAdam``, each changes what is learnt: rare rows
    lose their momentum.
    """

    embedding: nn.Embedding | None = None

    def begin(self, embedding: nn.Embedding, average: float | None) -> None:
        """Let the rows of an embedding stay behind from here on.

        Parameters
        ----------
        embedding : torch.nn.Embedding
            Called with ids of which none comes twice.
        average : float or None
            Decay of the moving average of its rows, corrected for the bias of the first steps; None
            keeps no average.
        """
        weight = embedding.weight
        (group,) = (g for g in self.param_groups if any(p is weight for p in g["params"]))
        self.embedding = embedding
        self.rows = Rows(weight, group, self.state.get(weight, {}), average)
        embedding.sparse = True  # gradients of the rows that were read alone
        self._hook = embedding.register_forward_pre_hook(self._before_reading)

    def _before_reading(self, embedding, inputs):
        if embedding.training:  # otherwise all rows have made up
            (ids,) = inputs
            if embedding.padding_idx is not None:  # which has no gradient
                ids = ids[ids != embedding.padding_idx]
            self.rows.catch_up(ids)

    @torch.no_grad()
    def step(self, closure=None):
        """Update all weights; see :meth:`torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.embedding is None:
            _step_of_adamw(self)
            return loss
        weight = self.embedding.weight
        grad, weight.grad = weight.grad, None
        _step_of_adamw(self)
        self.rows.step(grad)
        weight.grad = grad
        return loss

    def finish(self) -> None:
        """Let all rows make up; a later ``begin`` goes on from the moments."""
        if self.embedding is None:
            return
        self.rows.catch_up_all()
        self.state[self.embedding.weight] = self.rows.moments()
        self.embedding.sparse = False
        self._hook.remove()
        self.embedding = self.rows = self._hook = None


class Rows:
    """The rows of a weight matrix (V, E) that may stay behind, with their moments and average."""

    def __init__(self, weight: Tensor, group: dict, state: dict, average: float | None):
        self.weight, self.group, self.decay_of_average = weight, group, average
        self.n_averaged = 0
        self.n_steps = int(state.get("step", 0))
        # Beside each other in memory, since they are always read together.
        n_kept = 2 if average is None else 3
        self.memory = weight.new_zeros(len(weight), n_kept, weight.shape[1])
        for k, name in enumerate(("exp_avg", "exp_avg_sq")):
            if name in state:
                self.memory[:, k] = state[name]
        if average is not None:
            self.memory[:, 2] = weight.detach()
        self._start_anew()

    @property
    def average(self) -> Tensor:
        """The moving average (V, E); right once all rows have made up."""
        return self.memory[:, 2]

    def moments(self) -> dict[str, Tensor]:
        """Return the state as :class:`torch.optim.AdamW` keeps it."""
        return {
            "step": torch.tensor(float(self.n_steps)),
            "exp_avg": self.memory[:, 0].clone(),
            "exp_avg_sq": self.memory[:, 1].clone(),
        }

    def _start_anew(self):
        """Count the steps from here on: all rows have made up."""
        self.first_step = self.n_steps
        self.last = np.zeros(len(self.weight), dtype=np.int64)  # step of each row, from first_step
        # For each step s from which a row may come, a column: see the head of this file.
        self.numbers = np.zeros((5, MAX_STEPS_BEHIND + 2))
        self.of_w, self.of_u, self.a_of_a, self.a_of_w, self.a_of_u = self.numbers
        self._add_column(0)
        self.reading = None

    def _add_column(self, k):
        """Start the numbers of the rows that are up to date at the k-th step: nothing missed."""
        self.of_w[k] = self.a_of_a[k] = 1.0

    @torch.no_grad()
    def catch_up(self, rows: Tensor) -> None:
        """Let rows (U,), each named once, make up for the steps they missed."""
        self._put_back()
        rows = rows.long()
        w, memory = self.weight.index_select(0, rows), self.memory.index_select(0, rows)
        k = self.n_steps - self.first_step
        if k > 0:
            self._make_up(w, memory, self.last[rows.numpy()], k)
            self.weight.index_copy_(0, rows, w)
        # The moments stay here until the step that follows has changed them as well.
        self.reading = (rows, w, memory)

    def _make_up(self, w, memory, last, k):
        """Bring rows w (U, E) and their memory (U, 3, E) from the steps ``last`` to the k-th."""
        beta1, beta2 = self.group["betas"]
        eps = self.group["eps"] * np.sqrt(1.0 - beta2 ** (last + self.first_step))
        columns = [*self.numbers[:, last], beta1 ** (k - last), beta2 ** (k - last), eps]
        of_w, of_u, a_of_a, a_of_w, a_of_u, of_m, of_v, eps = (
            torch.from_numpy(column).to(w.dtype).unsqueeze(1) for column in columns
        )
        m, v, *average = memory.unbind(1)
        # Rows that never had a gradient have m = 0.
        u = m / v.sqrt().add_(eps).clamp_(min=torch.finfo(w.dtype).tiny)
        for a in average:
            a.mul_(a_of_a).addcmul_(a_of_w, w).addcmul_(a_of_u, u, value=-1)
        m.mul_(of_m)
        v.mul_(of_v)
        w.mul_(of_w).addcmul_(of_u, u, value=-1)

    def _put_back(self):
        """Write the memory of the rows that were read and that no step has changed."""
        if self.reading is not None:
            rows, _, memory = self.reading
            self.memory.index_copy_(0, rows, memory)
            self.last[rows.numpy()] = self.n_steps - self.first_step
            self.reading = None

    def catch_up_all(self) -> None:
        """Let all rows make up."""
        self._put_back()
        if self.n_steps > self.first_step:
            for rows in torch.arange(len(self.weight)).split(ROWS_AT_ONCE):
                self.catch_up(rows)
            self._put_back()
            self._start_anew()

    def step(self, grad: Tensor | None) -> None:
        """Update the rows of a sparse gradient (V, E); the others stay behind one step more."""
        rows, grad = self._rows_of(grad)
        if self.reading is None or not torch.equal(self.reading[0], rows):
            self.catch_up(rows)
        _, w, memory = self.reading
        self.n_steps += 1
        lr, decay = self.group["lr"], self.group["weight_decay"]
        (beta1, beta2), eps = self.group["betas"], self.group["eps"]
        unbiased1 = 1.0 - beta1**self.n_steps
        unbiased2 = np.sqrt(1.0 - beta2**self.n_steps)
        m, v, *average = memory.unbind(1)
        m.lerp_(grad, 1.0 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
        denominator = v.sqrt().div_(unbiased2).add_(eps)
        w.mul_(1.0 - lr * decay).addcdiv_(m, denominator, value=-lr / unbiased1)
        self.weight.index_copy_(0, rows, w)
        self._miss(lr * unbiased2 / unbiased1, beta1 / np.sqrt(beta2), 1.0 - lr * decay)
        for a in average:
            a.lerp_(w, self._miss_average())
        if self.n_steps - self.first_step >= MAX_STEPS_BEHIND:
            self.catch_up_all()

    def _miss(self, rate, fading, remaining):
        """Carry the numbers of w on by one step, for the rows without a gradient."""
        k = self.n_steps - self.first_step
        self.numbers[:2, :k] *= remaining
        self.of_u[:k] += rate * fading ** np.arange(k, 0, -1)
        self._add_column(k)

    def _miss_average(self):
        """Carry the numbers of the average on by one step; return the share of the new weights."""
        k = self.n_steps - self.first_step
        self.n_averaged += 1
        share = (1.0 - self.decay_of_average) / (1.0 - self.decay_of_average**self.n_averaged)
        self.numbers[2:, :k] *= 1.0 - share
        self.numbers[3:, :k] += share * self.numbers[:2, :k]
        return share

    def _rows_of(self, grad: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the rows that have a gradient, each once, and their gradients."""
        if grad is None:
            return torch.zeros(0, dtype=torch.int64), self.weight.new_zeros(0, self.weight.shape[1])
        rows, values = grad._indices()[0], grad._values()
        if self.reading is not None and torch.equal(self.reading[0], rows):
            return rows, values  # as it is after a single backward
        grad = grad.coalesce()
        return grad.indices()[0], grad.values()
