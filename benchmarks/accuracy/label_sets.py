"""Label sets: LSTMTextClassifier, and one classifier for each label.

    python benchmarks/accuracy/label_sets.py                   # part of the training texts held out
    python benchmarks/accuracy/label_sets.py --split test

The texts are on every machine: docstrings, and which of the 20 most common arguments the function
takes (``sklstm.datasets.load_arguments``). A fifth of them are test rows; ``--split validation``
does not read these, and holds out a fifth of the others.
"""

import numpy as np
from data_sets import SPLITS
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from systems import network_alone, ngrams_alone
from tables_of_tasks import Table, make_parser

from sklstm import LSTMTextClassifier
from sklstm.datasets import load_arguments

PATTERN = r"(?u)\b\w+\b|[!?]"


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--split", choices=SPLITS, default="validation")
    options = parser.parse_args()
    data = load_arguments()
    texts, Y = np.array(data.data, dtype=object), data.target
    train, held_out = split(np.arange(len(texts)))
    if options.split == "validation":
        train, held_out = split(train)
    if options.texts:
        train = train[: options.texts]
    table = Table(options, f"arguments, {options.split}", n_texts=len(train))

    def measure(p):
        p = np.clip(p, 1e-6, 1 - 1e-6)
        right = Y[held_out]
        return {
            "macro F1": float(f1_score(right, p > 0.5, average="macro", zero_division=0)),
            "log loss": float(-np.where(right, np.log(p), np.log1p(-p)).mean()),
            "exact": float(((p > 0.5) == right).all(axis=1).mean()),
        }

    def tfidf(seed):
        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=PATTERN
        )
        each = OneVsRestClassifier(LogisticRegression(C=10, max_iter=1000))
        return make_pipeline(vectorizer, each).fit(list(texts[train]), Y[train])

    def ours(seed, **settings):
        model = LSTMTextClassifier(random_state=seed, **settings)
        return model.fit(list(texts[train]), Y[train])

    def one_each(seed):
        model = OneVsRestClassifier(LSTMTextClassifier(random_state=seed))
        return model.fit(texts[train], Y[train])

    def predict(model):
        return model.predict_proba(list(texts[held_out]))

    table.add(
        "TF-IDF + LogisticRegression, one vs rest", tfidf, {"": predict}, measure, random=False
    )
    parts = {
        "": predict,
        "LSTM only": lambda model: predict(network_alone(model)),
        "n-grams only": lambda model: predict(ngrams_alone(model)),
    }
    table.add("LSTMTextClassifier", ours, parts, measure)
    table.add("OneVsRestClassifier of these", one_each, {"": predict}, measure)


def split(rows):
    """Return the rows to train on, and a fifth that is held out; the texts all differ."""
    train, held_out = next(KFold(5, shuffle=True, random_state=0).split(rows))
    return rows[train], rows[held_out]


if __name__ == "__main__":
    main()
