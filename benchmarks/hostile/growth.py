"""Time against the length of one text: is it linear, whatever is repeated?

For each shape and each reader the size of the text is doubled up to ``--size``. The power is the
slope of the logarithm of the seconds against that of the size, from the first size that takes
``FEWEST_SECONDS`` on; 1 is linear. Each pair runs in turn in one process.

    python benchmarks/hostile/growth.py --json benchmarks/results/hostile_growth.json
"""

import argparse
import faulthandler
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from tables import describe_machine, print_table, write
from texts import ORDINARY, SHAPES

from sklstm import LSTMLanguageModel, LSTMTextClassifier, SequenceVectorizer
from sklstm.ngrams.vectorizer import NgramVectorizer

#: What takes less is made of fixed costs.
FEWEST_SECONDS = 0.02
MOST_POWER = 1.2
#: A pair that takes longer at one size is hung, and the run ends with a traceback.
PATIENCE = 300
SMALL = {"embedding_dim": 8, "hidden_size": 8, "max_epochs": 1, "random_state": 0}


def main():
    options = parse()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = describe_machine() | {"size": options.size, "rows": {}}
    rows = {}
    for name, reader in make_readers().items():
        if options.readers and name not in options.readers:
            continue
        found = {}
        for shape, make in SHAPES.items():
            if not options.shapes or shape in options.shapes:
                found[shape] = measure(reader, make, options.size, options.doublings)
        results["rows"][name] = found
        rows[name] = describe(name, found)
        write(options.json, results)
    print_table("reader", ("s at most", "of", "power", "of", "above 1.2"), rows)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=10_000_000, help="characters of the longest")
    parser.add_argument("--doublings", type=int, default=5)
    parser.add_argument("--shapes", nargs="*", help="only these")
    parser.add_argument("--readers", nargs="*", help="only these")
    parser.add_argument("--seed", type=int, default=0, help="of the ordinary texts")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def measure(reader, make, size, doublings) -> dict:
    """Return sizes, seconds and the power; what seems to grow faster is measured again."""
    sizes = [size >> k for k in range(doublings, -1, -1)]
    seconds = _time(reader, make, sizes)
    power = fit_power(sizes, seconds)
    if power is not None and power > MOST_POWER:
        seconds = np.minimum(seconds, _time(reader, make, sizes)).tolist()
        power = fit_power(sizes, seconds)
    return {"sizes": sizes, "seconds": seconds, "power": power}


def _time(reader, make, sizes) -> list[float]:
    seconds = []
    for size in sizes:
        text = make(size)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        begin = time.process_time()
        reader(text)
        seconds.append(time.process_time() - begin)
        faulthandler.cancel_dump_traceback_later()
    return seconds


def fit_power(sizes, seconds) -> float | None:
    """Return the slope, or None where all is too quick to have one."""
    points = [(size, s) for size, s in zip(sizes, seconds, strict=True) if s >= FEWEST_SECONDS]
    if len(points) < 3:
        return None
    sizes, seconds = np.log(points).T
    return float(np.polyfit(sizes, seconds, 1)[0])


def describe(name, found) -> list:
    """Print what grows too fast; return the slowest shape and the steepest one."""
    slowest = max(found, key=lambda shape: found[shape]["seconds"][-1])
    powers = {shape: row["power"] for shape, row in found.items() if row["power"] is not None}
    steep = sorted(shape for shape, power in powers.items() if power > MOST_POWER)
    for shape in steep:
        seconds = ", ".join(f"{s:.2f}" for s in found[shape]["seconds"])
        print(f"STEEP {name}: {shape}: power {powers[shape]:.2f}, seconds {seconds}", flush=True)
    steepest = max(powers, key=powers.get, default="-")
    print(f"{name}: {found[slowest]['seconds'][-1]:.2f} s of {slowest}", flush=True)
    return [
        f"{found[slowest]['seconds'][-1]:.2f}",
        slowest,
        f"{powers.get(steepest, 0):.2f}",
        steepest,
        len(steep),
    ]


def make_readers() -> dict:
    """Return functions of one text by their names."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(ORDINARY, 9)) for _ in range(200)]
    labels = ["pos", "neg"] * 100
    classifier = LSTMTextClassifier(**SMALL).fit(texts, labels)
    by_sentence = LSTMTextClassifier(
        **SMALL, read_by="sentence", blend=None, vectorizer=SequenceVectorizer(max_length=None)
    ).fit(texts, labels)
    whole = LSTMTextClassifier(
        **SMALL, blend=None, vectorizer=SequenceVectorizer(max_length=None)
    ).fit(texts, labels)
    model = LSTMLanguageModel(**SMALL, window=16).fit(texts)
    vectorizers = {
        "fit_transform": {},
        "fit_transform, NFKC": {"normalize": "NFKC"},
        "fit_transform, accents to ASCII": {"strip_accents": "ascii"},
        "fit_transform, accents, no normalize": {"strip_accents": "unicode", "normalize": None},
        "fit_transform, characters": {"analyzer": "char"},
        "fit_transform, scikit-learn's pattern": {"token_pattern": r"(?u)\b\w\w+\b"},
    }
    readers = {
        name: lambda text, own=own: SequenceVectorizer(**own).fit_transform([text, "good"])
        for name, own in vectorizers.items()
    }
    return readers | {
        "n-grams, fit_transform": lambda text: NgramVectorizer().fit_transform(
            [text, text, "good"]
        ),
        "fit of a classifier": lambda text: LSTMTextClassifier(**SMALL).fit(
            [text, *texts], ["pos", *labels]
        ),
        "predict_proba": lambda text: classifier.predict_proba([text]),
        "predict_proba, whole texts": lambda text: whole.predict_proba([text]),
        "predict_sentences, whole texts": lambda text: by_sentence.predict_sentences([text]),
        "perplexity": lambda text: model.perplexity([text]),
    }


if __name__ == "__main__":
    main()
