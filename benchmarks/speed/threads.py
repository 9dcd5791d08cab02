"""Fits on one thread and on several, on an idle machine and beside busy processes.

python benchmarks/speed/threads.py --train trec/train.csv.xz --busy 0 2

The threads of OpenMP wait for work either busy or asleep. The package makes them sleep after a
short time, unless the environment says otherwise; "waiting busy" is the default of GNU's runtime.
Each fit runs in a fresh process, since the runtime reads the environment once. The processes take
turns.
"""

import os
import subprocess
import sys
from contextlib import contextmanager

from fresh import call_in_fresh_process
from measure import Table, describe_machine, make_parser, speedup, summarise, write
from texts import load_texts

WAYS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "all threads": {},
    "all threads, asleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
    "all threads, waiting busy": {"GOMP_SPINCOUNT": "300000"},
}


def main():
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument("--train", nargs="+", required=True, help="CSV files: text, label")
    parser.add_argument("--texts", type=int, nargs="+", default=[2000], help="of each file")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="processes per core")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    results = {"machine": describe_machine()}
    for path, n_texts in zip(options.train, options.texts * len(options.train), strict=False):
        for busy in options.busy:
            title = f"{n_texts:,} texts of {path}, {busy} busy processes a core"
            seconds = measure(path, n_texts, options.epochs, busy, options.repeats)
            results[title] = seconds
            show(title, seconds)
            write(options.json, results)


def measure(path, n_texts, epochs, busy, repeats):
    """Return the seconds of the fits of each way."""
    seconds = {name: [] for name in WAYS}
    with busy_processes(busy * os.cpu_count()):
        for _ in range(repeats):
            for name, variables in WAYS.items():
                with environment(variables):
                    taken = call_in_fresh_process(fit, path=path, n_texts=n_texts, epochs=epochs)
                seconds[name].append(taken)
    return seconds


def show(title, seconds):
    table = Table(title, {"seconds": ".2f", "spread": ".0%", "to one thread": ".2f"})
    for name, of_way in seconds.items():
        row = summarise(of_way)
        table.add(name, row["seconds"], row["spread"], speedup(of_way, seconds["one thread"]))


@contextmanager
def environment(variables):
    """Set what the runtime reads, and nothing else of it."""
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ.update(variables)
    yield
    for name in variables:
        del os.environ[name]
    os.environ.update(before)


@contextmanager
def busy_processes(number):
    """Keep so many processes computing."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: 1"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def fit(path, n_texts, epochs):
    """Return the seconds of a default fit, after one of few texts."""
    from measure import timed

    from sklstm import LSTMTextClassifier

    texts, labels = load_texts(path, n_texts)
    model = LSTMTextClassifier(max_epochs=epochs, random_state=0)
    model.fit(texts[:200], labels[:200])
    return timed(lambda: model.fit(texts, labels))[0]


if __name__ == "__main__":
    main()
