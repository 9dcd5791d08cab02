"""A Markdown table of systems and seeds; each fit is kept in a JSON file and not repeated."""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits


def make_parser(doc):
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--texts", type=int, help="train on so many texts only")
    parser.add_argument("--systems", nargs="+", help="parts of the names of those to run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, default=Path("results.json"))
    return parser


class Table:
    """Fits, measures and prints; keeps each row in the file ``options.json``."""

    def __init__(self, options, title, *, n_texts):
        self.options, self.title, self.n_texts = options, title, n_texts
        path = options.json
        self.rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        print(f"{title}: {n_texts:,} texts to train on, {options.threads} threads\n")
        self.has_header = False

    def add(self, name, fit, parts, measure, *, random=True):
        """Fit a system once a seed, and print the mean and the range of what each part scores."""
        options = self.options
        if options.systems and not any(part in name for part in options.systems):
            return
        for seed in options.seeds if random else options.seeds[:1]:
            if not self._of(name, seed=seed):
                self._run(name, fit, parts, measure, seed)
        for part in parts:
            self._print(name, part)

    def _run(self, name, fit, parts, measure, seed):
        torch.set_num_threads(self.options.threads)
        with threadpool_limits(self.options.threads):
            start = time.perf_counter()
            model = fit(seed)
            fit_s = time.perf_counter() - start
            for part, predict in parts.items():
                start = time.perf_counter()
                scores = measure(predict(model))
                row = {"title": self.title, "n_texts": self.n_texts, "name": name, "part": part}
                row |= {"seed": seed, "threads": self.options.threads, "fit_s": fit_s}
                row |= {"predict_s": time.perf_counter() - start, "scores": scores}
                self.rows.append(row | {"processor": platform.processor() or platform.machine()})
        self.options.json.write_text(json.dumps(self.rows, indent=1), encoding="utf-8")

    def _of(self, name, **known):
        known |= {"title": self.title, "n_texts": self.n_texts, "name": name}
        return [row for row in self.rows if known.items() <= row.items()]

    def _print(self, name, part):
        rows = self._of(name, part=part)
        scores = list(rows[0]["scores"])
        if not self.has_header:
            print(
                join(["", "seeds", *scores, "fit, s"]), join(["---"] * (3 + len(scores))), sep="\n"
            )
            self.has_header = True
        cells = [f"– {part}" if part else name, str(len(rows))]
        for score in scores:
            values = [row["scores"][score] for row in rows]
            spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.4f}{spread}")
        seconds = "" if part else f"{np.median([row['fit_s'] for row in rows]):.0f}"
        print(join([*cells, seconds]), flush=True)


def join(cells):
    """Return a row of the table."""
    return f"| {' | '.join(cells)} |"
