"""The runs of the accuracy benchmark as tables in Markdown."""

import re
from collections import defaultdict

import numpy as np
from baselines import BASELINES
from runs import load_arrays
from scores import mcnemar, median_seed, paired_bootstrap, score
from systems import VARIANTS, System

#: Seconds are quoted only of runs on so many threads, without another run at the same time.
QUOTED_THREADS = 2
LEVEL = 0.05
#: So many seeds make an ensemble.
SEEDS_TOGETHER = 3


class Row:
    """The runs of one system on one data set."""

    def __init__(self, spec, title, order, runs, rights, fit_s=()):
        self.spec, self.title, self.order = spec, title, order
        self.runs, self.rights = runs, rights
        self.fit_s = fit_s
        self.against = None  # the paired tests
        self.n_seeds = len(runs)
        self.is_many = False  # whether it takes many fits

    @classmethod
    def of_seeds(cls, spec, runs, timed):
        """Return the row of runs that differ in their seed."""
        system = System(spec)
        runs = sorted(runs, key=lambda run: run["seed"])
        rights = np.array([load_arrays(run)["right"] for run in runs])
        return cls(spec, system.title, system.order, runs, rights, [run["fit_s"] for run in timed])

    def together(self):
        """Return the row of the mean probabilities of all seeds, or None.

        A soft VotingClassifier of these members predicts the same.
        """
        variant = VARIANTS.get(self.spec)
        if variant is None or variant.together is None or self.n_seeds < SEEDS_TOGETHER:
            return None
        arrays = [load_arrays(run) for run in self.runs]
        probabilities = np.mean([each["probabilities"] for each in arrays], axis=0)
        targets = arrays[0]["targets"]
        # The records do not say which texts were trained on.
        nothing_seen = np.zeros(len(targets), dtype=bool)
        run = self.runs[0] | score(targets, probabilities, seen=nothing_seen)
        run |= {"accuracy_unseen": None}
        rights = (probabilities.argmax(axis=1) == targets)[None]
        row = Row(f"{self.spec} together", variant.together, self.order + 0.5, [run], rights)
        row.n_seeds, row.is_many = self.n_seeds, True
        return row

    def values(self, measure):
        return np.array([run[measure] for run in self.runs], dtype=float)

    def mean(self, measure):
        return self.values(measure).mean()

    def compare(self, baseline):
        """Test against the best baseline, a row of one run."""
        (other,) = baseline.rights
        self.against = paired_bootstrap(self.rights, other)
        self.against["mcnemar"] = mcnemar(median_seed(self.rights), other)


def collect(results, part, name):
    """Return the rows of a data set in the order of the table, compared with the best baseline.

    If defaults or the data have changed between runs, only the newest runs count.
    """
    records = results.load(part, name)
    by_spec = defaultdict(list)
    newest = max((record["finished"], record["rows"]) for record in records)[1] if records else None
    for record in records:
        if record["rows"] == newest:
            by_spec[record["spec"]].append(record)
    rows = []
    for spec, of_spec in by_spec.items():
        scored = [record for record in of_spec if not record["timing"]]
        if not scored:
            continue
        current = max(scored, key=lambda record: record["finished"])["configuration"]
        same = [record for record in of_spec if record["configuration"] == current]
        timed = [run for run in same if run["threads"] == QUOTED_THREADS and run["alone"]]
        rows.append(Row.of_seeds(spec, [run for run in same if not run["timing"]], timed))
    rows += [ensemble for row in rows if (ensemble := row.together())]
    rows.sort(key=lambda row: (row.order, -row.mean("accuracy")))
    baseline = best_baseline(rows)
    for row in rows:
        if baseline is not None and row.spec not in BASELINES:
            row.compare(baseline)
    return rows


def best_baseline(rows):
    """Return the baseline of the highest accuracy on the same rows, None if none was run."""
    baselines = [row for row in rows if row.spec in BASELINES]
    return max(baselines, key=lambda row: row.mean("accuracy"), default=None)


def table(rows):
    """Return the table of one data set as lines."""
    unseen = rows[0].runs[0]["n_seen"] > 0
    titles = ["", "seeds", "accuracy", *(["unseen texts"] if unseen else []), "macro-F1"]
    titles += ["log loss", "ECE (floor)", "fit, s", "beyond the best baseline", "p", "McNemar p"]
    lines = [join(titles), join(["---"] * len(titles))]
    best = best_baseline(rows)
    for row in rows:
        cells = [row.title, str(row.n_seeds), percent(row.values("accuracy"))]
        if unseen:
            known = row.runs[0]["accuracy_unseen"] is not None
            cells.append(percent(row.values("accuracy_unseen")) if known else "")
        cells += [
            percent(row.values("macro_f1")),
            spread(row.values("log_loss"), 3),
            unbroken(f"{100 * row.mean('ece'):.1f} ({100 * row.mean('ece_floor'):.1f})"),
            f"{np.mean(row.fit_s):.1f}" if row.fit_s else "",
            *(tests(row) if row.against else ["the best baseline" if row is best else "", "", ""]),
        ]
        lines.append(join(cells))
    return lines


def tests(row):
    """Return the difference from the best baseline, and the p of both tests."""
    against = row.against
    values = (f"{100 * against[name]:+.1f}" for name in ("difference", "low", "high"))
    difference = "{} [{}, {}]".format(*values).replace("-", "−")
    return [unbroken(difference), *(probability(against[name]) for name in ("p", "mcnemar"))]


def probability(p):
    return unbroken("< 0.001") if p < 0.001 else f"{p:.3f}"


def unbroken(text):
    """Return the text for one line: cells of tables are narrow."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def percent(values):
    return spread(100 * values, 1)


def spread(values, digits):
    """Return the mean, with the standard deviation over seeds where there are several."""
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return unbroken(f"{values.mean():.{digits}f}{deviation}")


def join(cells):
    return "| " + " | ".join(cells) + " |"


def headline(rows):
    run = rows[0].runs[0]
    seen = ""
    if run["n_seen"]:
        seen = f"; {run['n_seen']:,} of the latter also occur in the former"
    return (
        f"{run['n_train']:,} texts to train on, {run['n_judged']:,} held out, "
        f"{run['n_classes']} classes{seen}."
    )


def summary(rows_of, cell):
    """Return one table of all systems on all data sets, filled by ``cell(row, rows)``."""
    systems = {row.spec: row for rows in rows_of.values() for row in rows}
    lines = [join(["", *rows_of]), join(["---"] * (1 + len(rows_of)))]
    for system in sorted(systems.values(), key=lambda row: row.order):
        cells = [system.title]
        for rows in rows_of.values():
            found = [row for row in rows if row.spec == system.spec]
            cells.append(cell(found[0], rows) if found else "")
        lines.append(join(cells))
    return lines


def tested_cell(row, rows):
    """Return the accuracy, marked as the highest of one fit, or as better or worse (paired)."""
    accuracy = f"{100 * row.mean('accuracy'):.1f}"
    if row.mean("accuracy") == max(other.mean("accuracy") for other in rows if not other.is_many):
        accuracy = f"**{accuracy}**"
    against = row.against or {"p": 1.0}
    if against["p"] >= LEVEL:
        return accuracy
    return accuracy + (" +" if against["difference"] > 0 else " −")


def show(results, part, name):
    """Print the table of one data set, if there are runs."""
    rows = collect(results, part, name)
    if rows:
        print(f"\n{name}, {part}. {headline(rows)}\n")
        print("\n".join(table(rows)), flush=True)


def tried_cell(row, rows):
    """Return mean accuracy and log loss, and the number of seeds."""
    means = f"{100 * row.mean('accuracy'):.1f} ({row.mean('log_loss'):.3f})"
    return unbroken(f"{means}, {row.n_seeds}")


def collect_all(results, part):
    """Return the rows of every data set that has runs."""
    names = sorted({record["data"] for record in results.load(part)})
    rows_of = {name: collect(results, part, name) for name in names}
    return {name: rows for name, rows in rows_of.items() if rows}


def all_tables(results, part):
    """Return a summary and the table of every data set."""
    rows_of = collect_all(results, part)
    if not rows_of:
        return []
    lines = summary(rows_of, tested_cell)
    for name, rows in rows_of.items():
        lines += ["", f"### {name}", "", headline(rows), "", *table(rows)]
    return lines


def configurations(results):
    """Return how many different configurations were tried on validation rows."""
    tried = defaultdict(set)
    n_runs = 0
    for record in results.load("validation"):
        if record["spec"] not in BASELINES and not record["timing"]:
            tried[record["data"]].add(record["configuration"])
            n_runs += 1
    if not tried:
        return []
    each = ", ".join(f"{name} {len(found)}" for name, found in sorted(tried.items()))
    different = len(set.union(*tried.values()))
    return [
        f"Configurations tried on validation rows, without the baselines: {different} different "
        f"ones in {n_runs} runs ({each})."
    ]


def trials(results):
    """Return the trials on validation rows as one table, and the number of configurations."""
    rows_of = collect_all(results, "validation")
    return [*summary(rows_of, tried_cell), "", *configurations(results)] if rows_of else []


def render(results, page):
    """Write the tables between the marks of a page."""
    fill(page, "test", all_tables(results, "test"))
    fill(page, "validation", trials(results))


def fill(page, mark, lines):
    """Replace the lines between the marks of that name."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {mark}: begin -->\n).*?(<!-- {mark}: end -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page} must hold '<!-- {mark}: begin -->' and an end; got neither.")
    content = "".join(f"{line}\n" for line in ["", *lines, ""]) if lines else "\n"
    text = pattern.sub(lambda match: match[1] + content + match[2], text)
    page.write_text(text, encoding="utf-8")
    print(f"{page}: {mark}, {len(lines)} lines")
