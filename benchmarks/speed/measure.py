"""What every script here needs: common options, calls in turn, medians, tables, results as JSON."""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch


def make_parser(doc, *, repeats):
    """Return a parser with the options of all scripts; the first line of ``doc`` describes it."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=repeats, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser


def add_train_option(parser):
    parser.add_argument("--train", help="CSV file with columns text, label; default: docstrings")


def add_threads_option(parser):
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")


def timed(call):
    """Return the seconds of a call, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def alternate(calls, repeats):
    """Return the seconds of each call by its name; the calls take turns.

    Before that each is called once, since the first call fills caches.
    """
    seconds = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            taken, _ = timed(call)
            if turn > 0:
                seconds[name].append(taken)
    return seconds


def summarise(seconds):
    """Return the median of the seconds, and (slowest - fastest) / median."""
    median = statistics.median(seconds)
    return {"seconds": median, "spread": (max(seconds) - min(seconds)) / median}


def speedup(seconds, others):
    """Return how many times as fast as the others: the median over the repeats."""
    return statistics.median(other / own for own, other in zip(seconds, others, strict=True))


class Table:
    """A table that is printed row by row.

    ``columns`` are the titles with the format of their values, such as ``".2f"``; a value of None
    is printed as a dash.
    """

    def __init__(self, title, columns, *, width=34):
        self.width = width
        self.columns = [(max(8, len(name) + 1), form) for name, form in columns.items()]
        self._print(title, columns)

    def add(self, name, *values):
        forms = (form for _, form in self.columns)
        cells = zip(values, forms, strict=True)
        self._print(name, ["-" if value is None else format(value, form) for value, form in cells])

    def _print(self, name, cells):
        row = (f" {cell:>{width}}" for cell, (width, _) in zip(cells, self.columns, strict=True))
        print(f"{name:<{self.width}}" + "".join(row), flush=True)


def describe_machine():
    """Print and return what the figures depend on."""
    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
    }
    print("torch {torch}, {threads} threads, {processor}".format(**machine))
    return machine


def write(path, results):
    """Write the results where ``--json`` was given."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")
