"""What every backend promises: the inputs, the functions, the constants, the checks.

Sizes: ``T`` time steps, ``B`` texts in a batch, ``I`` input, ``H`` hidden, ``G`` gates. A backend
computes one direction of one layer. Names, shapes and the order of the gates are torch's: the
weights stack the gates along their first axis, in the order that ``cells.py`` lists for the cell.
One step of the standard cell::

    i, f, g, o = x[t] @ weight_ih.T + bias + (mask_h * h[t-1]) @ weight_hh.T
    c[t] = sigmoid(f) * c[t-1] + sigmoid(i) * tanh(g)
    h[t] = sigmoid(o) * tanh(c[t])

``docs/kernels.md`` has the other cells and the gradients of all; ``reference.py`` is the definition
in code.

Texts are padded on the right, by finite numbers, and padding never reaches a state. A text of
length ``n`` has its last state after its ``n`` steps. From step ``n`` on its ``h`` has no meaning,
so that a caller who masks the padding anyway does not pay for clearing it. A ``reverse`` direction
reads each text from its own last step to its first; ``h[t]`` is still the state at step ``t``.

A backend is a module with these functions:

``device_refusal(device)``
    returns None if the backend can run on the device, else the reason in words that follow the
    backend's name: "runs on the CPU only; got tensors on cuda:0".

``refusal(inputs, need_last)``
    returns None if the backend can run these inputs on a device that it does not refuse, else the
    reason. ``need_last`` says whether the caller wants the last states.

``suits(directions)``
    returns whether "auto" should try the backend for the directions of a layer. The dispatcher
    takes the first backend of its table that suits the directions and refuses nothing.

``gains_from_bfloat16(device, cell, hidden, masked, zoned)``
    returns whether it trains a layer on a device faster in bfloat16 than in float32. A masked layer
    has recurrent dropout, a zoned one zoneout.

``forward(inputs, for_backward)``
    returns ``Outputs``. Their ``saved`` tensors (or ``graph``) come back to ``backward``; they are
    empty unless ``for_backward``.

``backward(inputs, saved, grad_h, grad_h_last, grad_c_last, need_grad_x)``
    returns the gradients of the fields of ``Inputs`` named in ``DIFFERENTIABLE``, in that order,
    None where the field is None, and for x where it is not needed. It changes none of its
    arguments. ``grad_h`` is 0 in the padding.

and these constants:

``HAS_CELLS``
    the names of the cells it has. ``refusal`` refuses the others.

``SHARES_THREADS``
    the dtypes in which several calls run in parallel on a CPU, each with its share of the threads
    (``lanes.py``).

``READS_BY_INDEX``
    whether it takes inputs with an ``index``; otherwise the dispatcher reads the rows of x first.
    If True, the backend has ``tabulate(inputs)``, which returns the ``table`` of these inputs.

``DEVICES``
    the types of the devices it was written for, () for all.

``RUNS_TOGETHER``
    whether it runs the directions of a layer in one call. If True, the backend has
    ``forward_all(directions, for_backward)`` and ``backward_all(directions, saved, grads,
    need_grad_x)``, which take and return lists with one item a direction. The first ``Outputs`` has
    what all directions saved. ``grads`` are by the names of the outputs, "h", "h_last" and
    "c_last"; a gradient that autograd does not have is None.

``POOLS``
    the pools that it can take of the states of a text while it computes them, so that they need no
    memory: of "max" and "mean", over the text's steps, and "last", the state after its last step in
    the direction of reading. They are in float32 where the inputs are shorter. If there are any,
    ``forward_all`` takes them as a further argument, and then returns ``Outputs`` that have only
    ``pools``, whose names ``grads`` has.

``CAN_BE_EXPORTED``
    whether torch.export can trace it: as one operator of torch, or as plain steps.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from sklstm.kernels.cells import CELLS, HIDDEN, PARAMETERS, Cell, check_cell

#: Added to the variance by the layer norms, as in torch.nn.LayerNorm.
NORM_EPS = 1e-5

#: The largest factor, 1 / deviation, with which a norm inside the recurrence sends a gradient back:
#: that of a variance of NORM_EPS. While the states of a text are 0, as they are where all its
#: inputs are dropped, both norms of a step multiply by 1 / sqrt(NORM_EPS) = 316, and the gradient
#: overflows within some ten steps. So numbers with a smaller variance send none back.
STEEPEST_NORM = (2 * NORM_EPS) ** -0.5


class Inputs(NamedTuple):
    """One direction of one layer, over one batch."""

    x: Tensor  # (T, B, I), or (U, I) with an index
    weight_ih: Tensor  # (G*H, I), G gates
    weight_hh: Tensor  # (G*H, H)
    bias: Tensor  # (G*H,)
    h0: Tensor  # (B, H)
    c0: Tensor | None = None  # (B, H) None only if the cell has no state c
    peephole: Tensor | None = None  # (3, H) the weights of c in i, f and o
    norm_ih: Tensor | None = None  # (4H,) scale of the layer norm over x @ weight_ih.T
    norm_hh: Tensor | None = None  # (4H,) scale of the layer norm over h @ weight_hh.T
    norm_c: Tensor | None = None  # (2, H) scale and shift of the layer norm over c
    cell: str = "lstm"
    reverse: bool = False
    lengths: Tensor | None = None  # (B,) on the CPU, from 1 to T; None: all texts fill T
    mask_h: Tensor | None = None  # (B, H) recurrent dropout, the same at all steps of a text
    zone_h: Tensor | None = None  # (T, B, H) zoneout: the share of h[t-1] that stays in h[t]
    zone_c: Tensor | None = None  # (T, B, H) the same for c; both or neither
    index: Tensor | None = None  # (T, B) int64: which row of x is read at a step of a text
    table: Tensor | None = None  # what the backend's ``tabulate`` made of these x and weights
    lengths_there: Tensor | None = None  # (B,) the lengths on the device of x, by the dispatcher

    @property
    def properties(self) -> Cell:
        """The properties of the cell."""
        return CELLS[self.cell]

    @property
    def own_lengths(self) -> Tensor | None:
        """The lengths on the device of x."""
        if self.lengths is None or self.lengths_there is not None:
            return self.lengths_there
        return self.lengths.to(self.x.device)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """T, B, I and H."""
        steps = self.x if self.index is None else self.index
        return (*steps.shape[:2], self.x.shape[-1], self.weight_hh.shape[1])


#: The fields of ``Inputs`` that have a gradient, in the order ``backward`` returns them.
DIFFERENTIABLE = (
    "x",
    "weight_ih",
    "weight_hh",
    "bias",
    "h0",
    "c0",
    *PARAMETERS,
)


class Outputs(NamedTuple):
    """What ``forward`` returns."""

    h: Tensor | None  # (T, B, H) None where the pools were taken in place of it
    h_last: Tensor | None  # (B, H) None where the backend refuses it and nobody asked for it
    c_last: Tensor | None = None  # (B, H) the same; and None if the cell has no state c
    saved: tuple[Tensor, ...] = ()
    graph: tuple | None = None  # in place of ``saved``: a graph that autograd recorded inside
    pools: dict[str, Tensor] | None = None  # by name, each (B, H)


def mirror_index(
    lengths: Tensor | None,  # (B,) on the device
    *,
    n_steps: int,
    n_texts: int,
    device: torch.device,
) -> Tensor:
    """Return the flat index (T * B,) that reverses each text by its own length.

    Padding stays where it is, so the index is its own inverse.
    """
    step = torch.arange(n_steps, device=device).unsqueeze(1)
    if lengths is None:
        mirrored = (n_steps - 1 - step).expand(n_steps, n_texts)
    else:
        mirrored = torch.where(step < lengths, lengths - 1 - step, step)
    return (mirrored * n_texts + torch.arange(n_texts, device=device)).flatten()


def check_inputs(inputs: Inputs) -> None:
    """Raise ValueError unless the inputs fit together."""
    check_cell(inputs.cell)
    _check_x(inputs)
    n_gates = len(inputs.properties.gates)
    if inputs.weight_hh.ndim != 2 or inputs.weight_hh.shape[0] != (
        n_gates * inputs.weight_hh.shape[1]
    ):
        raise ValueError(
            f"weight_hh of the cell {inputs.cell!r} must have shape ({n_gates}*H, H); "
            f"got {tuple(inputs.weight_hh.shape)}."
        )
    _check_fields(inputs)
    if inputs.lengths is not None:
        n_steps, n_texts, _, _ = inputs.sizes
        check_lengths(inputs.lengths, n_steps=n_steps, n_texts=n_texts)


def _check_x(inputs: Inputs) -> None:
    """Raise ValueError unless x has an input for each step of each text."""
    shape, index = tuple(inputs.x.shape), inputs.index
    if index is None:
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"x must have shape (T, B, I) with T, B, I >= 1; got {shape}.")
        return
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"x with an index must have shape (U, I) with U, I >= 1; got {shape}.")
    if index.ndim != 2 or index.numel() == 0 or index.dtype != torch.int64:
        raise ValueError(
            "index must have shape (T, B) with T, B >= 1 and hold int64; "
            f"got shape {tuple(index.shape)} of {index.dtype}."
        )
    if index.device.type == "cuda":  # the card itself checks; to ask it would mean to wait for it
        return
    lowest, highest = int(index.min()), int(index.max())
    if lowest < 0 or highest >= shape[0]:
        raise ValueError(
            f"index must lie between 0 and U - 1 = {shape[0] - 1}; "
            f"got values from {lowest} to {highest}."
        )


def _check_fields(inputs: Inputs) -> None:
    """Raise ValueError for a field that is missing, not wanted, or does not fit the others."""
    zoned = inputs.zone_h is not None or inputs.zone_c is not None
    masked = inputs.mask_h is not None
    # Sizes that an exported program leaves open cannot be remembered.
    find = _expected_fields.__wrapped__ if torch.compiler.is_exporting() else _expected_fields
    expected = find(inputs.cell, inputs.sizes, masked=masked, zoned=zoned)
    for name, (shape, source, wanted) in expected.items():
        tensor = getattr(inputs, name)
        if (tensor is not None) != wanted:
            verb = "needs" if wanted else "has no"
            raise ValueError(f"the cell {inputs.cell!r} {verb} {name}.")
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape}, with {source}; got {tuple(tensor.shape)}."
            )
    for name in ("weight_hh", *expected):
        tensor = getattr(inputs, name)
        if tensor is not None and (tensor.dtype, tensor.device) != (
            inputs.x.dtype,
            inputs.x.device,
        ):
            raise ValueError(
                f"{name} must have the dtype and device of x, {inputs.x.dtype} on "
                f"{inputs.x.device}; got {tensor.dtype} on {tensor.device}."
            )


@lru_cache
def _expected_fields(
    cell: str, sizes: tuple[int, int, int, int], *, masked: bool, zoned: bool
) -> dict[str, tuple[tuple[int, ...], str, bool]]:
    """Return for each field its shape, the source of its sizes, and whether it must be there."""
    n_steps, n_texts, n_inputs, hidden = sizes
    cell = CELLS[cell]
    rows = len(cell.gates) * hidden
    of_rows, of_hidden = "the rows of weight_hh", "H from weight_hh"
    of_state, of_zone = "B from x and H from weight_hh", "T, B from x and H from weight_hh"
    expected = {
        "weight_ih": ((rows, n_inputs), f"{of_rows} and I from x", True),
        "bias": ((rows,), of_rows, True),
    }
    for state in ("h", "c"):
        expected[f"{state}0"] = (n_texts, hidden), of_state, state in cell.states
    own = cell.shapes(hidden)
    for name, parameter in PARAMETERS.items():
        source = of_hidden if HIDDEN in parameter.shape else of_rows
        expected[name] = own.get(name), source, name in own
    expected["mask_h"] = (n_texts, hidden), of_state, masked
    for state in ("h", "c"):
        wanted = zoned and state in cell.states
        expected[f"zone_{state}"] = (n_steps, n_texts, hidden), of_zone, wanted
    return expected


def check_lengths(lengths: Tensor, *, n_steps: int, n_texts: int) -> None:
    """Raise ValueError unless there is one length from 1 to ``n_steps`` for each text."""
    if lengths.shape != (n_texts,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(
            f"lengths must hold one whole number for each of the {n_texts} texts; "
            f"got shape {tuple(lengths.shape)} of {lengths.dtype}."
        )
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 1 or longest > n_steps:
        raise ValueError(
            f"lengths must lie between 1 and T={n_steps}; got values from {shortest} to {longest}."
        )
