"""Eighty mistakes that users make: what each is answered, and whether that helps.

Cause and cure of each were written down before its answer was seen. An answer is good if it names
the cause, names the cure, and is one line of at most 320 characters.

python benchmarks/hostile/mistakes.py [--only TEXT] --json benchmarks/results/mistakes.json
"""

import argparse
import re
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from skorch.callbacks import EarlyStopping
from tables import write

import sklstm
from sklstm import LSTMLanguageModel, LSTMTextClassifier, LSTMTextRegressor, SequenceVectorizer
from sklstm.lstm import LSTM

TEXTS = [f"{'good' if k % 2 else 'bad'} film number {k} of many" for k in range(40)]
LABELS = ["pos" if k % 2 else "neg" for k in range(40)]
FOLDER = Path(tempfile.mkdtemp())
TINY = {"blend": None, "embedding_dim": 8, "hidden_size": 8, "max_epochs": 1, "random_state": 0}
LONGEST = 320


class Mistake(NamedTuple):
    """What is done, and the patterns that its answer has to hold."""

    name: str
    call: object
    cause: str
    cure: str


def tiny(**parameters):
    return LSTMTextClassifier(**TINY | parameters)


def fit(**parameters):
    return tiny(**parameters).fit(TEXTS, LABELS)


@cache
def fitted():
    return fit()


@cache
def language_model():
    return LSTMLanguageModel(embedding_dim=8, hidden_size=8, max_epochs=1).fit(TEXTS)


def vectorize(**parameters):
    return SequenceVectorizer(**parameters).fit(TEXTS)


def saved(estimator):
    path = FOLDER / "model.safetensors"
    estimator.save(path)
    return path


def pickled(estimator):
    path = FOLDER / "model.joblib"
    joblib.dump(estimator, path)
    return path


def cut(text):
    return text.split()


MISTAKES = [
    # names of parameters
    Mistake("units, as in Keras", lambda: LSTMTextClassifier(units=64), "units", "hidden_size"),
    Mistake("epochs", lambda: LSTMTextClassifier(epochs=5), r"\bepochs\b", "max_epochs"),
    Mistake(
        "learning_rate", lambda: LSTMTextClassifier(learning_rate=0.01), "learning_rate", r"\blr\b"
    ),
    Mistake(
        "max_features of the vectorizer",
        lambda: LSTMTextClassifier(max_features=5_000),
        "max_features",
        r"vectorizer__max_features|SequenceVectorizer\(max_features",
    ),
    Mistake(
        "parameter by place", lambda: LSTMTextClassifier(128), "positional", r"by name|hidden_size"
    ),
    Mistake(
        "misspelt in set_params",
        lambda: tiny().set_params(hiddensize=3),
        "hiddensize",
        r"mean '?hidden_size",
    ),
    Mistake(
        "misspelt nested parameter",
        lambda: tiny().set_params(vectorizer__maxlength=3),
        "maxlength",
        "max_length",
    ),
    Mistake(
        "misspelt in a grid",
        lambda: GridSearchCV(tiny(), {"dropuot": [0.1]}, cv=2).fit(TEXTS, LABELS),
        "dropuot",
        r"mean '?dropout",
    ),
    # values of parameters
    Mistake("hidden_size as a list", lambda: fit(hidden_size=[64, 64]), "hidden_size", r"\bint\b"),
    Mistake(
        "hidden_size as str", lambda: fit(hidden_size="128"), r"hidden_size.*'128'", r"\bint\b"
    ),
    Mistake(
        "dropout in per cent", lambda: fit(dropout=50), r"dropout.*50", r"\[0(\.0)?, 1(\.0)?\)"
    ),
    Mistake("max_epochs=0", lambda: fit(max_epochs=0), "max_epochs", r"\[1, inf\)|at least 1"),
    Mistake("lr as str", lambda: fit(lr="0.001"), r"lr.*'0.001'", "float"),
    Mistake("pool of another name", lambda: fit(pooling=("max", "avg")), "'avg'", "'mean'"),
    Mistake(
        "cell='gru'", lambda: fit(cell="gru"), "'gru'", "'lstm'.*'peephole'|'peephole'.*'lstm'"
    ),
    Mistake("cell in capitals", lambda: fit(cell="LSTM"), "'LSTM'", r"mean '?lstm"),
    Mistake(
        "bidirectional='yes'", lambda: fit(bidirectional="yes"), "bidirectional.*'yes'", "bool"
    ),
    Mistake("device='mps'", lambda: fit(device="mps"), "mps", r"'auto'|'cpu'"),
    Mistake("former name of a backend", lambda: fit(backend="native"), "'native'", "'compiled'"),
    Mistake("scoring='acc'", lambda: fit(scoring="acc"), "'acc'", r"mean '?accuracy"),
    Mistake(
        "scoring='mse'",
        lambda: LSTMTextRegressor(**TINY, scoring="mse").fit(TEXTS, range(40)),
        "'mse'",
        "neg_mean_squared_error",
    ),
    Mistake("metric in place of a scorer", lambda: fit(scoring=f1_score), "scoring", "make_scorer"),
    Mistake(
        "scorer of two classes",
        lambda: tiny(scoring="precision").fit(TEXTS[:39], list("abc") * 13),
        "precision|multiclass",
        "precision_macro|_macro",
    ),
    Mistake("class_weight='auto'", lambda: fit(class_weight="auto"), "'auto'", "'balanced'"),
    Mistake(
        "class_weight as a list",
        lambda: fit(class_weight=[1, 2]),
        r"class_weight.*\[1, 2\]",
        "dict",
    ),
    Mistake(
        "early_stopping=5", lambda: fit(early_stopping=5), "early_stopping", "n_iter_no_change|bool"
    ),
    Mistake("attention=True", lambda: fit(attention=True), "attention", "'dot'"),
    Mistake(
        "read_by='sentences'", lambda: fit(read_by="sentences"), "'sentences'", r"mean '?sentence\b"
    ),
    Mistake("precision='fp16'", lambda: fit(precision="fp16"), "'fp16'", "bfloat16"),
    Mistake("callback without a list", lambda: fit(callbacks=EarlyStopping()), "callbacks", "list"),
    # parts
    Mistake(
        "CountVectorizer as vectorizer",
        lambda: fit(vectorizer=CountVectorizer()),
        "CountVectorizer",
        "SequenceVectorizer",
    ),
    Mistake(
        "class as vectorizer",
        lambda: fit(vectorizer=SequenceVectorizer),
        "class",
        r"SequenceVectorizer\(\)",
    ),
    Mistake(
        "dict as vectorizer",
        lambda: fit(vectorizer={"max_length": 9}),
        "dict|max_length",
        r"SequenceVectorizer",
    ),
    Mistake("blend='ngram'", lambda: fit(blend="ngram"), "'ngram'", "'ngrams'"),
    Mistake(
        "blend without probabilities",
        lambda: fit(blend=make_pipeline(TfidfVectorizer(), LinearSVC())),
        "predict_proba|probabilities",
        "CalibratedClassifierCV|LogisticRegression",
    ),
    Mistake("class as blend", lambda: fit(blend=MultinomialNB), "class|type", r"MultinomialNB\(\)"),
    Mistake(
        "embeddings that are not there",
        lambda: fit(embeddings="glove.txt"),
        "glove.txt",
        "embeddings",
    ),
    Mistake(
        "matrix as embeddings",
        lambda: fit(embeddings=np.zeros((9, 8))),
        "embeddings.*ndarray",
        "mapping|file",
    ),
    Mistake(
        "embedding_dim of another width",
        lambda: fit(embeddings={"good": [0.0] * 5}, embedding_dim=8),
        r"embedding_dim.*8|8.*embedding_dim",
        r"'auto'|5",
    ),
    Mistake("stop_words='french'", lambda: vectorize(stop_words="french"), "'french'", "list"),
    Mistake("analyzer='char_wb'", lambda: vectorize(analyzer="char_wb"), "'char_wb'", "'char'"),
    Mistake("min_df too high", lambda: vectorize(min_df=100), "min_df", "Lower"),
    # texts and labels
    Mistake("fit without labels", lambda: tiny().fit(TEXTS), r"'y'|\by\b", "label"),
    Mistake(
        "path of a file",
        lambda: tiny().fit(Path("data.csv"), LABELS),
        "Path",
        "list of str|[Rr]ead",
    ),
    Mistake(
        "pairs of text and label",
        lambda: tiny().fit(list(zip(TEXTS, LABELS, strict=True)), LABELS),
        r"X\[0\].*tuple",
        "str|text",
    ),
    Mistake(
        "paths as texts",
        lambda: tiny().fit([Path("a.txt")] * 40, LABELS),
        r"X\[0\].*Path",
        "read_text",
    ),
    Mistake(
        "a label too few",
        lambda: tiny().fit(TEXTS, LABELS[1:]),
        "40 texts.*39 labels",
        "same length",
    ),
    Mistake(
        "frame of strings as y",
        lambda: tiny().fit(TEXTS, pd.DataFrame({"a": LABELS, "b": LABELS})),
        "y must",
        r"column|MultiLabelBinarizer",
    ),
    Mistake(
        "lists of labels",
        lambda: tiny().fit(TEXTS, [["a", "b"], ["a"]] * 20),
        "several|lists",
        "MultiLabelBinarizer",
    ),
    Mistake("labels of two types", lambda: tiny().fit(TEXTS, [1, "1"] * 20), "y must.*type", "str"),
    Mistake(
        "sample_weight='balanced'",
        lambda: tiny().fit(TEXTS, LABELS, sample_weight="balanced"),
        "'balanced'",
        "class_weight",
    ),
    Mistake(
        "share as validation texts",
        lambda: tiny().fit(TEXTS, LABELS, X_val=0.2, y_val=None),
        "X_val",
        "y_val|validation_fraction",
    ),
    Mistake(
        "words as numbers",
        lambda: LSTMTextRegressor(**TINY).fit(TEXTS, ["5 stars"] * 40),
        "5 stars",
        "numbers",
    ),
    # calls of what is fitted
    Mistake(
        "partial_fit without classes",
        lambda: tiny().partial_fit(TEXTS, LABELS),
        "classes",
        "first call",
    ),
    Mistake(
        "label that is not in classes",
        lambda: tiny().partial_fit(TEXTS, LABELS, classes=["neg", "ok"]),
        "'pos'",
        r"classes",
    ),
    Mistake(
        "prompt by place",
        lambda: language_model().generate("good film"),
        "n_texts.*'good film'",
        "prompt",
    ),
    Mistake(
        "pickle given to load",
        lambda: sklstm.load(pickled(fitted())),
        "model.joblib.*save",
        r"joblib\.load",
    ),
    Mistake(
        "folder that is not there",
        lambda: fitted().save(FOLDER / "none" / "model.safetensors"),
        r"none",
        "folder|directory",
    ),
    Mistake(
        "save with a function",
        lambda: (
            tiny(vectorizer=SequenceVectorizer(tokenizer=cut))
            .fit(TEXTS, LABELS)
            .save(FOLDER / "cut.safetensors")
        ),
        "tokenizer",
        "joblib",
    ),
    Mistake(
        "layer with proj_size", lambda: LSTM(5, 7, proj_size=3), "proj_size", r"nn\.LSTM|Linear"
    ),
]

#: Written down when the answers to the first sixty had been improved, to see whether others are.
FRESH = [
    Mistake(
        "class_weight of a regressor",
        lambda: LSTMTextRegressor(class_weight="balanced"),
        "class_weight",
        "sample_weight|LSTMTextClassifier",
    ),
    Mistake(
        "pools of a language model", lambda: LSTMLanguageModel(pooling="max"), "pooling", "Classif"
    ),
    Mistake(
        "n-grams of the vectorizer",
        lambda: SequenceVectorizer(ngram_range=(1, 2)),
        "ngram_range",
        "blend|CountVectorizer",
    ),
    Mistake("maxlen, as in Keras", lambda: SequenceVectorizer(maxlen=50), "maxlen", "max_length"),
    Mistake("max_length as str", lambda: vectorize(max_length="256"), "max_length.*'256'", "int"),
    Mistake(
        "vectors as str", lambda: fit(embeddings={"good": "0.1 0.2"}), "'good'", "numbers|sequence"
    ),
    Mistake("warm_start='true'", lambda: fit(warm_start="true"), "warm_start.*'true'", "bool"),
    Mistake("another schedule", lambda: fit(lr_schedule="step"), "'step'", "'cosine'.*'linear'"),
    Mistake("random_state='42'", lambda: fit(random_state="42"), "random_state.*'42'", "int"),
    Mistake(
        "matrix to predict", lambda: fitted().predict(np.zeros((3, 5))), "numeric", "raw texts"
    ),
    Mistake("labels as a dict", lambda: tiny().fit(TEXTS, {"a": 1}), "dict", "list"),
    Mistake(
        "labels too few to score",
        lambda: fitted().score(TEXTS, LABELS[1:]),
        "39.*40|40.*39",
        "same length|inconsistent",
    ),
    Mistake(
        "another size to resume",
        lambda: fit().set_params(hidden_size=9).partial_fit(TEXTS, LABELS),
        "hidden_size.*8.*9",
        "warm_start=False",
    ),
    Mistake(
        "file of another estimator",
        lambda: LSTMTextClassifier.load(saved(language_model())),
        "LSTMLanguageModel",
        r"\.load",
    ),
    Mistake(
        "parameter of no member",
        lambda: tiny().set_params(blend__C=1.0),
        "blend__C",
        "estimator",
    ),
    Mistake(
        "callback by name", lambda: fit(callbacks=["EarlyStopping"]), r"callbacks\[0\]", "of skorch"
    ),
    Mistake("verbose='yes'", lambda: fit(verbose="yes"), "verbose.*'yes'", "int"),
    Mistake(
        "temperature as str",
        lambda: language_model().generate(temperature="hot"),
        "temperature.*'hot'",
        "number",
    ),
    Mistake("transform before fit", lambda: tiny().transform(TEXTS), "not fitted", "fit"),
    Mistake(
        "perplexity of a str",
        lambda: language_model().perplexity("a text"),
        "single str",
        r"\[text\]",
    ),
]


def answer(call) -> str:
    """Return the error or, without one, the warnings of a call."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        try:
            call()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return " ".join(f"{type(w.message).__name__}: {w.message}" for w in given)


def rate(mistake: Mistake, text: str) -> dict[str, bool]:
    """Return what an answer does for the user."""
    return {
        "cause": bool(re.search(mistake.cause, text)),
        "cure": bool(re.search(mistake.cure, text)),
        "one line": 0 < len(text) <= LONGEST and "\n" not in text,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="mistakes whose name holds this")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results, chosen = {}, [m for m in (*MISTAKES, *FRESH) if options.only in m.name]
    for mistake in chosen:
        text = answer(mistake.call)
        rating = rate(mistake, text)
        results[mistake.name] = rating | {"answer": text}
        lacks = ", ".join(name for name, is_there in rating.items() if not is_there)
        print(
            f"{mistake.name}: {'lacks ' + lacks if lacks else 'good'}\n    {text[:400]}", flush=True
        )
    for title, mistakes in (("of the first", MISTAKES), ("of those written later", FRESH)):
        rated = [results[mistake.name] for mistake in mistakes if mistake in chosen]
        good = sum(all(map(rating.get, ("cause", "cure", "one line"))) for rating in rated)
        print(f"{title}: {good} of {len(rated)} good")
    write(options.json, results)


if __name__ == "__main__":
    main()
