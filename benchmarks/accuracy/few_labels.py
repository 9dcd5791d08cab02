"""Few labelled texts: log loss and accuracy of the classifier and of the best baseline.

The texts are drawn anew for each seed, and a larger draw contains the smaller ones. "Best" is the
baseline with the lowest mean log loss over the draws, chosen for each number of texts after the
fact, which favours it. Runs are kept and not repeated. A class of which no text was drawn has a
probability of 0 in all systems, so its held-out texts are left out.

    python benchmarks/accuracy/few_labels.py trec mr banking77 --sizes 50 100 200 500
"""

import sys
from dataclasses import replace

import numpy as np
from accuracy import attempt, make_parser
from baselines import BASELINES
from data_sets import find_data, load_data_set
from runs import Results
from systems import System
from tables import join

N_HELD_OUT = 2000
#: The system that is compared with the baselines.
OURS = "lstm"


def main():
    options = parse()
    failures, rows = 0, []
    with Results(options.results) as results:
        for name in find_data(options.data):
            whole = load_data_set(name, options.split).hold_out(N_HELD_OUT)
            whole = replace(whole, part=f"few-{options.split}")
            for size in options.sizes:
                records, failed = run(results, whole, size, options)
                failures += failed
                if not failed:
                    rows.append(compare(name, size, records))
    titles = ["texts", "best baseline", "its log loss", "ours", "draws below", "accuracy", "ours"]
    print("\n" + "\n".join([join(titles), join(["---"] * len(titles)), *map(join, rows)]))
    if failures:
        sys.exit(f"{failures} runs failed; see above.")


def parse():
    parser = make_parser(__doc__, ["mnb", "mnb2", "nbsvm", "tfidf", OURS])
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--draws", type=int, default=5)
    return parser.parse_args()


def run(results, whole, size, options):
    """Return {spec: records of all draws}, and how many runs failed."""
    found = {spec: [] for spec in options.systems}
    for seed in range(options.draws):
        drawn = leave_out_absent(whole.draw(size, seed))
        for spec in options.systems:
            found[spec].append(attempt(results, System(spec), drawn, seed, options))
    failures = sum(record == "failed" for records in found.values() for record in records)
    return found, failures


def leave_out_absent(data):
    """Return the data without the held-out texts of classes that are not in the draw."""
    rows = np.flatnonzero(np.isin(data.held_out_labels, data.labels))
    texts = [data.held_out_texts[row] for row in rows]
    return replace(data, held_out_texts=texts, held_out_labels=data.held_out_labels[rows])


def compare(name, size, records):
    """Return a row of the table."""
    means = {spec: mean(records[spec], "log_loss") for spec in records if spec in BASELINES}
    best = min(means, key=means.get)
    pairs = zip(records[OURS], records[best], strict=True)
    below = sum(own["log_loss"] < other["log_loss"] for own, other in pairs)
    return [
        f"{name}, {size}",
        BASELINES[best],
        f"{means[best]:.3f}",
        f"{mean(records[OURS], 'log_loss'):.3f}",
        f"{below} of {len(records[OURS])}",
        f"{max(100 * mean(records[spec], 'accuracy') for spec in means):.1f}",
        f"{100 * mean(records[OURS], 'accuracy'):.1f}",
    ]


def mean(records, measure):
    return np.mean([record[measure] for record in records])


if __name__ == "__main__":
    main()
