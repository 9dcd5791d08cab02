"""Torch's own fused layer: oneDNN on CPU, cuDNN on CUDA.

It has only the standard cell and does not know the lengths. Padding on the right cannot reach an
earlier state, so each text's states are right up to its length. But the layer overwrites the cell
state at that length and cannot return it. The reverse direction reads mirrored texts.
"""

import torch
from torch import Tensor

from sklstm.kernels.contract import DIFFERENTIABLE, Inputs, Outputs, mirror_index
from sklstm.kernels.workload import live_share, needs_backward, texts_a_shard

HAS_CELLS = frozenset({"lstm"})
# In float32 a layer by itself gains a little from parallel directions. In a network it loses on
# short texts: threads that wait for torch's next operator disturb the parallel calls.
SHARES_THREADS = (torch.bfloat16,)
READS_BY_INDEX = False
DEVICES = ()
RUNS_TOGETHER = False
POOLS = frozenset()
CAN_BE_EXPORTED = True

# Units of one step of one shard. Up to this number our Python calls of torch's operators cost more
# than the operators.
SMALL_STEP = 8192
# Steps. Up to this number torch's layer wins on small batches with padding too.
SHORT = 64


def device_refusal(device: torch.device) -> str | None:
    """Return None: torch's layer runs on every device."""
    return None


def refusal(inputs: Inputs, need_last: bool) -> str | None:
    """Return why torch's layer cannot run these inputs, or None."""
    if inputs.cell not in HAS_CELLS:
        return f"has no cell {inputs.cell!r}: torch's fused layer has only the standard cell"
    if inputs.mask_h is not None:
        return "has no recurrent dropout, since torch's fused layer has none"
    if inputs.zone_h is not None:
        return "has no zoneout, since torch's fused layer has none"
    if need_last and inputs.lengths is not None:
        return (
            "cannot return the last cell state of texts of different lengths: torch's fused layer "
            "does not keep it"
        )
    return None


def suits(directions: list[Inputs]) -> bool:
    """Return whether torch's layer is faster than ours, as ``benchmarks/speed/lstm.py`` measured.

    On a CPU it computes the padding too, but spends less on each step. So it loses where much is
    padding and where steps are large; in prediction it wins on full batches of any size. In float64
    and float16 it is not fused; in bfloat16 it uses the matrix units better than we do.
    """
    inputs = directions[0]
    if inputs.x.device.type != "cpu":
        return True
    if inputs.x.dtype != torch.float32:
        return inputs.x.dtype == torch.bfloat16
    n_steps, _, _, hidden = inputs.sizes
    live = live_share(inputs)
    small = texts_a_shard(directions) * hidden <= SMALL_STEP
    if needs_backward(directions):
        return small and (live > 0.85 or n_steps <= SHORT)
    return live > (0.35 if small else 0.8)


def gains_from_bfloat16(
    device: torch.device, *, cell: str, hidden: int, masked: bool, zoned: bool
) -> bool:
    """Return whether oneDNN runs the layer in matrix units; cuDNN is faster in float32."""
    has_units = device.type == "cpu" and has_matrix_units()
    return has_units and cell in HAS_CELLS and not (masked or zoned)


def has_matrix_units() -> bool:
    """Return whether the processor multiplies matrices of bfloat16: Intel's AMX.

    A torch that is too old to say counts as a processor without it.
    """
    return bool(getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False))


def forward(inputs: Inputs, for_backward: bool) -> Outputs:
    """Run torch's layer; for a backward, keep the graph that autograd records."""
    if not for_backward:
        return Outputs(*_run(inputs))
    present = [name for name in DIFFERENTIABLE if getattr(inputs, name) is not None]
    leaves = {name: getattr(inputs, name).detach() for name in present}
    with torch.enable_grad():
        for leaf in leaves.values():
            leaf.requires_grad_()
        h, h_last, c_last = _run(inputs._replace(**leaves))
    ends = [end for end in (h, h_last, c_last) if end is not None]
    detached = [None if end is None else end.detach() for end in (h, h_last, c_last)]
    return Outputs(*detached, graph=(leaves, ends))


def backward(
    inputs: Inputs,
    saved: tuple[dict[str, Tensor], list[Tensor]],
    grad_h: Tensor,  # (T, B, H)
    grad_h_last: Tensor | None,  # (B, H)
    grad_c_last: Tensor | None,  # (B, H)
    need_grad_x: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of ``DIFFERENTIABLE`` through the graph that was kept."""
    leaves, ends = saved
    names = [name for name in leaves if need_grad_x or name != "x"]
    grads = [grad for grad in (grad_h, grad_h_last, grad_c_last) if grad is not None]
    wanted = [leaves[name] for name in names]
    of_leaves = torch.autograd.grad(ends, wanted, grads, retain_graph=True)
    by_name = dict(zip(names, of_leaves, strict=True))
    return tuple(by_name.get(name) for name in DIFFERENTIABLE)


def _run(inputs: Inputs) -> tuple[Tensor, Tensor | None, Tensor | None]:
    x, index = inputs.x, None
    if inputs.reverse:
        n_steps, n_texts, _, _ = inputs.sizes
        index = mirror_index(inputs.own_lengths, n_steps=n_steps, n_texts=n_texts, device=x.device)
        x = Mirror.apply(x, index)
    h, h_last, c_last = torch.lstm(
        x,
        (inputs.h0.unsqueeze(0).contiguous(), inputs.c0.unsqueeze(0).contiguous()),
        _weights(inputs),
        has_biases=True,
        num_layers=1,
        dropout=0.0,
        train=torch.is_grad_enabled(),  # without it cuDNN keeps nothing for a backward
        bidirectional=False,
        batch_first=False,
    )
    if inputs.reverse:
        h = Mirror.apply(h, index)
    return (h, h_last[0], c_last[0]) if inputs.lengths is None else (h, None, None)


def _weights(inputs):
    """Return the weights as torch's layer takes them; for cuDNN as parts of one tensor.

    cuDNN reads them from one block of memory. Torch would copy them there at each call, and warn.
    """
    weights = [inputs.weight_ih, inputs.weight_hh, inputs.bias, torch.zeros_like(inputs.bias)]
    if inputs.x.device.type != "cuda":
        return weights
    sizes = [weight.numel() for weight in weights]
    parts = torch.cat([weight.flatten() for weight in weights]).split(sizes)
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


class Mirror(torch.autograd.Function):
    """Reverse each text by its own length; the gradient is mirrored by the same index."""

    @staticmethod
    def forward(ctx, x, index):
        """Gather x (T, B, F) by the flat index of ``mirror_index``."""
        ctx.save_for_backward(index)
        return x.flatten(0, 1).index_select(0, index).view(x.shape)

    @staticmethod
    def backward(ctx, grad):
        """Gather the gradient: a permutation that is its own inverse needs no scatter."""
        (index,) = ctx.saved_tensors
        return Mirror.apply(grad, index), None
