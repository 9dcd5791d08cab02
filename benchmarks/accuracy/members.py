"""Several members in a blend: a pretrained sentence encoder, a random member, a copy of another.

    pip install -e ".[bench]"
    python benchmarks/accuracy/members.py trec mr                  # held-out rows of train.csv
    python benchmarks/accuracy/members.py trec mr --split test --seeds 0 1 2
    python benchmarks/accuracy/members.py trec mr --texts 200 500 1000   # few texts

The encoder is that of encoders.py. Each text is encoded once, before the fits; the seconds of that
are a column of their own. Complete results are kept in a file and not repeated.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import numpy as np
from data_sets import SPLITS, find_data, load_data_set
from encoders import SentenceEncoder
from scores import score
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tables import join

from sklstm import LSTMTextClassifier
from sklstm.ngrams import member

RESULTS = Path(__file__).parents[1] / "results" / "members.json"
PENALTY = 30.0
SYSTEMS = {
    "encoder": "encoder + LogisticRegression",
    "default": "LSTMTextClassifier, defaults",
    "with encoder": "– with the encoder as a member",
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
        member.MOST_TEXTS_OUT_OF_FOLD = 0
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    rows = {}
    for name in find_data(options.data):
        for n_texts in options.texts:
            whole = load_data_set(name, options.split)
            if n_texts:
                whole = whole.hold_out(options.held_out)
            for seed in options.seeds:
                data = whole.draw(n_texts, seed) if n_texts else whole
                for system in options.systems:
                    parts = (name, options.split, n_texts, seed, system)
                    key = "|".join(map(str, parts)) + "|without folds" * options.without_folds
                    if key not in kept:
                        kept[key] = measure(make(system, seed), data, system)
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
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    return parser.parse_args()


def make(system, seed):
    """Return an unfitted system."""
    encoder = make_pipeline(Encoded(), LogisticRegression(C=PENALTY, max_iter=1000))
    if system == "encoder":
        return encoder
    blend = "ngrams"
    if system.startswith("with encoder"):
        blend = ["ngrams", ("encoder", encoder)]
    if system == "with encoder, random":
        blend.append(("random", Random()))
    if system == "with encoder, copy":
        blend.append(("copy", encoder))
    return LSTMTextClassifier(blend=blend, random_state=seed)


def measure(estimator, data, system):
    """Return the scores on the held-out texts, and seconds of the processor."""
    before = time.process_time()
    if system != "default":
        encode([*data.texts, *data.held_out_texts])
    start = time.process_time()
    estimator.fit(data.texts, data.labels)
    fitted = time.process_time()
    probabilities = estimator.predict_proba(data.held_out_texts)
    columns = np.zeros((len(probabilities), len(data.classes)))
    columns[:, np.searchsorted(data.classes, estimator.classes_)] = probabilities
    targets = np.searchsorted(data.classes, data.held_out_labels)
    row = score(targets, columns, seen=data.seen)
    row |= {"encode": start - before, "fit": fitted - start}
    if hasattr(estimator, "blend_report_"):
        row["weights"] = [round(weight, 3) for weight in estimator.blend_weights_]
    return row


def encode(texts):
    new = [text for text in dict.fromkeys(texts) if text not in Encoded.vectors]
    if new:
        vectors = SentenceEncoder().fit(new).transform(new)
        Encoded.vectors.update(zip(new, vectors, strict=True))


def print_rows(rows):
    titles = ["data", "texts", "system", "seeds", "accuracy", "log loss", "encode, s", "fit, s"]
    print(join(titles), join(["---"] * len(titles)), sep="\n")
    for (name, n_texts, system), runs in rows.items():
        accuracy, loss, seconds = (
            np.array([run[column] for run in runs]) for column in ("accuracy", "log_loss", "fit")
        )
        # The first system that needed the vectors computed them.
        encoding = max(run["encode"] for key in rows if key[0] == name for run in rows[key])
        cells = [name, f"{n_texts:,}" if n_texts else "all", SYSTEMS[system], str(len(runs))]
        cells += [f"{100 * accuracy.mean():.1f}", f"{loss.mean():.3f}"]
        cells += ["–" if system == "default" else f"{encoding:.0f}", f"{seconds.mean():.0f}"]
        print(join(cells))


if __name__ == "__main__":
    main()
