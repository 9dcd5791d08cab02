"""The layer beside torch.nn.LSTM, in whose place it can stand."""

import pytest
import torch
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

from sklstm.kernels import lstm_layer
from sklstm.kernels.cells import CELLS
from sklstm.kernels.contract import mirror_index
from sklstm.lstm import LSTM, dropout_mask

T, B, I, H = 7, 3, 5, 11  # noqa: E741  the letters of contract.py
LENGTHS = torch.tensor([4, 7, 1])


def pair(**settings):
    """Return torch's layer and ours with its weights, in float64."""
    generator = torch.Generator().manual_seed(0)
    theirs = torch.nn.LSTM(I, H, dtype=torch.float64, **settings)
    for parameter in theirs.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    ours = LSTM(I, H, **settings).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def draw(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


SETTINGS = [
    {},
    {"bias": False},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True},
    {"num_layers": 2, "batch_first": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("backend", ["auto", "reference", "torch"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
def test_layer_matches_torch(settings, backend, lengths):
    theirs, ours = pair(**settings)
    ours.backend = backend
    batch_first = settings.get("batch_first", False)
    x = draw(B, T, I) if batch_first else draw(T, B, I)
    n_states = settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1)
    states = (draw(n_states, B, H), draw(n_states, B, H) + 1)
    packed = x
    if lengths is not None:
        packed = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
    expected, (h_n, c_n) = theirs(packed, states)
    if lengths is not None:
        expected, _ = pad_packed_sequence(expected, batch_first, total_length=T)
    output, (our_h_n, our_c_n) = ours(x, states, lengths)
    for actual, wanted in ((output, expected), (our_h_n, h_n), (our_c_n, c_n)):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)
    weight = draw(*expected.shape)
    for layer, out in ((theirs, expected), (ours, output)):
        (out * weight).sum().backward()
        assert layer is theirs or layer.weight_hh_l0.grad.abs().sum() > 0
    for (name, parameter), (_, other) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        torch.testing.assert_close(
            parameter.grad, other.grad, rtol=0, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_states_are_the_outputs():
    _, ours = pair(bidirectional=True, num_layers=2)
    x = draw(T, B, I)
    output, _ = ours(x, lengths=LENGTHS)
    states = ours.states(x, LENGTHS)
    for text, length in enumerate(LENGTHS):
        torch.testing.assert_close(states[:length, text], output[:length, text], rtol=0, atol=1e-14)
        assert not output[length:, text].any()


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_or_their_pools(backend, bidirectional):
    ours = LSTM(I, H, bidirectional=bidirectional, num_layers=2, backend=backend)
    x, pools = draw(T, B, I).float(), frozenset({"last", "max"})
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            output, (last, _) = ours(x, lengths=LENGTHS)
            states, taken = ours.states_or_pools(x, LENGTHS, pools=pools)
        if states is not None:  # the backend takes no pools
            assert taken == {}
            torch.testing.assert_close(states[: LENGTHS.min()], output[: LENGTHS.min()])
            continue
        assert backend == "auto" and taken.keys() == pools
        greatest = [output[:length, text].amax(dim=0) for text, length in enumerate(LENGTHS)]
        torch.testing.assert_close(taken["max"], torch.stack(greatest), rtol=0, atol=1e-6)
        expected = torch.cat(tuple(last[-ours.num_directions :]), dim=1)
        torch.testing.assert_close(taken["last"], expected, rtol=0, atol=1e-6)


def test_a_batch_without_texts_has_states():
    with torch.no_grad():
        states, taken = LSTM(I, H).states_or_pools(torch.zeros(T, 0, I), pools=frozenset({"max"}))
    assert states.shape == (T, 0, H) and taken == {}


def test_torch_loads_our_weights():
    ours = LSTM(I, H, num_layers=2, bidirectional=True)
    torch.nn.LSTM(I, H, num_layers=2, bidirectional=True).load_state_dict(ours.state_dict())


def test_padding_is_not_read():
    ours = LSTM(I, H, bidirectional=True)
    x = draw(T, B, I).float()
    poisoned = x.clone()
    for text, length in enumerate(LENGTHS):
        poisoned[length:, text] = 1e3
    for text, length in enumerate(LENGTHS):
        clean, dirty = (ours.states(y, LENGTHS)[:length, text] for y in (x, poisoned))
        assert torch.equal(clean, dirty)


def test_first_weights():
    ours = LSTM(I, H, generator=torch.Generator().manual_seed(0))
    weight = ours.weight_hh_l0.detach()  # (4H, H): the columns are orthogonal, of all gates at once
    torch.testing.assert_close(weight.T @ weight, torch.eye(H), rtol=0, atol=1e-5)
    bias = (ours.bias_ih_l0 + ours.bias_hh_l0).detach()
    assert bias.view(4, H).mean(dim=1).tolist() == [0.0, 1.0, 0.0, 0.0]
    again = LSTM(I, H, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.weight_ih_l0, ours.weight_ih_l0)


def test_dropout_between_layers_while_training():
    generator = torch.Generator().manual_seed(0)
    ours = LSTM(I, H, num_layers=2, dropout=0.5, generator=generator)
    x = draw(T, B, I).float()
    one, other = ours.states(x), ours.states(x)
    assert not torch.equal(one, other)
    ours.eval()
    assert torch.equal(ours.states(x), ours.states(x))


@pytest.fixture
def seen(monkeypatch):
    """Return a list of what the kernels are given for the first direction."""
    seen = []

    def spy(directions, **settings):
        seen.append(directions[0])
        return lstm_layer(directions, **settings)

    monkeypatch.setattr("sklstm.lstm.lstm_layer", spy)
    return seen


def test_input_dropout_drops_the_same_features_at_all_steps(seen):
    ours = LSTM(I, H, input_dropout=0.5, recurrent_dropout=0.4, weight_dropout=0.3)
    x = draw(T, B, I).float()
    ours.states(x, LENGTHS)
    ratio = seen[0].x / x
    torch.testing.assert_close(ratio, ratio[:1].expand(T, -1, -1))
    assert ratio.unique().round().tolist() == [0.0, 2.0]
    assert seen[0].mask_h.unique().tolist() == pytest.approx([0, 1 / 0.6])
    kept = seen[0].weight_hh / ours.weight_hh_l0
    assert (kept == 0).float().mean().item() == pytest.approx(0.3, abs=0.1)
    ours.eval().states(x, LENGTHS)
    assert seen[1].mask_h is None
    assert torch.equal(seen[1].x, x) and torch.equal(seen[1].weight_hh, ours.weight_hh_l0)


def test_zoneout_keeps_units_while_training_and_their_mean_after(seen):
    ours = LSTM(I, H, zoneout=0.25, generator=torch.Generator().manual_seed(0))
    x = draw(300, B, I).float()
    ours.states(x)
    for zone in (seen[0].zone_h, seen[0].zone_c):
        assert zone.shape == (300, B, H) and zone.unique().tolist() == [0, 1]
        assert zone.mean().item() == pytest.approx(0.25, abs=0.02)
        assert not torch.equal(zone[0], zone[1])
    assert not torch.equal(seen[0].zone_h, seen[0].zone_c)
    ours.eval().states(x)
    assert seen[1].zone_h.unique().tolist() == seen[1].zone_c.unique().tolist() == [0.25]


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_stacks_in_both_directions_and_learns(cell):
    """A step down the gradient lowers the loss: all parameters have one."""
    torch.manual_seed(0)
    settings = {"zoneout": 0.1, "recurrent_dropout": 0.2, "input_dropout": 0.2}
    generator = torch.Generator().manual_seed(0)
    ours = LSTM(I, H, 2, bidirectional=True, cell=cell, generator=generator, **settings)
    x, target = draw(T, B, I).float(), draw(T, B, 2 * H).float()

    def loss():
        generator.manual_seed(1)
        return ((ours(x, lengths=LENGTHS)[0] - target) ** 2).mean()

    before = loss()
    before.backward()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            assert parameter.grad.abs().sum() > 0, name
            parameter -= 0.1 * parameter.grad
    assert loss() < before
    again = LSTM(I, H, 2, bidirectional=True, cell=cell)
    again.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_text_alone_has_the_states_it_has_in_company(cell, backend):
    ours = LSTM(I, H, 2, bidirectional=True, cell=cell, backend=backend, zoneout=0.1).double()
    ours.eval()
    x = draw(T, B, I)
    together, _ = ours(x, lengths=LENGTHS)
    for text, length in enumerate(LENGTHS):
        alone, _ = ours(x[:length, text : text + 1])
        torch.testing.assert_close(alone[:, 0], together[:length, text], rtol=0, atol=1e-13)


def test_peepholes_of_weight_zero_are_the_standard_cell():
    standard, seeing = (
        LSTM(I, H, cell=cell, generator=torch.Generator().manual_seed(0))
        for cell in ("lstm", "peephole")
    )
    x = draw(T, B, I).float()
    torch.testing.assert_close(seeing.states(x), standard.states(x))


def test_coupled_gates_forget_as_little_at_first():
    ours = LSTM(I, H, cell="coupled")
    assert ours.weight_hh_l0.shape == (3 * H, H)
    bias = (ours.bias_ih_l0 + ours.bias_hh_l0).detach()
    assert bias.view(3, H).mean(dim=1).tolist() == [-1.0, 0.0, 0.0]


def test_dropout_mask_has_mean_one():
    mask = dropout_mask(
        torch.empty(0), (200, 300), p=0.25, generator=torch.Generator().manual_seed(0)
    )
    assert mask.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert mask.mean().item() == pytest.approx(1.0, abs=0.01)


def test_mirror_is_its_own_inverse():
    index = mirror_index(LENGTHS, n_steps=T, n_texts=B, device=torch.device("cpu"))
    assert torch.equal(index[index], torch.arange(T * B))
    assert index.view(T, B)[:4, 0].tolist() == [9, 6, 3, 0]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda m: m(torch.zeros(T, B, 4)),
            r"input must have shape \(T, B, I\) with I=.*=5 .*3, 4",
        ),
        (lambda m: m(torch.zeros(I)), r"input must have shape .* got \(5,\)"),
        (lambda m: m(torch.zeros(T, 4)), r"input must have shape .* got \(7, 1, 4\)"),
        (lambda m: m(torch.zeros(0, B, I)), r"T >= 1; got \(0, 3, 5\)"),
        (lambda m: m(pack_sequence([torch.zeros(2, I)]), lengths=[2]), "lengths must be None for"),
        (
            lambda m: m(torch.zeros(T, B, I), (torch.zeros(1, B, H), torch.zeros(1, B, 9))),
            r"c_0 must have shape \(layers \* directions, B, H\) = \(1, 3, 11\); got \(1, 3, 9\)",
        ),
        (lambda m: m(torch.zeros(T, B, I), lengths=torch.tensor([8, 1, 1])), "between 1 and T=7"),
    ],
)
def test_wrong_calls_get_a_sentence(call, match):
    with pytest.raises(ValueError, match=match):
        call(LSTM(I, H))


def test_print_tells_the_settings():
    assert repr(LSTM(I, H)) == (
        "LSTM(5, 11, num_layers=1, bidirectional=False, cell='lstm', backend='auto')"
    )


def test_unknown_cell_is_refused():
    names = "'coupled', 'layer_norm', 'lstm', 'peephole', 'peephole_previous'"
    with pytest.raises(ValueError, match=f"cell must be one of {names}; got 'gru'."):
        LSTM(I, H, cell="gru")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"backend": "cuda"}, "backend must be one of 'aten', 'auto', .*; got 'cuda'"),
        ({"proj_size": 3}, "proj_size must be 0, .* got 3. Put a torch.nn.Linear"),
        ({"num_layers": 0}, "num_layers must be a whole number of 1 or more; got 0"),
        ({"hidden_size": 2.5}, "hidden_size must be a whole number of 1 or more; got 2.5"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got 1.0"),
        ({"recurrent_dropout": -0.1}, r"recurrent_dropout must lie in \[0, 1\); got -0.1"),
        ({"zoneout": 1.5}, r"zoneout must lie in \[0, 1\); got 1.5"),
    ],
)
def test_impossible_settings_get_a_sentence(settings, match):
    with pytest.raises(ValueError, match=match):
        LSTM(**({"input_size": I, "hidden_size": H} | settings))


def test_lengths_may_be_a_list_and_change_after_the_call():
    ours = LSTM(I, H, backend="torch").double()
    x = draw(T, B, I)
    (expected,) = torch.autograd.grad(ours(x, lengths=LENGTHS)[0].sum(), ours.weight_hh_l0)
    lengths = LENGTHS.clone()
    output, _ = ours(x, lengths=lengths)
    lengths.fill_(1)
    (actual,) = torch.autograd.grad(output.sum(), ours.weight_hh_l0)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert torch.equal(ours(x, lengths=LENGTHS.tolist())[0], output)


# In place of torch.nn.LSTM

USED = [
    {"bidirectional": True},
    {"num_layers": 2, "batch_first": True},
    {"bidirectional": True, "batch_first": True},
]


def assert_same_as_torch(settings, x, hx=None, arrange=lambda x: x):
    """Check outputs, last states and all gradients of both layers."""
    results = []
    for layer in pair(**settings):
        layer.flatten_parameters()
        own = x.clone().requires_grad_()
        output, last = layer(arrange(own), hx)
        packed = isinstance(output, PackedSequence)
        values = output.data if packed else output
        rest = list(output[1:]) if packed else []
        ((values * torch.arange(values.shape[-1])).sum() + last[0].sum() + last[1].sum()).backward()
        grads = [own.grad, *(weight.grad for weight in layer.parameters())]
        results.append([values, *last, *rest, *grads])
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert type(ours) is type(theirs)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def states_of(settings, *batch):
    n = settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1)
    return draw(n, *batch, H), draw(n, *batch, H) + 1


@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("settings", USED, ids=str)
def test_a_packed_sequence_goes_in_and_out(settings, is_sorted):
    first, lengths = settings.get("batch_first", False), torch.tensor([4, 7, 1])
    lengths = lengths.sort(descending=True).values if is_sorted else lengths
    x = draw(B, T, I) if first else draw(T, B, I)
    for hx in (None, states_of(settings, B)):
        assert_same_as_torch(
            settings, x, hx, lambda x: pack_padded_sequence(x, lengths, first, is_sorted)
        )


@pytest.mark.parametrize("settings", USED, ids=str)
def test_one_text_without_the_axis_of_the_batch(settings):
    assert_same_as_torch(settings, draw(T, I))
    assert_same_as_torch(settings, draw(T, I), states_of(settings))


@pytest.mark.parametrize("settings", USED, ids=str)
def test_a_batch_without_texts(settings):
    x = draw(0, T, I) if settings.get("batch_first") else draw(T, 0, I)
    theirs, ours = pair(**settings)
    for hx in (None, states_of(settings, 0)):
        for mine, wanted in zip(ours(x, hx)[1], theirs(x, hx)[1], strict=True):
            assert mine.shape == wanted.shape and mine.dtype == wanted.dtype
    output = ours(x)[0]
    assert output.shape == theirs(x)[0].shape
    output.sum().backward()
    assert all((weight.grad == 0).all() for weight in ours.parameters())


def test_device_and_dtype_of_the_weights():
    layer = LSTM(I, H, dtype=torch.float64)
    assert layer.weight_hh_l0.dtype == torch.float64
    assert layer(draw(T, B, I))[0].dtype == torch.float64
    assert LSTM(I, H, device="meta").weight_hh_l0.is_meta


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"cell": "layer_norm"}], ids=str)
def test_torch_compile_calls_the_layer_as_it_is(settings):
    """Torch's compiler traces Python, which takes seconds; "eager" compiles nothing further."""
    layer, x = LSTM(I, H, num_layers=2, bidirectional=True, **settings), torch.randn(T, B, I)
    compiled, results = torch.compile(layer, backend="eager"), []
    for call in (layer, compiled):
        layer.zero_grad()
        output, last = call(x, lengths=LENGTHS)
        (output.sum() + last[0].sum()).backward()
        results.append([output, *last, *(weight.grad for weight in layer.parameters())])
    for ours, wanted in zip(*results, strict=True):
        assert torch.equal(ours, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"cell": "layer_norm"}], ids=str)
def test_torch_export_takes_texts_of_one_length(settings):
    layer = LSTM(I, H, num_layers=2, bidirectional=True, **settings).eval()
    sizes = ({1: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(layer, (torch.randn(T, B, I),), dynamic_shapes=sizes)
    x = torch.randn(T, B + 4, I)
    for ours, wanted in zip(program.module()(x)[1], layer(x)[1], strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="lengths must be None where the layer is exported"):
        torch.export.export(layer, (x,), {"lengths": torch.tensor([T] * (B + 4))})
    layer.backend = "torch"
    with pytest.raises(ValueError, match="backend='torch' cannot be traced by torch.export"):
        torch.export.export(layer, (x,))
