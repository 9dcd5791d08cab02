"""Hostile texts through every analyzer and every estimator: a right result, or one clear error.

Texts come in batches. Each batch goes through every analyzer, each with some of the ways to
preprocess by turns, through the n-grams, and through estimators that were fitted on ordinary texts;
some batches are also what estimators are fitted on.
Some lists hold something that is no text: the error must name its position.

    python benchmarks/hostile/read.py --json benchmarks/results/hostile_read.json
"""

import argparse
import faulthandler
import itertools
import linecache
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from tables import describe_machine, print_table, write
from texts import ORDINARY, draw

from sklstm import LSTMLanguageModel, LSTMTextClassifier, LSTMTextRegressor, SequenceVectorizer
from sklstm.ngrams.vectorizer import NgramVectorizer
from sklstm.text.tokenizers import FORMER_PATTERN

#: After this many seconds a batch is hung: the traceback shows where, and the run ends.
PATIENCE = 600
CLOSE = {"rtol": 0, "atol": 1e-6}
COLUMNS = ("texts", "results", "clear errors", "wrong", "raw errors", "s")
SMALL = {"embedding_dim": 8, "hidden_size": 8, "max_epochs": 1, "random_state": 0}


def _cut(text):
    return text.split()


#: What a token is, in ways that are read by different code.
ANALYZERS = {
    "words": {},
    "the former pattern": {"token_pattern": FORMER_PATTERN},
    "scikit-learn's pattern": {"token_pattern": r"(?u)\b\w\w+\b"},
    "characters": {"analyzer": "char"},
    "a tokenizer": {"tokenizer": _cut},
    "an analyzer": {"analyzer": _cut},
    "stop words": {"stop_words": ["not", "a", "!"]},
}
#: What is done to a text before it is cut.
PREPROCESSING = [
    {"lowercase": lowercase, "strip_accents": strip, "normalize": form}
    for lowercase, strip, form in itertools.product(
        (True, False), (None, "ascii", "unicode"), ("NFC", "NFKC", None)
    )
]
#: Each batch is read with one of so many parts of these ways.
TURNS = 9
NO_TEXTS = (None, float("nan"), b"bytes", 3, ["a", "list"], np.float64(1))


def main():
    options = parse()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = describe_machine() | {"seed": options.seed, "texts": options.texts}
    campaign = Campaign(options.alone, options.only)
    rng = np.random.default_rng(options.seed)
    for number in range(-(-options.texts // options.batch)):
        texts = draw(rng, min(options.batch, options.texts - number * options.batch))
        campaign.read(texts, rng, number, fit=number % options.fit_every == 0)
        if number % 10 == 9:
            print(f"{campaign.n_texts:,} texts, {len(campaign.faults)} faults", flush=True)
            write(options.json, results | campaign.results())
    campaign.show()
    write(options.json, results | campaign.results())


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=1_000, help="texts in a batch")
    parser.add_argument("--alone", type=int, default=10, help="texts of a batch read alone as well")
    parser.add_argument("--fit-every", type=int, default=10, help="fit on each of so many batches")
    parser.add_argument("--only", default="", help="only readers whose name contains this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


class Wrong(Exception):
    """A result that is not what it must be."""


def require(condition, what: str) -> None:
    if not condition:
        raise Wrong(what)


class Campaign:
    """All readers, and what became of the texts."""

    def __init__(self, n_alone: int, only: str):
        self.n_alone, self.n_texts = n_alone, 0
        self.counts, self.seconds, self.faults = {}, Counter(), {}
        self.analyzers = [
            {name: reader for name, reader in make_analyzers(turn).items() if only in name}
            for turn in range(TURNS)
        ]
        self.readers = {name: r for name, r in make_readers().items() if only in name}
        self.fits = {name: fit for name, fit in FITS.items() if only in name}

    def read(self, texts, rng, number: int, *, fit: bool) -> None:
        self.n_texts += len(texts)
        alone = rng.choice(len(texts), size=min(self.n_alone, len(texts)), replace=False)
        bad, place = NO_TEXTS[rng.integers(len(NO_TEXTS))], int(rng.integers(len(texts)))
        mixed = [*texts[:place], bad, *texts[place:]]
        readers = self.analyzers[number % TURNS] | self.readers | (self.fits if fit else {})
        for name, reader in readers.items():
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            begin = time.perf_counter()
            self._count(name, reader, texts, alone)
            self._refuse(name, reader, mixed, place)
            self.seconds[name.partition(":")[0]] += time.perf_counter() - begin
        faulthandler.cancel_dump_traceback_later()

    def _count(self, name, reader, texts, alone) -> None:
        counts = self.counts.setdefault(name.partition(":")[0], Counter())
        counts["texts"] += len(texts)
        end, words = _try(reader, texts, alone)
        counts[end] += len(texts) if end in ("results", "clear errors") else 1
        if end in ("wrong", "raw errors") and (name, words) not in self.faults:
            shortest = _shrink(reader, texts, alone, end)
            self.faults[name, words] = shortest
            print(f"FAULT {name}: {words}\n  {shortest!a:.300}", flush=True)

    def _refuse(self, name, reader, texts, place) -> None:
        end, words = _try(reader, texts, [])
        if end != "clear errors" or f"X[{place}] must be a str" not in words:
            counts = self.counts[name.partition(":")[0]]
            counts["wrong"] += 1
            self.faults[name, words] = [texts[place]]
            print(f"FAULT {name}: takes {texts[place]!r}: {words}", flush=True)

    def results(self) -> dict:
        rows = {
            name: [counts[c] for c in COLUMNS[:-1]] + [round(self.seconds[name])]
            for name, counts in self.counts.items()
        }
        faults = [[name, words, ascii(texts)] for (name, words), texts in self.faults.items()]
        return {"read": self.n_texts, "columns": COLUMNS, "rows": rows, "faults": faults}

    def show(self) -> None:
        print_table(f"{self.n_texts:,} texts", COLUMNS, self.results()["rows"])
        print(f"{len(self.faults)} faults")


def _try(reader, texts, alone) -> tuple[str, str]:
    """Return how a reader took texts, and the words of an error."""
    try:
        reader(texts, alone)
    except Wrong as error:
        return "wrong", str(error)
    except (TypeError, ValueError) as error:
        return ("clear errors" if _is_ours(error) else "raw errors"), f"{error}"
    except Exception as error:
        return "raw errors", repr(error)
    return "results", ""


def _is_ours(error) -> bool:
    """Whether an error was raised on purpose: by a ``raise`` in sklstm, in one line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno).strip()
    words = str(error)
    return "/sklstm/" in frame.filename and line.startswith("raise") and "\n" not in words


def _shrink(reader, texts, alone, end):
    """Return few texts, of few characters, which end in the same way."""

    def fails(some):
        return bool(some) and _try(reader, some, range(min(len(some), 20)))[0] == end

    texts = _drop(texts, fails) if fails(texts) else [texts[k] for k in alone]
    for k in range(min(len(texts), 3)):
        texts[k] = "".join(
            _drop(list(texts[k]), lambda some: fails([*texts[:k], "".join(some), *texts[k + 1 :]]))  # noqa: B023
        )
    return texts


def _drop(items, fails) -> list:
    """Return what is left of items where all are dropped that the failure does not need."""
    size = len(items) // 2
    while size:
        begin = 0
        while begin < len(items):
            fewer = items[:begin] + items[begin + size :]
            if fails(fewer):
                items = fewer
            else:
                begin += size
        size //= 2
    return items


def make_analyzers(turn: int) -> dict:
    """Return functions of texts, and of which of them are also read alone, by their names."""
    readers = {}
    for name, cut in ANALYZERS.items():
        for k, preprocessing in enumerate(PREPROCESSING[turn::TURNS]):
            settings = cut | preprocessing
            readers[f"{name}: {settings}"] = vectorizer_reader(settings, 7 if k else None)
    return readers


def make_readers() -> dict:
    """Return the same of the n-grams and of fitted estimators."""
    readers = {f"n-grams: {n}": ngram_reader(SequenceVectorizer(**c)) for n, c in ANALYZERS.items()}
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(ORDINARY, 9)) for _ in range(200)]
    for name, (estimator, make_y, check) in ESTIMATORS.items():
        fitted = estimator().fit(texts, make_y(len(texts)))
        readers[name] = estimator_reader(fitted, check)
    return readers


def vectorizer_reader(settings, max_length):
    common = {"min_df": 1, "max_features": None, "max_length": max_length}

    def read(texts, alone):
        vectorizer = SequenceVectorizer(**settings, **common)
        learnt = vectorizer.fit_transform(texts)
        ids = vectorizer.transform(texts)
        require(ids.dtype == np.int32 and len(ids) == len(texts), "shape or dtype")
        require(np.array_equal(learnt, ids), "fit_transform and transform differ")
        tokens = vectorizer.tokenize(texts)
        flat = list(itertools.chain.from_iterable(tokens))
        require(all(type(token) is str and token for token in flat), "a token is empty or no str")
        for row, words in zip(ids.tolist(), tokens, strict=True):
            expected = [vectorizer.vocabulary_[word] for word in words] or [1]
            require(row[: len(expected)] == expected, "tokenize and transform differ")
            require(not any(row[len(expected) :]), "ids behind the end of a text")
        for k in alone:
            row = vectorizer.transform([texts[k]])[0]
            require(np.array_equal(row, ids[k, : len(row)]), "a text alone is read differently")
            require(not ids[k, len(row) :].any(), "a text alone is shorter")

    return read


def ngram_reader(vectorizer):
    def read(texts, alone):
        ngrams = NgramVectorizer(vectorizer)
        learnt, features = ngrams.fit_transform(texts), ngrams.transform(texts)
        require(features.shape[0] == len(texts), "shape")
        require(np.isfinite(features.data).all(), "a feature is not finite")
        require(abs(learnt - features).max() < 1e-9, "fit_transform and transform differ")
        for k in alone:
            difference = abs(ngrams.transform([texts[k]]) - features[[k]])
            require(difference.max() < 1e-9, "a text alone has other features")

    return read


def check_classes(classifier, texts):
    found = classifier.predict_proba(texts)
    require(found.shape == (len(texts), len(classifier.classes_)), "shape")
    require(np.isfinite(found).all() and (found >= 0).all(), "a probability is not finite")
    require(np.allclose(found.sum(axis=1), 1, **CLOSE), "probabilities do not add up to 1")
    labels = classifier.classes_[found.argmax(axis=1)]
    require((labels == classifier.predict(texts)).all(), "predict and predict_proba differ")
    return found


def check_sentences(classifier, texts):
    tokens = classifier.vectorizer_.tokenize(texts)
    for sentences, own in zip(classifier.predict_sentences(texts), tokens, strict=True):
        weights = [sentence.weight for sentence in sentences]
        # A softmax over up to 256 sentences in float32.
        require(abs(sum(weights) - 1) < 1e-5, "weights do not add up to 1")
        require(sum((s.tokens for s in sentences), []) == own, "sentences lose tokens")
    return check_classes(classifier, texts)


def check_label_sets(classifier, texts):
    found = classifier.predict_proba(texts)
    require(found.shape == (len(texts), len(classifier.classes_)), "shape")
    require(((found >= 0) & (found <= 1)).all(), "no probability")
    return found


def check_numbers(regressor, texts):
    found = regressor.predict(texts)
    require(found.shape == (len(texts),) and np.isfinite(found).all(), "shape, or not finite")
    return found


def check_language_model(model, texts):
    perplexity = model.perplexity(texts)
    require(isinstance(perplexity, float) and 1 <= perplexity < np.inf, "no perplexity")
    if len(texts) == 1:
        written = model.generate(1, prompt=texts[0], max_tokens=3, random_state=0)
        require(written[0].startswith(texts[0]), "the prompt is lost")
        return np.array([perplexity])
    return None  # that of a text is found alone only


def estimator_reader(fitted, check):
    def read(texts, alone):
        found = check(fitted, texts)
        for k in alone:
            one = check(fitted, [texts[k]])
            if found is not None:
                require(
                    np.allclose(one[0], found[k], **CLOSE), "a text alone is predicted otherwise"
                )

    return read


def fit_reader(name):
    estimator, make_y, check = ESTIMATORS[name]

    def read(texts, alone):
        fitted = estimator().fit(texts, make_y(len(texts)))
        estimator_reader(fitted, check)(texts, alone)

    return read


def _classes(n):
    return np.array(["pos", "neg", "so so"])[np.arange(n) % 3]


#: Name -> estimator, function from a number of texts to y, function that asks and checks.
ESTIMATORS = {
    "classifier": (lambda: LSTMTextClassifier(**SMALL), _classes, check_classes),
    "classifier, only the LSTM": (
        lambda: LSTMTextClassifier(**SMALL, blend=None), _classes, check_classes,
    ),
    "classifier by sentence": (
        lambda: LSTMTextClassifier(**SMALL, read_by="sentence"), _classes, check_sentences,
    ),
    "label sets": (
        lambda: LSTMTextClassifier(**SMALL),
        lambda n: np.stack([np.arange(n) % 2, np.arange(n) % 3 == 0], axis=1).astype(int),
        check_label_sets,
    ),
    "regressor": (lambda: LSTMTextRegressor(**SMALL), lambda n: np.arange(n) % 5, check_numbers),
    "language model": (
        lambda: LSTMLanguageModel(**SMALL, window=16), lambda n: None, check_language_model,
    ),
}  # fmt: skip
FITS = {f"fit, {name}": fit_reader(name) for name in ESTIMATORS}


if __name__ == "__main__":
    main()
