"""Whether n-grams gain from document frequencies of texts without labels.

    python benchmarks/accuracy/shared_idf.py mr imdb trec ag_news --texts 100 500 2000

TF-IDF of words and pairs with logistic regression, whose IDF is that of the few texts with labels,
or that of 8,000 texts of the file whose labels are not used; the n-grams are the same. Held-out
rows of train.csv, means over the seeds, for several penalties.
"""

import argparse

import numpy as np
from data_sets import find_data, load_data_set
from scores import score
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tables import join

N_UNLABELLED, N_HELD_OUT = 8_000, 1_500
PENALTIES = (1.0, 10.0, 100.0)
SETTINGS = {
    "ngram_range": (1, 2),
    "sublinear_tf": True,
    "token_pattern": r"(?u)\b\w+\b|[!?]",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="*", help="folders of the data; all if none is named")
    parser.add_argument("--texts", type=int, nargs="+", default=[100, 500, 2000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    columns = [f"{idf} IDF, C={penalty:g}" for penalty in PENALTIES for idf in ("own", "shared")]
    print(join(["data", "texts", *columns]), join(["---"] * (2 + len(columns))), sep="\n")
    for name in find_data(options.data):
        whole = load_data_set(name, "validation").hold_out(N_HELD_OUT)
        unlabelled = whole.texts[:N_UNLABELLED]
        for n_texts in options.texts:
            draws = [whole.draw(n_texts, seed) for seed in options.seeds]
            scores = np.mean([compare(data, unlabelled) for data in draws], axis=0)
            cells = [f"{100 * accuracy:.1f} ({loss:.3f})" for accuracy, loss in scores]
            print(join([name, f"{n_texts:,}", *cells]), flush=True)


def compare(data, unlabelled):
    """Return accuracy and log loss for each penalty, with the IDF of either kind."""
    own = TfidfVectorizer(**SETTINGS).fit(data.texts)
    shared = TfidfVectorizer(**SETTINGS, vocabulary=own.vocabulary_).fit(unlabelled)
    return [measure(v, penalty, data) for penalty in PENALTIES for v in (own, shared)]


def measure(vectorizer, penalty, data):
    model = LogisticRegression(C=penalty, max_iter=1000)
    model.fit(vectorizer.transform(data.texts), data.labels)
    probabilities = model.predict_proba(vectorizer.transform(data.held_out_texts))
    columns = np.full((len(probabilities), len(data.classes)), 1e-9)  # classes that were not drawn
    columns[:, np.searchsorted(data.classes, model.classes_)] = probabilities
    columns /= columns.sum(axis=1, keepdims=True)
    row = score(np.searchsorted(data.classes, data.held_out_labels), columns, seen=data.seen)
    return row["accuracy"], row["log_loss"]


if __name__ == "__main__":
    main()
