"""What both Triton kernels share: the block of texts a program owns, its tiles, its launch.

A program owns ``TEXTS`` texts and all H hidden units. A tile is (TEXTS, PADDED) numbers in
registers, always float32; ``PADDED`` is H rounded up to a power of two, and a tile is 0 in its
padded columns. A "row" is a place in the first axes of a tensor: ``t * B + b`` in (T, B, F), ``b``
in (B, F).

The weights stay in the shared memory of the program for all steps where they fit. Where they do
not, each step reads them again from the card's cache, ``CHUNK`` units at a time: they are
``STREAMED``.
"""

from contextlib import nullcontext
from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import OutOfResources

from sklstm.kernels.contract import Inputs

#: Texts a program owns: the fewest rows a tensor core multiplies. More texts would need more
#: registers a thread, and there are seldom so many texts that the card's processors are all busy.
TEXTS = 16

#: PADDED -> warps of a program: so few that threads seldom wait for each other, and so many that
#: every cell stays in the registers, both ways, where H is a power of two. Streamed weights and an
#: odd H need more for their addresses, and a few numbers may go to memory.
NUM_WARPS = {16: 2, 32: 4, 64: 4, 128: 8, 256: 16}

#: All the registers a thread can have, and a processor of the card. Left to itself, the assembler
#: puts numbers into memory so that more programs might share a processor; there are seldom so many.
MOST_REGISTERS, REGISTERS = 255, 2**16

#: The largest H of a cell with norms whose weights stay on the chip in float32. With more units,
#: some of its kernels need a few more registers than a thread has.
LARGEST_NORMED_FLOAT32 = 32

#: Steps, and chunks of streamed weights, that are read at the same time. More did not help.
MOST_STEPS, MOST_CHUNKS = 3, 2

#: Whether kernels run in Triton's interpreter, on tensors of any device.
INTERPRETED = triton.knobs.runtime.interpret

#: What changes from batch to batch must not compile a kernel anew.
RUNTIME = ["n_steps", "n_texts"]


@triton.jit
def tanh(x, FAST: tl.constexpr):
    """With ``FAST``, the card's own: its error of 2**-11 is that of a half precision."""
    if FAST:
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:  # the quotient of exponentials is NaN where they overflow
        return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def sigmoid(x, FAST: tl.constexpr):
    """One special function of the card in place of two."""
    if FAST:
        return 0.5 * tanh(0.5 * x, FAST) + 0.5
    else:
        return tl.sigmoid(x)


@triton.jit
def load_columns(
    base, row, wanted, first,
    WIDTH: tl.constexpr, H: tl.constexpr, CHUNK: tl.constexpr, GATE: tl.constexpr = 0,
):  # fmt: skip
    """Return (TEXTS, CHUNK): some of the H numbers of each row, from ``first`` on, as they are."""
    unit = first + tl.arange(0, CHUNK)
    pointers = base + (row.to(tl.int64) * WIDTH + GATE * H)[:, None] + unit[None, :]
    return tl.load(pointers, mask=wanted[:, None] & (unit < H)[None, :], other=0.0)


@triton.jit
def texts_of_program(lengths, n_steps, n_texts, TEXTS: tl.constexpr):
    """Return the numbers of the program's texts and their lengths; 0 past the last text."""
    text = tl.program_id(0) * TEXTS + tl.arange(0, TEXTS)
    if lengths is None:
        length = tl.where(text < n_texts, n_steps, 0)
    else:
        length = tl.load(lengths + text, mask=text < n_texts, other=0).to(tl.int32)
    return text, length


@triton.jit
def row_of_step(step, text, length, n_texts, REVERSED: tl.constexpr):
    """Return the row of a step in (T, B); in 64 bits, since offsets from it exceed 2**31.

    Bit d of ``REVERSED`` says that direction d is read from the end. Padding has its own rows.
    """
    is_reversed = ((REVERSED >> tl.program_id(1)) & 1) == 1
    position = tl.where(is_reversed & (step < length), length - 1 - step, step)
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


class Plan(NamedTuple):
    """How a kernel uses the chip."""

    streamed: bool  # whether each step reads the weights again
    chunk: int  # units of streamed weights that are read at once
    stages: int  # steps, or chunks of streamed weights, whose reads are under way at the same time
    warps: int  # of a program


def plan(
    kernel: str,  # "forward" or "backward"
    dtype: torch.dtype,
    hidden: int,
    shared_memory: int,  # bytes a program may have
    *,
    has_norms: bool,  # whether the cell has norms
) -> Plan:
    """Return how a kernel uses a chip: what of the weights and of the reads ahead fits.

    The sizes are those that the compiler reports; ``test_triton.py`` compiles each plan.
    """
    padded, is_half = pad(hidden), dtype.itemsize == 2
    warps = NUM_WARPS[padded]
    if padded == 64 and (has_norms or not is_half):
        warps *= 2
    weights, tile = 4 * padded * padded * dtype.itemsize, TEXTS * padded * dtype.itemsize
    of_float = TEXTS * padded * 4  # a tile of floats, to exchange numbers between threads
    if kernel == "forward":
        scratch, step = of_float + 2048, 6 * tile
    else:
        scratch = 3 * of_float if is_half else 5 * of_float
        step = (11 if has_norms else 7) * tile + of_float
    too_many = has_norms and not is_half and hidden > LARGEST_NORMED_FLOAT32
    if too_many or weights + scratch > shared_memory:
        chunk = 32 if is_half else 16
        stages = (shared_memory - 2 * of_float) // (4 * chunk * padded * dtype.itemsize)
        return Plan(True, chunk, max(1, min(stages, MOST_CHUNKS)), warps)
    ahead = (shared_memory - weights - scratch) // step
    return Plan(False, 16, min(1 + ahead, MOST_STEPS if is_half else MOST_STEPS - 1), warps)


def pad(hidden: int) -> int:
    """Return the columns of a tile."""
    return max(16, triton.next_power_of_2(hidden))


@cache
def shared_memory_of(device: torch.device) -> int:
    """Return the bytes of shared memory that a program may have; the interpreter has no limit."""
    if device.type != "cuda":
        return 2**30
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


#: Plans that a card refused, with what they were for.
_refused = set()


def launch(name: str, kernel, arguments: dict, device: torch.device) -> None:
    """Run a kernel over the texts of a batch and all directions, on the card that holds them."""
    dtype, has_norms = arguments["weight_hh"].dtype, arguments["norm_hh"] is not None
    best = plan(name, dtype, arguments["H"], shared_memory_of(device), has_norms=has_norms)
    grid = (triton.cdiv(arguments["n_texts"], TEXTS), arguments["D"])
    plans = more_modest(best)
    for of in plans:
        is_last = of is plans[-1]
        what = (of, name, dtype, arguments["H"], arguments["G"], has_norms, device)
        if what in _refused and not is_last:
            continue
        try:
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                kernel[grid](**arguments, **plan_arguments(of), **options(of))
            return
        except OutOfResources:
            if is_last:
                raise
            _refused.add(what)


def more_modest(best: Plan) -> list[Plan]:
    """Return a plan, and those for a compiler that needs more memory than ``plan`` expects."""
    plans = [best, best._replace(stages=1), best._replace(streamed=True, chunk=16, stages=1)]
    return list(dict.fromkeys(plans))


def plan_arguments(of: Plan) -> dict:
    """Return the arguments of a kernel that follow from its plan."""
    return {"STREAMED": of.streamed, "CHUNK": of.chunk, "STAGES": of.stages}


def options(of: Plan) -> dict:
    """Return the options a kernel is compiled with."""
    registers = min(MOST_REGISTERS, REGISTERS // (32 * of.warps))
    return {"num_warps": of.warps, "num_stages": of.stages, "maxnreg": registers}


def shared_arguments(directions: list[Inputs]) -> dict:
    """Return the arguments that both kernels take: of each field those of all directions."""
    inputs = directions[0]
    n_steps, n_texts, _, hidden = inputs.sizes
    names = ("weight_hh", "peephole", "norm_hh", "norm_c", "mask_h", "zone_h", "zone_c")
    return {name: stacked([getattr(own, name) for own in directions]) for name in names} | {
        "lengths": inputs.own_lengths,
        "n_steps": n_steps,
        "n_texts": n_texts,
        "D": len(directions),
        "REVERSED": sum(own.reverse << d for d, own in enumerate(directions)),
        "G": len(inputs.properties.gates),
        "OUTPUT_SEES_NEW_C": inputs.properties.output_sees_new_c,
        "H": hidden,
        "PADDED": pad(hidden),
        "TEXTS": TEXTS,
        "PRECISION": _precision(),
        "FAST": inputs.x.dtype.itemsize == 2 and not INTERPRETED,
    }


def stacked(tensors: list[Tensor | None]) -> Tensor | None:
    """Return tensors of one shape as one, contiguous; None where there are none."""
    if tensors[0] is None:
        return None
    if len(tensors) > 1:
        return torch.stack(tensors)
    tensor = tensors[0].contiguous()
    # A view may begin anywhere, and for each alignment a kernel would be compiled.
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


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
