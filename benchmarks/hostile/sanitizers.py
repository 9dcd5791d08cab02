"""The compiled LSTM under AddressSanitizer and UndefinedBehaviorSanitizer, on random shapes.

Forward and backward of each shape, with all states and with pools of them, are compared with the
definition in float64. Then one batch runs with its rows more than 2^31 numbers apart in every
tensor: these are mapped, and only the pages that are read or written take memory. Needs gcc with
its sanitizers.

python benchmarks/hostile/sanitizers.py --json benchmarks/results/sanitizers.json
"""

import argparse
import ctypes
import mmap
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from tables import describe_machine, print_table, write

import sklstm.kernels.compiled as compiled
from sklstm.kernels import library, lstm_layer, products
from sklstm.kernels.contract import Inputs

#: The sets of instructions, in their order.
NAMES = {
    torch.float32: ("plain", "AVX2", "AVX-512"),
    torch.bfloat16: ("bfloat16, widened", "bfloat16, AVX-512", "bfloat16, AMX"),
}
FLAGS = "-O2 -g -fno-math-errno -fopenmp -shared -fPIC -fno-omit-frame-pointer"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
#: What each direction has of its own.
OF_A_DIRECTION = ("weight_ih", "weight_hh", "bias", "h0", "c0")
POOLS = frozenset({"last", "max", "mean"})
#: Largest difference from the definition, as a share of the largest number of a tensor or of 1.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
#: Standard deviation of the numbers. With 0.5, gradients grow to millions within some fifty steps,
#: and rounding with them, in plain torch as well.
SCALE = 0.1


def main():
    options = parse()
    if options.library is None:
        sys.exit(run_sanitized())
    use(options.library)
    torch.set_num_threads(max(options.threads))
    results = describe_machine() | {"seed": options.seed, "shapes": options.shapes}
    rng = np.random.default_rng(options.seed)
    rows, worst = {}, Counter()
    sets = [
        (dtype, number) for dtype in NAMES for number in range(compiled.instructions(dtype) + 1)
    ]
    for number in range(options.shapes):
        dtype, instructions = sets[number % len(sets)]
        n_threads = options.threads[number // len(sets) % 2]
        for module in (compiled, products):
            module.instructions = lambda dtype, instructions=instructions: instructions
        torch.set_num_threads(n_threads)
        shape, difference = try_shape(rng, dtype)
        name = f"{NAMES[dtype][instructions]}, {n_threads} thread{'s' * (n_threads > 1)}"
        row = rows.setdefault(name, Counter())
        row["shapes"] += 1
        row["texts of 1"] += shape["ones"]
        row["two directions"] += shape["directions"] == 2
        is_fault = not difference <= TOLERANCES[dtype]
        row["faults"] += is_fault
        worst[name] = max(worst[name], difference)
        if is_fault:
            print(f"FAULT: {difference} in {shape}", flush=True)
    columns = ["shapes", "two directions", "texts of 1", "faults", "largest difference"]
    print_table(
        "instructions",
        columns,
        {
            name: [*(row[c] for c in columns[:-1]), f"{worst[name]:.1e}"]
            for name, row in rows.items()
        },
    )
    results["table"] = {name: dict(row) | {"worst": worst[name]} for name, row in rows.items()}
    results["far"] = {}
    for dtype, instructions in sets:
        results["far"][NAMES[dtype][instructions]] = try_far_apart(dtype, instructions)
    print(f"rows 2^31 numbers apart, same bits: {results['far']}")
    write(options.json, results)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", type=int, default=5_000)
    parser.add_argument("--threads", type=int, nargs=2, default=(1, 4))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--library", type=Path, help="a library that has been built already")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def run_sanitized() -> int:
    """Build the library with sanitizers, and run this script again with theirs loaded first."""
    source = Path(compiled.__file__).parent / "compiled.c"
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "sanitized.so"
        command = f"gcc {FLAGS} {SANITIZERS} {shlex.quote(str(source))} -o {built}"
        subprocess.run(shlex.split(command), check=True)
        runtime = subprocess.run(
            ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
        )
        environment = os.environ | {
            "LD_PRELOAD": runtime.stdout.strip(),
            # Python and torch never give some memory back.
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        }
        arguments = [sys.executable, *sys.argv, "--library", str(built)]
        return subprocess.run(arguments, env=environment).returncode


def use(path):
    """Let the package compute with this library."""
    found, problem = library.open_library(path)
    if problem is not None:
        raise SystemExit(problem)
    for module in (compiled, library, products):
        module.load = lambda: (found, None)


def try_shape(rng, dtype) -> tuple[dict, float]:
    """Run a random batch; return what it was, and the largest difference from the definition."""
    hidden, n_inputs = int(rng.integers(1, 301)), int(rng.integers(1, 40))
    n_texts = int(rng.integers(1, 80))
    n_steps = int(rng.integers(1, 1 + max(1, 12_000 // (hidden * n_texts) + 5)))
    by_index = rng.random() < 0.3
    ragged = rng.random() < 0.8
    lengths = rng.integers(1, n_steps + 1, n_texts)
    lengths[rng.random(n_texts) < 0.2] = 1
    shape = {"T": n_steps, "B": n_texts, "I": n_inputs, "H": hidden, "index": by_index}
    shape |= {"ragged": ragged, "ones": int((lengths == 1).any()) if ragged else int(n_steps == 1)}

    def draw(*size):
        return torch.from_numpy(rng.normal(size=size) * SCALE).to(dtype)

    n_rows = int(rng.integers(1, 30))
    first = Inputs(
        x=draw(n_rows, n_inputs) if by_index else draw(n_steps, n_texts, n_inputs),
        index=torch.from_numpy(rng.integers(0, n_rows, (n_steps, n_texts))) if by_index else None,
        weight_ih=draw(4 * hidden, n_inputs) * n_inputs**-0.5,
        weight_hh=draw(4 * hidden, hidden) * hidden**-0.5,
        bias=draw(4 * hidden),
        h0=draw(n_texts, hidden),
        c0=draw(n_texts, hidden),
        reverse=bool(rng.random() < 0.5),
        lengths=torch.from_numpy(lengths) if ragged else None,
        mask_h=(draw(n_texts, hidden) > 0).to(dtype) * 2 if rng.random() < 0.3 else None,
    )
    directions = [first]
    if rng.random() < 0.5:  # both directions in one call, which share their inputs only
        own = {name: draw(*getattr(first, name).shape) for name in OF_A_DIRECTION}
        directions.append(first._replace(**own, reverse=not first.reverse))
    shape["directions"] = len(directions)
    weights = [draw(n_steps, n_texts, hidden) for _ in directions]
    ours = compute(directions, weights, "compiled")
    double = [_map(inputs, torch.Tensor.double) for inputs in directions]
    theirs = compute(double, [weight.double() for weight in weights], "reference")
    places = find_places(directions)
    weights = [[draw(n_texts, hidden).float() for _ in POOLS] for _ in directions]
    if dtype == torch.bfloat16:  # the largest can be another one of those that are rounded alike
        for own in weights:
            own[sorted(POOLS).index("max")].zero_()
    ours += pool(directions, "compiled", weights, places)
    weights = [[weight.double() for weight in own] for own in weights]
    theirs += pool(double, "reference", weights, places)
    difference = max(
        float((a.double() - b).abs().max() / b.abs().max().clamp(min=1.0))
        for a, b in zip(ours, theirs, strict=True)
    )
    return shape, difference


def pool(directions, backend, weights, places) -> list[torch.Tensor]:
    """Return the pools of the states of each direction, and all gradients.

    The compiled backend takes the pools in the pass. A maximum of the definition is the state at
    the place that is given, since two states can be equal in float32.
    """
    given, leaves = with_leaves(directions)
    needs_last = backend == "reference"
    results = lstm_layer(given, backend=backend, need_last=needs_last, pools=POOLS)
    loss, found = 0.0, []
    for inputs, result, weight, place in zip(given, results, weights, places, strict=True):
        pools = result.pools
        if pools is None:
            live = find_live(inputs, result.h)
            pools = {
                "last": result.h_last,
                "max": result.h.gather(0, place)[0],
                "mean": (result.h * live).sum(0) / live.sum(0),
            }
        for name, own in zip(sorted(POOLS), weight, strict=True):
            loss = loss + (pools[name] * own).sum()
            found.append(pools[name].detach())
    loss.backward()
    return found + [leaf.grad for leaf in leaves]


@torch.no_grad()
def find_places(directions) -> list[torch.Tensor]:
    """Return the place of each maximum, (1, B, H), the one that is read first of equal ones."""
    places = []
    results = lstm_layer(directions, backend="compiled", need_last=False)
    for inputs, result in zip(directions, results, strict=True):
        states = torch.where(find_live(inputs, result.h) > 0, result.h, -torch.inf).float()
        states = states.numpy()[::-1] if inputs.reverse else states.numpy()
        place = torch.from_numpy(states.argmax(axis=0)[None])
        places.append(len(states) - 1 - place if inputs.reverse else place)
    return places


def find_live(inputs, states) -> torch.Tensor:
    """Return 1 for each token and 0 for padding, (T, B, 1)."""
    if inputs.lengths is None:
        return torch.ones(*states.shape[:2], 1, dtype=states.dtype)
    live = torch.arange(len(states)).unsqueeze(1) < inputs.lengths
    return live.unsqueeze(2).to(states.dtype)


def with_leaves(directions) -> tuple[list[Inputs], list[torch.Tensor]]:
    """Return the inputs, which share their x, with tensors that get gradients, and these."""
    x = directions[0].x.clone().requires_grad_()
    leaves = [
        {name: getattr(inputs, name).clone().requires_grad_() for name in OF_A_DIRECTION}
        for inputs in directions
    ]
    given = [inputs._replace(x=x, **own) for inputs, own in zip(directions, leaves, strict=True)]
    return given, [x, *(leaf for own in leaves for leaf in own.values())]


def _map(inputs, function):
    changed = {
        name: function(value)
        for name, value in inputs._asdict().items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }
    return inputs._replace(**changed)


def compute(directions, weights, backend) -> list[torch.Tensor]:
    """Return the outputs of the directions, without the padding, and all gradients."""
    given, leaves = with_leaves(directions)
    loss, outputs = 0.0, []
    results = lstm_layer(given, backend=backend, need_last=True)
    for inputs, result, weight in zip(given, results, weights, strict=True):
        h = result.h * find_live(inputs, result.h)
        loss = loss + (h * weight).sum() + result.h_last.sum() - result.c_last.square().sum()
        outputs += [h.detach(), result.h_last.detach(), result.c_last.detach()]
    loss.backward()
    return outputs + [leaf.grad for leaf in leaves]


def try_far_apart(dtype: torch.dtype, instructions: int) -> bool:
    """Return whether rows that are more than 2^31 numbers apart give the bits of adjacent ones."""
    near, far = (run_two_texts(dtype, instructions, row) for row in (3, 2**31 // 16 + 7))
    return all(np.array_equal(a, b) for a, b in zip(near, far, strict=True))


def run_two_texts(dtype: torch.dtype, instructions: int, second_row: int) -> list[np.ndarray]:
    """Return what two texts of three steps give, whose second begins at a row."""
    hidden, steps, n_texts = 16, 3, 2
    rng = np.random.default_rng(0)
    apart = 16 * second_row if second_row > 3 else 3 * hidden

    is_short = dtype == torch.bfloat16
    kind = np.uint16 if is_short else np.float32

    def draw(*size):
        return rng.normal(size=size).astype(np.float32)

    def draw_short(*size):  # numbers of the dtype, of which numpy has the first 16 bits
        return draw(*size) if not is_short else (draw(*size).view(np.uint32) >> 16).astype(kind)

    def mapped(*size, kind=kind):
        n_bytes = np.dtype(kind).itemsize * int(np.prod(size))
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
        return np.frombuffer(mmap.mmap(-1, n_bytes, flags), dtype=kind).reshape(size)

    rows = np.concatenate([np.arange(3), second_row + np.arange(3)])
    arrays = {name: mapped(second_row + 3, 64) for name in ("projected", "gates", "d")}
    arrays |= {"c": mapped(second_row + 3, hidden, kind=np.float32)}
    arrays |= {"h_in": mapped(second_row + 3, hidden)}
    arrays |= {"out": mapped(apart + 3 * hidden), "grad": mapped(apart + 3 * hidden)}
    arrays["projected"][rows] = draw_short(6, 64)
    h0 = draw_short(n_texts, hidden)
    arrays["h_in"][rows[[0, 3]]] = h0
    arrays |= {"h0": h0, "c0": draw(n_texts, hidden), "dh": draw(2, hidden), "dc": draw(2, hidden)}
    arrays["c_last"] = arrays["c0"].copy()
    arrays["lengths"], arrays["order"] = np.array([3, 3]), np.array([0, 1])
    arrays["first_row"] = np.array([0, second_row])
    arrays |= {f"{way}_panels": np.zeros((32, 64), kind) for way in ("forward", "backward")}
    arrays |= {"grad_bias": np.zeros((1, 64), "f4")}
    arrays["scratch"] = np.zeros((1, library.TEXTS, 64), kind)
    for text in range(n_texts):
        begin = text * apart
        arrays["grad"][begin : begin + 3 * hidden] = draw_short(3 * hidden)
    layer = library.Layer(
        n_steps=steps,
        n_texts=n_texts,
        hidden=hidden,
        reverse=0,
        projected_row=64,
        gates_row=64,
        d_row=64,
        instructions=instructions,
        is_bfloat16=is_short,
        out_step=hidden,
        out_text=apart,
        grad_step=hidden,
        grad_text=apart,
        **{name: array.ctypes.data for name, array in arrays.items()},
    )
    weight = draw_short(64, hidden)
    found = compiled.library()
    found.sklstm_pack(ctypes.byref(layer), weight.ctypes.data)
    found.sklstm_forward(ctypes.byref(layer), 1, 1)
    found.sklstm_backward(ctypes.byref(layer), 1, 1)
    out = [arrays["out"][k * apart : k * apart + 3 * hidden] for k in range(n_texts)]
    by_row = [arrays[name][rows] for name in ("gates", "c", "h_in", "d")]
    return [*out, *by_row, arrays["c_last"], arrays["dh"], arrays["dc"], arrays["grad_bias"]]


if __name__ == "__main__":
    main()
