"""The layer for a CPU, in plain torch.

What makes it fast:

- Every step writes in place, into memory that is allocated once.
- A step computes only the texts that still have it (``packing.py``).
- What does not depend on the recurrence (the input's product, the factors of the gradients, the
  gradients of the weights) is computed for a block of steps at once, while the block is in the
  cache.
- Directions run in parallel (``lanes.py``), since every call is small.

The cells are in ``torch_cells.py``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sklstm.kernels.contract import DIFFERENTIABLE, NORM_EPS, Inputs, Outputs
from sklstm.kernels.packing import Packing, Scratch, pack
from sklstm.kernels.torch_cells import (
    CELL_CLASSES,
    Block,
    Standard,
    add_product,
    norm_backward,
    product,
    rolled,
    state_dtype,
    stats,
)

HAS_CELLS = frozenset(CELL_CLASSES)
SHARES_THREADS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
READS_BY_INDEX = False
DEVICES = ("cpu",)
RUNS_TOGETHER = False
POOLS = frozenset()
CAN_BE_EXPORTED = False

# Elements of the gates of one block: 2**20 floats are 4 MB. Smaller blocks fit a faster cache, but
# each costs some calls, for which the other threads wait. Larger blocks are no faster.
BLOCK_ELEMENTS = 2**20


class Kept(NamedTuple):
    """What the forward keeps for the backward: one row for each step of each text."""

    gates: Tensor  # (N, G*H) the activations
    h: Tensor  # (B + N, H) the states, first those before the first step
    c: Tensor  # (B + N, H)
    c_new: Tensor | None = None  # (N, H) before zoneout; None without zoneout
    h_in: Tensor | None = None  # (N, H) the masked states before the steps; None without a mask


def device_refusal(device: torch.device) -> str | None:
    """Return why the backend does not run on a device, or None."""
    return None if device.type == "cpu" else f"runs on the CPU only; got tensors on {device}"


def refusal(inputs: Inputs, need_last: bool) -> str | None:
    """Return why the backend does not have the cell, or None; each cell has every feature."""
    return None if inputs.cell in HAS_CELLS else f"has no cell {inputs.cell!r}"


def suits(directions: list[Inputs]) -> bool:
    """Return whether the inputs are on the CPU: it computes all of them well there."""
    return directions[0].x.device.type == "cpu"


def gains_from_bfloat16(
    device: torch.device, *, cell: str, hidden: int, masked: bool, zoned: bool
) -> bool:
    """Return False."""
    return False


def forward(inputs: Inputs, for_backward: bool) -> Outputs:
    """Run the layer; see ``contract.py``."""
    packing = _packing(inputs)
    n_steps, n_texts, _, hidden = inputs.sizes
    kept = _memory(inputs, packing, for_backward)
    # Autograd cannot save tensors made in inference mode, so what is kept is made outside. Inside,
    # every call is cheaper.
    with torch.inference_mode():
        _run(inputs, packing, kept, for_backward)
    if packing.rows is None:
        h = kept.h[n_texts:].view(n_steps, n_texts, hidden)
    else:
        h = inputs.x.new_zeros(n_steps, n_texts, hidden)
        packing.put(kept.h[n_texts:], h, slice(None))
    c_last = kept.c[packing.last] if for_backward else packing.unsorted(kept.c)
    saved = tuple(tensor for tensor in kept if tensor is not None) if for_backward else ()
    return Outputs(h, kept.h[packing.last], c_last.to(h.dtype), saved)


def _run(inputs: Inputs, packing: Packing, kept: Kept, for_backward: bool) -> None:
    """Run all steps into the memory that is kept."""
    inputs, n_texts = _with_rows_in_line(inputs), inputs.x.shape[1]
    kept.h[:n_texts] = packing.sorted(inputs.h0)
    kept.c[:n_texts] = packing.sorted(inputs.c0)
    # A product with a transposed view is slower than one with a contiguous matrix.
    weight_ih_t = rolled(inputs, inputs.weight_ih).t().contiguous()
    scratch = Scratch(_largest_block(inputs, packing))
    steps = _Steps(inputs, packing, kept, scratch, for_backward)
    for block, counts in packing.blocks(_rows_a_block(inputs)):
        here = block if for_backward else slice(0, block.stop - block.start)
        x = packing.take(inputs.x, block, scratch, "x")
        _project(inputs, x, weight_ih_t, kept.gates[here])
        steps.run(block, here, counts)


def backward(
    inputs: Inputs,
    saved: tuple[Tensor, ...],
    grad_h: Tensor,  # (T, B, H)
    grad_h_last: Tensor,  # (B, H)
    grad_c_last: Tensor,  # (B, H)
    need_grad_x: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``DIFFERENTIABLE``; see ``contract.py``."""
    packing, dtype = _packing(inputs), state_dtype(inputs)
    kept = Kept(**dict(zip(_names_of_kept(inputs), saved, strict=True)))
    # Going back in time, texts that have no step yet keep the gradient of their last state here.
    grads = {
        "h0": packing.sorted(grad_h_last).to(dtype, copy=True),
        "c0": packing.sorted(grad_c_last).to(dtype, copy=True),
    }
    for name in ("weight_ih", "weight_hh", "bias", *inputs.properties.parameters):
        grads[name] = torch.zeros_like(getattr(inputs, name), dtype=dtype)
    if need_grad_x:
        new = torch.empty if inputs.lengths is None else torch.zeros  # the padding stays 0
        grads["x"] = new(inputs.x.shape, dtype=inputs.x.dtype)
    with torch.inference_mode():
        _run_back(inputs, packing, kept, grad_h, grads)
    for name in ("h0", "c0"):
        grads[name] = packing.unsorted(grads[name])
    for name in {"weight_ih", "weight_hh", "bias", "norm_ih", "norm_hh"} & grads.keys():
        grads[name] = grads[name].roll(-inputs.weight_hh.shape[1], 0)
    return tuple(
        None if (grad := grads.get(name)) is None else grad.to(inputs.x.dtype)
        for name in DIFFERENTIABLE
    )


def _run_back(
    inputs: Inputs, packing: Packing, kept: Kept, grad_h: Tensor, grads: dict[str, Tensor]
) -> None:
    """Run all steps from the last on; add to the gradients, whose gates are rolled."""
    inputs, grad_h = _with_rows_in_line(inputs), _rows_in_line(grad_h)
    cell = CELL_CLASSES[inputs.cell](inputs)
    weight_ih = rolled(inputs, inputs.weight_ih)
    scratch = Scratch(_largest_block(inputs, packing))
    steps = _StepsBack(inputs, packing, cell, scratch, grads)
    n_texts = inputs.x.shape[1]
    for block, counts in reversed(list(packing.blocks(_rows_a_block(inputs)))):
        after = slice(n_texts + block.start, n_texts + block.stop)
        seen = Block(
            gates=kept.gates[block],
            c_prev=packing.before(kept.c, block, scratch, "c_prev"),
            c_new=kept.c[after] if kept.c_new is None else kept.c_new[block],
            h_in=(
                packing.before(kept.h, block, scratch, "h_in")
                if kept.h_in is None
                else kept.h_in[block]
            ),
        )
        d, d_recurrent = steps.run(
            seen, packing.take(grad_h, block, scratch, "grad_h"), block, counts
        )
        add_product(grads["weight_hh"], d_recurrent.t(), seen.h_in)
        _project_backward(inputs, packing, scratch, block, d, weight_ih, grads)


class _Steps:
    """The steps of the forward pass, block after block."""

    def __init__(
        self,
        inputs: Inputs,
        packing: Packing,
        kept: Kept,
        scratch: Scratch,
        for_backward: bool,
    ):
        self.inputs, self.packing, self.kept = inputs, packing, kept
        self.scratch, self.for_backward = scratch, for_backward
        self.cell = CELL_CLASSES[inputs.cell](inputs)
        self.weight_hh_t = rolled(inputs, inputs.weight_hh).t().contiguous()
        self.n_texts = inputs.x.shape[1]
        self.h_prev, self.c_prev = kept.h[: self.n_texts], kept.c[: self.n_texts]
        self.mask = packing.sorted(inputs.mask_h)

    def run(self, block: slice, here: slice, counts: list[int]) -> None:
        """Run the steps of a block, whose input gates are at ``here`` in what is kept."""
        cell, weight, mask = self.cell, self.weight_hh_t, self.mask
        squash, mul = cell.squash, torch.mul
        recur = cell.recur
        h_prev, c_prev, n = self.h_prev, self.c_prev, 0
        for n_t, gates, view, h, c, c_new, h_in, zone in self._views(block, here, counts):
            if n_t != n:  # the others have ended
                n, h_prev, c_prev = n_t, h_prev[:n_t], c_prev[:n_t]
                tanh_c = torch.empty_like(c_prev)
                mask = None if mask is None else mask[:n_t]
            h_in = h_prev if mask is None else mul(h_prev, mask, out=h_in)
            recur(gates, h_in, weight)
            c = c_prev if c is None else c  # without a backward it is overwritten in place
            if zone is None:
                mul(cell.step(view, c_prev, c), squash(c, out=tanh_c), out=h)
            else:
                mul(cell.step(view, c_prev, c_new), squash(c_new, out=tanh_c), out=h)
                h.lerp_(h_prev, zone[0])
                torch.lerp(c_new, c_prev, zone[1], out=c)
            h_prev, c_prev = h, c
        self.h_prev, self.c_prev, self.mask = h_prev, c_prev, mask

    def _views(self, block, here, counts):
        """Return, step by step, all that a step reads and writes."""
        kept = self.kept
        gates = kept.gates[here]
        after = slice(self.n_texts + block.start, self.n_texts + block.stop)
        return zip(
            counts,
            gates.split(counts),
            self.cell.views(gates, counts),
            kept.h[after].split(counts),
            _split(kept.c if self.for_backward else None, after, counts),
            _split(kept.c_new, here, counts),
            _split(kept.h_in, here, counts),
            _zones(self.inputs, self.packing, self.scratch, block, counts),
            strict=True,
        )


class _StepsBack:
    """The steps of the backward pass, block before block."""

    def __init__(
        self,
        inputs: Inputs,
        packing: Packing,
        cell: Standard,
        scratch: Scratch,
        grads: dict[str, Tensor],
    ):
        self.inputs, self.packing, self.cell = inputs, packing, cell
        self.scratch, self.grads = scratch, grads
        self.weight_hh = rolled(inputs, inputs.weight_hh)
        self.mask = packing.sorted(inputs.mask_h)
        self.dh, self.dc = grads["h0"], grads["c0"]

    def run(
        self,
        seen: Block,
        grad_h: Tensor,  # (N, H)
        block: slice,
        counts: list[int],
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of the gates and of ``h @ weight_hh.T``, each (N, G*H)."""
        cell, weight, n_rows = self.cell, self.weight_hh, block.stop - block.start
        dtype, hidden = self.dh.dtype, cell.hidden
        d = self.scratch.rows("d", n_rows, weight.shape[0], dtype)
        into_c = self.scratch.rows("into_c", n_rows, hidden, dtype)
        cell.factors(seen, d, into_c, self.scratch)
        views = list(cell.views_backward(seen, d, into_c, counts, self.scratch))
        zones = _zones(self.inputs, self.packing, self.scratch, block, counts)
        steps = list(zip(counts, views, grad_h.split(counts), zones, strict=True))
        step_backward, n = cell.step_backward, 0
        for n_t, view, grad_h_t, zone in reversed(steps):
            if n_t != n:  # the texts that end at this step join
                n, dh, dc = n_t, self.dh[:n_t], self.dc[:n_t]
                dc_by_gate = dc.unsqueeze(1)
                mask = None if self.mask is None else self.mask[:n_t]
            dh += grad_h_t
            if zone is not None:
                h_carry, c_carry = dh * zone[0], dc * zone[1]
                dh -= h_carry
                dc -= c_carry
            product(step_backward(view, dh, dc, dc_by_gate), weight, dh)
            if mask is not None:
                dh *= mask
            if zone is not None:
                dh += h_carry
                dc += c_carry
        return d, cell.finish_block(seen, d, self.grads)


def _with_rows_in_line(inputs: Inputs) -> Inputs:
    names = ("x", "zone_h", "zone_c")
    return inputs._replace(**{name: _rows_in_line(getattr(inputs, name)) for name in names})


def _rows_in_line(x: Tensor | None) -> Tensor | None:
    """Return x (T, B, F) such that (T * B, F) is a view of it; copied once, if at all."""
    return None if x is None else x.flatten(0, 1).view(x.shape)


def _memory(inputs: Inputs, packing: Packing, for_backward: bool) -> Kept:
    """Return memory for what is kept: of all steps for a backward, else of one block."""
    n_texts, hidden = inputs.x.shape[1], inputs.weight_hh.shape[1]
    n_rows = sum(packing.counts)
    n_kept = n_rows if for_backward else _largest_block(inputs, packing)
    dtype, names = state_dtype(inputs), _names_of_kept(inputs)

    def rows(n, width, dtype=dtype):
        return torch.empty(n, width, dtype=dtype)

    return Kept(
        gates=rows(n_kept, inputs.weight_hh.shape[0]),
        h=rows(n_texts + n_rows, hidden, inputs.x.dtype),
        c=rows(n_texts + n_rows if for_backward else n_texts, hidden),
        c_new=rows(n_kept, hidden) if "c_new" in names else None,
        h_in=rows(n_kept, hidden, inputs.x.dtype) if "h_in" in names else None,
    )


def _names_of_kept(inputs: Inputs) -> list[str]:
    wanted = {
        "c_new": inputs.zone_h is not None,
        "h_in": inputs.mask_h is not None,
    }
    return [name for name in Kept._fields if wanted.get(name, True)]


def _project(inputs: Inputs, x: Tensor, weight_ih_t: Tensor, gates: Tensor) -> None:
    """Write the input's share of the gates (N, G*H) of the rows x (N, I)."""
    bias = rolled(inputs, inputs.bias).to(gates.dtype)
    if inputs.norm_ih is None:
        gates.copy_(bias.expand_as(gates))
        add_product(gates, x, weight_ih_t)
    else:
        product(x, weight_ih_t, gates)
        scale = rolled(inputs, inputs.norm_ih).to(gates.dtype)
        gates.copy_(torch.layer_norm(gates, scale.shape, scale, bias, NORM_EPS))


def _project_backward(
    inputs: Inputs,
    packing: Packing,
    scratch: Scratch,
    block: slice,
    d: Tensor,  # (N, G*H) the gradients of the gates
    weight_ih: Tensor,  # (G*H, I) rolled
    grads: dict[str, Tensor],
) -> None:
    """Add a block's share to the gradients of the input and of its weights."""
    x = packing.take(inputs.x, block, scratch, "x")
    grads["bias"] += d.sum(0)
    if inputs.norm_ih is not None:
        projected = product(x, weight_ih.t(), scratch.rows("product", *d.shape, d.dtype))
        scale = rolled(inputs, inputs.norm_ih).to(d.dtype)
        moments = stats(projected, scratch)
        d, of_scale, _ = norm_backward(d, projected, *moments, scale, of_scale=True)
        grads["norm_ih"] += of_scale
    add_product(grads["weight_ih"], d.t(), x)
    if "x" in grads:
        out = scratch.rows("grad_x", *x.shape, x.dtype)
        packing.put(product(d, weight_ih, out), grads["x"], block)


def _zones(inputs, packing, scratch, block, counts):
    """Return the shares of zoneout step by step, (n, H) of h and of c; None for each without."""
    if inputs.zone_h is None:
        return [None] * len(counts)
    zone_h = packing.take(inputs.zone_h, block, scratch, "zone_h")
    zone_c = packing.take(inputs.zone_c, block, scratch, "zone_c").to(state_dtype(inputs))
    return list(zip(zone_h.split(counts), zone_c.split(counts), strict=True))


def _split(x, rows, counts):
    """Return rows step by step, or None for each step."""
    return [None] * len(counts) if x is None else x[rows].split(counts)


def _packing(inputs: Inputs) -> Packing:
    n_steps, n_texts, _, _ = inputs.sizes
    return pack(inputs.lengths, reverse=inputs.reverse, n_steps=n_steps, n_texts=n_texts)


def _rows_a_block(inputs: Inputs) -> int:
    return max(1, BLOCK_ELEMENTS // inputs.weight_hh.shape[0])


def _largest_block(inputs: Inputs, packing: Packing) -> int:
    return max(block.stop - block.start for block, _ in packing.blocks(_rows_a_block(inputs)))
