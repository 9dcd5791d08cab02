"""How time and memory grow with the number of texts, their length and the vocabulary.

Each point is a process of its own: ``LSTMTextClassifier`` fits drawn texts for one epoch and
predicts them. Printed are seconds, microseconds a token, the peak of the memory beyond imports and
texts, and by what power of the size each time grows; beside it stands the power it should have.

    python benchmarks/growth.py --json results/growth.json --plot results/growth.png
    python benchmarks/growth.py --quick            # does it run?
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from corpus import cut_texts, draw_texts
from fresh import PeakMemory, call_in_fresh_process

from sklstm import LSTMTextClassifier, SequenceVectorizer

#: By what grows: its unit, its sizes, and whether time should grow with it.
SWEEPS = {
    "texts": ("number of texts", [1_000, 3_000, 10_000, 30_000, 100_000], 1),
    "length": ("tokens a text, as many texts", [50, 150, 500, 1_500, 4_000], 1),
    "cut": ("tokens a text, as many tokens in all", [50, 150, 500, 1_500, 4_000], 0),
    "vocabulary": ("tokens in the vocabulary", [5_000, 15_000, 50_000, 100_000, 200_000], 0),
}
QUICK = {"texts": [40, 80], "length": [5, 10], "cut": [5, 10], "vocabulary": [50, 100]}
PHASES = ("fit", "predict")


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    results = {"torch": torch.__version__, "threads": options.threads, "rows": []}
    for name in options.sweeps:
        rows = [measure(name, size, options) for size in sizes_of(name, options)]
        results["rows"] += rows
        show(name, rows)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if options.plot:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(results["rows"], options.plot)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", help="CSV file with a column text to cut texts from")
    parser.add_argument("--sweeps", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--sizes", type=int, nargs="+", help="instead of those of the sweeps")
    parser.add_argument("--tokens", type=int, default=400_000, help="in all, where it is the same")
    parser.add_argument("--length", type=int, default=40, help="tokens a text, where the same")
    parser.add_argument("--repeats", type=int, default=1, help="of each point; the fastest counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only whether it runs")
    parser.add_argument("--json", type=Path, help="keep the results in this file")
    parser.add_argument("--plot", type=Path, help="draw them into this file")
    options = parser.parse_args()
    if options.quick:
        options.tokens, options.length = 400, 5
    return options


def sizes_of(name, options):
    return options.sizes or (QUICK[name] if options.quick else SWEEPS[name][1])


def measure(name, size, options):
    """Return the row of one point."""
    n_tokens = options.tokens
    n_texts, length, vocabulary = {
        "texts": (size, options.length, 20_000),
        "length": (max(64, n_tokens // 4_000), size, 20_000),
        "cut": (n_tokens // size, size, 20_000),
        # Every token has to come at least once.
        "vocabulary": (max(n_tokens, 2 * size) // options.length, options.length, size),
    }[name]
    points = [
        call_in_fresh_process(
            measure_point,
            n_texts=n_texts,
            length=length,
            vocabulary=vocabulary,
            train=options.train,
            threads=options.threads,
            backend=options.backend,
        )
        for _ in range(options.repeats)
    ]
    row = {"sweep": name, "size": size} | points[0]
    for phase in PHASES:
        row[f"{phase} s"] = min(point[f"{phase} s"] for point in points)
    return row


def measure_point(*, n_texts, length, vocabulary, train, threads, backend):
    """Return seconds and memory of one fit and one prediction; to be called in a fresh process."""
    torch.set_num_threads(threads)
    if train:
        texts, targets = cut_texts(train, n_texts=n_texts, length=length)
    else:
        texts, targets = draw_texts(n_texts=n_texts, length=length, vocabulary=vocabulary)
    classifier = LSTMTextClassifier(
        baseline=None,  # the network is what is measured
        vectorizer=SequenceVectorizer(min_df=1, max_features=vocabulary, max_length=None),
        max_epochs=1,
        early_stopping=False,
        backend=backend,
        random_state=0,
    )
    few, _ = draw_texts(n_texts=64, length=5, vocabulary=50)
    classifier.fit(few, np.arange(64) % 2).predict(few)  # caches fill, kernels load
    row = {"texts": n_texts, "backend": backend}
    peak = PeakMemory()
    for phase, call in (
        ("fit", lambda: classifier.fit(texts, targets)),
        ("predict", lambda: classifier.predict(texts)),
    ):
        start = time.perf_counter()
        call()
        row[f"{phase} s"] = time.perf_counter() - start
        row[f"{phase} bytes"] = peak.rise()
        peak = PeakMemory(begin=peak.begin)
    lengths = np.diff(classifier.vectorizer_.transform_ragged(texts)[1])
    row |= {"tokens": int(lengths.sum()), "longest": int(lengths.max())}
    row["ids"] = len(classifier.vectorizer_.get_feature_names_out())
    return row


def show(name, rows):
    """Print the table of one sweep, and the powers."""
    title, _, expected = SWEEPS[name]
    print(
        f"\n{title:<38}{'tokens':>11}{'fit s':>9}{'us/token':>10}{'MiB':>7}"
        f"{'predict s':>11}{'us/token':>10}{'MiB':>7}"
    )
    for row in rows:
        cells = ""
        for phase, width in (("fit", 9), ("predict", 11)):
            seconds = row[f"{phase} s"]
            cells += f"{seconds:>{width}.2f}{1e6 * seconds / row['tokens']:>10.2f}"
            cells += f"{mebibytes(row, phase):>7}"
        print(f"{row['size']:<38,}{row['tokens']:>11,}{cells}")
    powers = ", ".join(f"{phase} {power(rows, phase):.2f}" for phase in PHASES)
    what = "time over tokens" if expected else "time a token over size"
    print(
        f"power of the {what}: {powers}; it should be {expected}.\n{memory(name, rows)}", flush=True
    )


def mebibytes(row, phase):
    rise = row[f"{phase} bytes"]
    return "-" if rise is None else round(rise / 2**20)


def power(rows, phase):
    """Return the slope of the logarithm of the time over that of what it should grow with.

    Where as many tokens are read at all sizes, that is the slope of the time of a token.
    """
    if len(rows) < 2:
        return np.nan
    tokens = np.array([row["tokens"] for row in rows])
    seconds = np.array([row[f"{phase} s"] for row in rows])
    if SWEEPS[rows[0]["sweep"]][2] == 0:
        sizes = [row["size"] for row in rows]
        return np.polyfit(np.log(sizes), np.log(seconds / tokens), 1)[0]
    return np.polyfit(np.log(tokens), np.log(seconds), 1)[0]


def memory(name, rows):
    """Say by how much memory grows from the first row to the last."""
    first, last = rows[0], rows[-1]
    if first["fit bytes"] is None or len(rows) < 2:
        return ""
    rise = {key: last[key] - first[key] for key in ("fit bytes", "tokens", "longest", "ids")}
    a_batch = LSTMTextClassifier().batch_size * rise["longest"]
    a_table = 4 * LSTMTextClassifier().embedding_dim * rise["ids"]
    unit, divisor = {
        "texts": ("bytes a token", rise["tokens"]),
        "length": ("bytes a token of the largest batch", a_batch),
        "cut": ("bytes a token of the largest batch", a_batch),
        "vocabulary": (
            "tables of the embedding's size; weights, two moments and the average are 4",
            a_table,
        ),
    }[name]
    return f"memory of a fit grows by {rise['fit bytes'] / max(1, divisor):.1f} {unit}."


def plot(rows, path):
    """Draw time and memory over the size, a column a sweep."""
    import matplotlib.pyplot as plt  # the extra [plot]

    names = list(dict.fromkeys(row["sweep"] for row in rows))
    figure, axes = plt.subplots(
        2,
        len(names),
        figsize=(3.4 * len(names), 6),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for (upper, lower), name in zip(axes.T, names, strict=True):
        of_sweep = [row for row in rows if row["sweep"] == name]
        sizes = [row["size"] for row in of_sweep]
        for phase, color in zip(PHASES, ("tab:orange", "tab:blue"), strict=True):
            style = {"marker": "o", "color": color, "label": phase}
            upper.loglog(sizes, [row[f"{phase} s"] for row in of_sweep], **style)
            if of_sweep[0][f"{phase} bytes"] is not None:
                lower.loglog(sizes, [row[f"{phase} bytes"] / 2**20 for row in of_sweep], **style)
        fastest = min(row["fit s"] / row["tokens"] for row in of_sweep)
        ideal = [fastest * row["tokens"] for row in of_sweep]
        upper.loglog(sizes, ideal, "--", color="tab:gray", label="fit, at its fastest pace")
        lower.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30)
        lower.set_xticks([], minor=True)
        lower.set_xlabel(SWEEPS[name][0].replace(", ", "\n"))
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("time of one epoch (s)")
    axes[1, 0].set_ylabel("peak memory (MiB)")
    axes[0, 0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
