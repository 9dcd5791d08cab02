"""How time and memory grow with the number of texts, their length and the vocabulary.

Each point is a process of its own: ``LSTMTextClassifier`` fits drawn texts for one epoch and
predicts them. Printed are seconds, microseconds a token and the peak of the memory beyond imports
and texts; then the power of the size that each time grows with, and the power that it should have.

    python benchmarks/speed/growth.py --json results/growth.json
    python benchmarks/speed/growth.py --quick            # does it run?
"""

import numpy as np
import torch
from fresh import PeakMemory, call_in_fresh_process
from measure import Table, add_threads_option, describe_machine, make_parser, timed, write
from texts import cut_texts, draw_texts

from sklstm import LSTMTextClassifier, SequenceVectorizer

#: What grows: its unit, its sizes, and the power of it that time should grow with.
SWEEPS = {
    "texts": ("number of texts", [1_000, 3_000, 10_000, 30_000, 100_000], 1),
    "length": ("tokens a text, as many texts", [50, 150, 500, 1_500, 4_000], 1),
    "cut": ("tokens a text, as many tokens in all", [50, 150, 500, 1_500, 4_000], 0),
    "vocabulary": ("tokens in the vocabulary", [5_000, 15_000, 50_000, 100_000, 200_000], 0),
}
QUICK = {"texts": [40, 80], "length": [5, 10], "cut": [5, 10], "vocabulary": [50, 100]}
PHASES = ("fit", "predict")
#: The classifier's defaults: texts in a batch, and the size of the embedding.
BATCH, EMBEDDING = 32, 128
#: "us" are microseconds a token.
COLUMNS = {"tokens": ",d", "fit s": ".2f", "fit us": ".2f", "fit MiB": ".0f"}
COLUMNS |= {"predict s": ".2f", "predict us": ".2f", "predict MiB": ".0f"}


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    results = describe_machine() | {"rows": []}
    for name in options.sweeps:
        rows = [measure(name, size, options) for size in sizes_of(name, options)]
        results["rows"] += rows
        show(name, rows)
    write(options.json, results)


def parse():
    parser = make_parser(__doc__, repeats=1)
    add_threads_option(parser)
    parser.add_argument("--train", help="CSV file to cut texts from; default: drawn texts")
    parser.add_argument("--sweeps", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--sizes", type=int, nargs="+", help="instead of those of the sweeps")
    parser.add_argument("--tokens", type=int, default=400_000, help="in all, where it is the same")
    parser.add_argument("--length", type=int, default=40, help="tokens a text, where the same")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only whether it runs")
    options = parser.parse_args()
    if options.quick:
        options.tokens, options.length = 400, 5
    return options


def sizes_of(name, options):
    return options.sizes or (QUICK[name] if options.quick else SWEEPS[name][1])


def measure(name, size, options):
    """Return the row of one point; the fastest repeat counts."""
    n_tokens = options.tokens
    n_texts, length, vocabulary = {
        "texts": (size, options.length, 20_000),
        "length": (max(64, n_tokens // 4_000), size, 20_000),
        "cut": (n_tokens // size, size, 20_000),
        # Every token has to occur at least once.
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
        blend=None,  # the network is what is measured
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
        row[f"{phase} s"], _ = timed(call)
        row[f"{phase} bytes"] = peak.rise()
        peak = PeakMemory(begin=peak.begin)
    lengths = np.diff(classifier.vectorizer_.transform_ragged(texts)[1])
    row |= {"tokens": int(lengths.sum()), "longest": int(lengths.max())}
    row["ids"] = len(classifier.vectorizer_.tokens_)
    return row


def show(name, rows):
    """Print the table of one sweep, and the powers."""
    title, _, expected = SWEEPS[name]
    print()
    table = Table(title, COLUMNS, width=38)
    for row in rows:
        cells = [row["tokens"]]
        for phase in PHASES:
            seconds, rise = row[f"{phase} s"], row[f"{phase} bytes"]
            cells += [seconds, 1e6 * seconds / row["tokens"], rise and rise / 2**20]
        table.add(f"{row['size']:,}", *cells)
    powers = ", ".join(f"{phase} {power(rows, phase):.2f}" for phase in PHASES)
    what = "time over tokens" if expected else "time a token over size"
    print(f"power of the {what}: {powers}; it should be {expected}.")
    print(describe_memory(name, rows), flush=True)


def power(rows, phase):
    """Return the slope of the logarithm of the time over that of the tokens.

    Where all sizes have as many tokens, it is the slope of the time of a token over the size.
    """
    if len(rows) < 2:
        return np.nan
    tokens = np.array([row["tokens"] for row in rows])
    seconds = np.array([row[f"{phase} s"] for row in rows])
    if SWEEPS[rows[0]["sweep"]][2] == 0:
        sizes = [row["size"] for row in rows]
        return np.polyfit(np.log(sizes), np.log(seconds / tokens), 1)[0]
    return np.polyfit(np.log(tokens), np.log(seconds), 1)[0]


def describe_memory(name, rows):
    """Say by how much memory grows from the first row to the last."""
    first, last = rows[0], rows[-1]
    if first["fit bytes"] is None or len(rows) < 2:
        return ""
    rise = {key: last[key] - first[key] for key in ("fit bytes", "tokens", "longest", "ids")}
    a_batch = ("bytes a token of the largest batch", BATCH * rise["longest"])
    unit, divisor = {
        "texts": ("bytes a token", rise["tokens"]),
        "length": a_batch,
        "cut": a_batch,
        "vocabulary": (
            "tables of the embedding's size; weights, two moments and the average are 4",
            4 * EMBEDDING * rise["ids"],
        ),
    }[name]
    return f"memory of a fit grows by {rise['fit bytes'] / max(1, divisor):.1f} {unit}."


if __name__ == "__main__":
    main()
