"""Texts that come in portions: partial_fit compared with one fit on all of them.

    python benchmarks/accuracy/streams.py mr                # held-out rows of the file
    python benchmarks/accuracy/streams.py mr --split test --portions 100

The rows come in an order that depends on the seed. "The n-grams stay" is a stream whose later calls
train only the network.
"""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
from data_sets import SPLITS, load_data_set
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline, make_union
from systems import network_alone, ngrams_alone
from tables_of_tasks import Table, make_parser

from sklstm import LSTMTextClassifier
from sklstm.model.blending import WITH_NGRAMS


def main():
    parser = make_parser(__doc__)
    parser.add_argument("data")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--portions", type=int, default=10)
    options = parser.parse_args()
    data = load_data_set(options.data, options.split)
    if options.texts:
        data = data.draw(options.texts, seed=0)
    title = f"{data.name}, {options.split}, {options.portions} portions"
    table = Table(options, title, n_texts=len(data.texts))
    measure = partial(score, data)
    parts = {"": ask(data), "LSTM only": ask(data, network_alone)}
    parts |= {"n-grams only": ask(data, ngrams_alone)}
    both = parts | {"weights 0.2 and 0.8": ask(data, with_expected_weights)}
    for begin, first in (("all by partial_fit", 0.0), ("half by fit", 0.5)):
        run = partial(learn, data, options.portions, first=first)
        table.add(f"{begin}, rest by partial_fit" if first else begin, run, both, measure)
    run = partial(learn, data, options.portions, first=0.5, stay=True)
    table.add("half by fit, the n-grams stay", run, parts, measure)
    run = partial(learn_hashed, data, options.portions)
    table.add("hashed n-grams, SGDClassifier", run, {"": ask(data)}, measure)
    table.add("all by fit", partial(learn, data, 1, first=1.0), parts, measure)


def ask(data, part=None):
    """Return what makes the probabilities of the held-out texts from a fitted classifier."""

    def predict(classifier):
        asked = part(classifier) if part else classifier
        return asked.predict_proba(data.held_out_texts)

    return predict


def with_expected_weights(classifier):
    """Return the classifier with the weights that are used where nothing is known of a blend."""
    twin, model = copy.copy(classifier), classifier.model_
    twin.model_ = replace(model, blend=replace(model.blend, weights=WITH_NGRAMS))
    return twin


def score(data, probabilities):
    classes = data.classes
    right = classes[probabilities.argmax(axis=1)] == data.held_out_labels
    loss = log_loss(data.held_out_labels, probabilities, labels=classes)
    return {"accuracy": float(right.mean()), "log loss": float(loss)}


def cut(data, n_portions, *, seed, first):
    """Return the rows of a first share of the texts, and those of the portions of the rest."""
    rows = np.random.default_rng(seed).permutation(len(data.texts))
    begin = int(first * len(rows))
    rest = len(rows) - begin
    return rows[:begin], np.array_split(rows[begin:], n_portions) if rest else []


def learn(data, n_portions, seed, *, first, stay=False):
    """Return a classifier that was fitted to a first share, and got the rest in portions."""
    classifier = LSTMTextClassifier(random_state=seed)
    rows, portions = cut(data, n_portions, seed=seed, first=first)
    if len(rows):
        classifier.fit(*take(data, rows))
    if stay:
        classifier.set_params(blend=None)
    for rows in portions:
        classifier.partial_fit(*take(data, rows), classes=data.classes)
    return classifier


def learn_hashed(data, n_portions, seed):
    """Return a linear classifier of hashed n-grams, which needs no vocabulary."""
    hashed = make_union(
        HashingVectorizer(ngram_range=(1, 2), n_features=2**18, token_pattern=r"\w+|[^\w\s]"),
        HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), n_features=2**18),
    )
    linear = SGDClassifier(loss="log_loss", alpha=1e-5, average=True, random_state=seed)
    for rows in cut(data, n_portions, seed=seed, first=0.0)[1]:
        texts, labels = take(data, rows)
        linear.partial_fit(hashed.transform(texts), labels, classes=data.classes)
    return make_pipeline(hashed, linear)


def take(data, rows):
    return [data.texts[row] for row in rows], data.labels[rows]


if __name__ == "__main__":
    main()
