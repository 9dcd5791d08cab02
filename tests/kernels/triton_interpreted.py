"""Print as JSON, for each parity case, null or how Triton's kernels differ from the reference.

A program of its own, since Triton decides at its import whether it interprets:
``TRITON_INTERPRET=1 python -m tests.kernels.triton_interpreted``.
"""

import json
import os
import random
from unittest import mock

import torch
from torch import Tensor

from sklstm.kernels import autograd, reference, triton_layer
from sklstm.kernels.cells import CELLS
from sklstm.lstm import LSTM
from tests.kernels.addresses import checked_addresses
from tests.kernels.cases import (
    CASES,
    Case,
    assert_same,
    in_double,
    make_inputs,
    outputs_and_gradients,
)

#: Beyond one program: three blocks of texts, the last of them not full.
BLOCKS = {
    "two blocks and one text": Case(3, 33, 5, 20),
    "blocks, ragged, reverse": Case(
        5, 18, 3, 16, lengths=(3, 1, 5, 2, 4, 1) * 3, reverse=True, masked=True, zoned=True
    ),
    "one unit": Case(3, 2, 5, 1),
}
#: Cases of which a whole layer is compared as well.
BOTH = {"two directions": Case(4, 17, 3, 5, lengths=(4, *[1, 3] * 8))}
#: With weights that each step reads again: as on a card without shared memory.
STREAMED = BOTH | {
    "recurrent dropout, ragged": CASES["recurrent dropout, ragged"],
    "zoneout, ragged, reverse": CASES["zoneout, ragged, reverse"],
    "two chunks, two blocks": Case(3, 17, 5, 20, lengths=(3, *[1, 2] * 8), masked=True),
}
ALL = (
    {
        f"{cell}: {name}": (cell, case, torch.float32)
        for cell in CELLS
        for name, case in (CASES | BLOCKS | BOTH).items()
    }
    | {
        f"{cell}: float16, {name}": (cell, CASES[name], torch.float16)
        for cell in CELLS
        for name in ("saturated", "zoneout, ragged, reverse")
    }
    | {
        f"{cell}: streamed, {name}": (cell, case, torch.float32, 0)
        for cell in CELLS
        for name, case in STREAMED.items()
    }
)
#: More by this variable of the environment.
N_RANDOM = int(os.environ.get("SKLSTM_RANDOM_CASES", "20"))


def random_case(number: int) -> tuple:
    """Return cell, case, dtype and shared memory, drawn with the number as seed."""
    draw = random.Random(number)
    n_steps, n_texts = draw.choice((1, 2, 3, 4, 6)), draw.choice((1, 2, 15, 16, 17, 31, 33))
    hidden = draw.choice((1, 2, 3, 8, 15, 16, 17, 31, 33))
    lengths = tuple(draw.randint(1, n_steps) for _ in range(n_texts))
    case = Case(
        n_steps,
        n_texts,
        draw.choice((1, 2, 5, 7)),
        hidden,
        lengths=draw.choice((None, lengths)),
        reverse=draw.random() < 0.5,
        contiguous=draw.random() < 0.5,
        masked=draw.random() < 0.5,
        zoned=draw.random() < 0.5,
    )
    return draw.choice(list(CELLS)), case, torch.float32, draw.choice((0, 2**30))


ALL |= {f"random {number}": random_case(number) for number in range(N_RANDOM)}
#: The largest difference in float16, as a share of a tensor's largest number.
HALF_TOLERANCE = 1e-2


def difference(
    cell: str,
    case: Case,
    dtype: torch.dtype,
    shared_memory: int = 2**30,  # bytes of the card
) -> str | None:
    """Return the message of the first difference, or None."""
    from sklstm.kernels import triton_block

    triton_block.shared_memory_of = lambda device: shared_memory
    inputs = make_inputs(case, cell, dtype)
    refused = triton_layer.refusal(inputs, need_last=True)
    if refused is not None:
        return f"refused: {refused}"
    try:
        if case in BOTH.values():
            assert_layers_agree(cell, case)
        actual = outputs_and_gradients(lambda own: autograd.run(triton_layer, [own])[0][:3], inputs)
        expected = outputs_and_gradients(
            lambda own: autograd.run(reference, [own])[0][:3], in_double(inputs)
        )
        if dtype == torch.float16:
            assert_near(actual, expected, HALF_TOLERANCE)
        else:
            assert_same(actual, expected, dtype)
        if case in BLOCKS.values():
            assert_predicts_the_same(inputs, actual)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def assert_layers_agree(cell: str, case: Case):
    """Two layers of two directions give what the reference gives, and so do their gradients."""
    torch.manual_seed(0)
    layers = [
        LSTM(case.n_inputs, case.hidden, 2, bidirectional=True, cell=cell, backend=backend)
        for backend in ("triton", "reference")
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(case.n_steps, case.n_texts, case.n_inputs)
    x[:, 0] = 0.0  # whose states stay 0
    weights, found = torch.randn(case.n_steps, case.n_texts, 2 * case.hidden), []
    for layer in layers:
        own = x.clone().requires_grad_()
        output, last = layer(own, lengths=torch.tensor(case.lengths))
        ((output * weights).sum() + last[1].sum()).backward()
        found.append([output, *last, own.grad, *(p.grad for p in layer.parameters())])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def assert_near(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float):
    """Compare every output and gradient, by a share of its largest number: for short floats."""
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name].double(),
            value,
            rtol=0,
            atol=tolerance * max(1.0, float(value.abs().max())),
            msg=lambda message, name=name: f"{name}: {message}",
        )


def assert_predicts_the_same(inputs, trained):
    """Without a backward the same numbers come out, and nothing is saved."""
    with torch.no_grad():
        predicted = triton_layer.forward(inputs, for_backward=False)
    assert predicted.saved == ()
    for name in ("h_last", "c_last"):
        torch.testing.assert_close(getattr(predicted, name), trained[name], rtol=0, atol=0)


#: Arguments with which a launch would use addresses that it must not -> what is found.
FAULTS = {
    "outside": (lambda of: {"n_texts": of["n_texts"] + 1}, "addresses lie in no tensor"),
    "shared": (lambda of: {"c_last": of["h_all"].flatten()[16 * of["H"] :]}, "two programs write"),
    # The first program's c_last is where the second one's input is.
    "read": (
        lambda of: {"c_last": of["gates_x"].flatten()[16 * 4 * of["H"] :]},
        "another program writes",
    ),
}


def find_fault(name: str) -> str | None:
    """Return what is found of a fault."""
    from sklstm.kernels import triton_forward

    launch, (change, _) = triton_forward.launch, FAULTS[name]

    def launch_wrongly(kind, kernel, arguments, device):
        launch(kind, kernel, arguments | change(arguments), device)

    with mock.patch.object(triton_forward, "launch", launch_wrongly):
        return difference("lstm", BLOCKS["two blocks and one text"], torch.float32)


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)  # fills memory that nobody has written with NaN
    with checked_addresses():
        found = {name: difference(*pair) for name, pair in ALL.items()}
        found |= {name: find_fault(name) for name in FAULTS}
    print(json.dumps(found))
