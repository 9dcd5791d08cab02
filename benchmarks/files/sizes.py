"""How long ``save`` and ``load`` take, and how large a file is, compared with others.

The default classifier is fitted to 3,000 reviews for one epoch, which its size does not depend on.
Each call has its median of several; the systems take turns. The n-grams are also written by
themselves: a file of the same model without them is taken away.

    python benchmarks/files/sizes.py --json benchmarks/results/sizes.json
"""

import argparse
import copy
import importlib.util
import os
import pickle
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import joblib
import pandas as pd
from tables import describe_machine, print_table, write

import sklstm
from sklstm.model.blending import Blend

MB = 1e6
TEXTS = 3_000


def main():
    options = parse()
    results = describe_machine()
    frame = pd.read_csv(options.train)
    frame = frame.sample(min(options.texts, len(frame)), random_state=0)
    classifier = sklstm.LSTMTextClassifier(random_state=0, max_epochs=1)
    classifier.fit(frame["text"].tolist(), frame["label"].tolist())
    asked = frame["text"].tolist()[:20]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(classifier, asked, Path(folder), options.repeats)
    results |= {"texts": len(frame), "rows": rows}
    show(results)
    write(options.json, results)


def parse():
    data = Path(os.environ.get("SKLSTM_DATA", Path(__file__).parents[2] / "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", type=Path, default=data / "imdb" / "train.csv.xz")
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def _write_pickle(classifier, path):
    path.write_bytes(pickle.dumps(classifier))


def _read_pickle(path):
    return pickle.loads(path.read_bytes())


def _write_skops(classifier, path):
    import skops.io

    skops.io.dump(classifier, path)


def _read_skops(path):
    import skops.io

    return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))


#: Format -> what writes it, and what reads it.
FORMATS = {
    "save": (lambda classifier, path: classifier.save(path), sklstm.load),
    "pickle": (_write_pickle, _read_pickle),
    "joblib(compress=3)": (lambda c, path: joblib.dump(c, path, compress=3), joblib.load),
}
if importlib.util.find_spec("skops"):
    FORMATS["skops"] = (_write_skops, _read_skops)


def measure(classifier, asked, folder: Path, repeats: int) -> dict:
    """Return seconds and bytes of each format; each must give back the same bits."""
    bare = copy.copy(classifier)
    bare.model_ = replace(classifier.model_, blend=Blend())
    expected = classifier.predict_proba(asked).tobytes()
    rows = {}
    for name, (dump, load) in FORMATS.items():
        path = folder / "model"
        dump(bare, path)
        without = path.stat().st_size
        dump(classifier, path)
        size = path.stat().st_size
        same = load(path).predict_proba(asked).tobytes() == expected
        rows[name] = {"bytes": size, "bytes of n-grams": size - without, "same bits": same}
    seconds = {name: ([], []) for name in FORMATS}
    for _ in range(repeats):
        for name, (dump, load) in FORMATS.items():
            seconds[name][0].append(_time(dump, classifier, path))
            seconds[name][1].append(_time(load, path))
    for name, calls in seconds.items():
        for call, taken in zip(("save", "load"), calls, strict=True):
            wall, of_cpu = (statistics.median(column) for column in zip(*taken, strict=True))
            rows[name] |= {f"{call} seconds": wall, f"{call} CPU seconds": of_cpu}
    return rows


def _time(call, *arguments) -> tuple[float, float]:
    """Return the seconds of a call by the clock, and those of CPU."""
    begin, of_cpu = time.perf_counter(), time.process_time()
    call(*arguments)
    return time.perf_counter() - begin, time.process_time() - of_cpu


def show(results: dict) -> None:
    columns = ("save s", "of CPU", "load s", "of CPU", "MB", "of n-grams", "same bits")
    table = {
        name: [
            f"{row['save seconds']:.3f}",
            f"{row['save CPU seconds']:.3f}",
            f"{row['load seconds']:.3f}",
            f"{row['load CPU seconds']:.3f}",
            f"{row['bytes'] / MB:.2f}",
            f"{row['bytes of n-grams'] / MB:.2f}",
            "yes" if row["same bits"] else "NO",
        ]
        for name, row in results["rows"].items()
    }
    print_table(f"{results['texts']:,} texts", columns, table)
    if "skops" not in FORMATS:
        print("skops is not installed, and not measured.")


if __name__ == "__main__":
    main()
