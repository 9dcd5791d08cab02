"""Whole fits on a CUDA card that is not there: which tensors would mix, and who waits for it.

A tensor on the card is a wrapper that says it is on cuda:0 and holds the numbers of a CPU tensor.
All Python code, autograd and torch's choice of operators are those of a card; only the operators
themselves run on the CPU. Where a card would refuse operands on two devices, or a generator of the
processor, this one raises an error. Where the processor would wait for the card, it counts.
cuDNN's layer is a loop. The kernels of Triton only write zeros, for interpreted they would take
minutes; ``triton_interpreted.py`` compares them.

It cannot tell what a kernel of the card does, how long anything takes, and whether an operator of
torch waits inside; ``test_gpu.py`` can.

A program of its own, since torch's view of devices is that of a process. ``test_fake_card.py``
starts it. It prints as JSON what each fit of ``FITS`` found, or those whose names it is given.
"""

import json
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

import sklstm
from sklstm import LSTMLanguageModel, LSTMTextClassifier, LSTMTextRegressor
from sklstm.kernels import triton_layer
from sklstm.training.loop import TextNet
from tests.conftest import LABELS, TEXTS, TINY

CARD = torch.device("cuda", 0)
PACKAGE = Path(sklstm.__file__).parent

#: (What the processor waits for, the line of sklstm that asks for it) -> how often.
waits = Counter()
#: The batches that nets were trained with, in a list of one number.
n_batches = [0]


class OnCard(Tensor):
    """A tensor that is on the card as far as anyone can tell."""

    @staticmethod
    def __new__(cls, numbers, requires_grad=False):
        return Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=CARD,
            requires_grad=requires_grad,
        )

    def __init__(self, numbers, requires_grad=False):
        self.numbers = numbers

    # By these two Module.to knows that a parameter consists of more than its own memory.
    def __tensor_flatten__(self):
        return ["numbers"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return OnCard(inner["numbers"])

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})

    def __repr__(self):
        return f"OnCard({self.numbers!r})"


class Generator(torch.Generator):
    """Torch's generator; it can be one of the card, too."""

    def __new__(cls, device="cpu"):
        if torch.device(device).type == "cpu":
            return CPUGenerator(device)
        generator = super().__new__(cls, "cpu")
        of_card[generator._cdata] = generator
        return generator

    @property
    def device(self):
        return CARD


CPUGenerator = torch.Generator
#: The generators of the card. An operator gets a new object around the same one.
of_card = {}


class Card(TorchDispatchMode):
    """While it is active, tensors can be made on the card."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


#: What the kernels of Triton write, by their names.
WRITTEN = {
    "forward": ("h_all", "h_last", "c_last", "gates", "cells", "h_in_all", "units", "scales"),
    "backward": ("grad_gates", "grad_recurrent", "grad_normed_c", "grad_h0", "grad_c0"),
}

#: Operators of which a result is as large as the numbers in their operands say, or is a number.
ASKS = (
    "_local_scalar_dense",
    "nonzero",
    "_unique",
    "unique",
    "masked_select",
    "equal",
    "bincount",
    "repeat_interleave",
)
#: Operators that copy from one device to another.
COPIES = ("_to_copy", "copy_")
#: Operators that take an index on the processor, and send it.
INDEXED = ("index.Tensor", "index_put", "_index_put")


def compute(function, args, kwargs):
    """Run an operator as a card would: refuse, count, compute."""
    flat = list(leaves([*args, *kwargs.values()]))
    there = [value for value in flat if isinstance(value, OnCard)]
    here = [value for value in flat if isinstance(value, Tensor) and not isinstance(value, OnCard)]
    name, device = str(function).removeprefix("aten."), kwargs.get("device")
    device = None if device is None else torch.device(device).type
    goes_there = device == "cuda" or (there and device is None)
    if there or goes_there:
        refuse(name, args, flat, here if there else [])
        count(name, args, kwargs, there, device)
    plain_args = changed(numbers_of, args)
    plain_kwargs = {key: changed(numbers_of, value) for key, value in kwargs.items()}
    if device is not None:
        plain_kwargs["device"] = torch.device("cpu")
    plain_kwargs.pop("pin_memory", None)
    if "non_blocking" in plain_kwargs:
        plain_kwargs["non_blocking"] = False
    result = function(*plain_args, **plain_kwargs)
    if name.startswith("copy_"):
        return args[0]
    if not goes_there:
        return result
    if any(result is tensor for tensor in here):  # to the CPU it was no copy
        result = result.clone()
    wrapped = changed(lambda value: OnCard(value) if type(value) is Tensor else value, result)
    return return_and_correct_aliasing(function, args, kwargs, wrapped) if there else wrapped


def leaves(values):
    """Return what is in a list of values and lists."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from leaves(value)
        else:
            yield value


def changed(change, value):
    """Return a value, or lists of values, with a function applied to each."""
    if isinstance(value, list | tuple):
        return type(value)([changed(change, each) for each in value])
    return change(value)


def numbers_of(value):
    return value.numbers if isinstance(value, OnCard) else value


def refuse(name, args, flat, here):
    """Raise an error for operands that are not all on the card, as torch does."""
    if any(isinstance(v, CPUGenerator) and v._cdata not in of_card for v in flat):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu': {name}")
    if name.startswith(COPIES):
        return
    # A single number is an argument like any other, and an index is sent.
    mixed = [tensor for tensor in here if tensor.ndim > 0]
    if mixed and (not name.startswith(INDEXED) or any(v is args[0] for v in mixed)):
        raise RuntimeError(f"Expected all tensors to be on the same device: {name} at {place()}")


def count(name, args, kwargs, there, device):
    """Count the operators during which the processor waits until the card has done all work."""
    if there and name.startswith(ASKS):
        waits[name.partition(".")[0], place()] += 1
    elif name.startswith("_to_copy"):
        if there and device == "cpu":
            waits["to the processor", place()] += 1
        elif not there and not (kwargs.get("non_blocking") and is_pinned(args[0])):
            waits["to the card", place()] += 1
    elif name.startswith("copy_"):
        into, source, *rest = args
        blocks = not (any(rest) and is_pinned(source))
        if isinstance(into, OnCard) != isinstance(source, OnCard) and blocks:
            waits["copy", place()] += 1
    elif there and name.startswith(INDEXED):
        count_index(name, args)


def count_index(name, args):
    """Count what an index costs: it is sent, or the places where it is true are counted."""
    indices = [index for index in args[1] if index is not None]
    by_truth = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    number = "put" in name and args[2].ndim == 0 and not isinstance(args[2], OnCard)
    if any(not isinstance(index, OnCard) for index in indices):
        waits["index to the card", place()] += 1
    if by_truth and not number:  # with one number of the processor torch fills by the mask
        waits["index by truth", place()] += 1
    elif number and not by_truth:
        waits["number to the card", place()] += 1


def place():
    """Return the innermost line of sklstm that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return f"{path.relative_to(PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside"


# The surroundings of a card


def pin(tensor, device=None):
    """Return a copy in pinned memory, from which a card reads while the processor continues."""
    copy = tensor.clone()
    copy.in_pinned_memory = True
    return copy


def is_pinned(tensor):
    return getattr(tensor, "in_pinned_memory", False)


def cudnn_layer(x, hx, weights, **settings):
    """Compute what torch.lstm does in one layer and direction."""
    (h,), (c,) = hx
    weight_ih, weight_hh, bias, more_bias = weights
    outputs = []
    for each in x.unbind(0):
        gates = each @ weight_ih.T + h @ weight_hh.T + bias + more_bias
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs), h.unsqueeze(0), c.unsqueeze(0)


def launch(name, kernel, arguments, device):
    """Write 0 where the kernel would write; all that it reads and writes must be on the card."""
    assert device == CARD
    for key, value in arguments.items():
        assert isinstance(value, OnCard) or not isinstance(value, Tensor), f"{key} is not there"
    for key in WRITTEN[name]:
        if arguments[key] is not None:
            arguments[key].numbers.zero_()


def counting(step):
    def count_and_step(*args, **kwargs):
        n_batches[0] += 1
        return step(*args, **kwargs)

    return count_and_step


def one_by_one(calls, device):
    with torch.no_grad():
        return [call() for call in calls]


@contextmanager
def fake_card() -> Iterator[None]:
    """Let torch find a card of compute capability 9.0."""
    real_lstm = torch.lstm

    def lstm(x, *args, **kwargs):
        return (cudnn_layer if isinstance(x, OnCard) else real_lstm)(x, *args, **kwargs)

    changes = {
        "torch.lstm": lstm,
        "torch.Generator": Generator,
        "torch.Tensor.pin_memory": pin,
        # Wrappers cannot be cut into views in inference mode.
        "torch.inference_mode": lambda mode=True: torch.no_grad() if mode else nullcontext(),
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.is_initialized": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.is_bf16_supported": lambda *args, **kwargs: True,
        "torch.cuda.get_device_capability": lambda device=None: (9, 0),
        "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "sklstm.training.loop.TextNet.train_step_single": counting(TextNet.train_step_single),
        "sklstm.kernels.autograd.on_streams": one_by_one,
        "sklstm.kernels.triton_forward.launch": launch,
        "sklstm.kernels.triton_backward.launch": launch,
    }
    with ExitStack() as stack:
        for name, value in changes.items():
            stack.enter_context(mock.patch(name, value))
        stack.enter_context(mock.patch.dict(triton_layer.refusals, {CARD: None}))
        # A second thread of autograd would not see the mode.
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(Card())
        yield


# What is run

MANY = [f"{text} {TEXTS[k % 7]}" for k, text in enumerate(TEXTS * 4)]
MANY_LABELS = LABELS * 4
SMALL = TINY | {"max_epochs": 1, "precision": "float32", "early_stopping": False}

CUDNN = {"backend": "aten"}
LANGUAGE = {"embedding_dim": 8, "hidden_size": 8, "max_epochs": 1, "random_state": 0}
LANGUAGE |= {"batch_size": 2, "window": 8, "n_negatives": 4}
ALL_DROPOUTS = dict.fromkeys(
    ("dropout", "embedding_dropout", "word_dropout", "input_dropout", "weight_dropout"), 0.2
)

#: Name -> estimator and settings.
FITS = {
    "default": (LSTMTextClassifier, {"precision": "auto"}),
    "two layers, dropouts": (LSTMTextClassifier, {"num_layers": 2, **ALL_DROPOUTS}),
    "recurrent dropout": (LSTMTextClassifier, {"recurrent_dropout": 0.2}),
    "zoneout": (LSTMTextClassifier, {"zoneout": 0.1}),
    "coupled": (LSTMTextClassifier, {"cell": "coupled"}),
    "layer_norm": (LSTMTextClassifier, {"cell": "layer_norm"}),
    "cudnn": (LSTMTextClassifier, {"backend": "aten"}),
    "loop, coupled": (LSTMTextClassifier, {"backend": "reference", "cell": "coupled"}),
    "attention": (
        LSTMTextClassifier,
        {"pooling": ("attention", "max"), "attention": "dot"} | CUDNN,
    ),
    "adversarial": (LSTMTextClassifier, {"adversarial": 0.5} | CUDNN),
    "virtual adversarial": (LSTMTextClassifier, {"virtual_adversarial": 0.5}),
    "ema": (LSTMTextClassifier, {"ema": 0.9} | CUDNN),
    "by sentence": (LSTMTextClassifier, {"read_by": "sentence"} | CUDNN),
    "regression": (LSTMTextRegressor, CUDNN),
    "language model": (LSTMLanguageModel, {}),
    "language model, loop": (LSTMLanguageModel, {"backend": "reference"}),
}


def fit(name, device, n_texts):
    """Return a model that has read some texts once."""
    kind, settings = FITS[name]
    texts, labels = MANY[:n_texts], MANY_LABELS[:n_texts]
    if kind is LSTMLanguageModel:
        return kind(**(LANGUAGE | {"device": device} | settings)).fit(texts)
    if kind is LSTMTextRegressor:
        labels = [float(label == "pos") for label in labels]
    else:
        settings = {"calibrate": False} | settings
    return kind(**(SMALL | {"device": device} | settings)).fit(texts, labels)


def ask(model, texts):
    """Return numbers that the model predicts."""
    if isinstance(model, LSTMLanguageModel):
        return np.array(model.score(texts))
    return (
        model.predict(texts) if isinstance(model, LSTMTextRegressor) else model.predict_proba(texts)
    )


def counted(call):
    """Return what a call returns, the waits in it and the batches it trained with."""
    waits.clear()
    n_batches[0] = 0
    return call(), Counter(waits), n_batches[0]


def look_at(name: str) -> dict:
    """Return the waits a batch and in a prediction, by their lines, and the distance to the CPU."""
    with fake_card():
        _, few, n_few = counted(lambda: fit(name, "cuda", 8))
        model, many, n_many = counted(lambda: fit(name, "cuda", 24))
        of_card, prediction, _ = counted(lambda: ask(model, MANY))
    many.subtract(few)
    found = {"a batch": lines(many, n_many - n_few), "prediction": lines(prediction)}
    if is_computed(name):
        of_cpu = ask(fit(name, "cpu", 24), MANY)
        found["distance"] = float(np.abs(of_card - of_cpu).max())
    return found


def learn_on_and_save(name: str) -> float:
    """Return how far a model that learnt, learnt on and was saved on a card is from the CPU's."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        with fake_card():
            model = fit(name, "cuda", 24).partial_fit(MANY[:8], MANY_LABELS[:8])
            model.save(path)
        of_card = sklstm.load(path).set_params(device="cpu").predict_proba(MANY)
        of_cpu = fit(name, "cpu", 24).partial_fit(MANY[:8], MANY_LABELS[:8])
        return float(np.abs(of_card - of_cpu.predict_proba(MANY)).max())


def is_computed(name: str) -> bool:
    """Return whether the fit has an LSTM that computes; such fits draw no random numbers."""
    return FITS[name][1].get("backend") in ("aten", "reference")


def lines(found, n=1):
    return {f"{what}, {where}": times / n for (what, where), times in found.items() if times}


def there(*numbers):
    return pin(torch.tensor(numbers)).to("cuda", non_blocking=True)


#: Fault -> what commits it, and what is found: a wait, "nothing", or the beginning of an error.
FAULTS = {
    "a number is fetched": (lambda: there(1.0).item(), "_local_scalar_dense"),
    "a tensor is asked": (lambda: bool((there(1.0) > 0).all()), "_local_scalar_dense"),
    "a tensor is fetched": (lambda: there(1.0).cpu(), "to the processor"),
    "sent from other memory": (lambda: torch.ones(2).to("cuda", non_blocking=True), "to the card"),
    "sent with a wait": (lambda: pin(torch.ones(2)).to("cuda"), "to the card"),
    # A wait on a card; the fake one cannot even do it.
    "made of a list": (lambda: torch.tensor([1.0], device="cuda"), "Could not run"),
    "copied into": (lambda: there(1.0).copy_(torch.ones(1)), "copy"),
    "a mask cuts": (lambda: there(1.0, 2.0)[there(1.0, 2.0) > 1], "index by truth"),
    "an index is sent": (lambda: there(1.0, 2.0)[torch.tensor([1])], "index to the card"),
    "a number is assigned": (lambda: assign(there(1.0, 2.0), there(1), 0.0), "number to the card"),
    "different numbers": (lambda: there(1, 1).unique(), "_unique"),
    "two devices": (lambda: there(1.0, 2.0) + torch.ones(2), "Expected all tensors"),
    "a generator of the processor": (
        lambda: there(1.0).normal_(generator=torch.Generator()),
        "Expected a 'cuda' device type for generator",
    ),
    # None of these is one.
    "sent": (lambda: there(1.0), "nothing"),
    "one number more": (lambda: there(1.0, 2.0) + torch.tensor(1.0), "nothing"),
    "a mask is filled": (lambda: assign(there(1.0, 2.0), there(1.0, 2.0) > 1, 0.0), "nothing"),
    "a slice is filled": (lambda: assign(there(1.0, 2.0), slice(1), 0.0), "nothing"),
    "a generator of the card": (
        lambda: there(1.0).normal_(generator=torch.Generator("cuda").manual_seed(0)),
        "nothing",
    ),
}


def assign(tensor, place, value):
    tensor[place] = value


def commit(fault) -> str:
    """Return what the card finds."""
    with fake_card():
        try:
            _, found, _ = counted(FAULTS[fault][0])
        except RuntimeError as error:
            return str(error)
    return " ".join(what for what, _ in found) or "nothing"


if __name__ == "__main__":
    results = {"faults": {fault: commit(fault) for fault in FAULTS}}
    if not sys.argv[1:]:
        results["saved"] = learn_on_and_save("cudnn")
    for name in sys.argv[1:] or FITS:
        try:
            results[name] = look_at(name)
        except Exception:
            results[name] = {"error": traceback.format_exc(limit=-12)}
    print(json.dumps(results))
