"""A grid search with two jobs beside one with one: seconds, threads, memory copied to workers.

Each measurement is a process of its own; the two kinds of search alternate in it. A lone fit has as
many threads as each of two workers may have, which fit at the same time.

    python benchmarks/parallel.py --train ../shared/data/mr/train.csv.xz
    python benchmarks/parallel.py --backends loky threading multiprocessing
"""

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from corpus import load_texts
from fresh import call_in_fresh_process
from sklearn.model_selection import GridSearchCV
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
    print(
        f"{options.texts:,} texts, {options.epochs} epochs a fit; torch {torch.__version__}, "
        f"{joblib.cpu_count()} processors"
    )
    results = {"torch": torch.__version__, "cores": joblib.cpu_count()}
    results["searches"] = compare_searches(work, options)
    results["workers"] = compare_workers(work, options)
    results["memory"] = show_memory(work)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", help="CSV file with columns text, label; default: docstrings")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=["loky"])
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one measurement")
    parser.add_argument("--json", type=Path, help="keep the results in this file")
    return parser.parse_args()


def within(timeout, function, **arguments):
    """Return what the function returns in a fresh process, or None if that takes too long."""
    try:
        return call_in_fresh_process(function, timeout=timeout, **arguments)
    except subprocess.TimeoutExpired:
        return None


def compare_searches(work, options):
    """Print the seconds of a search with one job and with two."""
    print(f"\n{'grid search, 4 fits':<20}{'1 job s':>9}{'2 jobs s':>10}{'ratio':>7}{'spread':>8}")
    rows = {}
    for backend in options.backends:
        seconds = within(
            options.timeout, time_searches, backend=backend, repeats=options.repeats, **work
        )
        rows[backend] = seconds
        if seconds is None:
            print(f"{backend:<20}no result within {options.timeout:.0f} s", flush=True)
            continue
        ratio = statistics.median(a / b for a, b in zip(seconds["1"], seconds["2"], strict=True))
        one, two = (statistics.median(seconds[n_jobs]) for n_jobs in ("1", "2"))
        spread = (max(seconds["2"]) - min(seconds["2"])) / two
        print(f"{backend:<20}{one:>9.2f}{two:>10.2f}{ratio:>7.2f}{spread:>8.0%}", flush=True)
    return rows


def time_searches(backend, repeats, path, n_texts, epochs):
    """Return the seconds of the searches by number of jobs; to be called in a fresh process."""
    texts, targets = load_texts(path, n_texts)
    seconds = {"1": [], "2": []}
    with joblib.parallel_config(backend=backend):
        for n_jobs in seconds:  # workers start, modules load
            search(texts[:64], targets[:64], 1, int(n_jobs))
        for _ in range(repeats):
            for n_jobs, times in seconds.items():
                start = time.perf_counter()
                search(texts, targets, epochs, int(n_jobs))
                times.append(time.perf_counter() - start)
    return seconds


def search(texts, targets, epochs, n_jobs):
    classifier = LSTMTextClassifier(baseline=None, max_epochs=epochs, random_state=0)
    grid = {"hidden_size": [64, 128]}
    return GridSearchCV(classifier, grid, cv=2, n_jobs=n_jobs, refit=False).fit(texts, targets)


def compare_workers(work, options):
    """Print how fast workers are that fit at the same time, and how many threads they have."""
    print(
        f"\n{'each worker':<20}{'fit s':>7}{'x lone':>8}{'threads':>9}{'alive':>7}"
        f"{'allowed':>9}   OMP_NUM_THREADS, pools"
    )
    lone, rows = [], {backend: [] for backend in options.backends}
    for _ in range(options.repeats):
        lone.append(call_in_fresh_process(fit_alone, **work))
        for backend, workers in rows.items():
            workers.append(within(options.timeout, fit_at_once, backend=backend, **work))
    show_worker("alone", lone, lone)
    for backend, workers in rows.items():
        if None in workers:
            print(f"{backend:<20}no result within {options.timeout:.0f} s", flush=True)
        else:
            slower = [max(pair, key=lambda worker: worker["seconds"]) for pair in workers]
            show_worker(f"{backend}, the slower", slower, lone)
    return {"alone": lone} | rows


def show_worker(name, workers, lone):
    """Print the median of the seconds, its speed beside the lone fit's, and the last's threads."""
    seconds = statistics.median(worker["seconds"] for worker in workers)
    pairs = zip(lone, workers, strict=True)
    speed = statistics.median(one["seconds"] / worker["seconds"] for one, worker in pairs)
    last = workers[-1]
    alive = "-" if last["alive"] is None else last["alive"]
    print(
        f"{name:<20}{seconds:>7.2f}{speed:>8.2f}{last['threads']:>9}{alive:>7}"
        f"{last['allowed']:>9}   {last['OMP_NUM_THREADS'] or 'unset'}, {last['pools']}",
        flush=True,
    )


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
    start = time.perf_counter()
    LSTMTextClassifier(baseline=None, max_epochs=epochs, random_state=0).fit(texts, targets)
    return {
        "seconds": time.perf_counter() - start,
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
    """Return the number of threads of this process, or None where the system does not tell."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else None


def show_memory(work):
    """Print what each worker gets of the texts, by the form that they have."""
    rows = call_in_fresh_process(copy_to_workers, path=work["path"], n_texts=work["n_texts"])
    if rows is None:
        print("\nMemory copied to workers is measured on Linux alone.")
        return None
    heads = ("in memory", "pickled", "worker grows")
    print(f"\n{'texts 20 times over, MiB':<26}" + "".join(f"{head:>14}" for head in heads))
    for form, row in rows.items():
        cells = "".join(f"{row[key] / 2**20:>14.1f}" for key in ("size", "pickled", "growth"))
        print(f"{form:<26}{cells}", flush=True)
    return rows


def copy_to_workers(path, n_texts):
    """Return bytes by form of the texts; to be called in a fresh process."""
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    texts, _ = load_texts(path, n_texts)
    texts = [f"{text} {k}" for k in range(20) for text in texts]  # so that they are no one object
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
        held[-1]  # a mapped file takes nothing before it is read
    time.sleep(0.5)  # so that each worker gets one task
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return os.getpid(), sum(int(row.split()[1]) for row in rows if "Private" in row) * 1024


if __name__ == "__main__":
    main()
