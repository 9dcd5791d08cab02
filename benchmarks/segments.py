"""How to read long texts: accuracy, log loss and seconds, judged on rows set aside of a file.

Give it training data, never a test set. Every fit is judged on the same rows; a seed decides the
weights, the masks, the order and what the classifier itself sets aside. Equal texts count once.

A reading is what the vectorizer keeps (head, tail or both of them: ``--max-length`` tokens; all),
and after a colon what ``segments`` is.

    python benchmarks/segments.py --train ../shared/data/yelp_10k/train.csv.xz --judge-rows 1600
    python benchmarks/segments.py --train ../shared/data/imdb/train.csv.xz --rows 5000 \
        --judge-rows 5000 --readings both all all:64 all:sentence
    python benchmarks/segments.py --train ../shared/data/yelp_10k/train.csv.xz --judge-rows 1600 \
        --readings both both:64 both:128
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import log_loss

from sklstm import LSTMTextClassifier, SequenceVectorizer

READINGS = ["head", "tail", "both", "all", "all:64", "all:sentence"]


def main():
    options = parse()
    table = pd.read_csv(options.train, keep_default_na=False).drop_duplicates("text")
    table = table.sample(frac=1.0, random_state=0)
    judge = table[: options.judge_rows]
    train = table[options.judge_rows :][: options.rows]
    print(
        f"{len(train):,} texts to train on, {len(judge):,} to judge by; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"
    )
    rows = []
    for seed in options.seeds:
        for reading in options.readings:
            model = build(reading, seed=seed, options=options)
            rows.append({"reading": reading, "seed": seed} | run(model, train, judge))
            show(rows[-1])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        names = ("rows", "judge_rows", "max_length", "max_epochs")
        settings = {name: getattr(options, name) for name in names}
        results = {"train": options.train, "torch": torch.__version__, **settings, "rows": rows}
        options.json.write_text(json.dumps(results, indent=1))


def build(reading, *, seed, options):
    """Return a classifier that reads in this way."""
    keep, _, segments = reading.partition(":")
    vectorizer = SequenceVectorizer(max_length=None)
    if keep != "all":
        vectorizer.set_params(max_length=options.max_length, keep=keep)
    return LSTMTextClassifier(
        baseline=None,  # how the network reads is what is compared
        vectorizer=vectorizer,
        segments=int(segments) if segments.isdigit() else segments or None,
        max_epochs=options.max_epochs,
        random_state=seed,
    )


def run(model, train, judge):
    """Fit once; return what came out."""
    start = time.perf_counter()
    model.fit(train["text"], train["label"])
    fitted = time.perf_counter()
    probabilities = model.predict_proba(judge["text"])
    predicted = time.perf_counter()
    right = model.classes_[probabilities.argmax(axis=1)] == judge["label"].to_numpy()
    return {
        "accuracy": float(np.mean(right)),
        "log_loss": float(log_loss(judge["label"], probabilities, labels=model.classes_)),
        "fit_seconds": fitted - start,
        "predict_seconds": predicted - fitted,
        "epochs": model.n_iter_,
    }


def show(row):
    print(
        f"{row['reading']:12} seed {row['seed']}  accuracy {row['accuracy']:.4f}  "
        f"log loss {row['log_loss']:.4f}  fit {row['fit_seconds']:6.1f} s in {row['epochs']} epochs"
        f"  prediction {row['predict_seconds']:5.1f} s",
        flush=True,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", required=True, help="CSV file with columns text, label")
    parser.add_argument("--rows", type=int, help="texts to train on; default: all others")
    parser.add_argument("--judge-rows", type=int, default=2000, help="texts to judge by")
    parser.add_argument("--readings", nargs="+", default=READINGS, help="such as tail, all:64")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a head or tail")
    parser.add_argument("--max-epochs", type=epochs, default="auto")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    return parser.parse_args()


def epochs(text: str) -> int | str:
    return text if text == "auto" else int(text)


if __name__ == "__main__":
    main()
