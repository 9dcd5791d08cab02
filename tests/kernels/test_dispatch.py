"""Names give their backend or an error; every backend has the same signature."""

import inspect

import pytest
import torch

from sklstm.kernels import available_backends, lstm_sequence
from sklstm.kernels import dispatch as dispatch_module
from sklstm.kernels.contract import check_sequence
from sklstm.kernels.dispatch import RECURRENCES
from tests.kernels.cases import CASES, make_inputs


def test_available_backends_of_a_device():
    assert available_backends("cpu") == ("aten", "cpu", "reference")
    assert available_backends("cuda") == ("aten", "reference")


@pytest.mark.parametrize("function", ["forward", "backward"])
def test_backends_have_one_signature(function):
    signatures = {inspect.signature(getattr(backend, function)) for backend in RECURRENCES.values()}
    assert len(signatures) == 1


def test_auto_chooses_by_the_rule():
    def choose(**changes):
        question = {"device": torch.device("cpu"), "dtype": torch.float32}
        question |= {"ragged": True, "need_last": False, "masked": False}
        return dispatch_module._choose("auto", **(question | changes))

    assert choose() == "aten"
    assert choose(need_last=True) == "cpu"
    assert choose(masked=True) == "cpu"
    assert choose(need_last=True, ragged=False) == "aten"
    assert choose(dtype=torch.float64) == "cpu"
    assert choose(device=torch.device("cuda")) == "aten"
    assert choose(device=torch.device("cuda"), need_last=True) == "reference"


def refuse(match, case="ragged, unsorted", backend="auto", need_last=True, **changes):
    inputs = make_inputs(CASES[case], torch.float64) | changes
    with pytest.raises(ValueError, match=match):
        lstm_sequence(**inputs, backend=backend, need_last=need_last)


def test_unknown_backend_is_refused():
    names = "'aten', 'auto', 'cpu', 'reference'"
    refuse(f"backend must be one of {names}; got 'cuda'.", backend="cuda")


def test_aten_refuses_the_last_cell_state_of_ragged_texts():
    refuse("backend='aten' cannot return the last cell state", backend="aten")


def test_aten_refuses_recurrent_dropout():
    case = "recurrent dropout"
    refuse("backend='aten' has no recurrent dropout", case, backend="aten", need_last=False)


def test_cpu_backend_refuses_other_devices():
    with pytest.raises(ValueError, match="backend='cpu' runs on the CPU only; got tensors on met"):
        dispatch_module._choose(
            "cpu",
            device=torch.device("meta"),
            dtype=torch.float32,
            ragged=False,
            need_last=True,
            masked=False,
        )


@pytest.mark.parametrize(
    ("lengths", "match"),
    [
        ([4, 7, 1], r"one whole number for each of the 4 texts; got shape \(3,\)"),
        ([4.0, 7.0, 1.0, 6.0], "one whole number .* of torch.float32"),
        ([4, 8, 1, 6], "between 1 and T=7; got values from 1 to 8"),
        ([4, 7, 0, 6], "between 1 and T=7; got values from 0 to 7"),
    ],
)
@pytest.mark.parametrize("backend", ["aten", "cpu"])
def test_wrong_lengths_are_refused(lengths, match, backend):
    refuse(match, lengths=torch.tensor(lengths), backend=backend, need_last=False)


def sequence(**changes):
    arguments = {
        "gates_x": torch.zeros(7, 3, 44),
        "weight_hh": torch.zeros(44, 11),
        "h0": torch.zeros(3, 11),
        "c0": torch.zeros(3, 11),
        "lengths": None,
        "mask_h": None,
    }
    return arguments | changes


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"weight_hh": torch.zeros(33, 11)}, r"weight_hh must have shape \(4\*H, H\); got \(33"),
        ({"gates_x": torch.zeros(7, 3, 33)}, r"H=11 from weight_hh .* got \(7, 3, 33\)"),
        ({"gates_x": torch.zeros(0, 3, 44)}, r"T, B >= 1; got \(0, 3, 44\)"),
        ({"h0": torch.zeros(2, 11)}, r"h0 must have shape \(B, H\) = \(3, 11\).* got \(2, 11\)"),
        ({"mask_h": torch.zeros(3, 1)}, r"mask_h must have shape .* got \(3, 1\)"),
        ({"c0": torch.zeros(3, 12)}, r"c0 must have shape .* got \(3, 12\)"),
        ({"c0": torch.zeros(3, 11).double()}, "c0 must have the dtype .* got torch.float64"),
        ({"h0": torch.zeros(3, 11, device="meta")}, "h0 must have .* device .* on meta"),
    ],
)
def test_wrong_arguments_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        check_sequence(**sequence(**changes))


def test_right_arguments_pass():
    check_sequence(**sequence(lengths=torch.tensor([7, 1, 3])))
