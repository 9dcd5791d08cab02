"""What both Triton kernels share: the block of texts a program owns, its tiles, its launch.

A program owns ``TEXTS`` texts and all H hidden units. A tile is (TEXTS, PADDED) numbers in
registers, always float32; ``PADDED`` is H rounded up to a power of two, and a tile is 0 in its
padded columns. A "row" is a place in the first axes of a tensor: ``t * B + b`` in (T, B, F), ``b``
in (B, F).
"""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Texts a program owns: the fewest rows a tensor core multiplies. More texts would need more
#: registers a thread, and there are seldom so many texts that the card's processors are all busy.
TEXTS = 16

#: PADDED -> warps of a program: so many that every cell stays in the registers, both ways, where H
#: is a power of two. An odd H needs more for its addresses, and a few numbers may go to memory.
NUM_WARPS = {16: 2, 32: 4, 64: 8, 128: 8}

#: All the registers a thread can have. Left to itself, the assembler puts numbers into memory so
#: that more programs might share a processor; there are seldom so many.
MOST_REGISTERS = 255

#: Whether kernels run in Triton's interpreter, on tensors of any device.
INTERPRETED = triton.knobs.runtime.interpret

#: What changes from batch to batch must not compile a kernel anew.
RUNTIME = ["n_steps", "n_texts"]


@triton.jit
def tanh(x):
    """As a sigmoid: the quotient of exponentials is NaN where they overflow."""
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def texts_of_program(lengths, n_steps, n_texts, TEXTS: tl.constexpr):
    """Return the numbers of the program's texts and their lengths; 0 past the last text."""
    text = tl.program_id(0) * TEXTS + tl.arange(0, TEXTS)
    if lengths is None:
        length = tl.where(text < n_texts, n_steps, 0)
    else:
        length = tl.load(lengths + text, mask=text < n_texts, other=0)
    return text, length


@triton.jit
def row_of_step(step, text, length, n_texts, REVERSE: tl.constexpr):
    """Return the row of a step in (T, B); in 64 bits, since offsets from it exceed 2**31."""
    position = length - 1 - step if REVERSE else text * 0 + step
    return position.to(tl.int64) * n_texts + text


@triton.jit
def load_tile(
    base, row, wanted,
    WIDTH: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr, GATE: tl.constexpr = 0,
):  # fmt: skip
    """Return H numbers of each row, from the gate's first on; 0 in the rows not wanted."""
    unit = tl.arange(0, PADDED)
    pointers = base + (row.to(tl.int64) * WIDTH + GATE * H)[:, None] + unit[None, :]
    inside = wanted[:, None] & (unit < H)[None, :]
    return tl.load(pointers, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_tile(
    tile, base, row, wanted,
    WIDTH: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr, GATE: tl.constexpr = 0,
):  # fmt: skip
    """Undo ``load_tile``."""
    unit = tl.arange(0, PADDED)
    pointers = base + (row.to(tl.int64) * WIDTH + GATE * H)[:, None] + unit[None, :]
    inside = wanted[:, None] & (unit < H)[None, :]
    tl.store(pointers, tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def load_vector(base, GATE: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr):
    """Return (1, PADDED): H numbers that all texts share."""
    unit = tl.arange(0, PADDED)
    vector = tl.load(base + GATE * H + unit, mask=unit < H, other=0.0)
    return vector.to(tl.float32)[None, :]


@triton.jit
def normed(x, EPS: tl.constexpr, H: tl.constexpr, PADDED: tl.constexpr):
    """Return x with mean 0 and variance 1 over its H units, and 1 / deviation (TEXTS, 1)."""
    inside = (tl.arange(0, PADDED) < H)[None, :]
    centred = tl.where(inside, x - tl.sum(x, axis=1, keep_dims=True) / H, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, axis=1, keep_dims=True) / H + EPS)
    return centred * scale, scale


def launch(kernel, inputs, arguments: dict) -> None:
    """Run a kernel over the texts of a batch, on the card that holds them."""
    n_programs = triton.cdiv(inputs.x.shape[1], TEXTS)
    device = inputs.x.device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[(n_programs,)](**arguments, **options(arguments["PADDED"]))


def options(padded: int) -> dict:
    """Return the options a kernel is compiled with."""
    # One stage: loads that run a step ahead would need shared memory that the weights fill.
    return {"num_warps": NUM_WARPS[padded], "num_stages": 1, "maxnreg": MOST_REGISTERS}


def shared_arguments(inputs, lengths: Tensor | None) -> dict:
    """Return the arguments that both kernels take."""
    n_steps, n_texts, _, hidden = inputs.sizes
    return {
        "weight_hh": inputs.weight_hh.contiguous(),
        "peephole": _contiguous(inputs.peephole),
        "norm_hh": _contiguous(inputs.norm_hh),
        "norm_c": _contiguous(inputs.norm_c),
        "mask_h": _contiguous(inputs.mask_h),
        "zone_h": _contiguous(inputs.zone_h),
        "zone_c": _contiguous(inputs.zone_c),
        "lengths": lengths,
        "n_steps": n_steps,
        "n_texts": n_texts,
        "G": len(inputs.properties.gates),
        "OUTPUT_SEES_NEW_C": inputs.properties.output_sees_new_c,
        "REVERSE": inputs.reverse,
        "H": hidden,
        "PADDED": max(16, triton.next_power_of_2(hidden)),
        "TEXTS": TEXTS,
        "PRECISION": _precision(),
    }


def _contiguous(tensor):
    return None if tensor is None else tensor.contiguous()


def _precision() -> str:
    """Return how float32 is multiplied: as torch would let cuDNN's LSTM do it."""
    if hasattr(torch.backends.cudnn, "rnn"):
        allowed = torch.backends.cudnn.rnn.fp32_precision == "tf32"
    else:
        allowed = torch.backends.cudnn.allow_tf32
    return "tf32" if allowed else "ieee"


@triton.jit
def _probe_kernel(number):
    tl.store(number, 1)


def probe(device: torch.device) -> None:
    """Launch the least of kernels; raise what stops it."""
    number = torch.zeros(1, dtype=torch.int32, device=device)
    with torch.cuda.device(device):
        _probe_kernel[(1,)](number)
