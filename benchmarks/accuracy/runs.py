"""Runs, each a fit and its scores in a file of its own, so that a killed benchmark can resume.

A run is a JSON file and a file of the probabilities. Its name holds all that the outcome
depends on: data set and part (the folder), system, number of texts, rows, parameters, seed. Files
are written whole or not at all, and a run is claimed by a lock, so that several processes can share
the work.
"""

import contextlib
import json
import os
import platform
import re
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from scores import score
from systems import describe, hash_description
from threadpoolctl import threadpool_limits

try:
    import fcntl
except ImportError:  # Windows has none: there the user must not run two processes at a time
    fcntl = None

RESULTS = Path(__file__).parent.parent / "results" / "accuracy"


class Results:
    """The folder of all runs; while it is open, other processes know that this one runs."""

    def __init__(self, folder):
        self.folder = folder
        self._newest = None, None, None  # the key of the newest fit, its model and its seconds
        folder.mkdir(parents=True, exist_ok=True)
        self._presence = open(folder / "processes.lock", "w")
        share(self._presence)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._presence.close()

    def alone(self):
        """Return whether no other process of the benchmark is running."""
        alone = seize(self._presence)
        share(self._presence)
        return alone

    def run(self, system, data, seed, *, threads, timing=False):
        """Fit and score, unless that is done or another process does it; return the record.

        With ``timing`` only the seconds are kept, whatever was scored before. None means that
        another process does it.
        """
        model = system.make(data, seed)
        description = describe(model)
        if system.part:
            description["part"] = describe(system.part)
        rows, configuration = data.rows_hash, hash_description(description)
        slug = re.sub(r"[^\w.]+", "-", system.spec).strip("-")[:60]
        name = f"{slug}-{len(data.texts)}-{rows}-{configuration}-seed{seed}"
        path = self.folder / data.part / data.name / f"{name}{'-time' if timing else ''}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with claim(path.with_suffix(".lock")) as claimed:
            if path.exists():
                return json.loads(path.read_text(encoding="utf-8")) | {"new": False}
            if not claimed:
                return None
            alone = self.alone() and system.part is None
            key = (data.name, rows, hash_description(describe(model)), seed, timing)
            fitted, fit_s = self._fit(key, model, data, threads)
            model = system.part(fitted) if system.part else fitted
            predict_s, probabilities = predict(model, data, threads)
            record = {
                "data": data.name,
                "part": data.part,
                "spec": system.spec,
                "seed": seed,
                "timing": timing,
                "configuration": configuration,
                "rows": rows,
                "n_train": len(data.texts),
                # The key has its old name, so that earlier runs stay readable.
                "n_judged": len(data.held_out_texts),
                "n_classes": len(data.classes),
                "fit_s": fit_s,
                "predict_s": predict_s,
                "n_iter": count_iterations(model),
                "threads": threads,
                "alone": alone and self.alone(),
                **surroundings(),
                "description": description,
            }
            if not timing:
                record |= self._keep_probabilities(path, data, probabilities)
            write(path, json.dumps(record, indent=1).encode())
            return record | {"new": True}

    def _fit(self, key, model, data, threads):
        """Return a fitted model and its seconds; the newest one serves all its parts."""
        if self._newest[0] != key:
            self._newest = key, model, fit(model, data, threads)
        return self._newest[1:]

    def _keep_probabilities(self, path, data, probabilities):
        """Write them, and return their scores."""
        targets = np.searchsorted(data.classes, data.held_out_labels)
        with tempfile.SpooledTemporaryFile() as file:
            right = probabilities.argmax(axis=1) == targets
            np.savez(
                file, probabilities=probabilities.astype(np.float32), targets=targets, right=right
            )
            file.seek(0)
            write(path.with_suffix(".npz"), file.read())
        return score(targets, probabilities, seen=data.seen)

    def load(self, part, name="*"):
        """Return the records of a part, of all data sets or one, each with its path."""
        paths = sorted((self.folder / part).glob(f"{name}/*.json"))
        return [
            json.loads(path.read_text(encoding="utf-8")) | {"path": str(path)} for path in paths
        ]


def load_arrays(record):
    """Return the arrays of a run: probabilities (n_held_out, n_classes), targets, right."""
    with np.load(Path(record["path"]).with_suffix(".npz")) as arrays:
        return dict(arrays)


def predict(model, data, threads):
    """Return the seconds, and probabilities with a column for every class of the data set."""
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        start = time.perf_counter()
        answer = model.predict_proba(data.held_out_texts)
        seconds = time.perf_counter() - start
    probabilities = np.zeros((len(answer), len(data.classes)))
    probabilities[:, np.searchsorted(data.classes, model.classes_)] = answer
    return seconds, probabilities


def fit(model, data, threads):
    """Fit and return the seconds; raise if Ctrl-C ended it, for half a fit must not be kept."""
    torch.set_num_threads(threads)
    with threadpool_limits(threads), warnings.catch_warnings():
        # After Ctrl-C the classifier warns and returns.
        warnings.filterwarnings("error", message="Training was interrupted")
        start = time.perf_counter()
        try:
            model.fit(data.texts, data.labels)
        except UserWarning as warning:
            if "Training was interrupted" not in str(warning):
                raise
            raise KeyboardInterrupt from warning
        return time.perf_counter() - start


def count_iterations(model):
    """Return the epochs of a network or the iterations of a solver, None where there are none."""
    last = model[-1] if hasattr(model, "steps") else model
    n_iter = getattr(last, "n_iter_", None)
    return None if n_iter is None else int(np.max(n_iter))


def surroundings():
    """Return what else the figures depend on."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        commit = None
    return {
        "commit": commit,
        "torch": torch.__version__,
        "sklearn": sklearn.__version__,
        "processor": platform.processor() or platform.machine(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def count_processors():
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def write(path, content):
    """Write a file, whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


def share(file):
    """Lock a file together with others, in place of an exclusive lock."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_SH)


def seize(file):
    """Lock a file exclusively; return whether that was possible at once."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def claim(path):
    """Hold the lock of a run, which ends with the process; yield whether it was free."""
    with open(path, "w") as file:
        claimed = seize(file)
        yield claimed
        if claimed and fcntl is not None:
            path.unlink(missing_ok=True)
