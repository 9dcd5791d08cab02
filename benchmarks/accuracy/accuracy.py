"""How well the classifier and the classic baselines predict: data sets x systems x seeds.

Settings are chosen with ``--split validation``, which evaluates on held-out rows of the training
file and never opens the test file; ``--split test`` evaluates on the test rows, once, at the end.
Each run is a file under benchmarks/results/accuracy, and a run that has its file is not repeated.

    python benchmarks/accuracy/accuracy.py mr trec --systems mnb nbsvm tfidf lstm lstm:dropout=0.4
    python benchmarks/accuracy/accuracy.py --split test --threads 2
    python benchmarks/accuracy/accuracy.py --render
"""

import argparse
import sys
import traceback
from pathlib import Path

from baselines import BASELINES
from data_sets import SPLITS, find_data, load_data_set
from runs import RESULTS, Results, count_processors
from systems import STANDARD, System
from tables import render, show

#: Seeds of a system whose fit takes a minute or more, and of a faster one.
SEEDS_SLOW, SEEDS_FAST, MINUTE = 3, 5, 60.0
PAGE = Path(__file__).parent.parent.parent / "docs" / "accuracy.md"


def main():
    options = parse()
    with Results(options.results) as results:
        if options.render:
            render(results, options.render)
        else:
            run_or_show(results, options)


def run_or_show(results, options):
    """Run what has no file yet and print the tables; end with an error if a run failed."""
    systems = [System(spec) for spec in options.systems]
    names = find_data(options.data)
    failures = 0
    if not options.show:
        for name in names:
            failures += run_all(results, systems, load_data_set(name, options.split), options)
    for name in names:
        show(results, options.split, name)
    if failures:
        sys.exit(f"{failures} runs failed; see above.")


def run_all(results, systems, data, options):
    """Run what has no file yet, seed by seed; return how many runs failed."""
    print(
        f"\n{data.name}: {len(data.texts):,} texts to train on, {len(data.held_out_texts):,} held "
        f"out ({data.seen.sum():,} of them in both), {len(data.classes)} classes",
        flush=True,
    )
    failures = 0
    seeds = options.seeds or range(SEEDS_FAST)
    for number, seed in enumerate(seeds):
        for system in systems:
            if number > 0 and (options.time or not system.random):
                continue
            if not options.seeds and number >= SEEDS_SLOW and is_slow(results, system, data):
                continue
            failures += attempt(results, system, data, seed, options) == "failed"
    return failures


def is_slow(results, system, data):
    """Return whether a fit took a minute, in this process or another one."""
    return any(
        record["spec"] == system.spec and record["fit_s"] >= MINUTE
        for record in results.load(data.part, data.name)
    )


def attempt(results, system, data, seed, options):
    """Run once and print a line; an error ends this run and not those after it."""
    print(f"{len(data.texts):>7,} {system.spec:<50} seed {seed} ", end="", flush=True)
    timing = getattr(options, "time", False)
    try:
        record = results.run(system, data, seed, threads=options.threads, timing=timing)
    except Exception:
        print("failed", flush=True)
        traceback.print_exc()
        return "failed"
    print(describe(record), flush=True)
    return record


def describe(record):
    if record is None:
        return "another process runs it"
    measures = ""
    if not record["timing"]:
        measures = (
            f"accuracy {record['accuracy']:.4f}  F1 {record['macro_f1']:.4f}  log loss "
            f"{record['log_loss']:.4f}  ECE {record['ece']:.4f} ({record['ece_floor']:.4f})  "
        )
    seconds = f"fit {record['fit_s']:.1f} s  predict {record['predict_s']:.1f} s"
    return f"{measures}{seconds}{'' if record['new'] else '  (kept)'}"


def make_parser(doc, systems):
    """Return a parser with the options of all scripts that keep runs."""
    processors = count_processors()
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("data", nargs="*", help="names of data sets; default: all there are")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument(
        "--systems",
        nargs="+",
        default=systems,
        metavar="SPEC",
        help=f"such as nbsvm, lstm, lstm:dropout=0.4,cell=peephole; default: {' '.join(systems)}",
    )
    parser.add_argument(
        "--threads", type=int, default=processors, choices=range(1, processors + 1), metavar="N"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the runs")
    parser.add_argument("--render", type=Path, nargs="?", const=PAGE, help="only write the page")
    return parser


def parse():
    parser = make_parser(__doc__, [*BASELINES, *STANDARD])
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        help=f"default: {SEEDS_FAST}, but {SEEDS_SLOW} where a fit takes a minute; one for what "
        "is deterministic",
    )
    parser.add_argument("--time", action="store_true", help="only seconds, one run each")
    parser.add_argument("--show", action="store_true", help="only print the tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
