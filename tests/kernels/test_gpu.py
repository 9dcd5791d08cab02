"""Everything on a CUDA card, against the same on the CPU: for whoever has one."""

import copy
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import sklstm
from sklstm import LSTMTextClassifier
from sklstm.kernels import aten, autograd, reference, triton_layer
from sklstm.kernels.cells import CELLS
from sklstm.kernels.contract import Inputs
from sklstm.language_model import LSTMLanguageModel
from sklstm.lstm import LSTM
from tests.conftest import TINY
from tests.kernels.cases import (
    CASES,
    Case,
    assert_same,
    in_double,
    make_inputs,
    outputs_and_gradients,
)
from tests.kernels.triton_interpreted import HALF_TOLERANCE, assert_near

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
]

#: Name -> dtype, how float32 is multiplied, and the largest difference that rounding may make, as
#: a share of the tensor's largest number; tf32 has float16's digits, bfloat16 three bits fewer.
ARITHMETIC = {
    "float32": (torch.float32, "ieee", 1e-4),
    "tf32": (torch.float32, "tf32", HALF_TOLERANCE),
    "float16": (torch.float16, "ieee", HALF_TOLERANCE),
    "bfloat16": (torch.bfloat16, "ieee", 8 * HALF_TOLERANCE),
}

#: More texts than a program owns and than a card has processors for; every padded size.
LARGE = {
    "three thousand texts": Case(3, 3001, 5, 11),
    "H=32": Case(9, 33, 8, 32, lengths=(9, 1, 5) * 11, reverse=True),
    "H=64": Case(9, 33, 8, 64, lengths=(9, 1, 5) * 11, masked=True, zoned=True),
    "H=128": Case(9, 33, 8, 128, lengths=(9, 1, 5) * 11, reverse=True, masked=True),
    "H=200": Case(9, 33, 8, 200, lengths=(9, 1, 5) * 11, masked=True),
    "H=256": Case(9, 33, 8, 256, lengths=(9, 1, 5) * 11, reverse=True, zoned=True),
}


@pytest.fixture
def precision(monkeypatch):
    """Return a setter of how the kernels multiply float32."""
    from sklstm.kernels import triton_block

    return lambda value: monkeypatch.setattr(triton_block, "_precision", lambda: value)


def on_card(inputs: Inputs) -> Inputs:
    """Return the inputs on the card; gradients flow back to where they came from."""
    moved = {
        name: value.cuda()
        for name, value in inputs._asdict().items()
        if isinstance(value, torch.Tensor) and name != "lengths"
    }
    return inputs._replace(**moved)


def on_the_card(inputs):
    outputs = autograd.run(triton_layer, [on_card(inputs)])[0]
    return [output.cpu() for output in outputs[:3]]


def by_definition(inputs):
    return autograd.run(reference, [inputs])[0][:3]


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("case", (CASES | LARGE).values(), ids=CASES | LARGE)
@pytest.mark.parametrize("cell", CELLS)
def test_card_matches_the_reference(cell, case, arithmetic, precision):
    dtype, multiplied, tolerance = ARITHMETIC[arithmetic]
    inputs = make_inputs(case, cell, dtype)
    refused = triton_layer.refusal(on_card(inputs), need_last=True)
    if refused is not None:
        pytest.skip(f"the card {refused}")
    precision(multiplied)
    actual = outputs_and_gradients(on_the_card, inputs)
    expected = outputs_and_gradients(by_definition, in_double(inputs))
    assert_near(actual, expected, tolerance)


def test_new_sizes_compile_nothing_anew():
    """Only H, dtype, cell and features may cost a compilation; lengths and batches change."""
    from sklstm.kernels.triton_forward import forward_kernel

    def run(n_steps, n_texts):
        inputs = on_card(make_inputs(Case(n_steps, n_texts, 5, 11), "lstm", torch.float32))
        with torch.no_grad():
            triton_layer.forward(inputs, for_backward=False)

    def n_compiled():
        return sum(len(of_device[0]) for of_device in forward_kernel.device_caches.values())

    run(1, 1)
    first = n_compiled()
    for sizes in ((2, 16), (7, 3), (64, 128)):
        run(*sizes)
    assert n_compiled() == first


@pytest.mark.parametrize("hidden", [20, 200])
@pytest.mark.parametrize("feature", ["input_dropout", "recurrent_dropout", "zoneout", "dropout"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_of_two_directions(cell, feature, hidden, precision, monkeypatch):
    precision("ieee")
    monkeypatch.setattr("sklstm.lstm.generator_on", lambda device, generator: generator)
    layers = []
    for backend in ("triton", "reference"):
        generator = torch.Generator().manual_seed(0)
        settings = {"cell": cell, "backend": backend, "generator": generator, feature: 0.3}
        layers.append(LSTM(7, hidden, 2, bidirectional=True, **settings))
    ours, theirs = layers
    theirs.load_state_dict(ours.state_dict())
    lengths, x = torch.randint(1, 10, (33,)), torch.randn(9, 33, 7)
    weight = torch.randn(9, 33, 2 * hidden)
    found = []
    for layer, device in ((ours.cuda(), "cuda"), (theirs, "cpu")):
        layer.generator.manual_seed(1)
        own = x.to(device, copy=True).requires_grad_()
        output, last = layer(own, lengths=lengths)
        ((output * weight.to(device)).sum() + last[1].sum()).backward()
        grads = {f"grad_{name}": p.grad for name, p in layer.named_parameters()}
        results = {"output": output, "h_n": last[0], "c_n": last[1], "grad_x": own.grad} | grads
        found.append({name: value.detach().cpu().double() for name, value in results.items()})
    assert_near(*found, 1e-3)


# Torch's own layer, which is cuDNN there


def with_cudnn(inputs):
    outputs = autograd.run(aten, [on_card(inputs)])[0]
    return [output.cpu() for output in outputs[:3] if output is not None]


@pytest.fixture
def no_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize(
    "name", [n for n, case in CASES.items() if not (case.masked or case.zoned)]
)
def test_cudnn_matches_the_reference(name, no_tf32):
    inputs = make_inputs(CASES[name], "lstm", torch.float32)
    with_last = inputs.lengths is None
    actual = outputs_and_gradients(with_cudnn, inputs, with_last=with_last)
    expected = outputs_and_gradients(by_definition, in_double(inputs), with_last=with_last)
    assert_same(actual, expected, torch.float32)


def test_cudnn_takes_states_that_are_not_contiguous(no_tf32):
    inputs = make_inputs(CASES["full"], "lstm", torch.float32)
    strided = {
        name: getattr(inputs, name).detach().T.contiguous().T.requires_grad_()
        for name in ("h0", "c0")
    }
    actual = outputs_and_gradients(with_cudnn, inputs._replace(**strided))
    expected = outputs_and_gradients(by_definition, in_double(inputs))
    assert_same(actual, expected, torch.float32)


def test_cudnn_says_nothing():
    inputs = make_inputs(CASES["ragged, reverse"], "lstm", torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs_and_gradients(with_cudnn, inputs, with_last=False)


# The surroundings of the kernels


@pytest.mark.parametrize("backend", ["aten", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_call_repeats_its_bits(backend, dtype):
    layer = LSTM(24, 64, bidirectional=True, backend=backend).cuda().to(dtype)
    x = torch.randn(50, 70, 24, device="cuda", dtype=dtype, requires_grad=True)
    lengths = torch.randint(1, 51, (70,))

    def run():
        output = layer.states(x, lengths)
        own = (torch.arange(50, device="cuda").unsqueeze(1) < lengths.cuda()).unsqueeze(2)
        output = torch.where(own, output, 0.0)
        grads = torch.autograd.grad(output.float().square().sum(), [x, *layer.parameters()])
        return [output.detach(), *grads]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_a_side_stream_gives_the_same(backend):
    layer = LSTM(24, 64, backend=backend).cuda()
    x = torch.randn(50, 70, 24, device="cuda")
    expected = layer.states(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        actual = layer.states(x)
    stream.synchronize()
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_states_that_are_views(backend):
    layer = LSTM(7, 9, num_layers=2, bidirectional=True, backend=backend).cuda()
    x = torch.randn(6, 3, 7, device="cuda")
    hx = tuple(torch.randn(4, 3, 9, device="cuda") for _ in range(2))
    output, last = layer(x, hx)
    (output.sum() + last[1].sum()).backward()
    on_cpu = copy.deepcopy(layer).cpu()
    on_cpu.backend = "reference"
    expected, expected_last = on_cpu(x.cpu(), tuple(state.cpu() for state in hx))
    torch.testing.assert_close(output.cpu(), expected, rtol=0, atol=5e-3)
    torch.testing.assert_close(last[1].cpu(), expected_last[1], rtol=0, atol=5e-3)


def test_weights_are_drawn_with_a_generator_of_the_processor():
    layer = LSTM(3, 4, generator=torch.Generator().manual_seed(0)).cuda()
    layer.generator.manual_seed(0)
    layer.reset_parameters()
    expected = LSTM(3, 4, generator=torch.Generator().manual_seed(0))
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.cpu(), expected.get_parameter(name))


def test_too_little_memory_says_what_to_do(texts, labels):
    model = fit("cuda", texts, labels)
    expected = model.predict_proba(texts)
    torch.cuda.set_per_process_memory_fraction(1e-3)
    model.set_params(batch_size=400, hidden_size=200, embedding_dim=200)
    try:
        with pytest.raises(torch.OutOfMemoryError, match="Use batch_size=200, "):
            model.fit(["good " * 300] * 400, ["a", "b"] * 200)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(model.predict_proba(texts), expected)


def test_offsets_beyond_32_bits():
    """2.3e9 gates: a 32-bit offset would wrap around."""
    if torch.cuda.mem_get_info()[0] < 40 << 30:
        pytest.skip("needs 40 GB of memory")
    layer = LSTM(8, 128, backend="triton").cuda().bfloat16()
    x = torch.randn(1100, 4096, 8, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        everything = layer.states(x)
        some = layer.states(x[:, -16:].contiguous())
    assert torch.equal(everything[:, -16:], some)


def test_autocast_is_bfloat16():
    layer = LSTM(24, 128, cell="coupled").cuda()
    x = torch.randn(50, 70, 24, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        assert layer.states(x).dtype == torch.bfloat16


# Whole fits

SETTINGS = {
    "plain": {},
    "two layers": {"num_layers": 2},
    "attention": {"pooling": "attention"},
    "by sentence": {"read_by": "sentence"},
    "adversarial": {"adversarial": 0.5},
    "ema": {"ema": 0.9},
    "coupled": {"cell": "coupled"},
    "peephole": {"cell": "peephole"},
    "layer norm": {"cell": "layer_norm"},
    "recurrent dropout": {"recurrent_dropout": 0.2},
    "zoneout": {"zoneout": 0.1},
}


def fit(device, texts, labels, **settings):
    settings = TINY | {"max_epochs": 3, "precision": "float32", "device": device} | settings
    return LSTMTextClassifier(**settings).fit(texts, labels)


@pytest.fixture
def masks_of_the_processor(monkeypatch):
    """Draw all masks on the processor, so that they are the same on the card."""
    for module in ("sklstm.lstm", "sklstm.training.adversarial"):
        monkeypatch.setattr(f"{module}.generator_on", lambda device, generator: generator)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_fit_on_the_card_is_that_on_the_processor(
    name, texts, labels, no_tf32, masks_of_the_processor
):
    here = fit("cpu", texts, labels, **SETTINGS[name])
    there = fit("cuda", texts, labels, **SETTINGS[name])
    np.testing.assert_allclose(there.predict_proba(texts), here.predict_proba(texts), atol=1e-4)
    np.testing.assert_allclose(there.transform(texts), here.transform(texts), atol=1e-3)


def test_a_seed_repeats_a_fit_on_the_card(texts, labels):
    settings = {"dropout": 0.5, "zoneout": 0.1, "recurrent_dropout": 0.1, "device": "cuda"}
    first, second = (fit(texts=texts, labels=labels, **settings) for _ in range(2))
    assert np.array_equal(first.predict_proba(texts), second.predict_proba(texts))


def test_a_default_fit(texts, labels):
    model = LSTMTextClassifier(max_epochs=3).fit(texts, labels)
    assert model.predict_proba(texts).shape == (len(texts), 2)
    model.partial_fit(texts, labels)


def test_a_language_model_on_the_card(texts, no_tf32):
    settings = {"embedding_dim": 8, "hidden_size": 8, "max_epochs": 2, "random_state": 0}
    models = [LSTMLanguageModel(**settings, device=d).fit(texts) for d in ("cpu", "cuda")]
    scores = [model.score(texts) for model in models]
    assert scores[0] == pytest.approx(scores[1], rel=1e-2)


def test_a_model_of_the_card_is_read_without_one(texts, labels, tmp_path):
    model = fit("cuda", texts, labels)
    expected = model.predict_proba(texts)
    model.save(tmp_path / "model.sklstm")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "texts.npy", np.array(texts))
    program = (
        "import pickle, sys, numpy as np, sklstm; texts = np.load('texts.npy').tolist();"
        "np.save('a', sklstm.load('model.sklstm').predict_proba(texts));"
        "np.save('b', pickle.load(open('model.pkl', 'rb')).predict_proba(texts))"
    )
    root = os.path.dirname(os.path.dirname(sklstm.__file__))
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=hidden, check=True)
    for name in ("a", "b"):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, atol=1e-4)


def test_a_forked_process_says_that_it_cannot_use_the_card(texts, labels):
    model = fit("cuda", texts, labels)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks in processes with threads
        child = os.fork()
    if child == 0:
        try:
            model.predict(texts)
        except BaseException as error:
            os.write(writing, repr(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading, "rb") as file:
        assert b"forked after CUDA was used" in file.read()


# Waits for the card


@pytest.mark.parametrize("name", ["plain", "two layers", "zoneout", "recurrent dropout", "coupled"])
def test_training_waits_for_the_card_once_a_batch(name, texts, labels):
    def count(n_texts):
        own = SETTINGS[name] | {"max_epochs": 1, "early_stopping": False, "calibrate": False}
        return count_waits(lambda: fit("cuda", texts[:n_texts], labels[:n_texts], **own))

    count(8)  # what is done once in a process
    assert count(40) - count(24) == 2  # 2 batches more


def count_waits(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def test_prediction_waits_for_the_card_once(texts, labels):
    model = fit("cuda", texts, labels)
    model.predict_proba(texts)
    of_one_batch = count_waits(lambda: model.predict_proba(texts))
    assert count_waits(lambda: model.predict_proba(texts * 100)) == of_one_batch
