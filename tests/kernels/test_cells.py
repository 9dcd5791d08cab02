"""The table of cells, and that no other file asks for a cell's name."""

import ast
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import sklstm
from sklstm.kernels import reference, torch_cells
from sklstm.kernels.cells import CELLS, PARAMETERS, Cell, Parameter, check_cell
from sklstm.kernels.contract import DIFFERENTIABLE, Inputs
from sklstm.lstm import LSTM

FILES = [
    path for path in sorted(Path(sklstm.__file__).parent.rglob("*.py")) if path.name != "cells.py"
]


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_cell_fits_together(cell):
    assert len(set(cell.gates)) == len(cell.gates)
    assert cell.states[0] == "h" and len(set(cell.states)) == len(cell.states)
    assert set(cell.first_bias) <= set(cell.gates)
    assert set(cell.parameters) <= set(DIFFERENTIABLE)
    assert not cell.output_sees_new_c or "peephole" in cell.parameters
    for name, parameter in cell.parameters.items():
        shape = cell.shapes(hidden=7)[name]
        assert all(isinstance(size, int) for size in shape)
        assert len(parameter.first) in (1, shape[0])


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("lstm", {}),
        ("peephole", {"peephole": (3, 7)}),
        ("peephole_previous", {"peephole": (3, 7)}),
        ("layer_norm", {"norm_ih": (28,), "norm_hh": (28,), "norm_c": (2, 7)}),
        ("coupled", {}),
    ],
)
def test_shapes_of_the_parameters(name, shapes):
    assert CELLS[name].shapes(hidden=7) == shapes


def test_every_parameter_is_an_input():
    assert set(PARAMETERS) == {"peephole", "norm_ih", "norm_hh", "norm_c"}
    assert set(PARAMETERS) < set(Inputs._fields)


def test_every_cell_has_a_step_and_its_backward():
    assert reference.STEPS.keys() == CELLS.keys()
    for forward, backward in reference.STEPS.values():
        assert backward.__name__ == f"{forward.__name__}_backward"


def test_the_torch_backend_knows_no_cell_that_is_not_in_the_table():
    assert torch_cells.CELL_CLASSES.keys() <= CELLS.keys()


def test_first_values_come_from_the_table(monkeypatch):
    rows = Parameter(("G*H",), first=(0.5,))
    cell = Cell("igo", first_bias={"g": 3.0}, parameters={"norm_ih": rows})
    monkeypatch.setitem(CELLS, "new", cell)
    layer = LSTM(2, 4, cell="new")
    assert layer.norm_ih_l0.tolist() == [0.5] * 12
    assert layer.bias_ih_l0.view(3, 4).mean(dim=1).tolist() == [0.0, 3.0, 0.0]
    assert not layer.bias_hh_l0.any()


def test_first_values_of_a_scale_and_a_shift():
    layer = LSTM(2, 4, cell="layer_norm")
    assert torch.equal(layer.norm_c_l0, torch.tensor([[1.0] * 4, [0.0] * 4]))


def test_unknown_cells_are_refused():
    names = "'coupled', 'layer_norm', 'lstm', 'peephole', 'peephole_previous'"
    with pytest.raises(ValueError, match=f"cell must be one of {names}; got 'gru'."):
        check_cell("gru")


def gru(inputs, gates_x, recurrent, h_prev):
    """One step of torch's GRU, whose bias_hh is 0 here."""
    r_x, z_x, n_x = gates_x.chunk(3, dim=1)
    r_h, z_h, n_h = recurrent.chunk(3, dim=1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n = (n_x + r * n_h).tanh()
    return ((1 - z) * n + z * h_prev,), (h_prev, r, z, n, n_h)


def gru_backward(inputs, kept, dh):
    h_prev, r, z, n, n_h = kept
    d_n = dh * (1 - z) * (1 - n**2)
    d_z = dh * (h_prev - n) * z * (1 - z)
    d_r = d_n * n_h * r * (1 - r)
    d_gates_x, d_recurrent = torch.cat([d_r, d_z, d_n], 1), torch.cat([d_r, d_z, d_n * r], 1)
    return reference.Gradients(d_gates_x, d_recurrent, (dh * z,))


@pytest.fixture
def with_gru(monkeypatch):
    """Add a cell without c: a row of the table, and its step in the reference."""
    monkeypatch.setitem(CELLS, "gru", Cell("rzn", states=("h",)))
    monkeypatch.setitem(reference.STEPS, "gru", (gru, gru_backward))
    monkeypatch.setattr(reference, "HAS_CELLS", frozenset(reference.STEPS))


@pytest.mark.parametrize("lengths", [None, [5, 2, 3]])
def test_a_cell_without_c_needs_a_row_and_its_step(lengths, with_gru):
    ours = LSTM(3, 4, bidirectional=True, cell="gru").double()
    theirs = torch.nn.GRU(3, 4, bidirectional=True, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    x, h0 = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 3, 3), (2, 3, 4)))
    output, (h_n,) = ours(x, (h0,), lengths)
    packed = x if lengths is None else pack_padded_sequence(x, lengths, enforce_sorted=False)
    expected, expected_h_n = theirs(packed, h0)
    if lengths is not None:
        expected, _ = pad_packed_sequence(expected)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(h_n, expected_h_n)
    (output.sum() + h_n.square().sum()).backward()
    (expected.sum() + expected_h_n.square().sum()).backward()
    for name in ("weight_ih_l0", "weight_hh_l0_reverse", "bias_ih_l0_reverse"):
        torch.testing.assert_close(getattr(ours, name).grad, getattr(theirs, name).grad)


def test_features_of_a_cell_without_c(with_gru):
    layer = LSTM(3, 4, cell="gru", zoneout=0.2, recurrent_dropout=0.2, backend="reference")
    _, (h_n,) = layer(torch.ones(5, 2, 3))
    h_n.sum().backward()
    assert layer.weight_hh_l0.grad.abs().sum() > 0
    layer.backend = "torch"
    with pytest.raises(ValueError, match="backend='torch' has no cell 'gru'"):
        layer(torch.zeros(5, 2, 3))


def questions(tree):
    """Yield the nodes that ask what a string is: comparisons, prefixes, patterns."""
    asking = {"startswith", "endswith", "removeprefix", "removesuffix"}
    for node in ast.walk(tree):
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node, ast.Compare | ast.MatchValue) or (is_call and node.func.attr in asking):
            yield node


def names_in(node):
    """Return the names of cells among the strings of a node."""
    strings = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
    return strings & CELLS.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_other_file_asks_for_the_name_of_a_cell(path):
    for node in questions(ast.parse(path.read_text(encoding="utf-8"))):
        assert not names_in(node), f"line {node.lineno} asks for {names_in(node)}"


@pytest.mark.parametrize(
    "line",
    [
        "cell == 'lstm'",
        "inputs.cell in ('peephole', 'other')",
        "cell.startswith('peephole')",
        "'coupled' != cell",
    ],
)
def test_a_question_for_the_name_is_found(line):
    assert any(names_in(node) for node in questions(ast.parse(line)))


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_states_without_variance_do_not_blow_up_the_gradient(backend):
    """A text whose inputs are all 0 has states of 0, where the norms are steepest."""
    torch.manual_seed(0)
    layer = LSTM(3, 8, cell="layer_norm", bidirectional=True, backend=backend)
    x = torch.randn(40, 2, 3)
    x[:, 0] = 0.0
    x.requires_grad_()
    (layer(x)[0] * torch.randn(40, 2, 16)).sum().backward()
    for gradient in (x.grad, *(parameter.grad for parameter in layer.parameters())):
        assert gradient.abs().max() < 1e4
