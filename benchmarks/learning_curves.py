"""Accuracy and log loss against the number of texts to train on, beside the baselines.

A seed decides which texts are drawn (a larger draw holds the smaller ones) and the classifier's own
random numbers, so that baselines run with every seed too. Each run is kept, and not run again.

    python benchmarks/learning_curves.py imdb ag_news --split test --threads 2
    python benchmarks/learning_curves.py --split test --render
"""

import argparse
import itertools
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from accuracy import PAGE, add_machine_options, attempt
from runs import Results
from systems import BASELINES, System
from tables import fill, join
from tasks import SPLITS, find_data, load_task

SIZES = (500, 1000, 2000, 5000, 10_000, 25_000)
#: Texts to judge by: enough for a curve (a standard error of 0.4 points at 90 %).
N_JUDGED = 5000
#: Seeds for at most so many texts; the fewer texts, the more the draw matters.
SEEDS = {2000: 5, 10_000: 3, np.inf: 1}
#: What the axis says, and the factor of the unit.
MEASURES = {"accuracy": ("accuracy, %", 100), "log_loss": ("log loss", 1)}


def main():
    options = parse()
    part = f"curves-{options.split}"
    with Results(options.results) as results:
        if options.render:
            draw(results, part, options.render)
        else:
            run_data(results, part, options)


def run_data(results, part, options):
    """Run what is not there yet; end with an error if a run failed."""
    systems = [System(spec) for spec in options.systems]
    failures = 0
    for name in find_data(options.data):
        task = load_task(name, options.split).judge_by(N_JUDGED)
        failures += run_all(results, systems, replace(task, part=part), options)
    if failures:
        sys.exit(f"{failures} runs failed; see above.")


def run_all(results, systems, task, options):
    """Run what is not there yet, small sizes first; return how many runs failed."""
    failures = 0
    print(f"\n{task.data}, {len(task.judged_texts):,} to judge by")
    for size in choose_sizes(len(task.texts), options.sizes):
        for seed in range(min(count_seeds(size), options.seeds)):
            drawn = task.draw(size, seed)
            for system in systems:
                failures += attempt(results, system, drawn, seed, options) == "failed"
    return failures


def choose_sizes(n_texts, sizes):
    """Return the sizes that there are texts for, the last one being all of them."""
    return [size for size in sizes if size < 0.9 * n_texts] + [n_texts]


def count_seeds(size):
    return next(seeds for limit, seeds in SEEDS.items() if size <= limit)


def collect(results, part):
    """Return {data: {spec: {size: [records]}}}, of the newest configuration of each system."""
    found = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    newest = {}
    records = sorted(results.load(part), key=lambda record: record["finished"])
    for record in records:
        newest[record["data"], record["spec"]] = record["configuration"]
    for record in records:
        if record["configuration"] == newest[record["data"], record["spec"]]:
            found[record["data"]][record["spec"]][record["n_train"]].append(record)
    return found


def draw(results, part, page):
    """Write the plot beside the page, and the plot's place and numbers into it."""
    found = collect(results, part)
    if not found:
        raise SystemExit(f"{results.folder} must hold runs of {part}; got none.")
    path = page.parent / "images" / "learning_curves.svg"
    path.parent.mkdir(exist_ok=True)
    plot(found, path)
    lines = [
        "![Accuracy and log loss of all systems rise and fall with the number of texts]"
        f"(images/{path.name})"
    ]
    for data, by_spec in found.items():
        lines += ["", *table(data, by_spec)]
    fill(page, "curves", lines)


def table(data, by_spec):
    """Return mean accuracies by size, as lines."""
    sizes = sorted({size for by_size in by_spec.values() for size in by_size})
    titles = [f"{data}, accuracy", *(f"{size:,}" for size in sizes)]
    lines = [join(titles), join(["---"] * len(titles))]
    for spec in ordered(by_spec):
        cells = [System(spec).title]
        for size in sizes:
            runs = by_spec[spec].get(size)
            cells.append(f"{100 * mean(runs, 'accuracy'):.1f}" if runs else "")
        lines.append(join(cells))
    return lines


def ordered(by_spec):
    return sorted(by_spec, key=lambda spec: System(spec).order)


def mean(runs, measure):
    return np.mean([run[measure] for run in runs])


def plot(found, path):
    """Save a panel for each data set and measure."""
    import matplotlib.pyplot as plt  # the extra [plot]

    # Letters as letters keep the file small; fixed names make equal plots equal files.
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "sklstm"}
    styles = choose_styles(ordered({spec for by_spec in found.values() for spec in by_spec}))
    figure, axes = plt.subplots(
        len(found), 2, figsize=(9, 0.6 + 3 * len(found)), squeeze=False, layout="constrained"
    )
    handles = {}
    for row, (data, by_spec) in zip(axes, found.items(), strict=True):
        for axis, measure in zip(row, MEASURES, strict=True):
            handles |= draw_panel(axis, by_spec, styles, measure)
            axis.set_title(data, loc="left", fontsize="medium")
    # The legend knows no Markdown.
    titles = [System(spec).title.strip("`") for spec in styles]
    figure.legend(
        [handles[spec] for spec in styles],
        titles,
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    figure.savefig(path, metadata={"Date": None})


def choose_styles(specs):
    """Return how the line of each system looks: baselines grey and dashed, others coloured."""
    greys = iter([("0.7", "^"), ("0.55", "v"), ("0.35", "s"), ("0.1", "D")])
    colors = itertools.cycle((f"C{k}", "o") for k in range(10))
    styles = {}
    for spec in specs:
        color, marker = next(greys if spec in BASELINES else colors)
        line = "--" if spec in BASELINES else "-"
        styles[spec] = {"color": color, "marker": marker, "linestyle": line, "markersize": 4}
    return styles


def draw_panel(axis, by_spec, styles, measure):
    """Draw the mean over seeds of every system, and between which values they lie."""
    from matplotlib.ticker import LogLocator  # the extra [plot]

    title, factor = MEASURES[measure]
    handles = {}
    for spec in ordered(by_spec):
        sizes = sorted(by_spec[spec])
        values = [[factor * run[measure] for run in by_spec[spec][size]] for size in sizes]
        (handles[spec],) = axis.plot(sizes, list(map(np.mean, values)), **styles[spec])
        band = {"color": styles[spec]["color"], "alpha": 0.15, "lw": 0}
        axis.fill_between(sizes, list(map(min, values)), list(map(max, values)), **band)
    axis.set_xscale("log")
    ticks = sorted({size for by_size in by_spec.values() for size in by_size})
    axis.set_xticks(ticks, [f"{size:,}" for size in ticks], fontsize="small")
    axis.minorticks_off()
    axis.set_xlabel("texts to train on")
    axis.set_ylabel(title)
    axis.spines[["top", "right"]].set_visible(False)
    if measure == "log_loss":  # naive Bayes is far above the others
        axis.set_yscale("log", subs=[])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
        axis.yaxis.set_major_formatter("{x:g}")
    return handles


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="*", help="names of data sets; default: all there are")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument(
        "--systems",
        nargs="+",
        default=["mnb2", "nbsvm", "tfidf", "lstm", "network"],
        metavar="SPEC",
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seeds", type=int, default=max(SEEDS.values()), help="at most so many")
    parser.add_argument("--render", type=Path, nargs="?", const=PAGE, help="only write the plot")
    add_machine_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
