"""What more texts without labels, and a larger language model, give: perplexity and accuracy.

    python benchmarks/accuracy/pretrain_curve.py --texts imdb/train.csv.xz imdb/unlabeled.csv.xz \
        --amounts 2500 5000 10000 --hidden-sizes 128 256 --classify mr imdb --labels 2000

For each amount and size a language model is learnt. All have one vocabulary, that of all texts, so
that their perplexities can be compared; these are those of 500 other texts, in the forward
direction. Then a classifier starts from it, once for each seed, with so many labelled texts of each
data set; its scores, and those of the network by itself, are those of held-out rows of train.csv.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from data_sets import load_data_set
from systems import network_alone
from tables import join

from sklstm import LSTMLanguageModel, LSTMTextClassifier, SequenceVectorizer

N_COMPARED, N_HELD_OUT = 500, 3000


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    texts = [t for path in options.texts for t in pd.read_csv(path, keep_default_na=False)["text"]]
    order = np.random.default_rng(0).permutation(len(texts))
    texts = [texts[k] for k in order]
    compared, texts = texts[:N_COMPARED], texts[N_COMPARED:]
    vocabulary = SequenceVectorizer().fit(texts).vocabulary_
    kept = {}
    if options.json and options.json.exists():
        kept = json.loads(options.json.read_text(encoding="utf-8"))
    for amount in options.amounts:
        for size in options.hidden_sizes:
            key = f"{amount} {size} {options.epochs}"
            if key not in kept:
                kept[key] = measure(texts[:amount], compared, vocabulary, size, options)
                print(key, kept[key], flush=True)
                if options.json:
                    options.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    if "none" not in kept:
        kept["none"] = {name: classify(name, None, options) for name in options.classify}
        if options.json:
            options.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    print_rows(kept, options)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", nargs="+", required=True, help="CSV files with a column text")
    parser.add_argument("--amounts", type=int, nargs="+", default=[2500, 5000, 10_000])
    parser.add_argument("--hidden-sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--classify", nargs="+", default=["mr", "imdb"], help="data sets")
    parser.add_argument("--labels", type=int, default=2000, help="labelled texts of each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="where results are kept; they are not repeated")
    return parser.parse_args()


def measure(texts, compared, vocabulary, size, options):
    model = LSTMLanguageModel(
        vectorizer=SequenceVectorizer(vocabulary=vocabulary),
        hidden_size=size,
        max_epochs=options.epochs,
        random_state=0,
    )
    model.fit(texts)
    row = {"perplexity": model.perplexity(compared)}
    return row | {name: classify(name, model, options) for name in options.classify}


def classify(name, model, options):
    """Return mean accuracy and log loss of the classifier, and those of its network."""
    whole = load_data_set(name, "validation").hold_out(N_HELD_OUT)
    scores = []
    for seed in options.seeds:
        data = whole.draw(options.labels, seed)
        classifier = LSTMTextClassifier(pretrained=model, random_state=seed)
        classifier.fit(data.texts, data.labels)
        scores.append([score(c, data) for c in (classifier, network_alone(classifier))])
    return np.mean(scores, axis=0).tolist()


def score(classifier, data):
    probabilities = classifier.predict_proba(data.held_out_texts)
    columns = np.searchsorted(classifier.classes_, data.held_out_labels)
    right = probabilities.argmax(axis=1) == columns
    return right.mean(), -np.log(probabilities[np.arange(len(columns)), columns]).mean()


def print_rows(kept, options):
    titles = ["texts", "hidden size", "perplexity"]
    titles += [f"{name}, {part}" for name in options.classify for part in ("default", "LSTM only")]
    print(join(titles), join(["---"] * len(titles)), sep="\n")
    for key, row in kept.items():
        cells = ["none", "–", "–"]
        if key != "none":
            amount, size = key.split()[:2]
            cells = [f"{int(amount):,}", size, f"{row['perplexity']:.1f}"]
        for name in options.classify:
            cells += [f"{100 * accuracy:.1f} ({loss:.3f})" for accuracy, loss in row[name]]
        print(join(cells))


if __name__ == "__main__":
    main()
