"""What differs from cell to cell in ``torch_layer.py``: a step, and the factors of its gradients.

Forward, a cell turns the gates of a step into their activations, in place, and returns the new cell
state. Backward, ``factors`` computes the factors that do not depend on the recurrence for a block
of steps at once, in the memory of the gradients of the gates. A step then only multiplies them by
the gradients of h and c from the step after it.

Inside this backend the output gate comes first: ``o, i, f, g``. So the gates under a sigmoid are
neighbours, and so are those whose gradients come through the cell state: one call for each. Fewer
calls are faster, since a thread needs Python's lock between two calls and the other threads wait.

``n`` is the number of texts that have a step, ``N`` the number of rows of a block.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sklstm.kernels.contract import NORM_EPS, STEEPEST_NORM, Inputs
from sklstm.kernels.packing import Scratch


class Block(NamedTuple):
    """What the backward needs of some steps of the forward pass."""

    gates: Tensor  # (N, G*H) the activations
    c_prev: Tensor  # (N, H)
    c_new: Tensor  # (N, H) before zoneout
    h_in: Tensor  # (N, H) the states before the steps, under the mask


class Standard:
    """The cell of Hochreiter & Schmidhuber (1997) with the forget gate of Gers et al. (2000)."""

    #: tanh(c, out=...), by which the output gate is multiplied.
    squash = staticmethod(torch.tanh)

    def __init__(self, inputs: Inputs):
        self.hidden = inputs.weight_hh.shape[1]
        self.dtype = state_dtype(inputs)
        #: recur(gates, h_in, weight_hh_t) adds a step's product to its gates (n, G*H).
        self.recur = torch.Tensor.addmm_ if self.dtype == inputs.x.dtype else add_product

    def views(self, gates: Tensor, counts: list[int]) -> zip:
        """Return, step by step, the parts of the gates (N, 4H) that ``step`` names."""
        hidden = self.hidden
        sigmoids = gates[:, : 3 * hidden].split(counts)
        return zip(sigmoids, *_by_step(gates.chunk(4, dim=1), counts), strict=True)

    def step(self, view: tuple[Tensor, ...], c_prev: Tensor, c_new: Tensor) -> Tensor:
        """Activate the gates of a step, write ``c_new`` (which may be ``c_prev``), return o."""
        sigmoids, o, i, f, g = view
        sigmoids.sigmoid_()
        g.tanh_()
        torch.mul(f, c_prev, out=c_new).addcmul_(i, g)
        return o

    def factors(self, block: Block, d: Tensor, into_c: Tensor, scratch: Scratch) -> None:
        """Fill ``d`` with the factors to the gates (N, 4H), ``into_c`` with those from h to c."""
        o, i, f, g = block.gates.chunk(4, dim=1)
        d_o, d_i, d_f, d_g = d.chunk(4, dim=1)
        torch.addcmul(i, i, i, value=-1, out=d_i).mul_(g)
        torch.addcmul(f, f, f, value=-1, out=d_f).mul_(block.c_prev)
        torch.mul(g, g, out=into_c)
        torch.addcmul(i, i, into_c, value=-1, out=d_g)
        self._factors_of_output(block, o, d_o, into_c, scratch)

    def _factors_of_output(self, block, o, d_o, into_c, scratch):
        out = scratch.rows("tanh_c", *into_c.shape, into_c.dtype)
        tanh_c = self.squash(block.c_new, out=out)
        torch.addcmul(o, o, o, value=-1, out=d_o).mul_(tanh_c)
        torch.addcmul(o, o, tanh_c.square_(), value=-1, out=into_c)

    def views_backward(
        self, block: Block, d: Tensor, into_c: Tensor, counts: list[int], scratch: Scratch
    ) -> zip:
        """Return, step by step, what ``step_backward`` names."""
        hidden = self.hidden
        through_c = d[:, hidden:].unflatten(1, (3, hidden))
        f = block.gates[:, 2 * hidden : 3 * hidden]
        return zip(*_by_step((d, into_c, through_c, d[:, :hidden], f), counts), strict=True)

    def step_backward(
        self,
        view: tuple[Tensor, ...],
        dh: Tensor,  # (n, H)
        dc: Tensor,  # (n, H)
        dc_by_gate: Tensor,  # (n, 1, H) the same memory
    ) -> Tensor:
        """Turn the factors of a step into the gradients of its gates.

        ``dc`` becomes the gradient of c before the step. Return that of ``h @ weight_hh.T``.
        """
        d, into_c, through_c, d_o, f = view
        dc.addcmul_(dh, into_c)
        through_c.mul_(dc_by_gate)
        d_o.mul_(dh)
        dc.mul_(f)
        return d

    def finish_block(self, block: Block, d: Tensor, grads: dict[str, Tensor]) -> Tensor:
        """Return the gradient of ``h @ weight_hh.T`` (N, G*H) of all steps of a block.

        ``d`` now holds the gradients of the gates. Those of the cell's own parameters are added to
        ``grads``, which has them by their names in ``Inputs``.
        """
        return d


class Coupled(Standard):
    """The forget gate is 1 - i (Greff et al. 2017); the gates are o, i, g."""

    def views(self, gates, counts):
        """Return, step by step, both gates under a sigmoid, and each."""
        sigmoids = gates[:, : 2 * self.hidden].split(counts)
        return zip(sigmoids, *_by_step(gates.chunk(3, dim=1), counts), strict=True)

    def step(self, view, c_prev, c_new):
        """Move c towards g by the share i."""
        sigmoids, o, i, g = view
        sigmoids.sigmoid_()
        g.tanh_()
        torch.lerp(c_prev, g, i, out=c_new)
        return o

    def factors(self, block, d, into_c, scratch):
        """Fill the factors of o, i and g."""
        o, i, g = block.gates.chunk(3, dim=1)
        d_o, d_i, d_g = d.chunk(3, dim=1)
        torch.sub(g, block.c_prev, out=into_c)
        torch.addcmul(i, i, i, value=-1, out=d_i).mul_(into_c)
        torch.mul(g, g, out=into_c)
        torch.addcmul(i, i, into_c, value=-1, out=d_g)
        self._factors_of_output(block, o, d_o, into_c, scratch)

    def views_backward(self, block, d, into_c, counts, scratch):
        """As in Standard, with 1 - i for f."""
        hidden = self.hidden
        through_c = d[:, hidden:].unflatten(1, (2, hidden))
        f = 1 - block.gates[:, hidden : 2 * hidden]
        return zip(*_by_step((d, into_c, through_c, d[:, :hidden], f), counts), strict=True)


class Peephole(Standard):
    """i and f also see c before the step, o sees the new c (Gers & Schmidhuber 2000)."""

    def __init__(self, inputs):
        super().__init__(inputs)
        self.p_i, self.p_f, self.p_o = weights = inputs.peephole.to(self.dtype)
        self.p_i_f = weights[:2]

    def views(self, gates, counts):
        """Return, step by step, i and f together in two shapes, and each gate."""
        i_f = gates[:, self.hidden : 3 * self.hidden]
        parts = (i_f.unflatten(1, (2, self.hidden)), i_f, *gates.chunk(4, dim=1))
        return zip(*_by_step(parts, counts), strict=True)

    def step(self, view, c_prev, c_new):
        """Let the gates see the cell state, each before it is squashed."""
        by_gate, i_f, o, i, f, g = view
        by_gate.addcmul_(self.p_i_f, c_prev.unsqueeze(1))
        i_f.sigmoid_()
        g.tanh_()
        self._see_before(o, c_prev)
        torch.mul(f, c_prev, out=c_new).addcmul_(i, g)
        self._see_after(o, c_new)
        return o.sigmoid_()

    def _see_before(self, o, c_prev):
        """Leave o: it sees the new state."""

    def _see_after(self, o, c_new):
        o.addcmul_(self.p_o, c_new)

    def views_backward(self, block, d, into_c, counts, scratch):
        """As in Standard, and the gradients of i and f one by one."""
        _, d_i, d_f, _ = d.chunk(4, dim=1)
        own = zip(*_by_step((d_i, d_f), counts), strict=True)
        return zip(super().views_backward(block, d, into_c, counts, scratch), own, strict=True)

    def step_backward(self, view, dh, dc, dc_by_gate):
        """Add the gradients that reach c through the gates."""
        (d, into_c, through_c, d_o, f), (d_i, d_f) = view
        d_o.mul_(dh)
        dc.addcmul_(dh, into_c)
        self._into_after(d_o, dc)
        through_c.mul_(dc_by_gate)
        dc.mul_(f).addcmul_(d_i, self.p_i).addcmul_(d_f, self.p_f)
        self._into_before(d_o, dc)
        return d

    def _into_after(self, d_o, dc):
        dc.addcmul_(d_o, self.p_o)

    def _into_before(self, d_o, dc):
        """Leave the state before the step: o did not see it."""

    def finish_block(self, block, d, grads):
        """Add the block's share to the gradient of the peephole weights."""
        d_o, d_i, d_f, _ = d.chunk(4, dim=1)
        pairs = ((d_i, block.c_prev), (d_f, block.c_prev), (d_o, self._seen_by_o(block)))
        for row, (d_gate, seen) in enumerate(pairs):
            grads["peephole"][row] += (d_gate * seen).sum(0)
        return d

    def _seen_by_o(self, block):
        return block.c_new


class PeepholePrevious(Peephole):
    """All three gates see c before the step."""

    def _see_before(self, o, c_prev):
        o.addcmul_(self.p_o, c_prev)

    def _see_after(self, o, c_new):
        """Leave o: it has seen the state before."""

    def _into_after(self, d_o, dc):
        """Leave the new state: o did not see it."""

    def _into_before(self, d_o, dc):
        dc.addcmul_(d_o, self.p_o)

    def _seen_by_o(self, block):
        return block.c_prev


class LayerNorm(Standard):
    """Norms over h @ weight_hh.T and c (Ba 2016); ``torch_layer.py`` norms x @ weight_ih.T."""

    def __init__(self, inputs):
        super().__init__(inputs)
        self.recur = self._recur
        self.weight_hh_t = rolled(inputs, inputs.weight_hh).t().contiguous()
        self.scratch = torch.empty(len(inputs.h0), 4 * self.hidden, dtype=self.dtype)
        self.scale_h = rolled(inputs, inputs.norm_hh).to(self.dtype)
        self.scale_c, self.shift_c = inputs.norm_c.to(self.dtype)

    def _recur(self, gates, h_in, weight_hh_t):
        recurrent = product(h_in, weight_hh_t, self.scratch[: len(gates)])
        gates += torch.layer_norm(recurrent, self.scale_h.shape, self.scale_h, None, NORM_EPS)

    def squash(self, c: Tensor, *, out: Tensor) -> Tensor:
        """Write tanh of the norm of c."""
        normed = torch.layer_norm(c, self.scale_c.shape, self.scale_c, self.shift_c, NORM_EPS)
        return torch.tanh(normed, out=out)

    def views_backward(self, block, d, into_c, counts, scratch):
        """As in Standard, and what the gradients of the norms need."""
        # Computing the product again costs less than keeping it for all steps.
        recurrent = scratch.rows("recurrent", *d.shape, d.dtype)
        self.recurrent = product(block.h_in, self.weight_hh_t, recurrent)
        self.stats_c = stats(block.c_new, scratch)
        self.stats_h = stats(self.recurrent, scratch)
        self.d_recurrent = scratch.rows("d_recurrent", *d.shape, d.dtype)
        self.steps_of_d_recurrent = []  # from the last to the first
        self.d_normed_c = into_c
        parts = (block.c_new, *_bounded(self.stats_c), self.recurrent, *_bounded(self.stats_h))
        own = zip(*_by_step(parts, counts), strict=True)
        return zip(super().views_backward(block, d, into_c, counts, scratch), own, strict=True)

    def step_backward(self, view, dh, dc, dc_by_gate):
        """Send the gradients of c and of the recurrent product through their norms."""
        (d, into_c, through_c, d_o, f), (c, mean_c, rstd_c, recurrent, mean_h, rstd_h) = view
        into_c.mul_(dh)  # from here on the gradient of the normed c
        dc += norm_backward(into_c, c, mean_c, rstd_c, self.scale_c)[0]
        through_c.mul_(dc_by_gate)
        d_o.mul_(dh)
        dc.mul_(f)
        d_recurrent = norm_backward(d, recurrent, mean_h, rstd_h, self.scale_h)[0]
        self.steps_of_d_recurrent.append(d_recurrent)
        return d_recurrent

    def finish_block(self, block, d, grads):
        """Add the block's share to the gradients of the norms."""
        grads["norm_hh"] += norm_backward(
            d, self.recurrent, *self.stats_h, self.scale_h, of_input=False, of_scale=True
        )[1]
        _, of_scale, of_shift = norm_backward(
            self.d_normed_c, block.c_new, *self.stats_c, self.scale_c, of_input=False, of_scale=True
        )
        grads["norm_c"] += torch.stack([of_scale, of_shift])
        return torch.cat(self.steps_of_d_recurrent[::-1], out=self.d_recurrent)


#: Cell -> its class.
CELL_CLASSES = {
    "lstm": Standard,
    "peephole": Peephole,
    "peephole_previous": PeepholePrevious,
    "layer_norm": LayerNorm,
    "coupled": Coupled,
}


def rolled(inputs: Inputs, weights: Tensor) -> Tensor:
    """Return weights (G*H, ...) with the output gate first; roll by -H to undo it."""
    return weights.roll(inputs.weight_hh.shape[1], 0)


def state_dtype(inputs: Inputs) -> torch.dtype:
    """Return the dtype of gates, cell states and sums: never less than float32."""
    return torch.promote_types(inputs.x.dtype, torch.float32)


def product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Write a @ b in the dtype of b; ``a`` and ``out`` may be of a wider one."""
    if a.dtype == b.dtype == out.dtype:
        return torch.mm(a, b, out=out)
    return out.copy_(a.to(b.dtype) @ b)


def add_product(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Add a @ b to ``out``, which may be of a wider dtype than b."""
    if out.dtype == b.dtype:
        return out.addmm_(a, b)
    return out.add_(a.to(b.dtype) @ b)


def _by_step(parts, counts):
    """Return for each part (N, ...) its rows step by step."""
    return (part.split(counts) for part in parts)


def stats(x: Tensor, scratch: Scratch) -> tuple[Tensor, Tensor]:
    """Return the mean and 1 / deviation of each row of x (N, F), each (N, 1)."""
    mean = x.mean(1, keepdim=True)
    deviations = torch.sub(
        x, mean, out=scratch.rows(f"minus mean, {x.shape[1]}", *x.shape, x.dtype)
    )
    variance = deviations.square_().mean(1, keepdim=True)
    return mean, variance.add_(NORM_EPS).rsqrt_()


def _bounded(stats: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean, and 1 / deviation with which a gradient goes back (``STEEPEST_NORM``)."""
    mean, rstd = stats
    return mean, torch.where(rstd > STEEPEST_NORM, 0.0, rstd)


def norm_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    *,
    of_input: bool = True,
    of_scale: bool = False,
) -> tuple[Tensor, ...]:
    """Return the gradients of x (n, F), scale and shift, from that of the layer norm of x."""
    wanted = (of_input, of_scale, of_scale)
    shift = scale if of_scale else None  # its values do not matter, only that there is one
    return torch.ops.aten.native_layer_norm_backward(
        grad, x, scale.shape, mean, rstd, scale, shift, wanted
    )
