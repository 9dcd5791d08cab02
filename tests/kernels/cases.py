"""The one table of parity cases: cells, sizes, lengths, features, dtypes and tolerances.

All sizes of a case differ, no state is zero, and ``h0`` differs from ``c0``, so that no mix-up of
axes or states can hide.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sklstm.kernels.cells import CELLS
from sklstm.kernels.contract import DIFFERENTIABLE, Inputs


class Case(NamedTuple):
    """The sizes of one case: steps T, texts B, input I, hidden H."""

    n_steps: int
    n_texts: int
    n_inputs: int
    hidden: int
    lengths: tuple[int, ...] | None = None
    reverse: bool = False
    scale: float = 1.0  # of the input; 60 drives the gates deep into saturation
    contiguous: bool = True
    masked: bool = False  # with recurrent dropout
    zoned: bool = False  # with zoneout


CASES = {
    "full": Case(7, 3, 5, 11),
    "reverse": Case(7, 3, 5, 11, reverse=True),
    "one step": Case(1, 3, 5, 11),
    "one text": Case(7, 1, 5, 11),
    "ragged, sorted": Case(7, 4, 5, 11, lengths=(7, 5, 5, 1)),
    "ragged, unsorted": Case(7, 4, 5, 11, lengths=(4, 7, 1, 6)),
    "ragged, reverse": Case(7, 4, 5, 11, lengths=(4, 7, 1, 6), reverse=True),
    "all shorter than T": Case(7, 3, 5, 11, lengths=(2, 5, 3)),
    "saturated": Case(7, 3, 5, 11, lengths=(7, 1, 4), scale=60.0),
    "not contiguous": Case(7, 3, 5, 11, lengths=(3, 7, 1), contiguous=False),
    "recurrent dropout": Case(7, 3, 5, 11, masked=True),
    "recurrent dropout, ragged": Case(7, 4, 5, 11, lengths=(4, 7, 1, 6), masked=True),
    "zoneout": Case(7, 3, 5, 11, zoned=True),
    "zoneout, ragged, reverse": Case(7, 4, 5, 11, lengths=(4, 7, 1, 6), reverse=True, zoned=True),
}

#: dtype -> (rtol, atol), the same everywhere. Gradients sum over T * B terms.
TOLERANCES = {torch.float64: (1e-9, 1e-11), torch.float32: (1e-4, 2e-5)}


#: How the parameters are drawn that only some cells have: the scales of norms around 1.
DRAWS = {
    "peephole": lambda draw, shape: draw(*shape),
    "norm_ih": lambda draw, shape: 1 + draw(*shape, scale=0.3),
    "norm_hh": lambda draw, shape: 1 + draw(*shape, scale=0.3),
    "norm_c": lambda draw, shape: draw(*shape, scale=0.5),
}


def make_inputs(case: Case, cell: str, dtype: torch.dtype) -> Inputs:
    """Return inputs whose differentiable tensors are leaves that require gradients."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    t, b, i, h = case.n_steps, case.n_texts, case.n_inputs, case.hidden
    rows = len(CELLS[cell].gates) * h
    x = draw(t, b, i, scale=case.scale)
    if not case.contiguous:
        x = draw(b, t, i, scale=case.scale).transpose(0, 1)
    inputs = Inputs(
        x=x,
        weight_ih=draw(rows, i, scale=i**-0.5),
        weight_hh=draw(rows, h, scale=h**-0.5),
        bias=draw(rows),
        h0=draw(b, h),
        c0=draw(b, h, scale=2.0),
        **{name: DRAWS[name](draw, shape) for name, shape in CELLS[cell].shapes(hidden=h).items()},
    )
    for name in DIFFERENTIABLE:
        if getattr(inputs, name) is not None:
            getattr(inputs, name).requires_grad_()

    def share(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return inputs._replace(
        cell=cell,
        reverse=case.reverse,
        lengths=None if case.lengths is None else torch.tensor(case.lengths),
        mask_h=(share(b, h) < 0.7).to(dtype) / 0.7 if case.masked else None,
        zone_h=share(t, b, h) if case.zoned else None,
        zone_c=share(t, b, h) if case.zoned else None,
    )


def in_double(inputs: Inputs) -> Inputs:
    """Return the same numbers in float64, as leaves that require gradients."""
    return Inputs(
        *(
            value.detach().double().requires_grad_(name in DIFFERENTIABLE)
            if isinstance(value, Tensor) and value.is_floating_point()
            else value
            for name, value in inputs._asdict().items()
        )
    )


def outputs_and_gradients(run, inputs: Inputs, *, with_last: bool = True) -> dict[str, Tensor]:
    """Return by name what ``run`` gives and the gradients of a fixed random sum of it."""
    outputs = dict(zip(("h", "h_last", "c_last"), run(inputs), strict=False))
    if inputs.lengths is not None:  # what stands in the padding means nothing
        step = torch.arange(len(outputs["h"])).view(-1, 1, 1)
        outputs["h"] = torch.where(step < inputs.lengths.unsqueeze(1), outputs["h"], 0.0)
    if not with_last:
        outputs = {"h": outputs["h"]}
    generator = torch.Generator().manual_seed(1)
    total = 0.0
    for output in outputs.values():
        weight = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        total = total + (output * weight.to(output.dtype)).sum()
    leaves = {
        name: getattr(inputs, name) for name in DIFFERENTIABLE if getattr(inputs, name) is not None
    }
    gradients = torch.autograd.grad(total, list(leaves.values()))
    results = {name: output.detach() for name, output in outputs.items()}
    return results | {f"grad_{name}": grad for name, grad in zip(leaves, gradients, strict=True)}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype):
    """Compare every output and every gradient by name."""
    assert actual.keys() == expected.keys()
    rtol, atol = TOLERANCES[dtype]
    for name, value in actual.items():
        torch.testing.assert_close(
            value,
            expected[name].to(dtype),
            rtol=rtol,
            atol=atol * max(1.0, float(expected[name].abs().max())),
            msg=lambda message, name=name: f"{name}: {message}",
        )
