"""What users run: default fits, default predictions, one text, and the memory of a loaded model.

    python benchmarks/speed/defaults.py --train mr/train.csv.xz trec/train.csv.xz --before ../old

Fits are compared with those of an earlier version, whose built clone ``--before`` names. Each fit
is a fresh process, and the processes take turns. Predictions are compared with those of TF-IDF of
words and pairs with logistic regression, in one process, in turns. Single texts are cut from the
words of the file, which must have enough of them (imdb has); they have one thread.
"""

import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from fresh import PeakMemory, call_in_fresh_process
from measure import (
    Table,
    alternate,
    describe_machine,
    make_parser,
    speedup,
    summarise,
    write,
)
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from texts import cut_texts, load_halves

from sklstm import LSTMTextClassifier

PARTS = ("fit", "predict", "one", "memory")
#: Words of a text by itself, and how many texts of that length.
LENGTHS, N_TEXTS = (20, 250), 200
#: Texts that are predicted before the clock runs.
N_FIRST = 50
NOW, BEFORE, TFIDF = "now", "before", "TF-IDF + LR"
#: Only where the processor has instructions for it.
SHORT = "now, precision='bfloat16'"


def main():
    options = parse()
    results = {"machine": describe_machine()}
    for path, n_texts in zip(options.train, options.texts * len(options.train), strict=False):
        for part in options.parts:
            results[f"{part}, {n_texts:,} texts of {path}"] = MEASURES[part](path, n_texts, options)
            write(options.json, results)


def parse():
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument("--train", nargs="+", required=True, help="CSV files: text, label")
    parser.add_argument("--texts", type=int, nargs="+", default=[2000], help="of each file")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--before", type=Path, help="a built clone of an earlier version")
    parser.add_argument("--epochs", default="auto", help="of the fits that are compared")
    return parser.parse_args()


# -------------------------------------------------------------------------------------------- fits


def measure_fits(path, n_texts, options):
    """Return the seconds of fits of this version and of the earlier one, wall clock and CPU."""
    if options.before is None:
        raise SystemExit("--parts fit needs --before, a built clone of an earlier version.")
    settings = {} if options.epochs == "auto" else {"max_epochs": int(options.epochs)}
    versions = {NOW: Path(__file__).parents[2], BEFORE: options.before.resolve()}
    found = {name: [] for name in versions}
    for _ in range(options.repeats):
        for name, folder in versions.items():
            # Without the safe path a process imports from the folder where it is started.
            with patch.dict(os.environ, PYTHONPATH=str(folder), PYTHONSAFEPATH="1"):
                call = partial(call_in_fresh_process, fit, folder=str(folder), settings=settings)
                found[name].append(call(path=path, n_texts=n_texts))
    columns = {"wall, s": ".1f", "spread": ".0%", "CPU, s": ".1f", "wall": ".2f", "CPU": ".2f"}
    table = Table(f"default fit, {n_texts:,} texts of {path}", columns)
    for name, fits in found.items():
        wall, cpu = ([one[kind] for one in fits] for kind in ("wall", "cpu"))
        ratios = [
            1 / speedup(own, [one[kind] for one in found[BEFORE]])
            for own, kind in ((wall, "wall"), (cpu, "cpu"))
        ]
        table.add(name, *summarise(wall).values(), statistics.median(cpu), *ratios)
    return found


def fit(*, folder, path, n_texts, settings):
    """Return the seconds of a default fit of the version that is imported from a folder."""
    import sklstm

    if Path(sklstm.__file__).parents[1] != Path(folder):
        raise RuntimeError(f"sklstm must come from {folder}; got {sklstm.__file__}")
    (texts, labels), _ = load_halves(path, n_texts)
    LSTMTextClassifier(max_epochs=1, random_state=0).fit(texts[:64], labels[:64])
    wall, cpu = time.perf_counter(), time.process_time()
    classifier = LSTMTextClassifier(random_state=0, **settings).fit(texts, labels)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return seconds | {"epochs": len(classifier.loss_curve_)}


# ------------------------------------------------------------------------------------- predictions


def fit_both(path, n_texts):
    """Return fitted systems by their names, and as many new texts.

    The network is fitted for one epoch: its predictions take the same time as later ones.
    """
    (texts, labels), (new_texts, _) = load_halves(path, n_texts)
    from sklstm.kernels import compiled  # not by the earlier version, which has none

    systems = {
        NOW: LSTMTextClassifier(max_epochs=1, early_stopping=False, random_state=0),
        TFIDF: make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()),
    }
    if compiled.gains_from_bfloat16(
        torch.device("cpu"), cell="lstm", hidden=128, masked=False, zoned=False
    ):
        systems[SHORT] = clone(systems[NOW]).set_params(precision="bfloat16")
    for system in systems.values():
        system.fit(texts, labels)
    return systems, new_texts


def measure_predictions(path, n_texts, options):
    """Return the seconds of the predictions of many texts."""
    systems, texts = fit_both(path, n_texts)
    calls = {name: partial(system.predict_proba, texts) for name, system in systems.items()}
    seconds = alternate(calls, options.repeats)
    table = Table(
        f"default prediction, {len(texts):,} texts of {path}",
        {"texts/s": ",.0f", "spread": ".0%", "ratio": ".2f"},
    )
    for name, of_system in seconds.items():
        median, spread = summarise(of_system).values()
        table.add(name, len(texts) / median, spread, speedup(of_system, seconds[TFIDF]))
    return seconds


def measure_one(path, n_texts, options):
    """Return the milliseconds of the predictions of one text, of several lengths."""
    systems, _ = fit_both(path, n_texts)
    threads, found = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    table = Table(
        f"one text, words of {path}, one thread",
        {"ms": ".2f", "99 of 100": ".2f", "ratio": ".2f"},
    )
    for length in LENGTHS:
        texts, _ = cut_texts(path, n_texts=N_FIRST + options.repeats * N_TEXTS, length=length)
        for text in texts[:N_FIRST]:
            for system in systems.values():
                system.predict_proba([text])
        taken = {name: [] for name in systems}
        for text in texts[N_FIRST:]:
            for name, system in systems.items():
                start = time.perf_counter()
                system.predict_proba([text])
                taken[name].append(1e3 * (time.perf_counter() - start))
        middle = {name: statistics.median(of_system) for name, of_system in taken.items()}
        for name, of_system in taken.items():
            slow = statistics.quantiles(of_system, n=100)[-1]
            table.add(f"{name}, {length} words", middle[name], slow, middle[name] / middle[TFIDF])
        found[length] = taken
    torch.set_num_threads(threads)
    return found


def measure_memory(path, n_texts, options):
    """Return the bytes of a model's file, and of memory after loading it and a first prediction."""
    systems, _ = fit_both(path, n_texts)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.sklstm"
        systems[NOW].save(file)
        size = file.stat().st_size
        risen = [
            call_in_fresh_process(load, file=str(file), path=path) for _ in range(options.repeats)
        ]
    rise = statistics.median(risen)
    table = Table(
        f"memory, {n_texts:,} texts of {path}", {"file, MB": ".1f", "MB": ".1f", "ratio": ".2f"}
    )
    table.add("loaded, one text predicted", size / 1e6, rise / 1e6, rise / size)
    return {"file": size, "memory": risen}


def load(*, file, path):
    """Return by how many bytes the memory rises when a model is loaded and predicts one text."""
    (texts, labels), (new_texts, _) = load_halves(path, 64)
    small = LSTMTextClassifier(max_epochs=1, hidden_size=8, embedding_dim=8, random_state=0)
    small.fit(texts, labels).predict_proba(new_texts[:1])  # what all models need
    memory = PeakMemory()
    LSTMTextClassifier.load(file).predict_proba(new_texts[:1])
    return memory.rise()


MEASURES = {
    "fit": measure_fits,
    "predict": measure_predictions,
    "one": measure_one,
    "memory": measure_memory,
}

if __name__ == "__main__":
    main()
