"""Accuracy and log loss against the number of texts to train on, also of the baselines.

The texts that are drawn depend on the seed, as the classifier's own random numbers do, so baselines
run with every seed too. A larger draw contains the smaller ones. A run is kept and not repeated.

    python benchmarks/accuracy/learning_curves.py imdb ag_news --split test --threads 2
    python benchmarks/accuracy/learning_curves.py --split test --render
"""

import itertools
import sys
from collections import defaultdict
from dataclasses import replace

import numpy as np
from accuracy import attempt, make_parser
from baselines import BASELINES
from data_sets import find_data, load_data_set
from runs import Results
from systems import System
from tables import fill, join

SIZES = (500, 1000, 2000, 5000, 10_000, 25_000)
#: Held-out texts: enough for a curve (a standard error of 0.4 points at 90 %).
N_HELD_OUT = 5000
#: Seeds for at most so many texts; the fewer texts, the more the draw matters.
SEEDS = {2000: 5, 10_000: 3, np.inf: 1}
#: The title of the axis, and the factor of its unit.
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
    """Run what has no file yet; end with an error if a run failed."""
    systems = [System(spec) for spec in options.systems]
    failures = 0
    for name in find_data(options.data):
        data = load_data_set(name, options.split).hold_out(N_HELD_OUT)
        failures += run_all(results, systems, replace(data, part=part), options)
    if failures:
        sys.exit(f"{failures} runs failed; see above.")


def run_all(results, systems, data, options):
    """Run what has no file yet, small sizes first; return how many runs failed."""
    failures = 0
    print(f"\n{data.name}, {len(data.held_out_texts):,} texts held out")
    for size in choose_sizes(len(data.texts), options.sizes):
        for seed in range(min(count_seeds(size), options.seeds)):
            drawn = data.draw(size, seed)
            for system in systems:
                failures += attempt(results, system, drawn, seed, options) == "failed"
    return failures


def choose_sizes(n_texts, sizes):
    """Return the sizes that there are enough texts for, and the number of all texts."""
    return [size for size in sizes if size < 0.9 * n_texts] + [n_texts]


def count_seeds(size):
    return next(seeds for limit, seeds in SEEDS.items() if size <= limit)


def collect(results, part):
    """Return {data set: {spec: {size: [records]}}}, of each system's newest configuration."""
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
    """Write the plot next to the page, and a link to it and its numbers into the page."""
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
    for name, by_spec in found.items():
        lines += ["", *table(name, by_spec)]
    fill(page, "curves", lines)


def table(name, by_spec):
    """Return mean accuracies by size, as lines."""
    sizes = sorted({size for by_size in by_spec.values() for size in by_size})
    titles = [f"{name}, accuracy", *(f"{size:,}" for size in sizes)]
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

    # Text that is kept as text makes the file small; fixed names make equal plots equal files.
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "sklstm"}
    styles = choose_styles(ordered({spec for by_spec in found.values() for spec in by_spec}))
    figure, axes = plt.subplots(
        len(found), 2, figsize=(9, 0.6 + 3 * len(found)), squeeze=False, layout="constrained"
    )
    handles = {}
    for row, (name, by_spec) in zip(axes, found.items(), strict=True):
        for axis, measure in zip(row, MEASURES, strict=True):
            handles |= draw_panel(axis, by_spec, styles, measure)
            axis.set_title(name, loc="left", fontsize="medium")
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
    """Draw the mean over seeds of every system, and a band from the lowest to the highest."""
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
    parser = make_parser(__doc__, ["mnb2", "nbsvm", "tfidf", "lstm", "network"])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--seeds", type=int, default=max(SEEDS.values()), help="at most so many")
    return parser.parse_args()


if __name__ == "__main__":
    main()
