"""
Comparison with classic baselines
=================================

Trains :class:`~sklstm.LSTMTextClassifier` next to multinomial naive Bayes, NB-SVM and TF-IDF with
logistic regression, and prints how well and how fast each one is. Without arguments it runs on
text that every installation has: docstrings, classified by their library. For your own data::

    python examples/compare_baselines.py --train reviews.csv
    python examples/compare_baselines.py --train train.csv.xz --test test.csv.xz --plot
"""

import argparse
import json
import sys
import time

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline

from sklstm import LSTMTextClassifier
from sklstm.datasets import load_docstrings
from sklstm.text.tokenizers import tokenize

# %%
# The baselines
# -------------
# NB-SVM (Wang & Manning 2012) multiplies binary counts by each class's log-count ratio before a
# linear model. It is the strongest of the simple ones on long reviews.


class LogCountRatio(TransformerMixin, BaseEstimator):
    """Scale binary counts by the log-count ratio of the second of two classes."""

    def fit(self, X, y):
        positive = np.asarray(y) == np.unique(y)[-1]
        p = 1 + np.asarray(X[positive].sum(axis=0)).ravel()
        q = 1 + np.asarray(X[~positive].sum(axis=0)).ravel()
        self.ratio_ = np.log((p / p.sum()) / (q / q.sum()))
        return self

    def transform(self, X):
        return X.multiply(self.ratio_).tocsr()


def make_models(texts, random_state):
    """Return the models by name; Chinese or Japanese texts are counted by characters."""
    unspaced = (
        np.mean(
            [
                len(tokenize(text)) > 3 * len(text.split())
                for text in texts[:1000]
            ]
        )
        > 0.5
    )
    words = (
        {"analyzer": "char"}
        if unspaced
        else {"token_pattern": r"(?u)\b\w+\b|[!?]"}
    )
    bigrams = words | {"ngram_range": (1, 2)}
    ratio_lr = Pipeline(
        [
            ("ratio", LogCountRatio()),
            ("lr", LogisticRegression(C=4, max_iter=1000)),
        ]
    )
    return {
        "MultinomialNB, unigrams": make_pipeline(
            CountVectorizer(**words), MultinomialNB()
        ),
        "MultinomialNB, bigrams": make_pipeline(
            CountVectorizer(**bigrams), MultinomialNB()
        ),
        "NB-SVM, bigrams": make_pipeline(
            CountVectorizer(**bigrams, binary=True),
            OneVsRestClassifier(ratio_lr),
        ),
        "TF-IDF + LogisticRegression": make_pipeline(
            TfidfVectorizer(**bigrams, sublinear_tf=True, min_df=2),
            LogisticRegression(C=10, max_iter=1000),
        ),
        "LSTMTextClassifier": LSTMTextClassifier(
            random_state=random_state, verbose=1
        ),
    }


# %%
# The comparison
# --------------


def compare(models, train, test):
    """Fit and evaluate every model; return one row of results each."""
    rows = []
    for name, model in models.items():
        print(f"Fitting {name}.", flush=True)
        start = time.perf_counter()
        model.fit(*train)
        fitted = time.perf_counter()
        probabilities = model.predict_proba(test[0])
        predicted = time.perf_counter()
        labels = model.classes_[probabilities.argmax(axis=1)]
        rows.append(
            {
                "model": name,
                "accuracy": accuracy_score(test[1], labels),
                "macro-F1": f1_score(test[1], labels, average="macro"),
                "log loss": log_loss(
                    test[1], probabilities, labels=model.classes_
                ),
                "fit s": fitted - start,
                "predict s": predicted - fitted,
            }
        )
    return rows


def format_row(row):
    return (
        f"{row['model']:<28}{row['accuracy']:>9.3f}{row['macro-F1']:>9.3f}"
        f"{row['log loss']:>9.3f}{row['fit s']:>9.1f}{row['predict s']:>10.2f}"
    )


def read_table(path, text_column, label_column):
    """Return texts and labels of a CSV file, also compressed."""
    try:
        import pandas as pd  # only for files: the plain demonstration needs no extra package
    except ImportError:
        raise SystemExit(
            "Files are read with pandas: pip install pandas."
        ) from None

    table = pd.read_csv(path, keep_default_na=False, dtype={label_column: str})
    for column in (text_column, label_column):
        if column not in table:
            raise SystemExit(
                f"{path} must have the columns {text_column!r} and {label_column!r}; got "
                f"{list(table.columns)}. Name them by --text-column and --label-column."
            )
    return table[text_column].tolist(), table[label_column].to_numpy()


def load(arguments):
    """Return (texts, labels) to train on and to test on."""
    if arguments.train is None:
        docstrings = load_docstrings()
        texts, labels = docstrings.data, docstrings.target
    else:
        columns = arguments.text_column, arguments.label_column
        texts, labels = read_table(arguments.train, *columns)
        if arguments.test is not None:
            return (texts, labels), read_table(arguments.test, *columns)
    texts, test_texts, labels, test_labels = train_test_split(
        texts, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return (texts, labels), (test_texts, test_labels)


def plot(rows, path):
    """Show accuracy and log loss as bars, or save them where there is a path."""
    import matplotlib.pyplot as plt  # the extra [plot]

    figure, axes = plt.subplots(
        1, 2, figsize=(10, 3.2), sharey=True, layout="constrained"
    )
    names = [row["model"] for row in rows]
    colors = ["tab:gray"] * (len(rows) - 1) + ["tab:orange"]
    for axis, measure in zip(axes, ("accuracy", "log loss"), strict=True):
        values = [row[measure] for row in rows]
        bars = axis.barh(names, values, color=colors)
        axis.bar_label(bars, fmt="%.3f", padding=3)
        axis.set_xlabel(measure)
        axis.margins(x=0.18)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    axes[0].set_title("higher is better", fontsize="small")
    axes[1].set_title("lower is better", fontsize="small")
    if path:
        figure.savefig(path)
    else:
        plt.show()


def parse():
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description="Compare LSTMTextClassifier with baselines."
    )
    parser.add_argument(
        "--train", help="CSV file to train on; without it, docstrings"
    )
    parser.add_argument(
        "--test",
        help="CSV file to test on; without it, a quarter of the texts",
    )
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--random-state", type=int, default=0)
    parser.add_argument(
        "--plot", nargs="?", const="", help="show a bar chart, or save it here"
    )
    parser.add_argument("--json", help="keep the rows in this file")
    return parser.parse_args()


# %%
# The run
# -------


def main(arguments):
    """Load, compare, print and draw."""
    train, test = load(arguments)
    n_classes = len(np.unique(train[1]))
    print(
        f"{len(train[0]):,} texts to train on, {len(test[0]):,} to test on, {n_classes} classes"
    )
    rows = compare(make_models(train[0], arguments.random_state), train, test)
    print(
        f"\n{'':<28}{'accuracy':>9}{'macro-F1':>9}{'log loss':>9}{'fit s':>9}{'predict s':>10}"
    )
    for row in rows:
        print(format_row(row))
    if sys.platform != "win32":
        import resource  # Windows has none

        # Of the whole comparison; ru_maxrss counts KiB on Linux, bytes on macOS.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"peak memory {peak / (2**30 if sys.platform == 'darwin' else 2**20):.2f} GiB"
        )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    if arguments.plot is not None:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main(parse())
