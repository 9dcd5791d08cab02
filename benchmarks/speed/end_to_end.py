"""Training and prediction, compared with skorch, Keras and others, alternating within one run.

The same network for all that read ids: embedding 128, bidirectional LSTM of 128, mean pooling over
the real tokens, linear head, Adam, batches of 32, no dropout; a vocabulary of 30,000 and at most
256 tokens of each text. Ids are made once, outside of the clock; tokens are real ones, not padding.
Training is one epoch from the same first weights, prediction is of held-out texts. Systems that
read raw texts have a table of their own, in which ours reads raw texts too.

    python benchmarks/speed/end_to_end.py --train ../shared/data/imdb/train.csv.xz --memory
"""

import importlib.util
import tempfile
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import peers
import torch
from fresh import call_in_fresh_process
from lstm import measure_peak
from measure import (
    Table,
    add_train_option,
    describe_machine,
    make_parser,
    speedup,
    summarise,
    timed,
    write,
)
from stages import STAGES, seconds_by_stage
from texts import load_halves

from sklstm import SequenceVectorizer
from sklstm.text.batching import RaggedIds

PHASES = ("fit", "predict")
#: Matrix products that the mathematics of both directions needs, in FLOP a token.
FLOP = {
    "fit": 2 * 24 * peers.HIDDEN * (peers.EMBEDDING + peers.HIDDEN),
    "predict": 2 * 8 * peers.HIDDEN * (peers.EMBEDDING + peers.HIDDEN),
}
PADDED, PACKED = "skorch + nn.LSTM, padded", "skorch + nn.LSTM, packed"
KERAS, FASTTEXT = "Keras on TensorFlow, padded", "fastText"
#: Ours is compared with the better one of these in each repeat.
RIVALS = (PADDED, KERAS)
COLUMNS = {"tokens/s": ",.0f", "texts/s": ",.0f", "spread": ".0%", "ratio": ".2f"}
COLUMNS |= {"of peak": ".1%", "loss": ".3f", "accuracy": ".3f"}


def main():
    options = parse()
    data, sizes = load(options)
    systems = choose(options, sizes)
    results = describe(data["ids"], sizes["ids"])
    for kind in systems:
        measured = measure(systems[kind], data[kind], options.repeats)
        rows = summarise_all(measured, kind, results)
        show(rows, kind)
        if options.memory:
            show_memory(systems[kind], data[kind], rows)
        results["rows"] += rows
    results["stages"] = show_stages(data["raw texts"], options.backends[0])
    write(options.json, results)


def parse():
    parser = make_parser(__doc__, repeats=3)
    add_train_option(parser)
    parser.add_argument("--texts", type=int, default=3200, help="to train on, and as many others")
    parser.add_argument("--packed", action="store_true", help="also packed sequences (slow)")
    parser.add_argument("--backends", nargs="+", default=["auto"], help="of ours")
    parser.add_argument("--memory", action="store_true", help="also the peak, in fresh processes")
    return parser.parse_args()


def load(options):
    """Return (train, test) and the sizes of the network, both by kind of input."""
    train, test = load_halves(options.train, options.texts)
    vectorizer = SequenceVectorizer()
    ids = RaggedIds(*vectorizer.fit_ragged(train[0]))
    held_out = RaggedIds(*vectorizer.transform_ragged(test[0]))
    n_classes = {"n_classes": int(max(train[1].max(), test[1].max())) + 1}
    n_ids = {"n_ids": len(vectorizer.tokens_)}
    return (
        {"ids": ((ids, train[1]), (held_out, test[1])), "raw texts": (train, test)},
        {"ids": n_ids | n_classes, "raw texts": n_classes},
    )


def choose(options, sizes):
    """Return the systems by kind of input and name: a class of ``peers`` and its arguments."""
    from_ids, from_texts = {PADDED: ("Skorch", {})}, {}
    if options.packed:
        from_ids[PACKED] = "Skorch", {"packed": True}
    if is_installed(KERAS, peers.Keras.libraries, '"sklstm[bench]"'):
        from_ids[KERAS] = "Keras", {}
    for backend in options.backends:
        from_ids[f"sklstm, {backend}"] = "Ours", {"backend": backend}
        from_texts[f"sklstm, {backend}"] = "OursFromTexts", {"backend": backend}
    from_texts["sklstm, defaults but no n-grams"] = "RecipeFromTexts", {}
    from_texts["sklstm, defaults"] = "DefaultFromTexts", {}
    from_texts["TF-IDF + LogisticRegression"] = "TfidfLogistic", {}
    if is_installed(FASTTEXT, peers.FastText.libraries, "fasttext-wheel"):
        from_texts[FASTTEXT] = "FastText", {}
    return {
        kind: {name: (owner, sizes[kind] | settings) for name, (owner, settings) in chosen.items()}
        for kind, chosen in (("ids", from_ids), ("raw texts", from_texts))
    }


def is_installed(name, libraries, packages):
    """Return whether all libraries are installed; print how to get them if not."""
    if all(importlib.util.find_spec(library) for library in libraries):
        return True
    print(f"{name} is not installed and not measured. Run: pip install {packages}")
    return False


def describe(data, sizes):
    """Print and return what is the same for all rows."""
    (train, _), (test, _) = data
    peak = measure_peak(torch.float32)
    machine = describe_machine()
    print(
        f"{len(train):,} texts of {len(train.ids):,} tokens to train on, {len(test):,} of "
        f"{len(test.ids):,} to predict, {sizes['n_ids']:,} ids, {sizes['n_classes']} classes; "
        f"largest matrix product {peak / 1e9:.0f} GFLOP/s"
    )
    return machine | {
        "peak": peak,
        "texts": {"fit": len(train), "predict": len(test)},
        "tokens": {"fit": len(train.ids), "predict": len(test.ids)},
        "rows": [],
    }


def first(data, n_texts):
    """Return the first texts of a pair of ids or texts and targets."""
    texts, targets = data
    if isinstance(texts, RaggedIds):
        offsets = texts.offsets[: n_texts + 1]
        return RaggedIds(texts.ids[: offsets[-1]], offsets), targets[:n_texts]
    return texts[:n_texts], targets[:n_texts]


def warm_up(system, train, test):
    """Fit and predict two batches and the odd one: graphs are traced, kernels and caches loaded."""
    begin = [first(data, 2 * peers.BATCH + len(data[1]) % peers.BATCH) for data in (train, test)]
    system.reset()
    system.fit(system.prepare(*begin[0]))
    system.predict(system.prepare(*begin[1]))


def measure(chosen, data, repeats):
    """Return seconds, loss and accuracy by system; the systems take turns."""
    train, test = data
    systems, prepared, measured = {}, {}, {}
    for name, (owner, settings) in chosen.items():
        systems[name] = system = getattr(peers, owner)(**settings)
        warm_up(system, train, test)
        prepared[name] = system.prepare(*train), system.prepare(*test)
        measured[name] = {"fit": [], "predict": []}
    for _ in range(repeats):
        for name, system in systems.items():
            system.reset()
            fit_s, loss = timed(partial(system.fit, prepared[name][0]))
            predict_s, scores = timed(partial(system.predict, prepared[name][1]))
            measured[name]["fit"].append(fit_s)
            measured[name]["predict"].append(predict_s)
            measured[name]["loss"] = None if loss is None else float(loss)
            measured[name]["accuracy"] = float(np.mean(scores.argmax(axis=1) == test[1]))
    return measured


def summarise_all(measured, kind, results):
    """Return a row for each system: medians, spreads, and how it compares repeat by repeat."""
    # From raw texts there are no rivals of the same network: all are compared with ours.
    rivals = [name for name in RIVALS if name in measured] or [next(iter(measured))]
    rows = []
    for name, values in measured.items():
        row = {"system": name, "from": kind} | {key: values[key] for key in ("loss", "accuracy")}
        for phase in PHASES:
            best = map(min, zip(*(measured[rival][phase] for rival in rivals), strict=True))
            cell = summarise(values[phase]) | {"ratio": speedup(values[phase], best)}
            for unit in ("tokens", "texts"):
                cell[f"{unit}/s"] = results[unit][phase] / cell["seconds"]
            flops = cell["tokens/s"] * FLOP[phase]
            cell["of peak"] = flops / results["peak"] if kind == "ids" else None
            row[phase] = cell
        rows.append(row)
    return rows


def show(rows, kind):
    """Print a table for each phase."""
    base = " and ".join(row["system"] for row in rows if row["system"] in RIVALS)
    base = f"the better of {base}" if " and " in base else base or rows[0]["system"]
    for phase, title in (("fit", "one epoch"), ("predict", "prediction of held-out texts")):
        print(f"\nFrom {kind}: {title}. Ratio: how many times as fast as {base}")
        table = Table("", COLUMNS)
        for row in rows:
            cells = row | row[phase]
            table.add(row["system"], *(cells[column] for column in COLUMNS))


def show_memory(chosen, data, rows):
    """Print what a fit and a prediction take at most, beyond what imports and data took."""
    print()
    table = Table("Peak memory in MiB", dict.fromkeys(PHASES, ".0f"))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "data.joblib")
        joblib.dump(data, path)
        for row in rows:
            owner, settings = chosen[row["system"]]
            row["memory"] = call_in_fresh_process(
                peers.measure_memory, owner=owner, settings=settings, path=path
            )
            rises = (row["memory"][phase] for phase in PHASES)
            table.add(row["system"], *(rise and rise / 2**20 for rise in rises))


def show_stages(data, backend):
    """Print where our time goes, with the network of the comparison and with our defaults."""
    result = {}
    print(f"\nSeconds of LSTMTextClassifier by stage, one epoch and prediction, backend {backend}")
    table = Table("", dict.fromkeys(STAGES, ".2f"))
    for settings, is_plain in (("as compared", True), ("classifier's defaults", False)):
        result[settings] = seconds_by_stage(*data, plain=is_plain, backend=backend)
        for phase, seconds in result[settings].items():
            table.add(f"{settings}, {phase}", *(seconds[stage] for stage in STAGES))
    return result


if __name__ == "__main__":
    main()
