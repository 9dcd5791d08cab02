"""Time the LSTM layer's backends and cells, and torch.nn.LSTM, in one run, by ratios.

    python benchmarks/speed/lstm.py                    # float32, training and prediction
    python benchmarks/speed/lstm.py --cells            # the cells and features of backend "torch"
    python benchmarks/speed/lstm.py --dtype bfloat16 --json results/lstm.json

The ratio is to padded ``torch.nn.LSTM``, or to the standard cell (above 1: faster). Matrix products
are counted as the mathematics needs them, 8H(I + H) FLOP a token forward and 24H(I + H) with the
backward (three quarters of it with three gates), and for real tokens only.
"""

from functools import partial

import torch
from measure import (
    Table,
    add_threads_option,
    alternate,
    describe_machine,
    make_parser,
    speedup,
    summarise,
    timed,
    write,
)
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sklstm.kernels import available_backends, reference
from sklstm.kernels.cells import CELLS
from sklstm.kernels.library import instructions
from sklstm.kernels.memory import reused_memory
from sklstm.lstm import LSTM

N_STEPS = 200
SIZES = [(batch, hidden) for batch in (32, 128) for hidden in (128, 256)]
COLUMNS = {"ms": ".1f", "ratio": ".2f", "GFLOP/s": ".0f", "of peak": ".0%", "spread": ".0%"}


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    peak = measure_peak(dtype)
    results = describe_machine() | {"peak": peak, "dtype": options.dtype, "rows": []}
    print(f"{options.dtype}, largest matrix product {peak / 1e9:.0f} GFLOP/s")
    table = Table("", COLUMNS, width=52)
    measure = cells if options.cells else backends
    for batch, hidden in options.sizes or SIZES:
        with reused_memory():  # as in every fit
            for row in measure(batch, hidden, dtype, options):
                speed = row["flops"] / row["seconds"]
                row["of_peak"] = speed / peak
                name = "B={B:<4} H={H:<4} {kind:7} {mode:10} {name}".format(**row)
                milliseconds, gigaflops = 1e3 * row["seconds"], speed / 1e9
                shares = row["of_peak"], row["spread"]
                table.add(name, milliseconds, row["speedup"], gigaflops, *shares)
                results["rows"].append(row)
    write(options.json, results)


def parse():
    parser = make_parser(__doc__, repeats=9)
    add_threads_option(parser)
    parser.add_argument("--cells", action="store_true", help="compare cells, not backends")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--sizes", type=size, nargs="+", help="such as 32x128: B x H")
    parser.add_argument("--directions", type=int, choices=[1, 2], default=2)
    parser.add_argument("--packed", action="store_true", help="also PackedSequence (slow)")
    return parser.parse_args()


def size(text):
    batch, hidden = text.split("x")
    return int(batch), int(hidden)


def measure_peak(dtype):
    """Return the FLOP/s of a large matrix product.

    The largest is 2048 x 2048. Without bfloat16 units a processor needs a minute for one of these;
    there the first size that takes 0.1 s is large enough.
    """
    for n in (256, 512, 1024, 2048):
        a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
        seconds = min(timed(lambda a=a, b=b: a @ b)[0] for _ in range(7))
        if seconds > 0.1:
            break
    return 2 * n**3 / seconds


def is_compiled_for(dtype):
    """Return whether the compiled recurrence has instructions for the dtype, and need not widen."""
    return dtype == torch.float32 or instructions(dtype) > 0


def backends(batch, hidden, dtype, options):
    """Yield a row for each way to run the standard cell, on full and on ragged batches."""
    bidirectional = options.directions == 2
    theirs = torch.nn.LSTM(hidden, hidden, bidirectional=bidirectional, dtype=dtype)
    ours = {}
    for name in [*available_backends("cpu"), "auto"]:
        if name != "reference" and (name != "compiled" or is_compiled_for(dtype)):
            ours[name] = LSTM(hidden, hidden, bidirectional=bidirectional, backend=name).to(dtype)
            ours[name].load_state_dict(theirs.state_dict())
    x = torch.randn(N_STEPS, batch, hidden, dtype=dtype)
    lengths = torch.randint(20, N_STEPS + 1, (batch,), generator=torch.Generator().manual_seed(0))
    lengths[0] = N_STEPS

    def run_packed(x):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return pad_packed_sequence(theirs(packed)[0], total_length=N_STEPS)[0]

    mask = (torch.arange(N_STEPS).unsqueeze(1) < lengths).unsqueeze(2)
    full = {"nn.LSTM padded": lambda x: theirs(x)[0]}
    full |= {name: layer.states for name, layer in ours.items()}
    ragged = {"nn.LSTM padded": lambda x: theirs(x)[0] * mask}
    if options.packed:
        ragged["nn.LSTM packed"] = run_packed
    ragged |= {name: partial(layer.states, lengths=lengths) for name, layer in ours.items()}
    for kind, ways, n_tokens in (
        ("full", full, N_STEPS * batch),
        ("ragged", ragged, int(lengths.sum())),
    ):
        for mode, factor in (("training", 24), ("prediction", 8)):
            flops = factor * n_tokens * 2 * hidden * hidden * options.directions
            rows = compare(ways, x, mode, "nn.LSTM padded", options.repeats)
            for row in rows:
                yield row | {"B": batch, "H": hidden, "kind": kind, "flops": flops}
            seconds = {row["name"]: row["seconds"] for row in rows if row["name"] in ours}
            best = min(seconds.values()) / seconds["auto"]
            print(f"{'':34}auto: {best:.2f} of the best of ours")


def cells(batch, hidden, dtype, options):
    """Yield a row for each cell and feature in backend "torch", and the reference's loop."""
    settings = {cell: {"cell": cell} for cell in CELLS}
    settings |= {"recurrent dropout": {"recurrent_dropout": 0.2}, "zoneout": {"zoneout": 0.1}}
    make = partial(LSTM, hidden, hidden, bidirectional=options.directions == 2)
    ways = {
        name: make(backend="torch", **of_cell).to(dtype).states
        for name, of_cell in settings.items()
    }
    ways["loop, autograd"] = partial(autograd_loop, make().to(dtype))
    x = torch.randn(N_STEPS, batch, hidden, dtype=dtype)
    for row in compare(ways, x, "training", "lstm", options.repeats):
        n_gates = len(CELLS.get(row["name"], CELLS["lstm"]).gates)
        flops = N_STEPS * batch * 6 * n_gates * 2 * hidden * hidden * options.directions
        yield row | {"B": batch, "H": hidden, "kind": "full", "flops": flops}


def autograd_loop(layer, x):
    """Run the reference's plain loop, differentiated by autograd, in each direction."""
    directions = [layer._inputs(x, None, None, None, 0, k) for k in range(layer.num_directions)]
    return torch.cat([reference.lstm_loop(inputs)[0] for inputs in directions], dim=2)


def compare(ways, x, mode, base, repeats):
    """Return a row for each way to run a layer: its median seconds, and its ratio to the base."""
    run = train if mode == "training" else predict
    x = x.clone().requires_grad_(mode == "training")
    weight = torch.randn_like(ways[base](x))
    seconds = alternate({name: partial(run, way, x, weight) for name, way in ways.items()}, repeats)
    return [
        {"name": name, "mode": mode, **summarise(own), "speedup": speedup(own, seconds[base])}
        for name, own in seconds.items()
    ]


def train(way, x, weight):
    x.grad = None
    way(x).backward(weight)


def predict(way, x, weight):
    with torch.inference_mode():
        way(x)


if __name__ == "__main__":
    main()
