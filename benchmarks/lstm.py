"""Time the LSTM layer's backends and cells beside torch.nn.LSTM, in one run, by ratios.

    python benchmarks/lstm.py                      # float32, training and prediction
    python benchmarks/lstm.py --cells              # the cells and features of the cpu backend
    python benchmarks/lstm.py --dtype bfloat16 --json results/lstm.json

Every measurement is taken in turn with the others, ``--repeats`` times; printed are the median and
the ratio of it to padded ``torch.nn.LSTM`` (above 1: faster). Products of matrices are counted as
the mathematics needs them, 8H(I + H) a token forward and 24H(I + H) with the backward (three
quarters of it with three gates), and for real tokens alone.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sklstm.kernels import available_backends, reference
from sklstm.kernels.contract import CELLS
from sklstm.kernels.memory import reused_memory
from sklstm.lstm import LSTM

N_STEPS = 200
SIZES = [(batch, hidden) for batch in (32, 128) for hidden in (128, 256)]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    peak = gemm_peak(dtype)
    print(f"torch {torch.__version__}, {options.threads} threads, {options.dtype}", end="; ")
    print(f"largest matrix product {peak / 1e9:.0f} GFLOP/s")
    results = {"peak": peak, "threads": options.threads, "dtype": options.dtype, "rows": []}
    measure = cells if options.cells else backends
    for batch, hidden in options.sizes or SIZES:
        with reused_memory():  # as in every fit
            rows = list(measure(batch, hidden, dtype, options))
        for row in rows:
            row["of_peak"] = row["flops"] / row["seconds"] / peak
            results["rows"].append(row)
            show(row)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", action="store_true", help="compare cells, not backends")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sizes", type=size, nargs="+", help="such as 32x128: B x H")
    parser.add_argument("--directions", type=int, choices=[1, 2], default=2)
    parser.add_argument("--packed", action="store_true", help="also PackedSequence (slow)")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    return parser.parse_args()


def size(text: str) -> tuple[int, int]:
    batch, hidden = text.split("x")
    return int(batch), int(hidden)


def backends(batch, hidden, dtype, options):
    """Yield a row for each way to run the standard cell, on full and on ragged batches."""
    bidirectional = options.directions == 2
    theirs = torch.nn.LSTM(hidden, hidden, bidirectional=bidirectional, dtype=dtype)
    ours = {}
    compared = [name for name in available_backends("cpu") if name != "reference"]
    if dtype != torch.float32:
        compared.remove("native")
    for name in [*compared, "auto"]:
        ours[name] = LSTM(hidden, hidden, bidirectional=bidirectional, backend=name).to(dtype)
        ours[name].load_state_dict(theirs.state_dict())
    x = torch.randn(N_STEPS, batch, hidden, dtype=dtype)
    lengths = torch.randint(20, N_STEPS + 1, (batch,), generator=torch.Generator().manual_seed(0))
    lengths[0] = N_STEPS

    def packed(x):
        rows = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return pad_packed_sequence(theirs(rows)[0], total_length=N_STEPS)[0]

    mask = (torch.arange(N_STEPS).unsqueeze(1) < lengths).unsqueeze(2)
    full = {"nn.LSTM padded": lambda x: theirs(x)[0]}
    full |= {name: layer.states for name, layer in ours.items()}
    ragged = {"nn.LSTM padded": lambda x: theirs(x)[0] * mask}
    if options.packed:
        ragged["nn.LSTM packed"] = packed
    ragged |= {
        name: lambda x, layer=layer: layer.states(x, lengths) for name, layer in ours.items()
    }
    for kind, ways, n_tokens in (
        ("full", full, N_STEPS * batch),
        ("ragged", ragged, int(lengths.sum())),
    ):
        for mode in ("training", "prediction"):
            calls = {name: timed_call(way, x, mode) for name, way in ways.items()}
            flops = n_tokens * (24 if mode == "training" else 8) * 2 * hidden * hidden
            rows = compare(calls, "nn.LSTM padded", options.repeats)
            for row in rows:
                row |= {"B": batch, "H": hidden, "kind": kind, "mode": mode}
                row |= {"flops": flops * options.directions}
                yield row
            fastest = min((row for row in rows if "nn" not in row["name"]), key=seconds)
            (auto,) = (row for row in rows if row["name"] == "auto")
            print(f"{'':44}auto: {seconds(fastest) / seconds(auto):.2f} of the best of ours")


def cells(batch, hidden, dtype, options):
    """Yield a row for each cell and feature in the cpu backend, and the reference's loop."""
    layers = {cell: {"cell": cell} for cell in CELLS}
    layers |= {"recurrent dropout": {"recurrent_dropout": 0.2}, "zoneout": {"zoneout": 0.1}}
    x = torch.randn(N_STEPS, batch, hidden, dtype=dtype)
    calls = {}
    for name, settings in layers.items():
        layer = LSTM(
            hidden, hidden, bidirectional=options.directions == 2, backend="cpu", **settings
        ).to(dtype)
        calls[name] = timed_call(layer.states, x, "training")
    looped = LSTM(hidden, hidden, bidirectional=options.directions == 2).to(dtype)
    calls["loop, autograd"] = timed_call(lambda x: autograd_loop(looped, x), x, "training")
    for row in compare(calls, "lstm", options.repeats):
        n_gates = len(CELLS.get(row["name"], CELLS["lstm"]))
        flops = N_STEPS * batch * 6 * n_gates * 2 * hidden * hidden * options.directions
        yield row | {"B": batch, "H": hidden, "kind": "full", "mode": "training", "flops": flops}


def autograd_loop(layer, x):
    """Run the reference's plain loop, differentiated by autograd, in each direction."""
    directions = [layer._inputs(x, None, None, None, 0, k) for k in range(layer.num_directions)]
    return torch.cat([reference.lstm_loop(inputs)[0] for inputs in directions], dim=2)


def timed_call(way, x, mode):
    """Return a function that trains or predicts once."""
    if mode == "prediction":

        def call():
            with torch.inference_mode():
                way(x)

        return call
    x = x.clone().requires_grad_()
    weight = torch.randn_like(way(x))

    def call():
        x.grad = None
        way(x).backward(weight)

    return call


def compare(calls, base, repeats):
    """Return a row for each call: its median seconds, and how much faster it is than the base."""
    times = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if repeat > 0:  # the first call fills caches
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(of_call) for name, of_call in times.items()}
    return [
        {
            "name": name,
            "seconds": median,
            "spread": (max(times[name]) - min(times[name])) / median,
            "speedup": medians[base] / median,
        }
        for name, median in medians.items()
    ]


def gemm_peak(dtype, n=2048) -> float:
    """Return the FLOP/s of a large matrix product."""
    a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times)


def seconds(row) -> float:
    return row["seconds"]


def show(row) -> None:
    print(
        f"B={row['B']:<4} H={row['H']:<4} {row['kind']:7} {row['mode']:10} {row['name']:18}"
        f"{1e3 * row['seconds']:8.1f} ms  x {row['speedup']:5.2f}  "
        f"{row['flops'] / row['seconds'] / 1e9:6.0f} GFLOP/s  {row['of_peak']:4.0%} of peak  "
        f"spread {row['spread']:4.0%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
