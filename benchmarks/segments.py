"""What ``segments`` does to accuracy, log loss and seconds, judged on rows set aside of a file.

Give it training data, never a test set. Every fit is judged on the same rows; a seed decides the
weights, the masks, the order and what the classifier itself sets aside. Equal texts count once.

    python benchmarks/segments.py --train ../shared/data/yelp_10k/train.csv.xz --judge-rows 1600
    python benchmarks/segments.py --train ../shared/data/imdb/train.csv.xz --rows 10000 \
        --judge-rows 5000 --max-length 512
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

from sklstm import LSTMTextClassifier


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
        for segments in options.segments:
            setting = {"segments": segments, "seed": seed}
            result = run(train, judge, **setting, max_length=options.max_length)
            rows.append(setting | result)
            show(rows[-1])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        settings = {name: getattr(options, name) for name in ("rows", "judge_rows", "max_length")}
        results = {"train": options.train, "torch": torch.__version__, **settings, "rows": rows}
        options.json.write_text(json.dumps(results, indent=1))


def run(train, judge, *, segments, seed, max_length):
    """Fit once; return what came out."""
    model = LSTMTextClassifier(segments=segments, random_state=seed)
    model.set_params(vectorizer__max_length=max_length)
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
        f"segments {row['segments']!s:5} seed {row['seed']}  accuracy {row['accuracy']:.4f}  "
        f"log loss {row['log_loss']:.4f}  fit {row['fit_seconds']:6.1f} s in {row['epochs']} epochs"
        f"  prediction {row['predict_seconds']:5.1f} s",
        flush=True,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", required=True, help="CSV file with columns text, label")
    parser.add_argument("--rows", type=int, help="texts to train on; default: all others")
    parser.add_argument("--judge-rows", type=int, default=2000, help="texts to judge by")
    parser.add_argument("--segments", type=width, nargs="+", default=[None, 64, 128])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--max-length", type=int, default=256, help="of the vectorizer")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    return parser.parse_args()


def width(text: str) -> int | None:
    return None if text == "none" else int(text)


if __name__ == "__main__":
    main()
