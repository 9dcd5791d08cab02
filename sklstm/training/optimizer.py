"""AdamW whose cost does not grow with the vocabulary.

A batch reads a few thousand rows of the embedding; AdamW moves all rows at every update, since
momentum and decay also move a row without a gradient. These moves are known in advance. So a row
can lag until it is read again, and then catch up with all updates it missed at once.

The row w with the moments m and v was last updated at step s. At a later step j without a gradient,
with b1 and b2 the decays of the moments and d = lr[j] * weight_decay, AdamW computes::

    w[j] = (1 - d) * w[j-1] - lr[j] * sqrt(1 - b2**j) / (1 - b1**j) * (b1 / sqrt(b2))**(j - s) * u
    u    = m / (sqrt(v) + eps * sqrt(1 - b2**s))

(but for eps, which it would compare to an ever smaller sqrt(v)). So w[t] is a number times w[s]
minus a number times u, and both depend on s only. The moving average of the weights over the
same steps, a[j] = (1 - share[j]) * a[j-1] + share[j] * w[j], is three numbers times a[s], w[s] and
u. These five numbers are kept for each s and updated at every step; a row looks up its own.
"""

import inspect

import numpy as np
import torch
from torch import Tensor, nn

# Torch wraps the step of every class that has one in the calling of its hooks; called through
# super(), each hook would be called twice.
_step_of_adamw = inspect.unwrap(torch.optim.AdamW.step)

# All rows catch up after this many steps, which bounds the table of coefficients. 0 disables lazy
# updates.
MAX_LAG = 1_000
# When all rows catch up, this many do at a time, so that memory does not grow with the vocabulary.
ROWS_AT_ONCE = 2**13


class LazyAdamW(torch.optim.AdamW):
    """AdamW that updates the rows of an embedding only when they are read.

    The updates are those of :class:`torch.optim.AdamW` up to rounding; between ``begin`` and
    ``finish`` rows that no recent batch has read have earlier values.

    Parameters
    ----------
    params, lr, weight_decay, betas, eps
        As in :class:`torch.optim.AdamW`.

    References
    ----------
    Loshchilov & Hutter (2019), Decoupled Weight Decay Regularization. Other optimisers that do not
    update all rows, such as ``torch.optim.SparseAdam``, change what is learnt: rare rows lose their
    momentum.
    """

    embedding: nn.Embedding | None = None

    def begin(self, embedding: nn.Embedding, average: float | None) -> None:
        """Let the rows of an embedding lag from here on.

        Parameters
        ----------
        embedding : torch.nn.Embedding
            Called with ids of which none comes twice.
        average : float or None
            Decay of the moving average of its rows, corrected for the bias of the first steps; None
            keeps no average.
        """
        weight = embedding.weight
        self.embedding = embedding
        self.rows = LazyRows(weight, self.state.pop(weight, {}), average)
        embedding.sparse = True  # gradients of only the rows that were read
        self._hook = embedding.register_forward_pre_hook(self._before_reading)

    def state_dict(self):
        """Return the state as :class:`torch.optim.AdamW` would; all rows catch up."""
        if self.embedding is not None:
            self.rows.catch_up_all()
            self.state[self.embedding.weight] = self.rows.moments()
        return super().state_dict()

    def load_state_dict(self, state_dict):
        """Take over a state; an average of the rows starts anew from their present values."""
        embedding = self.embedding
        average = None if embedding is None else self.rows.decay_of_average
        self.finish()
        super().load_state_dict(state_dict)
        if embedding is not None:
            self.begin(embedding, average)

    def _group(self):
        """Return the settings of the embedding; a loaded state brings new ones."""
        weight = self.embedding.weight
        return next(g for g in self.param_groups if any(p is weight for p in g["params"]))

    def _before_reading(self, embedding, inputs):
        if self.embedding is None:  # in a copy of the network
            return
        if not embedding.training:  # whoever predicts meanwhile may read any row
            self.rows.catch_up_all()
        else:
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
        if grad is None:  # the embedding is frozen
            self.rows.skip()
        else:
            self.rows.step(grad, self._group())
            weight.grad = grad
        return loss

    def finish(self) -> None:
        """Let all rows catch up; a later ``begin`` continues from the moments."""
        if self.embedding is None:
            return
        self.rows.catch_up_all()
        self.state[self.embedding.weight] = self.rows.moments()
        self.embedding.sparse = False
        self._hook.remove()
        self.embedding = self.rows = self._hook = None


class LazyRows:
    """The rows of a weight matrix (V, E) that may lag, with their moments and average."""

    def __init__(self, weight: Tensor, state: dict, average: float | None):
        self.weight, self.decay_of_average = weight, average
        self.n_averaged, self.newest_eps = 0, 0.0
        self.skipped = 1.0  # what is left of the average since updates have been skipped
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
        """The moving average (V, E); right once all rows have caught up."""
        return self.memory[:, 2]

    def moments(self) -> dict[str, Tensor]:
        """Return the state as :class:`torch.optim.AdamW` keeps it."""
        return {
            "step": torch.tensor(float(self.n_steps)),
            "exp_avg": self.memory[:, 0].clone(),
            "exp_avg_sq": self.memory[:, 1].clone(),
        }

    def _start_anew(self):
        """Count the steps from here on: all rows have caught up."""
        self.first_step = self.n_steps
        self.last = np.zeros(len(self.weight), dtype=np.int64)  # step of each row, from first_step
        # For each step s from which a row may come, a column: see the head of this file.
        # Those that rows up to date start from, for they have missed nothing, are in all columns.
        self.numbers = np.zeros((8, MAX_LAG + 2))
        self.of_w, self.of_u, self.a_of_a, self.a_of_w, self.a_of_u = self.numbers[:5]
        self.of_m, self.of_v, self.eps = self.numbers[5:]  # products of the decays; eps of u
        for numbers in (self.of_w, self.a_of_a, self.of_m, self.of_v):
            numbers[:] = 1.0
        self.eps[0] = self.newest_eps
        self.reading = None

    @torch.no_grad()
    def catch_up(self, rows: Tensor) -> None:
        """Let rows (U,), each named once, catch up with the steps they missed."""
        self._put_back()
        rows = rows.long()
        w, memory = self.weight.index_select(0, rows), self.memory.index_select(0, rows)
        k = self.n_steps - self.first_step
        if k > 0:
            self._apply_missed(w, memory, self.last[rows.numpy()])
            self.weight.index_copy_(0, rows, w)
        # The moments stay here until the step that follows has changed them as well.
        self.reading = (rows, w, memory)

    def _apply_missed(self, w, memory, last):
        """Bring rows w (U, E) and their memory (U, 3, E) from the steps ``last`` to the newest."""
        of_w, of_u, a_of_a, a_of_w, a_of_u, of_m, of_v, eps = (
            torch.from_numpy(column).to(w.dtype).unsqueeze(1) for column in self.numbers[:, last]
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
        """Let all rows catch up."""
        self._put_back()
        if self.n_steps > self.first_step:
            for rows in torch.arange(len(self.weight)).split(ROWS_AT_ONCE):
                self.catch_up(rows)
            self._put_back()
            self._start_anew()
        if self.skipped < 1.0:
            self.average.lerp_(self.weight.detach(), 1.0 - self.skipped)
            self.skipped = 1.0

    def skip(self) -> None:
        """Count an update that leaves all rows as they are, and brings their average nearer.

        AdamW does nothing to a weight without a gradient: neither moments nor decay move it, and
        the step does not count for its moments.
        """
        if self.decay_of_average is None:
            return
        if self.n_steps > self.first_step:
            self.catch_up_all()  # from here on what is averaged is the same at each update
        self.skipped *= 1.0 - self._share_of_newest()

    def step(self, grad: Tensor, group: dict) -> None:
        """Update the rows of a sparse gradient (V, E); the others lag by one step more.

        Ctrl-C may come between any two lines: the step counts when all is done.
        """
        if self.skipped < 1.0:
            self.catch_up_all()
        rows, grad = self._rows_of(grad)
        if self.reading is None or not torch.equal(self.reading[0], rows):
            self.catch_up(rows)
        _, w, memory = self.reading
        n_steps = self.n_steps + 1
        lr, decay = group["lr"], group["weight_decay"]
        (beta1, beta2), eps = group["betas"], group["eps"]
        unbiased1 = 1.0 - beta1**n_steps
        unbiased2 = np.sqrt(1.0 - beta2**n_steps)
        m, v, *average = memory.unbind(1)
        m.lerp_(grad, 1.0 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
        denominator = v.sqrt().div_(unbiased2).add_(eps)
        w.mul_(1.0 - lr * decay).addcdiv_(m, denominator, value=-lr / unbiased1)
        self.weight.index_copy_(0, rows, w)
        k = n_steps - self.first_step
        self.eps[k] = self.newest_eps = eps * unbiased2
        self._miss(k, beta1, beta2, lr * unbiased2 / unbiased1, 1.0 - lr * decay)
        for a in average:
            a.lerp_(w, self._miss_average(k))
        self.n_steps = n_steps
        if k >= MAX_LAG:
            self.catch_up_all()

    def _miss(self, k, beta1, beta2, rate, remaining):
        """Carry the numbers of w forward to the k-th step, for the rows without a gradient."""
        self.of_m[:k] *= beta1
        self.of_v[:k] *= beta2
        self.numbers[:2, :k] *= remaining
        self.of_u[:k] += rate * self.of_m[:k] / np.sqrt(self.of_v[:k])

    def _miss_average(self, k):
        """Carry the numbers of the average to the k-th step; return the newest weights' share."""
        share = self._share_of_newest()
        self.numbers[2:5, :k] *= 1.0 - share
        self.numbers[3:5, :k] += share * self.numbers[:2, :k]
        return share

    def _share_of_newest(self):
        """Count an update for the average; return the share of its weights."""
        self.n_averaged += 1
        return (1.0 - self.decay_of_average) / (1.0 - self.decay_of_average**self.n_averaged)

    def _rows_of(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows that have a gradient, each once, and their gradients."""
        rows, values = grad._indices()[0], grad._values()
        if self.reading is not None and torch.equal(self.reading[0], rows):
            return rows, values  # as it is after a single backward
        grad = grad.coalesce()
        return grad.indices()[0], grad.values()
