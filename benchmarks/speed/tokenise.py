"""Time the vectorizer and other ways from texts to tokens, in one run.

    python benchmarks/speed/tokenise.py                          # docstrings
    python benchmarks/speed/tokenise.py --train train.csv.xz     # a file with a column text

The ratio is to the plain regular expression (above 1: faster). Ours returns arrays of ids, cut to
``max_length``; the others return lists of tokens. Each way's tokens are counted as it makes them,
ours before they are cut.
"""

import importlib.util
import re
from functools import partial

from measure import Table, add_train_option, alternate, make_parser, speedup, summarise, write
from sklearn.feature_extraction.text import CountVectorizer
from texts import read_table

from sklstm import SequenceVectorizer
from sklstm.text.tokenizers import TOKEN_PATTERN, replace_line_breaks

BASE = "regular expression"


def main():
    parser = make_parser(__doc__, repeats=5)
    add_train_option(parser)
    options = parser.parse_args()
    texts, _ = read_table(options.train)
    counts, calls = build_ways(texts)
    seconds = alternate(calls, options.repeats)
    columns = {"seconds": ".3f", "texts/s": ",.0f", "tokens/s": ",.0f", "ratio": ".2f"}
    table = Table(f"{len(texts):,} texts", columns | {"spread": ".0%"})
    rows = []
    for name, of_way in seconds.items():
        row = {"name": name, **summarise(of_way), "speedup": speedup(of_way, seconds[BASE])}
        row["texts_per_s"] = len(texts) / row["seconds"]
        row["tokens_per_s"] = counts[name] / row["seconds"]
        cells = ("seconds", "texts_per_s", "tokens_per_s", "speedup", "spread")
        table.add(name, *(row[cell] for cell in cells))
        rows.append(row)
    write(options.json, {"texts": len(texts), "rows": rows})


def build_ways(texts):
    """Return the number of tokens that each way finds, and what is to be timed."""
    find = re.compile(TOKEN_PATTERN).findall
    tokenizers = {
        BASE: lambda text: find(replace_line_breaks(text).lower()),
        "CountVectorizer's analyzer": CountVectorizer().build_analyzer(),
    }
    if importlib.util.find_spec("tokenizers"):
        tokenizers["tokenizers, Whitespace"] = whitespace_of_tokenizers()
    else:
        print("tokenizers is not installed and not measured. Run: pip install tokenizers")
    counts = {name: count_tokens(tokenize, texts) for name, tokenize in tokenizers.items()}
    calls = {name: partial(count_tokens, tokenize, texts) for name, tokenize in tokenizers.items()}
    fitted = SequenceVectorizer().fit(texts)
    ours = {"sklstm, fit": SequenceVectorizer().fit_ragged}
    ours["sklstm, transform"] = fitted.transform_ragged
    for name, way in ours.items():
        counts[name], calls[name] = counts[BASE], partial(way, texts)
    return counts, calls


def count_tokens(tokenize, texts):
    return sum(len(tokenize(text)) for text in texts)


def whitespace_of_tokenizers():
    """Return the fastest comparable function of the tokenizers package."""
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace

    normalizer, splitter = Lowercase(), Whitespace()
    return lambda text: splitter.pre_tokenize_str(normalizer.normalize_str(text))


if __name__ == "__main__":
    main()
