"""Training and prediction beside skorch, Keras and others, alternating within one run.

The same network for all that read ids: embedding 128, bidirectional LSTM of 128, mean pooling over
the real tokens, linear head, Adam, batches of 32, no dropout; a vocabulary of 30,000 and at most
256 tokens of each text. Ids are made once, outside the clock; tokens are real ones, not padding.
Training is one epoch from the same first weights, prediction that of texts held out. Systems that
read raw texts have a table of their own, in which ours reads raw texts too.

    python benchmarks/end_to_end.py --train ../shared/data/imdb/train.csv.xz --memory
"""

import argparse
import importlib.util
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import peers
import torch
from corpus import load_halves
from fresh import call_in_fresh_process
from lstm import gemm_peak
from stages import STAGES, seconds_by_stage

from sklstm import SequenceVectorizer
from sklstm.text.batching import RaggedIds

#: Products of matrices that the mathematics of both directions needs, in FLOP a token.
FLOP = {
    "fit": 2 * 24 * peers.HIDDEN * (peers.EMBEDDING + peers.HIDDEN),
    "predict": 2 * 8 * peers.HIDDEN * (peers.EMBEDDING + peers.HIDDEN),
}
PADDED, PACKED = "skorch + nn.LSTM, padded", "skorch + nn.LSTM, packed"
KERAS, FASTTEXT = "Keras on TensorFlow, padded", "fastText"
#: Those whose better one, repeat by repeat, is what ours is compared with.
RIVALS = (PADDED, KERAS)


def main():
    options = parse()
    data, sizes = load(options)
    systems = choose(options, sizes)
    results = describe(data["ids"], sizes["ids"])
    for kind in systems:
        print()
        measured = measure(systems[kind], data[kind], options.repeats)
        rows = summarise(measured, kind, results)
        show(rows, kind)
        if options.memory:
            show_memory(systems[kind], data[kind], rows)
        results["rows"] += rows
    results["stages"] = show_stages(data["raw texts"], options.backends[0])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", help="CSV file with columns text, label; default: docstrings")
    parser.add_argument("--texts", type=int, default=3200, help="to train on, and as many others")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--packed", action="store_true", help="also packed sequences (slow)")
    parser.add_argument("--backends", nargs="+", default=["auto"], help="of ours")
    parser.add_argument("--memory", action="store_true", help="also the peak, in fresh processes")
    parser.add_argument("--json", type=Path, help="keep the results in this file")
    return parser.parse_args()


def load(options):
    """Return (train, test) and the sizes of the network, both by kind of input."""
    train, test = load_halves(options.train, options.texts)
    vectorizer = SequenceVectorizer()
    ids = RaggedIds(*vectorizer.fit_ragged(train[0]))
    held_out = RaggedIds(*vectorizer.transform_ragged(test[0]))
    n_classes = {"n_classes": int(max(train[1].max(), test[1].max())) + 1}
    n_ids = {"n_ids": len(vectorizer.get_feature_names_out())}
    return (
        {"ids": ((ids, train[1]), (held_out, test[1])), "raw texts": (train, test)},
        {"ids": n_ids | n_classes, "raw texts": n_classes},
    )


def choose(options, sizes):
    """Return what to run, by kind of input and name: a class of ``peers`` and its arguments."""
    from_ids, from_texts = {PADDED: ("Skorch", {})}, {}
    if options.packed:
        from_ids[PACKED] = "Skorch", {"packed": True}
    if is_installed(KERAS, peers.Keras.libraries, '"sklstm[bench]"'):
        from_ids[KERAS] = "Keras", {}
    for backend in options.backends:
        from_ids[f"sklstm, {backend}"] = "Ours", {"backend": backend}
        from_texts[f"sklstm, {backend}"] = "OursFromTexts", {"backend": backend}
    from_texts["TF-IDF + LogisticRegression"] = "TfidfLogistic", {}
    if is_installed(FASTTEXT, peers.FastText.libraries, "fasttext-wheel"):
        from_texts[FASTTEXT] = "FastText", {}
    return {
        kind: {name: (owner, sizes[kind] | settings) for name, (owner, settings) in chosen.items()}
        for kind, chosen in (("ids", from_ids), ("raw texts", from_texts))
    }


def is_installed(name, libraries, packages):
    """Return whether all libraries are there; say how to get them if not."""
    if all(importlib.util.find_spec(library) for library in libraries):
        return True
    print(f"{name} is not installed and stays out. Run: pip install {packages}")
    return False


def describe(data, sizes):
    """Print and return what is the same for all rows."""
    (train, _), (test, _) = data
    peak = gemm_peak(torch.float32)
    print(
        f"{len(train):,} texts of {len(train.ids):,} tokens to train on, {len(test):,} of "
        f"{len(test.ids):,} to predict, {sizes['n_ids']:,} ids, {sizes['n_classes']} classes; "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{platform.processor() or platform.machine()}, "
        f"largest matrix product {peak / 1e9:.0f} GFLOP/s"
    )
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
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
    """Return seconds, loss and accuracy by system, the systems alternating."""
    train, test = data
    systems, prepared, measured = {}, {}, {}
    for name, (owner, settings) in chosen.items():
        systems[name] = system = getattr(peers, owner)(**settings)
        warm_up(system, train, test)
        prepared[name] = system.prepare(*train), system.prepare(*test)
        measured[name] = {"fit": [], "predict": []}
    for repeat in range(repeats):
        for name, system in systems.items():
            system.reset()
            start = time.perf_counter()
            loss = system.fit(prepared[name][0])
            fitted = time.perf_counter()
            scores = system.predict(prepared[name][1])
            seconds = {"fit": fitted - start, "predict": time.perf_counter() - fitted}
            for phase, of_phase in seconds.items():
                measured[name][phase].append(of_phase)
            measured[name]["loss"] = None if loss is None else float(loss)
            measured[name]["accuracy"] = float(np.mean(scores.argmax(axis=1) == test[1]))
            cells = "".join(f"  {phase} {of_phase:7.2f} s" for phase, of_phase in seconds.items())
            print(f"{repeat} {name:<32}{cells}", flush=True)
    return measured


def summarise(measured, kind, results):
    """Return a row for each system: medians, spreads, and how it compares repeat by repeat."""
    # From raw texts there are no rivals of the same network: all are compared with ours.
    rivals = [name for name in RIVALS if name in measured] or [next(iter(measured))]
    rows = []
    for name, values in measured.items():
        row = {"system": name, "from": kind} | {key: values[key] for key in ("loss", "accuracy")}
        for phase in ("fit", "predict"):
            best = map(min, zip(*(measured[rival][phase] for rival in rivals), strict=True))
            median = statistics.median(values[phase])
            row[phase] = {
                "seconds": values[phase],
                "median": median,
                "spread": (max(values[phase]) - min(values[phase])) / median,
                "tokens_per_s": results["tokens"][phase] / median,
                "texts_per_s": results["texts"][phase] / median,
                "ratio": statistics.median(
                    other / own for own, other in zip(values[phase], best, strict=True)
                ),
            }
            if kind == "ids":
                flops = results["tokens"][phase] * FLOP[phase] / median
                row[phase]["of_peak"] = flops / results["peak"]
        rows.append(row)
    return rows


def show(rows, kind):
    """Print a table a phase."""
    base = " and ".join(row["system"] for row in rows if row["system"] in RIVALS)
    base = f"the better of {base}" if " and " in base else base or rows[0]["system"]
    for phase, title in (("fit", "one epoch"), ("predict", "prediction of texts held out")):
        print(
            f"\nFrom {kind}: {title}. Ratio: how many times as fast as\n{base} in the same repeat"
        )
        print(
            f"{'':<34}{'tokens/s':>10}{'texts/s':>10}{'spread':>8}{'ratio':>7}"
            f"{'of peak':>9}{'loss':>8}{'accuracy':>10}"
        )
        for row in rows:
            cell = row[phase]
            peak = f"{cell['of_peak']:.1%}" if "of_peak" in cell else ""
            loss = "" if row["loss"] is None else f"{row['loss']:.3f}"
            print(
                f"{row['system']:<34}{cell['tokens_per_s']:>10,.0f}{cell['texts_per_s']:>10,.0f}"
                f"{cell['spread']:>8.0%}{cell['ratio']:>7.2f}{peak:>9}{loss:>8}"
                f"{row['accuracy']:>10.3f}"
            )
    print(flush=True)


def show_memory(chosen, data, rows):
    """Print what a fit and a prediction take at most, beyond what imports and data took."""
    print(f"\n{'Peak memory in MiB':<34}{'fit':>10}{'predict':>10}")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "data.joblib")
        joblib.dump(data, path)
        for row in rows:
            owner, settings = chosen[row["system"]]
            row["memory"] = call_in_fresh_process(
                peers.measure_memory, owner=owner, settings=settings, path=path
            )
            cells = (
                "-" if rise is None else f"{rise / 2**20:.0f}" for rise in row["memory"].values()
            )
            print(f"{row['system']:<34}" + "".join(f"{cell:>10}" for cell in cells), flush=True)


def show_stages(data, backend):
    """Print where our time goes, with the network of the comparison and with our defaults."""
    result = {}
    print(f"\nSeconds of LSTMTextClassifier by stage, one epoch and prediction, backend {backend}")
    print(f"{'':<31}" + "".join(f"{stage:>11}" for stage in STAGES))
    for settings, is_plain in (("as compared", True), ("classifier's defaults", False)):
        result[settings] = seconds_by_stage(*data, plain=is_plain, backend=backend)
        for phase, seconds in result[settings].items():
            cells = "".join(f"{seconds[stage]:>11.2f}" for stage in STAGES)
            print(f"{settings + ', ' + phase:<31}{cells}", flush=True)
    return result


if __name__ == "__main__":
    main()
