"""A grid search with two jobs, and one with one job: seconds, threads, memory of the workers.

Each measurement is a process of its own; the two kinds of search take turns in it. A lone fit has
as many threads as each of two workers that fit at the same time.

    python benchmarks/speed/parallel.py --train ../shared/data/mr/train.csv.xz
    python benchmarks/speed/parallel.py --backends loky threading multiprocessing
"""

import os
import pickle
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import torch
from fresh import call_in_fresh_process
from measure import (
    Table,
    add_train_option,
    alternate,
    describe_machine,
    make_parser,
    speedup,
    summarise,
    timed,
    write,
)
from sklearn.model_selection import GridSearchCV
from texts import load_texts
from threadpoolctl import threadpool_info

from sklstm import LSTMTextClassifier

WORKERS = 2
BACKENDS = ("loky", "threading", "multiprocessing")
#: The forms in which users hold texts.
FORMS = {
    "list": list,
    "array of objects": lambda texts: np.array(texts, dtype=object),
    "array of str (<U)": np.array,
}


def main():
    options = parse()
    work = {"path": options.train, "n_texts": options.texts, "epochs": options.epochs}
    print(f"{options.texts:,} texts, {options.epochs} epochs a fit")
    results = describe_machine() | {"cores": joblib.cpu_count()}
    results["searches"] = compare_searches(work, options)
    results["workers"] = compare_workers(work, options)
    results["memory"] = show_memory(work)
    write(options.json, results)


def parse():
    parser = make_parser(__doc__, repeats=3)
    add_train_option(parser)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=["loky"])
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one measurement")
    return parser.parse_args()


def within(timeout, function, **arguments):
    """Return what the function returns in a fresh process, or None if that takes too long."""
    try:
        return call_in_fresh_process(function, timeout=timeout, **arguments)
    except subprocess.TimeoutExpired:
        print(f"{arguments['backend']}: no result within {timeout:.0f} s", flush=True)
        return None


def compare_searches(work, options):
    """Print the seconds of a search with one job and with two."""
    print()
    columns = {"1 job, s": ".2f", "2 jobs, s": ".2f", "ratio": ".2f", "spread": ".0%"}
    table, rows = Table("grid search, 4 fits", columns), {}
    for backend in options.backends:
        settings = {"backend": backend, "repeats": options.repeats, **work}
        seconds = rows[backend] = within(options.timeout, time_searches, **settings)
        if seconds:
            one, two = seconds["1"], seconds["2"]
            spread = summarise(two)["spread"]
            table.add(backend, *map(statistics.median, (one, two)), speedup(two, one), spread)
    return rows


def time_searches(backend, repeats, path, n_texts, epochs):
    """Return the seconds of the searches by number of jobs; to be called in a fresh process."""
    texts, targets = load_texts(path, n_texts)
    with joblib.parallel_config(backend=backend):
        calls = {str(n): partial(search, texts, targets, epochs, n) for n in (1, 2)}
        return alternate(calls, repeats)  # in the first turn workers start and modules load


def search(texts, targets, epochs, n_jobs):
    classifier = LSTMTextClassifier(blend=None, max_epochs=epochs, random_state=0)
    grid = {"hidden_size": [64, 128]}
    return GridSearchCV(classifier, grid, cv=2, n_jobs=n_jobs, refit=False).fit(texts, targets)


def compare_workers(work, options):
    """Print how fast workers are that fit at the same time, and how many threads they have."""
    print()
    columns = {"fit, s": ".2f", "x lone": ".2f", "threads": "d", "alive": "d", "allowed": "d"}
    table = Table("each worker", columns | {"OMP_NUM_THREADS, pools": ""})
    lone, rows = [], {backend: [] for backend in options.backends}
    for _ in range(options.repeats):
        lone.append(call_in_fresh_process(fit_alone, **work))
        for backend, workers in rows.items():
            workers.append(within(options.timeout, fit_at_once, backend=backend, **work))
    show_worker(table, "alone", lone, lone)
    for backend, workers in rows.items():
        if None not in workers:
            slower = [max(pair, key=lambda worker: worker["seconds"]) for pair in workers]
            show_worker(table, f"{backend}, the slower", slower, lone)
    return {"alone": lone} | rows


def show_worker(table, name, workers, lone):
    """Print the median of the seconds, its ratio to the lone fit's, and the last one's threads."""
    seconds, of_lone = ([worker["seconds"] for worker in runs] for runs in (workers, lone))
    last = workers[-1]
    threads = (last[key] for key in ("threads", "alive", "allowed"))
    pools = f"{last['OMP_NUM_THREADS'] or 'unset'}, {last['pools']}"
    table.add(name, statistics.median(seconds), speedup(seconds, of_lone), *threads, pools)


def fit_alone(path, n_texts, epochs):
    """Fit with as many threads as a worker has; to be called in a fresh process."""
    allowed = max(1, joblib.cpu_count() // WORKERS)
    torch.set_num_threads(allowed)
    return fit_timed(*load_texts(path, n_texts), epochs, allowed=allowed)


def fit_at_once(backend, path, n_texts, epochs):
    """Fit in all workers at the same time; to be called in a fresh process."""
    texts, targets = load_texts(path, n_texts)
    allowed = max(1, joblib.cpu_count() // WORKERS)
    task = joblib.delayed(fit_timed)(texts, targets, epochs, allowed=allowed)
    with joblib.parallel_config(backend=backend, n_jobs=WORKERS):
        return joblib.Parallel()([task] * WORKERS)


def fit_timed(texts, targets, epochs, allowed):
    """Return the seconds of a fit and the threads of the process that it ran in."""
    search(texts[:64], targets[:64], 1, 1)  # kernels load
    classifier = LSTMTextClassifier(blend=None, max_epochs=epochs, random_state=0)
    seconds, _ = timed(partial(classifier.fit, texts, targets))
    return {
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "allowed": allowed,
        "alive": count_alive(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "pools": {package(pool): pool["num_threads"] for pool in threadpool_info()},
    }


def package(pool):
    """Return whose copy of a library it is: torch and scikit-learn each bring an OpenMP."""
    owner = Path(pool["filepath"]).as_posix().rpartition("site-packages/")[2].partition("/")[0]
    return f"{owner} {pool['prefix']}"


def count_alive():
    """Return the number of threads of this process, or None where it is not known."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else None


def show_memory(work):
    """Print what each worker gets of the texts, by the form that they have."""
    rows = call_in_fresh_process(copy_to_workers, path=work["path"], n_texts=work["n_texts"])
    if rows is None:
        print("\nMemory copied to workers is measured on Linux only.")
        return None
    print()
    columns = dict.fromkeys(("in memory", "pickled", "worker grows"), ".1f")
    table = Table("texts 20 times over, MiB", columns)
    for form, row in rows.items():
        table.add(form, *(row[key] / 2**20 for key in ("size", "pickled", "growth")))
    return rows


def copy_to_workers(path, n_texts):
    """Return bytes by form of the texts; to be called in a fresh process."""
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    texts, _ = load_texts(path, n_texts)
    texts = [
        f"{text} {k}" for k in range(20) for text in texts
    ]  # so that each is an object of its own
    rows = {}
    for form, convert in FORMS.items():
        X = convert(texts)
        of_objects = isinstance(X, list) or X.dtype == object
        size = sum(map(sys.getsizeof, texts)) + 8 * len(texts) if of_objects else X.nbytes
        rows[form] = {
            "size": size,
            # joblib puts numbers and str of fixed width into a file that the workers map.
            "pickled": len(pickle.dumps(X)) if of_objects else 0,
            "growth": growth_of_workers(X),
        }
    return rows


def growth_of_workers(X):
    """Return the bytes by which a worker grows at most while it holds X."""
    with joblib.parallel_config(backend="loky", n_jobs=WORKERS):
        before, after = (
            dict(joblib.Parallel()([joblib.delayed(private_memory)(held)] * WORKERS))
            for held in (None, X)
        )
    return max(after[process] - before[process] for process in after if process in before)


def private_memory(held):
    """Return the number of this process and the bytes that it shares with no other."""
    if isinstance(held, np.ndarray):
        held[-1]  # a mapped file takes no memory before it is read
    time.sleep(0.5)  # so that each worker gets one task
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return os.getpid(), sum(int(row.split()[1]) for row in rows if "Private" in row) * 1024


if __name__ == "__main__":
    main()
