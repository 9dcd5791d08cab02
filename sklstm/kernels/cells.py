"""What a cell is: the one table of its gates, its states and its own parameters.

Only this file says what a name means. Other modules ask for a property of the cell
(``inputs.properties``). A backend lists the cells it has in ``HAS_CELLS``; where a backend needs
code for each cell, it has a dict from the cell's name to that code.

The formulas of the cells are in ``docs/kernels.md`` and, in code, in ``reference.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

#: The sizes that a shape in the table names: hidden units, and rows of the weights of all gates.
HIDDEN, ROWS = "H", "G*H"


class Parameter(NamedTuple):
    """A parameter that only some cells have."""

    shape: tuple[int | str, ...]  # numbers, HIDDEN or ROWS
    first: tuple[float, ...]  # the value at the start of each row; one value for all rows if one


@dataclass(frozen=True)
class Cell:
    """The properties of a cell."""

    #: The gates, in the order in which the weights stack them.
    gates: str
    #: The states that a step hands to the next.
    states: tuple[str, ...] = ("h", "c")
    #: Gate -> its bias at the start; the other gates start at 0.
    first_bias: Mapping[str, float] = field(default_factory=dict)
    #: Parameter -> shape and first values. Every cell has weights and biases besides.
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    #: Whether the peephole of the output gate sees the new c, and not the c before the step.
    output_sees_new_c: bool = False

    @property
    def has_norms(self) -> bool:
        """Whether the cell norms the gates and c."""
        return "norm_c" in self.parameters

    def shapes(self, hidden: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the cell's own parameters for ``hidden`` units.

        Examples
        --------
        >>> from sklstm.kernels.cells import CELLS
        >>> CELLS["peephole"].shapes(hidden=8)
        {'peephole': (3, 8)}
        """
        sizes = {HIDDEN: hidden, ROWS: len(self.gates) * hidden}
        return {
            name: tuple(sizes.get(size, size) for size in parameter.shape)
            for name, parameter in self.parameters.items()
        }


# A forget gate with a bias of 1 keeps most of c at the start (Jozefowicz et al. 2015).
KEEP_C = {"f": 1.0}
# Weights of 0 make it the standard cell at the start. The rows are those of i, f and o.
PEEPHOLE = {"peephole": Parameter((3, HIDDEN), first=(0.0,))}
NORMS = {
    "norm_ih": Parameter((ROWS,), first=(1.0,)),
    "norm_hh": Parameter((ROWS,), first=(1.0,)),
    "norm_c": Parameter((2, HIDDEN), first=(1.0, 0.0)),  # scale and shift
}

#: Name -> cell, from the standard cell on.
CELLS = {
    "lstm": Cell("ifgo", first_bias=KEEP_C),
    "peephole": Cell("ifgo", first_bias=KEEP_C, parameters=PEEPHOLE, output_sees_new_c=True),
    "peephole_previous": Cell("ifgo", first_bias=KEEP_C, parameters=PEEPHOLE),
    "layer_norm": Cell("ifgo", first_bias=KEEP_C, parameters=NORMS),
    # It forgets by 1 - i, so a bias of -1 for i does what a bias of 1 for f does.
    "coupled": Cell("igo", first_bias={"i": -1.0}),
}

#: Name -> parameter, of all cells. Each is a field of ``Inputs``.
PARAMETERS = {
    name: parameter for cell in CELLS.values() for name, parameter in cell.parameters.items()
}


def check_cell(cell: str) -> None:
    """Raise ValueError unless there is such a cell."""
    if cell not in CELLS:
        names = ", ".join(repr(name) for name in sorted(CELLS))
        raise ValueError(f"cell must be one of {names}; got {cell!r}.")
