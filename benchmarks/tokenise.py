"""Time the vectorizer beside other ways from texts to tokens, in one run.

    python benchmarks/tokenise.py                          # the docstrings of the standard library
    python benchmarks/tokenise.py --train train.csv.xz     # a file with a column text
    python benchmarks/tokenise.py --json results/tokenise.json

Every way is taken in turn with the others, ``--repeats`` times; printed are the median, texts and
tokens per second and the ratio to the plain regular expression (above 1: faster). Ours ends in
arrays of ids, cut to ``max_length``; the others end in lists of tokens, so their tokens are their
own and ours come before cutting.
"""

import argparse
import importlib.util
import json
import re
import statistics
import time
from pathlib import Path

from sklearn.feature_extraction.text import CountVectorizer

from sklstm import SequenceVectorizer
from sklstm.datasets import load_docstrings
from sklstm.text.tokenizers import TOKEN_PATTERN, replace_line_breaks

BASE = "regular expression"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", help="CSV file with a column text; default: docstrings")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    options = parser.parse_args()

    texts = load(options.train)
    ways = build_ways(texts)
    n_tokens = {name: count(texts) for name, (count, _) in ways.items()}
    seconds = measure({name: call for name, (_, call) in ways.items()}, texts, options.repeats)
    rows = report(seconds, n_tokens, len(texts))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"texts": len(texts), "rows": rows}, indent=1))


def load(path):
    """Return the texts."""
    if path is None:
        return load_docstrings().data
    import pandas as pd

    return pd.read_csv(path, keep_default_na=False)["text"].tolist()


def build_ways(texts):
    """Return, for each way by its name, what counts its tokens and what is timed."""
    find = re.compile(TOKEN_PATTERN).findall
    fitted = SequenceVectorizer().fit(texts)
    analyze = CountVectorizer().build_analyzer()

    def match(text):
        return find(replace_line_breaks(text).lower())

    def count_by(cut):
        return lambda texts: sum(len(cut(text)) for text in texts)

    def each(cut):
        return lambda texts: [len(cut(text)) for text in texts]

    ways = {
        BASE: (count_by(match), each(match)),
        "sklstm, fit": (count_by(match), SequenceVectorizer().fit_ragged),
        "sklstm, transform": (count_by(match), fitted.transform_ragged),
        "CountVectorizer's analyzer": (count_by(analyze), each(analyze)),
    }
    if importlib.util.find_spec("tokenizers") is None:
        print("tokenizers is not installed and not measured; pip install tokenizers")
        return ways
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace

    normalizer, splitter = Lowercase(), Whitespace()

    def split(text):
        return splitter.pre_tokenize_str(normalizer.normalize_str(text))

    return ways | {"tokenizers, Whitespace": (count_by(split), each(split))}


def measure(ways, texts, repeats):
    """Return the seconds of each way, the ways alternating."""
    seconds = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way(texts)
            if repeat > 0:  # the first call fills caches
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds, n_tokens, n_texts):
    """Print and return a row for each way."""
    print(f"{n_texts:,} texts")
    rows = []
    base = statistics.median(seconds[BASE])
    for name, times in seconds.items():
        median = statistics.median(times)
        row = {
            "name": name,
            "seconds": median,
            "spread": (max(times) - min(times)) / median,
            "texts_per_s": n_texts / median,
            "tokens_per_s": n_tokens[name] / median,
            "speedup": base / median,
        }
        print(
            f"{name:<28}{median:>8.3f} s{row['texts_per_s']:>12,.0f} texts/s"
            f"{row['tokens_per_s']:>14,.0f} tokens/s  x{row['speedup']:>6.2f}"
            f"  spread {row['spread']:.0%}"
        )
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
