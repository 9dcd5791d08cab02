"""Few or skewed labelled texts: log loss and accuracy of classifiers and of the best baseline.

The texts are drawn anew for each seed, and a larger draw contains the smaller ones. "Best" is the
baseline with the lowest mean log loss over the draws, chosen for each number of texts after the
fact, which favours it. Runs are kept and not repeated. A class of which no text was drawn has a
probability of 0 in all systems, so its held-out texts are left out.

    python benchmarks/accuracy/few_labels.py trec mr banking77 --sizes 50 100 200 500
    python benchmarks/accuracy/few_labels.py banking77 --per-class 10
    python benchmarks/accuracy/few_labels.py imdb --rare 50   # one text of a class to 50 others

With ``--rare`` the held-out texts are cut to the same shares, and the table has the average
precision of the rare class, the last in the alphabet, in place of the accuracy.
"""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
from accuracy import attempt, make_parser
from baselines import BASELINES
from data_sets import find_data, load_data_set
from runs import Results
from systems import System
from tables import join

N_HELD_OUT = 2000


def main():
    options = parse()
    failures, rows = 0, []
    with Results(options.results) as results:
        for name in find_data(options.data):
            whole = load_data_set(name, options.split)
            if not options.rare:
                whole = whole.hold_out(N_HELD_OUT)
            whole = replace(whole, part=f"few-{options.split}")
            for title, draw in list_draws(options):
                records, failed = run(results, whole, draw, options)
                failures += failed
                if not failed:
                    rows += compare(f"{name}, {title}", records, options)
    measure = "average precision" if options.rare else "accuracy"
    titles = ["texts", "best baseline", "its log loss", "system", "log loss", "draws below"]
    titles += [f"best {measure} of a baseline", f"{measure} of the system"]
    print("\n" + "\n".join([join(titles), join(["---"] * len(titles)), *map(join, rows)]))
    if failures:
        sys.exit(f"{failures} runs failed; see above.")


def parse():
    parser = make_parser(__doc__, ["mnb", "mnb2", "nbsvm", "tfidf", "lstm"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--per-class", type=int, help="so many texts of each class instead")
    parser.add_argument("--rare", type=int, help="so many other texts to one of the last class")
    parser.add_argument("--draws", type=int, default=5)
    return parser.parse_args()


def list_draws(options):
    """Return titles, and functions from a data set and a seed to a part of the data set."""
    if options.per_class:
        return [(f"{options.per_class} a class", partial(draw_of_each, n=options.per_class))]
    if options.rare:
        return [(f"1 to {options.rare}", partial(make_rare, n=options.rare))]
    return [(str(size), partial(draw_any, n=size)) for size in options.sizes]


def draw_any(data, seed, *, n):
    """Return a draw of n texts to train on."""
    return leave_out_absent(data.draw(n, seed))


def draw_of_each(data, seed, *, n):
    """Return a draw of n texts of each class to train on."""
    order = np.random.default_rng(seed).permutation(len(data.texts))
    labels = data.labels[order]
    rows = np.sort(np.concatenate([order[labels == label][:n] for label in data.classes]))
    return replace(data, texts=[data.texts[row] for row in rows], labels=data.labels[rows])


def make_rare(data, seed, *, n):
    """Return the data with one text of the last class to n others, on both sides."""
    rng = np.random.default_rng(seed)

    def cut(texts, labels):
        is_rare = labels == data.classes[-1]
        rare = rng.permutation(np.flatnonzero(is_rare))[: np.sum(~is_rare) // n]
        rows = np.sort(np.concatenate([np.flatnonzero(~is_rare), rare]))
        return [texts[row] for row in rows], labels[rows]

    texts, labels = cut(data.texts, data.labels)
    held_out_texts, held_out_labels = cut(data.held_out_texts, data.held_out_labels)
    known = {"held_out_texts": held_out_texts, "held_out_labels": held_out_labels}
    return replace(data, texts=texts, labels=labels, **known)


def run(results, whole, draw, options):
    """Return {spec: records of all draws}, and how many runs failed."""
    found = {spec: [] for spec in options.systems}
    for seed in range(options.draws):
        drawn = draw(whole, seed)
        for spec in options.systems:
            found[spec].append(attempt(results, System(spec), drawn, seed, options))
    failures = sum(record == "failed" for records in found.values() for record in records)
    return found, failures


def leave_out_absent(data):
    """Return the data without the held-out texts of classes that are not in the draw."""
    rows = np.flatnonzero(np.isin(data.held_out_labels, data.labels))
    texts = [data.held_out_texts[row] for row in rows]
    return replace(data, held_out_texts=texts, held_out_labels=data.held_out_labels[rows])


def compare(title, records, options):
    """Return rows of the table, one for each system that is no baseline."""
    measure = "rarest_precision" if options.rare else "accuracy"
    baselines = [spec for spec in records if spec in BASELINES]
    losses = {spec: mean(records[spec], "log_loss") for spec in records}
    values = {spec: 100 * mean(records[spec], measure) for spec in records}
    best = min(baselines, key=losses.get)
    rows = []
    for spec in [spec for spec in records if spec not in BASELINES]:
        pairs = zip(records[spec], records[best], strict=True)
        below = sum(own["log_loss"] < other["log_loss"] for own, other in pairs)
        cells = [title, BASELINES[best], f"{losses[best]:.3f}", System(spec).title]
        cells += [f"{losses[spec]:.3f}", f"{below} of {len(records[spec])}"]
        rows.append([*cells, f"{max(values[k] for k in baselines):.1f}", f"{values[spec]:.1f}"])
    return rows


def mean(records, measure):
    return np.mean([record[measure] for record in records])


if __name__ == "__main__":
    main()
