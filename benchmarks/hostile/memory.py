"""Memory of fit and predict against the number of texts, beyond the texts themselves.

Each point is a fresh process, which makes its texts and measures the peak of its resident memory
(VmHWM of Linux) above what it held then. The fit is of one epoch of a small network, whose size
does not grow with the texts.

    python benchmarks/hostile/memory.py --json benchmarks/results/hostile_memory.json
"""

import argparse
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch
from tables import describe_machine, print_table, write

from sklstm import LSTMTextClassifier

MB = 1e6
SETTINGS = {"embedding_dim": 16, "hidden_size": 16, "max_epochs": 1, "batch_size": 256}
#: Texts of so many words on average, of a vocabulary whose frequencies are those of Zipf's law.
WORDS, VOCABULARY = 12, 50_000
CALLS = ("fit, only the LSTM", "fit, default", "predict, only the LSTM", "predict, default")


def main():
    options = parse()
    results = describe_machine() | {"seed": options.seed, "points": {}}
    rows = {}
    for call in CALLS:
        if options.only not in call:
            continue
        points = [measure(call, n, options.seed) for n in options.texts]
        results["points"][call] = points
        for point in points:
            rows[f"{call}, {point['texts']:,}"] = [
                f"{point['bytes'] / MB:.0f}",
                f"{point['bytes'] / point['texts']:.0f}",
                f"{point['seconds']:.0f}",
            ]
        growth = fit_growth(points)
        rows[f"{call}, each further text"] = ["", f"{growth:.0f}", ""]
        print(call, points, f"{growth:.0f} bytes a further text", flush=True)
        write(options.json, results)
    print_table("call, texts", ("MB", "bytes a text", "s"), rows)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, nargs="+", default=[75_000, 150_000, 300_000])
    parser.add_argument("--only", default="", help="only calls whose name contains this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def fit_growth(points) -> float:
    """Return the bytes of each further text, by least squares."""
    return float(np.polyfit([p["texts"] for p in points], [p["bytes"] for p in points], 1)[0])


def measure(call: str, n: int, seed: int) -> dict:
    """Return what a call took in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, call, n, seed))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def _measure(pipe, call, n, seed):
    torch.set_num_threads(1)
    blend = None if "only" in call else "ngrams"
    classifier = LSTMTextClassifier(**SETTINGS, blend=blend, random_state=0)
    warm = make_texts(2_000, seed + 1)
    classifier.fit(
        warm, make_labels(2_000)
    )  # what the first call imports is no memory of the texts
    texts, labels = make_texts(n, seed), make_labels(n)
    work = (
        (lambda: classifier.fit(texts, labels))
        if "fit" in call
        else (lambda: classifier.predict_proba(texts))
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begin = read_status("VmRSS"), time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    pipe.send({"texts": n, "bytes": read_status("VmHWM") - before, "seconds": seconds})


def make_texts(n, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(WORDS // 2, WORDS + WORDS // 2 + 1, size=n)
    words = np.minimum(rng.zipf(1.2, size=lengths.sum()), VOCABULARY).tolist()
    ends = np.cumsum(lengths).tolist()
    return [
        " ".join(f"w{k}" for k in words[end - length : end])
        for end, length in zip(ends, lengths.tolist(), strict=True)
    ]


def make_labels(n):
    return np.where(np.arange(n) % 2, "pos", "neg")


def read_status(name) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * float(line.split()[1])
    raise OSError("this needs Linux")


if __name__ == "__main__":
    main()
