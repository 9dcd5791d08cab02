"""Several members in a blend: a pretrained sentence encoder, a random member, a copy of another.

    pip install -e ".[bench]"
    python benchmarks/accuracy/members.py trec mr                  # held-out rows of train.csv
    python benchmarks/accuracy/members.py trec mr --split test --seeds 0 1 2
    python benchmarks/accuracy/members.py trec mr --texts 200 500 1000   # few texts
    python benchmarks/accuracy/members.py trec --encoder sentence-transformers/all-MiniLM-L6-v2

The encoders are those of encoders.py. Each text is encoded once, before the fits, and the vectors
are kept in benchmarks/results; the seconds of that are a column of their own. Complete results are
kept in a file and not repeated.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import joblib
import numpy as np
from baselines import BASELINES, make_baseline
from data_sets import SPLITS, find_data, load_data_set
from encoders import SentenceEncoder
from few_labels import leave_out_absent
from scores import score
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tables import join

from sklstm import LSTMTextClassifier
from sklstm.ngrams import member

FOLDER = Path(__file__).parents[1] / "results"
RESULTS = FOLDER / "members.json"
MEMORY = joblib.Memory(FOLDER / "vectors", verbose=0)
SYSTEMS = BASELINES | {
    "encoder": "encoder + LogisticRegression",
    "default": "LSTMTextClassifier, defaults",
    "with encoder": "– with the encoder as a member",
    "with encoder, adversarial": "– with the encoder and adversarial=0.25",
    "with encoder, random": "– with encoder and a random member",
    "with encoder, copy": "– with encoder and a copy of it",
}


class Encoded(TransformerMixin, BaseEstimator):
    """Look up the vectors of texts that have been encoded before."""

    vectors = {}

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.stack([self.vectors[text] for text in X])

    def __sklearn_is_fitted__(self):
        return True


class Random(ClassifierMixin, BaseEstimator):
    """Predict probabilities drawn at random, the same ones for a text."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        seeds = [np.frombuffer(text.encode() + bytes(8), dtype=np.uint8) for text in X]
        ones = np.ones(len(self.classes_))
        return np.stack([np.random.default_rng(seed).dirichlet(ones) for seed in seeds])


def main():
    options = parse()
    if options.without_folds:
        member.MOST_TEXTS_OF_SEVERAL = member.MOST_TEXTS_OF_ONE = 0
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    rows = {}
    for name in find_data(options.data):
        for n_texts in options.texts:
            whole = load_data_set(name, options.split)
            if n_texts:
                whole = whole.hold_out(options.held_out)
            for seed in options.seeds:
                data = leave_out_absent(whole.draw(n_texts, seed)) if n_texts else whole
                for system in options.systems:
                    key = describe(name, n_texts, seed, system, options)
                    if key not in kept:
                        encoder = options.encoder if "encoder" in system else None
                        seconds = encode(whole, encoder, options.dtype)
                        estimator = make(system, data, seed, options.penalty)
                        kept[key] = measure(estimator, data) | {"encode": seconds}
                        print(key, kept[key], flush=True)
                        RESULTS.parent.mkdir(exist_ok=True)
                        RESULTS.write_text(json.dumps(kept, indent=1), encoding="utf-8")
                    rows.setdefault((name, n_texts, system), []).append(kept[key])
    print_rows(rows)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="*", help="folders of the data; all if none is named")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--texts", type=int, nargs="+", default=[0], help="to train on; 0 is all")
    parser.add_argument("--held-out", type=int, default=1500, help="with --texts: to score")
    parser.add_argument(
        "--without-folds", action="store_true", help="do not compare members out of fold"
    )
    parser.add_argument("--encoder", default="use", help="a name for sentence-transformers")
    parser.add_argument("--dtype", default="float32", help="of sentence-transformers")
    parser.add_argument("--penalty", type=float, default=30.0, help="C of the encoder's regression")
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        default=[name for name in SYSTEMS if name not in BASELINES],
    )
    return parser.parse_args()


def describe(name, n_texts, seed, system, options):
    """Return the name under which a result is kept."""
    parts = [name, options.split, n_texts, seed, system]
    if "encoder" in system:
        parts += [Path(options.encoder).name, options.dtype, options.penalty]
    return "|".join(map(str, parts)) + "|without folds" * options.without_folds


def make(system, data, seed, penalty):
    """Return an unfitted system."""
    if system in BASELINES:
        return make_baseline(system, data.texts)
    encoder = make_pipeline(Encoded(), LogisticRegression(C=penalty, max_iter=1000))
    if system == "encoder":
        return encoder
    blend = "ngrams"
    if system.startswith("with encoder"):
        blend = ["ngrams", ("encoder", encoder)]
    if system == "with encoder, random":
        blend.append(("random", Random()))
    if system == "with encoder, copy":
        blend.append(("copy", encoder))
    adversarial = 0.25 if system == "with encoder, adversarial" else 0.0
    return LSTMTextClassifier(blend=blend, adversarial=adversarial, random_state=seed)


def measure(estimator, data):
    """Return the scores on the held-out texts, and seconds of the processor."""
    start = time.process_time()
    estimator.fit(data.texts, data.labels)
    fitted = time.process_time()
    probabilities = estimator.predict_proba(data.held_out_texts)
    columns = np.zeros((len(probabilities), len(data.classes)))
    columns[:, np.searchsorted(data.classes, estimator.classes_)] = probabilities
    targets = np.searchsorted(data.classes, data.held_out_labels)
    row = score(targets, columns, seen=data.seen) | {"fit": fitted - start}
    if hasattr(estimator, "blend_report_"):
        row["weights"] = [round(weight, 3) for weight in estimator.blend_weights_]
    return row


def encode(data, encoder, dtype):
    """Look up the vectors of all texts of a data set, or compute them; return the seconds taken.

    Without an encoder there are none, and no time is taken.
    """
    if encoder is None:
        return 0.0
    texts = sorted({*data.texts, *data.held_out_texts})
    vectors, seconds = encode_all(texts, encoder, dtype)
    Encoded.vectors = dict(zip(texts, vectors, strict=True))
    return seconds


@MEMORY.cache
def encode_all(texts, encoder, dtype):
    start = time.process_time()
    vectors = SentenceEncoder(encoder, dtype).fit(texts).transform(texts)
    return vectors, time.process_time() - start


def print_rows(rows):
    titles = ["data", "texts", "system", "seeds", "accuracy", "log loss", "encode, s", "fit, s"]
    print(join(titles), join(["---"] * len(titles)), sep="\n")
    for (name, n_texts, system), runs in rows.items():
        accuracy, loss, seconds = (
            np.array([run[column] for run in runs]) for column in ("accuracy", "log_loss", "fit")
        )
        encoding = runs[0]["encode"]
        cells = [name, f"{n_texts:,}" if n_texts else "all", SYSTEMS[system], str(len(runs))]
        cells += [f"{100 * accuracy.mean():.1f}", f"{loss.mean():.3f}"]
        cells += [f"{encoding:.0f}" if encoding else "–", f"{seconds.mean():.0f}"]
        print(join(cells))


if __name__ == "__main__":
    main()
