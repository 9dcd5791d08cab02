"""Write the files that ``tests/test_files.py`` loads, and what their estimators predicted.

Run once for each version of the format, by a sklstm of that version, from the repository's root:

    python tests/files/make.py 2
    python tests/files/make.py 2 label_sets    # this one only
    git worktree add /tmp/version-1 99b21f0
    PYTHONPATH=/tmp/version-1 python tests/files/make.py 1

Files of a version that was released must not be made anew: they stand for those of users.
"""

import json
import sys
from pathlib import Path

import pandas as pd
import torch

import sklstm
from sklstm import LSTMLanguageModel, LSTMTextClassifier, SequenceVectorizer

# Earlier versions, for which this script runs too, have none.
LSTMTextRegressor = getattr(sklstm, "LSTMTextRegressor", None)

FOLDER = Path(__file__).parent
TEXTS = [
    "a good film, truly good",
    "what a wonderful evening!",
    "naïve and wonderful",
    "房间很好",
    "not bad at all. Not at all!",
    "a bad film, truly bad",
    "what a dull evening?",
    "naïve and dull",
    "房间很差",
    "not good at all. Not at all!",
]
LABELS = [7] * 5 + [-3] * 5
SETS = pd.DataFrame({"good": [1, 1, 1, 1, 0] * 2, "naïve": [0, 0, 1, 0, 0] * 2})
ASKED = [*TEXTS, "", "unseen words", "a wonderful 房间"]

COMMON = {"embedding_dim": 6, "hidden_size": 4, "batch_size": 4, "random_state": 0}
NETWORK = COMMON | {"blend": None, "max_epochs": 5, "lr": 0.02, "dropout": 0.1}


def make_language_model(**settings):
    model = LSTMLanguageModel(**COMMON, max_epochs=3, window=16, **settings)
    return model.fit(TEXTS * 2)


def make_version_1():
    vectorizer = SequenceVectorizer(max_length=7)
    return {"language_model": make_language_model(vectorizer=vectorizer, backend="native")}


def make_estimators():
    names = ["neg" if label < 0 else "positive" for label in LABELS]
    sentences = NETWORK | {"read_by": "sentence", "pooling": ["mean", "attention"]}
    return {
        "classifier": LSTMTextClassifier(**NETWORK | {"blend": "ngrams"}).fit(TEXTS, LABELS),
        "network": LSTMTextClassifier(**sentences).partial_fit(TEXTS, names, sorted(set(names))),
        "language_model": make_language_model(),
        "label_sets": LSTMTextClassifier(**NETWORK | {"blend": "ngrams"}).fit(TEXTS, SETS),
        "regressor": LSTMTextRegressor(**NETWORK | {"blend": "ngrams"}).fit(TEXTS, LABELS),
    }


def describe(estimator):
    """Return what an estimator answers."""
    if isinstance(estimator, LSTMLanguageModel):
        return {
            "perplexity": estimator.perplexity(ASKED),
            "generate": estimator.generate(3, temperature=0, max_tokens=5, prompt="a"),
        }
    if not hasattr(estimator, "predict_proba"):
        return {
            "predict": estimator.predict(ASKED).tolist(),
            "transform": estimator.transform(ASKED).tolist(),
        }
    return {
        "classes": estimator.classes_.tolist(),
        "predict_proba": estimator.predict_proba(ASKED).tolist(),
        "transform": estimator.transform(ASKED).tolist(),
    }


def main(version, *names):
    torch.set_num_threads(1)
    made = make_version_1() if version == "1" else make_estimators()
    path = FOLDER / f"version_{version}.json"
    answers = json.loads(path.read_text(encoding="utf-8")) if names else {}
    for name in names or made:
        estimator = made[name]
        estimator.save(FOLDER / f"version_{version}_{name}.safetensors")
        answers[name] = {"kind": type(estimator).__name__} | describe(estimator)
    text = json.dumps(answers, indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
