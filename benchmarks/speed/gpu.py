"""Everything that only a CUDA card can tell: parity, repeatability, whole fits, times, memory.

    python benchmarks/speed/gpu.py                         # some minutes
    python benchmarks/speed/gpu.py --steps layer cells     # some of it
    python benchmarks/speed/gpu.py --json results/gpu.json
    python benchmarks/speed/gpu.py --table results/gpu.json    # of docs/kernels.md

Each step runs whatever happens to those before it, and its error is part of the results. ``--device
cpu`` runs all steps in small, to see that they work. Layers are bidirectional and read 256 steps of
as many inputs as they have hidden units. Times are medians of calls that take turns, by the card's
own clock. A training call is a forward and a backward.
"""

import json
import math
import shutil
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from measure import Table, make_parser, write
from skorch.callbacks import Callback
from torch.nn.utils.rnn import pack_padded_sequence

from sklstm import LSTMLanguageModel, LSTMTextClassifier
from sklstm.datasets import load_docstrings
from sklstm.kernels import available_backends
from sklstm.kernels.cells import CELLS
from sklstm.lstm import LSTM

ROOT = Path(__file__).parents[2]
BATCHES, HIDDEN, N_STEPS = (32, 256, 2048), (64, 128, 256), 256


def main():
    parser = make_parser(__doc__, repeats=15)
    parser.add_argument("--device", default="cuda", help="cpu: all steps in small")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--table", type=Path, help="print the layers of these results as Markdown")
    options = parser.parse_args()
    if options.table:
        print_table(json.loads(options.table.read_text(encoding="utf-8"))["layer"])
        return
    results = {}
    for name in options.steps:
        print(f"\n{name}: {STEPS[name].__doc__.splitlines()[0]}", flush=True)
        start = time.perf_counter()
        try:
            results[name] = STEPS[name](options)
        except Exception as error:
            traceback.print_exc(limit=3)
            results[name] = {"error": f"{type(error).__name__}: {error}"}
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)
        write(options.json, results)


def versions(options):
    """Card, driver, compilers, and which backends run on the card."""
    found = {"torch": torch.__version__, "cuda": torch.version.cuda}
    for command in ("nvidia-smi --query-gpu=name,driver_version --format=csv,noheader", "cc -v"):
        program = command.split()[0]
        if shutil.which(program):
            done = subprocess.run(command.split(), capture_output=True, text=True)
            found[program] = (done.stdout + done.stderr).strip().splitlines()[-1]
    found["cudnn"] = torch.backends.cudnn.version()
    with warnings.catch_warnings(record=True) as caught:
        found["backends"] = available_backends(options.device)
    found["warnings"] = [str(warning.message) for warning in caught]
    for name, value in found.items():
        print(f"  {name}: {value}")
    return found


def tests(options):
    """Parity of kernels and cuDNN with the reference, fits on the card and on the processor."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/kernels/test_gpu.py",
        "-q",
        "-ra",
        "--tb=short",
    ]
    done = subprocess.run(
        [*command, "--numprocesses", "auto"], cwd=ROOT, capture_output=True, text=True
    )
    print(done.stdout[-6000:], done.stderr[-2000:])
    return {"returncode": done.returncode, "output": done.stdout[-20000:]}


def layer(options):
    """A layer by each backend, and torch.nn.LSTM on padded and on packed texts."""
    rows = []
    table = Table("", {"ms": ".3f", "of best": ".2f", "spread": ".0%"}, width=64)
    sizes = [(batch, hidden) for batch in BATCHES for hidden in HIDDEN]
    for batch, hidden in sizes if options.device == "cuda" else [(4, 16)]:
        for kind in ("full", "ragged"):
            ways = ways_of(batch, hidden, kind, options)
            for mode in ("training", "prediction"):
                rows += compare(ways, mode, options, table, f"B={batch} H={hidden} {kind}")
    return rows


def ways_of(batch, hidden, kind, options):
    """Return the calls to compare: name -> (function of x, x, parameters)."""
    device, n_steps = options.device, N_STEPS if options.device == "cuda" else 8
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(n_steps // 8, n_steps + 1, (batch,), generator=generator)
    lengths[0] = n_steps
    if kind == "full":
        lengths = None
    ways = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        if batch > 32 and dtype == torch.float16:
            continue
        theirs = torch.nn.LSTM(hidden, hidden, bidirectional=True, device=device, dtype=dtype)
        x = torch.randn(n_steps, batch, hidden, device=device, dtype=dtype)
        short = str(dtype).removeprefix("torch.")
        ways[f"nn.LSTM padded {short}"] = (lambda x, m=theirs: m(x)[0], x, theirs)
        if kind == "ragged" and dtype == torch.float32:
            packed = pack_padded_sequence(x, lengths, enforce_sorted=False)

            def run_packed(data, packed=packed, theirs=theirs):
                return theirs(packed._replace(data=data))[0].data

            ways[f"nn.LSTM packed {short}"] = (run_packed, packed.data, theirs)
        for name in available_backends(device):
            if name != "reference" and (
                dtype == torch.float32 or (name == "triton" and dtype == torch.bfloat16)
            ):
                ours = LSTM(hidden, hidden, bidirectional=True, backend=name).to(device, dtype)
                ours.load_state_dict(theirs.state_dict())
                ways[f"{name} {short}"] = (lambda x, m=ours: m.states(x, lengths), x, ours)
    return ways


def print_table(rows):
    """Print for each size our kernels in bfloat16, and torch.nn.LSTM in its fastest precision."""
    sizes = {}
    for row in rows:
        sizes.setdefault(row["of"], {}).setdefault(row["mode"], {})[row["name"]] = row["ms"]
    print("| B, H | `nn.LSTM`, training | ours | | `nn.LSTM`, prediction | ours | |")
    print("|---" * 7 + "|")
    for size, by_mode in sizes.items():
        batch, hidden, kind = size.replace("B=", "").replace("H=", "").split()
        cells = [f"{batch}, {hidden}, {kind}"]
        for ms in by_mode.values():
            padded = {name.split()[-1]: own for name, own in ms.items() if "padded" in name}
            dtype, ours = min(padded, key=padded.get), ms.get("triton bfloat16", math.nan)
            cells += [f"{padded[dtype]:.2f} ({dtype})", f"{ours:.2f}"]
            cells += [f"{padded[dtype] / ours:.2f} ×"]
        print(f"| {' | '.join(cells)} |")


def kernels(options):
    """Our kernels by themselves, one after another without a wait: forward and backward."""
    from sklstm.kernels import triton_backward, triton_block, triton_forward

    if options.device == "cpu":
        return []
    rows = []
    table = Table("", {"forward ms": ".3f", "backward ms": ".3f", "us a step": ".2f"}, width=50)
    for batch, hidden in ((32, 64), (32, 128), (256, 128), (2048, 128), (32, 256)):
        for dtype in (torch.bfloat16, torch.float32):
            launches, real = [], triton_block.launch

            def keep(*arguments, launches=launches, real=real):
                launches.append(arguments)
                real(*arguments)

            layer = LSTM(hidden, hidden, bidirectional=True, backend="triton").cuda().to(dtype)
            x = torch.randn(N_STEPS, batch, hidden, device="cuda", dtype=dtype)
            with (
                mock.patch.object(triton_forward, "launch", keep),
                mock.patch.object(triton_backward, "launch", keep),
            ):
                layer.states(x).sum().backward()
            times = []
            for own in launches:
                seconds = clocked(lambda own=own, run=real: [run(*own) for _ in range(20)], "cuda")
                times.append(seconds / 20)
            name = f"B={batch} H={hidden} {str(dtype).removeprefix('torch.')}"
            rows.append({"name": name, "forward": times[0], "backward": times[1]})
            table.add(name, *times, 1e3 * sum(times) / N_STEPS)
    return rows


def cells(options):
    """The cells and features of the kernels, against the reference's loop."""
    table = Table("", {"ms": ".3f", "of best": ".2f", "spread": ".0%"}, width=64)
    batch, hidden, n_steps = (32, 128, N_STEPS) if options.device == "cuda" else (4, 16, 8)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    settings = {cell: {"cell": cell} for cell in CELLS}
    settings |= {"recurrent dropout": {"recurrent_dropout": 0.2}, "zoneout": {"zoneout": 0.1}}
    x = torch.randn(n_steps, batch, hidden, device=options.device, dtype=dtype)
    lengths = torch.randint(n_steps // 8, n_steps + 1, (batch,))
    ways = {}
    for name, of_cell in settings.items():
        for backend in ("auto", "reference") if name == "lstm" else ("auto",):
            ours = LSTM(hidden, hidden, bidirectional=True, backend=backend, **of_cell)
            ours = ours.to(options.device, dtype)
            ways[f"{name}, {backend}"] = (lambda x, o=ours: o.states(x, lengths), x, ours)
    return compare(ways, "training", options, table, f"B={batch} H={hidden}", most=5)


def compare(ways, mode, options, table, title, most=None):
    """Return a row for each call: median milliseconds, and how many times as fast as the best
    torch.nn.LSTM, or as the best of all where there is none of these."""
    calls = {}
    for name, (function, x, module) in ways.items():
        call = training_call(function, x, module) if mode == "training" else function
        try:
            for _ in range(3):
                run(call, x, mode)
            calls[name] = (call, x)
        except Exception as error:
            print(f"  {title} {name}: {type(error).__name__}: {str(error)[:300]}")
    milliseconds = {name: [] for name in calls}
    for _ in range(min(options.repeats, most or options.repeats)):
        for name, (call, x) in calls.items():
            milliseconds[name].append(clocked(lambda c=call, x=x: run(c, x, mode), options.device))
    rows, medians = [], {name: statistics.median(own) for name, own in milliseconds.items()}
    theirs = [median for name, median in medians.items() if name.startswith("nn.LSTM")]
    best = min(theirs or medians.values())
    for name, own in milliseconds.items():
        median = medians[name]
        ratio = best / median
        spread = (max(own) - min(own)) / median
        rows.append({"of": title, "mode": mode, "name": name, "ms": median, "ratio": ratio})
        table.add(f"{title} {mode:10} {name}", median, ratio, spread)
    return rows


def training_call(function, x, module):
    """Return a function that runs forward and backward, with the gradients of x and parameters."""
    leaf = x.detach().clone().requires_grad_()
    wanted = [leaf, *module.parameters()]

    def call(_):
        output = function(leaf)
        return torch.autograd.grad(output, wanted, torch.ones_like(output), allow_unused=True)

    return call


def run(call, x, mode):
    if mode == "training":
        return call(x)
    with torch.no_grad():
        return call(x)


def clocked(call, device):
    """Return the milliseconds of a call."""
    if device == "cpu":
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def fits(options):
    """Default fits on the card and on the processor: seconds an epoch, accuracy, memory."""
    data = load_docstrings()
    n_texts = 4_000 if options.device == "cuda" else 200
    train, held_out = slice(n_texts), slice(n_texts, n_texts + 1_000)
    rows = []
    table = Table(
        "", {"s/epoch": ".2f", "predict s": ".2f", "accuracy": ".3f", "MB": ".0f"}, width=50
    )
    settings = {"default": {}, "float32": {"precision": "float32"}}
    settings |= {cell: {"cell": cell} for cell in ("coupled", "layer_norm")}
    settings |= {"zoneout": {"zoneout": 0.1}}
    for name, own in settings.items():
        for device in dict.fromkeys((options.device, *(["cpu"] if name == "default" else []))):
            model = LSTMTextClassifier(
                device=device, blend=None, max_epochs=3, early_stopping=False, random_state=0, **own
            )
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(data.data[train], data.target[train])
            seconds = time.perf_counter() - start
            start = time.perf_counter()
            accuracy = np.mean(model.predict(data.data[held_out]) == data.target[held_out])
            predicted = time.perf_counter() - start
            memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0
            table.add(f"{name}, {device}", seconds / 3, predicted, accuracy, memory)
            rows.append({"name": name, "device": device, "seconds": seconds, "predict": predicted})
            rows[-1] |= {"accuracy": float(accuracy), "megabytes": memory}
            rows[-1]["warnings"] = sorted({str(w.message)[:200] for w in caught})
            for message in rows[-1]["warnings"]:
                print(f"    {message}")
    return rows


def waits(options):
    """How often the processor waits for the card, in a batch of training and of prediction."""
    data = load_docstrings()
    found = {}
    settings = {"default": {}, "two layers, dropouts": {"num_layers": 2, "recurrent_dropout": 0.1}}
    settings |= {"zoneout": {"zoneout": 0.1}, "coupled": {"cell": "coupled"}}
    settings |= {"adversarial": {"adversarial": 0.1}, "language model": {}}
    for name, own in settings.items():
        if name == "language model":
            model = LSTMLanguageModel(device=options.device, max_epochs=1, validation_fraction=0.1)
            predict = model.perplexity
        else:
            model = LSTMTextClassifier(device=options.device, blend=None, max_epochs=1, **own)
            model.set_params(early_stopping=False)
            predict = model.predict_proba
        model.set_params(random_state=0, batch_size=32)
        counts, batches = [], []
        for n_texts in (320, 640):
            BatchCounter.n_batches = 0
            model.set_params(callbacks=[BatchCounter()])
            texts, labels = data.data[:n_texts], data.target[:n_texts]
            counts.append(count_waits(lambda m=model, X=texts, y=labels: m.fit(X, y)))
            batches.append(BatchCounter.n_batches)
        more = batches[1] - batches[0]
        found[name] = {"training": (len(counts[1]) - len(counts[0])) / more}
        lines = count_waits(lambda p=predict: p(data.data[:640]))
        found[name]["prediction, in all"] = len(lines)
        places = {line: counts[1].count(line) - counts[0].count(line) for line in set(counts[1])}
        found[name]["places"] = dict(sorted(places.items(), key=lambda item: -item[1])[:12])
        print(f"  {name}: {found[name]['training']:.1f} a batch of training")
        for line, n in found[name]["places"].items():
            print(f"      {n / more:.1f} {line}")
    return found


class BatchCounter(Callback):
    """Counts batches of training; for all objects together, since a fit copies its callbacks."""

    n_batches = 0

    def on_batch_end(self, net, training=False, **kwargs):
        BatchCounter.n_batches += bool(training)


def count_waits(call):
    """Return a place in the package for each wait."""
    if not torch.cuda.is_available():
        call()
        return []
    places = []

    def note(message, category, filename, lineno, file=None, line=None):
        frames = traceback.extract_stack()
        own = [f for f in frames if "sklstm/" in f.filename and "benchmarks" not in f.filename]
        last = own[-1] if own else frames[-2]
        if "synchroniz" in str(message):
            places.append(f"{Path(last.filename).name}:{last.lineno} {last.line}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return places


STEPS = {step.__name__: step for step in (versions, tests, layer, kernels, cells, fits, waits)}

if __name__ == "__main__":
    main()
