"""Pre-train a language model on files of texts, save it, and tell how fast and how well it learnt.

    python benchmarks/accuracy/pretrain.py --texts imdb/train.csv.xz imdb/unlabeled.csv.xz \
        --epochs 2 --lr 4e-3 --save imdb.safetensors --json pretrain.json --verbose 2

It prints a line an epoch. The perplexities are those of the validation texts.
"""

import argparse
import json
import time
from pathlib import Path

import pandas as pd
import torch

from sklstm import LSTMLanguageModel, SequenceVectorizer

#: Options that are parameters of the language model, and their defaults here.
PARAMETERS = {
    "hidden_size": 256,
    "embedding_dim": 128,
    "n_negatives": 2048,
    "window": 128,
    "batch_size": 32,
    "dropout": 0.0,
    "lr": LSTMLanguageModel().lr,
    "validation_fraction": 0.01,
    "precision": "auto",
    "backend": "auto",
    "random_state": 0,
    "verbose": 1,
}


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    texts = [
        text
        for path in options.texts
        for text in pd.read_csv(path, keep_default_na=False)[options.text_column]
    ]
    print(f"{len(texts):,} texts, torch {torch.__version__}, {torch.get_num_threads()} threads")
    vectorizer = SequenceVectorizer(
        max_features=options.max_features, max_length=options.max_length
    )
    parameters = {name: getattr(options, name) for name in PARAMETERS}
    model = LSTMLanguageModel(
        vectorizer=vectorizer, max_epochs=options.epochs, max_minutes=options.minutes, **parameters
    )
    start = time.perf_counter()
    model.fit(texts)
    seconds = time.perf_counter() - start
    if options.save:
        model.save(options.save)
    # A limit of minutes ends the last epoch early.
    words = None if options.minutes else model.n_iter_ * sum(len(text.split()) for text in texts)
    speed = f", {words / seconds:,.0f} words/s (between white space)" if words else ""
    print(f"{seconds:.0f} s in all{speed}")
    print(f"validation perplexity by epoch: {model.validation_perplexities_}")
    for text in model.generate(3, temperature=0.7, max_tokens=60, random_state=0):
        print(f"  {text}")
    if options.json:
        results = {
            "settings": {name: str(value) for name, value in vars(options).items()},
            "texts": len(texts),
            "seconds": seconds,
            "words_per_s": words and words / seconds,
            "perplexity": model.validation_perplexities_,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1, default=float), encoding="utf-8")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", nargs="+", required=True, help="CSV files with a column text")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="most minutes; the learning rate follows")
    parser.add_argument("--save", help="the file of the model")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--max-features", type=int, default=30_000)
    parser.add_argument("--max-length", type=int, default=256, help="for the classifier")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    for name, default in PARAMETERS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), default=default)
    return parser.parse_args()


if __name__ == "__main__":
    main()
