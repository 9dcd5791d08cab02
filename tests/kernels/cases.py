"""The one table of parity cases: sizes, lengths, dtypes and tolerances.

All sizes of a case differ, no state is zero, and ``h0`` differs from ``c0``, so that no mix-up of
axes or states can hide.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    """The sizes of one case: steps T, texts B, input I, hidden H."""

    n_steps: int
    n_texts: int
    n_inputs: int
    hidden: int
    lengths: tuple[int, ...] | None = None
    scale: float = 1.0  # of the input; 60 drives the gates deep into saturation
    contiguous: bool = True
    masked: bool = False  # with recurrent dropout


CASES = {
    "full": Case(7, 3, 5, 11),
    "one step": Case(1, 3, 5, 11),
    "one text": Case(7, 1, 5, 11),
    "ragged, sorted": Case(7, 4, 5, 11, lengths=(7, 5, 5, 1)),
    "ragged, unsorted": Case(7, 4, 5, 11, lengths=(4, 7, 1, 6)),
    "all shorter than T": Case(7, 3, 5, 11, lengths=(2, 5, 3)),
    "saturated": Case(7, 3, 5, 11, lengths=(7, 1, 4), scale=60.0),
    "not contiguous": Case(7, 3, 5, 11, lengths=(3, 7, 1), contiguous=False),
    "recurrent dropout": Case(7, 3, 5, 11, masked=True),
    "recurrent dropout, ragged": Case(7, 4, 5, 11, lengths=(4, 7, 1, 6), masked=True),
    # cpu.py cuts its backward into blocks of 2**17 elements: here one step more than a block.
    "past a block edge": Case(2**17 // (8 * 4 * 64) + 1, 8, 5, 64),
}

#: dtype -> (rtol, atol), the same everywhere. Gradients sum over T * B terms.
TOLERANCES = {torch.float64: (1e-9, 1e-11), torch.float32: (1e-4, 2e-5)}


def make_inputs(case: Case, dtype: torch.dtype) -> dict[str, Tensor | None]:
    """Return the arguments of ``lstm_sequence`` as leaves that require gradients."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    t, b, i, h = case.n_steps, case.n_texts, case.n_inputs, case.hidden
    x = draw(t, b, i, scale=case.scale)
    if not case.contiguous:
        x = draw(b, t, i, scale=case.scale).transpose(0, 1)
    inputs = {
        "x": x,
        "weight_ih": draw(4 * h, i, scale=i**-0.5),
        "weight_hh": draw(4 * h, h, scale=h**-0.5),
        "bias_ih": draw(4 * h),
        "bias_hh": draw(4 * h),
        "h0": draw(b, h),
        "c0": draw(b, h, scale=2.0),
    }
    for tensor in inputs.values():
        tensor.requires_grad_()
    mask = (torch.rand(b, h, generator=generator) < 0.7).to(dtype) / 0.7
    inputs["mask_h"] = mask if case.masked else None
    inputs["lengths"] = None if case.lengths is None else torch.tensor(case.lengths)
    return inputs


def outputs_and_gradients(run, inputs: dict, *, with_last: bool = True) -> dict[str, Tensor]:
    """Return by name what ``run`` gives and the gradients of a fixed random sum of it."""
    outputs = dict(zip(("h", "h_last", "c_last"), run(inputs), strict=True))
    if inputs["lengths"] is not None:  # what stands in the padding means nothing
        step = torch.arange(len(outputs["h"])).view(-1, 1, 1)
        outputs["h"] = torch.where(step < inputs["lengths"].unsqueeze(1), outputs["h"], 0.0)
    if not with_last:
        outputs = {"h": outputs["h"]}
    generator = torch.Generator().manual_seed(1)
    total = 0.0
    for output in outputs.values():
        weight = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        total = total + (output * weight.to(output.dtype)).sum()
    leaves = {name: x for name, x in inputs.items() if x is not None and x.requires_grad}
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
