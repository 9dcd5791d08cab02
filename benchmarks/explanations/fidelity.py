"""Do explanations find the words that a prediction depends on? ``explain`` against LIME.

From each text the five words with the largest attributions for the predicted class are deleted. The
more the probability of that class falls, the better they were chosen. LIME (Ribeiro et al. 2016)
fits a linear model to 5,000 predictions for a text with words deleted at random. Both are asked
twice: for five places of the text, and for five words, each deleted wherever it occurs (LIME's
default; of ``explain``, the sum over the places). Five random places are the control.

    python benchmarks/explanations/fidelity.py --train train.csv.xz --test test.csv.xz

The classifier has the default parameters. Without ``--test`` the texts to explain are held out
of the training texts. Needs ``pip install lime``.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from lime.lime_text import LimeTextExplainer

from sklstm import LSTMTextClassifier

N_DELETED = 5
SAMPLES = 5000  # LIME's default


def main():
    options = parse()
    train, texts = read(options)
    clf = LSTMTextClassifier(random_state=options.seed).fit(train.text.tolist(), train.label)
    before = clf.predict_proba(texts)
    columns = before.argmax(axis=1)
    ways = {
        "explain, words": lambda: delete_words_by_explain(clf, texts),
        "explain, places": lambda: delete_by_explain(clf, texts),
        "random, places": lambda: delete_at_random(clf, texts, options.seed),
        "LIME, words": lambda: delete_by_lime(clf, texts, columns, options, bow=True),
        "LIME, places": lambda: delete_by_lime(clf, texts, columns, options, bow=False),
    }
    falls, results = {}, {"n_texts": len(texts), "rows": {}}
    rows = np.arange(len(texts))
    for name, way in ways.items():
        if options.only not in name:
            continue
        begin = time.perf_counter()
        shorter = way()
        seconds = (time.perf_counter() - begin) / len(texts)
        after = clf.predict_proba(shorter)
        falls[name] = before[rows, columns] - after[rows, columns]
        turned = np.mean(after.argmax(axis=1) != columns)
        ours = "explain, words" if "words" in name else "explain, places"
        low, high = bootstrap(falls.get(ours, falls[name]) - falls[name])
        results["rows"][name] = {
            "fall": float(falls[name].mean()),
            "turned": float(turned),
            "seconds": seconds,
            "explain_is_better_by": [low, high],
        }
        print(
            f"{name:16} the probability falls by {falls[name].mean():.3f}, {turned:.0%} of the "
            f"predictions turn; {seconds:.4f} s a text; explain's fall is larger by "
            f"{low:+.3f} to {high:+.3f} (95 %)",
            flush=True,
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--only", default="", help="a part of the names of the rows to measure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def read(options):
    """Return the rows to train on, and the texts to explain."""
    train = pd.read_csv(options.train, keep_default_na=False)
    if options.test is not None:
        test = pd.read_csv(options.test, keep_default_na=False)
        return train, test.text.sample(options.texts, random_state=0).tolist()
    held_out = train.sample(options.texts, random_state=0)
    return train[~train.text.isin(held_out.text)], held_out.text.tolist()


def delete_by_explain(clf, texts):
    """Delete the tokens with the largest attributions."""
    shorter = []
    for explanation in clf.explain(texts):
        best = np.argsort(-explanation.attributions)[:N_DELETED]
        shorter.append(delete(explanation.text, [explanation.spans[k] for k in best]))
    return shorter


def delete_words_by_explain(clf, texts):
    """Delete the words whose places have the largest sums of attributions, everywhere."""
    shorter = []
    for explanation in clf.explain(texts):
        sums = pd.Series(explanation.attributions).groupby(explanation.tokens).sum()
        best = set(sums.nlargest(N_DELETED).index)
        tokens = zip(explanation.tokens, explanation.spans, strict=True)
        shorter.append(delete(explanation.text, [span for token, span in tokens if token in best]))
    return shorter


def delete_by_lime(clf, texts, columns, options, *, bow):
    """Delete the words with the largest weights of LIME."""
    explainer = LimeTextExplainer(bow=bow, random_state=options.seed)
    shorter = []
    for text, column in zip(texts, columns, strict=True):
        # All words, so that the five largest are among them.
        found = explainer.explain_instance(
            text,
            clf.predict_proba,
            labels=(column,),
            num_features=len(text),
            num_samples=SAMPLES,
        )
        weights = sorted(found.as_map()[column], key=lambda pair: -pair[1])
        words = [word for word, _ in weights[:N_DELETED]]
        shorter.append(found.domain_mapper.indexed_string.inverse_removing(words))
    return shorter


def delete_at_random(clf, texts, seed):
    """Delete random tokens."""
    rng = np.random.default_rng(seed)
    shorter = []
    for text, spans in zip(texts, clf.vectorizer_.locate_tokens(texts), strict=True):
        chosen = rng.permutation(len(spans))[:N_DELETED]
        shorter.append(delete(text, [spans[k] for k in chosen]))
    return shorter


def delete(text, spans):
    """Return a text without these parts of it."""
    for begin, end in sorted(spans, reverse=True):
        text = text[:begin] + text[end:]
    return text


def bootstrap(differences):
    """Return the 95 % interval of the mean over texts."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(differences), (2000, len(differences)))
    return tuple(np.quantile(differences[draws].mean(axis=1), (0.025, 0.975)).tolist())


if __name__ == "__main__":
    main()
