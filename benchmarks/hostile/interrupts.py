"""Ctrl-C at random moments of fit, partial_fit and predict; SIGTERM while fitting.

A child process works on request and is sent a signal between the beginning of a call and a little
after its usual end. It then says how the call ended, whether the estimator is usable, whether
another fit gives the same bits as ever, and whether the state of the process is as before.

    python benchmarks/hostile/interrupts.py --json benchmarks/results/hostile_interrupts.json
"""

import argparse
import copy
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from tables import describe_machine, print_table, write
from texts import ORDINARY

from sklstm import LSTMLanguageModel, LSTMTextClassifier

#: A signal comes up to this many times the seconds of a call after its beginning.
LATEST = 1.2
#: After this many seconds a call is hung.
PATIENCE = 120
SETTINGS = {"embedding_dim": 8, "hidden_size": 8, "max_epochs": 2, "random_state": 0}
#: How a call can end; all behind "complete" are faults.
ENDS = ("signals", "result", "kept, warned", "as before", "complete")
FAULTS = ("changed", "other error", "not finite", "lost", "other bits", "state", "hung")
#: A fit without interrupts is compared after so many interrupts.
OFTEN = 10


def main():
    options = parse()
    results = describe_machine() | {"seed": options.seed, "threads": options.threads}
    rng = np.random.default_rng(options.seed)
    calls = list(CALLS)
    rows = {name: Counter() for name in calls}
    child = Child(options.threads)
    for k in range(options.interrupts):
        name = calls[k % len(calls)]
        rows[name].update(["signals", child.interrupt(name, LATEST * rng.random())])
        if k % 100 == 99:
            print(f"{k + 1} signals", flush=True)
            write(options.json, results | {"interrupts": rows})
    child.close()
    results["interrupts"] = rows
    columns = (*ENDS, *FAULTS)
    print_table(
        "SIGINT in", columns, {n: [c[column] for column in columns] for n, c in rows.items()}
    )
    results["terminations"] = terminate(options.terminations, options.threads, rng)
    write(options.json, results)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--interrupts", type=int, default=1_000)
    parser.add_argument("--terminations", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="of torch in the child")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def _make_texts(n, seed=0):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(ORDINARY, rng.integers(3, 20))) for _ in range(n)]
    return texts, np.where(rng.random(n) < 0.5, "pos", "neg")


class Work:
    """What a child is asked to do, each time on an estimator that is as at first."""

    def __init__(self):
        self.texts, self.labels = _make_texts(120)
        self.many = _make_texts(2_000, seed=1)[0]
        self.fitted = LSTMTextClassifier(**SETTINGS).fit(self.texts, self.labels)
        self.continued = copy.deepcopy(self.fitted).partial_fit(self.texts, self.labels)
        self.model = LSTMLanguageModel(**SETTINGS, window=16).fit(self.texts)

    def prepare(self, name):
        """Return an estimator, and a function that calls it."""
        if name == "fit":
            estimator = LSTMTextClassifier(**SETTINGS)
            return estimator, lambda: estimator.fit(self.texts, self.labels)
        if name == "fit, language model":
            estimator = LSTMLanguageModel(**SETTINGS, window=16)
            return estimator, lambda: estimator.fit(self.texts)
        if name == "predict_proba":
            return self.fitted, lambda: self.fitted.predict_proba(self.many)
        estimator = copy.deepcopy(self.continued if name == "partial_fit" else self.fitted)
        fit = estimator.partial_fit if name == "partial_fit" else estimator.fit
        # Other labels, so that a new model differs from the old one.
        return estimator, lambda: fit(self.texts, self.labels[::-1])

    def ask(self, estimator):
        """Return what an estimator answers, None of one that is not fitted."""
        if not hasattr(estimator, "model_"):
            return None
        if isinstance(estimator, LSTMLanguageModel):
            return np.array([estimator.perplexity(self.texts)])
        return estimator.predict_proba(self.texts)


CALLS = ("fit", "fit again", "partial_fit", "predict_proba", "fit, language model")


def read_state() -> dict:
    """Return the state of the process that a call must not change."""
    return {
        "numpy's random state": repr(np.random.get_state()),  # noqa: NPY002
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "numpy's errors": repr(np.geterr()),
        "handler": signal.getsignal(signal.SIGINT),
        "warnings": list(warnings.filters),
    }


class Worker:
    """Calls in the child, and what is found after each."""

    def __init__(self):
        self.work, self.usual, self.n = Work(), {}, 0
        # A shell lets what runs in the background ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Python's own handler, and a byte for each signal, so that a lost one is noticed.
        self.signals, writer = socket.socketpair()
        self.signals.setblocking(False)
        writer.setblocking(False)
        self.writer = writer  # else it would be closed
        signal.set_wakeup_fd(writer.fileno())

    def _came(self) -> bool:
        try:
            return bool(self.signals.recv(1))
        except BlockingIOError:
            return False

    def measure(self):
        """Return the seconds of each call, and keep its results."""
        seconds = {}
        for name in CALLS:
            estimator, call = self.work.prepare(name)
            begin = time.perf_counter()
            call()
            seconds[name] = time.perf_counter() - begin
            self.usual[name] = self.work.ask(estimator)
        return seconds

    def run(self, name, begins, is_sent) -> str:
        """Call it, and return how it ended; ``is_sent`` returns once the signal was sent."""
        estimator, call = self.work.prepare(name)
        before, state = self.work.ask(estimator), read_state()
        ignored, end, caught = [], "result", []
        sys.unraisablehook = ignored.append
        try:
            begins()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                call()
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            end, handler = "KeyboardInterrupt", signal.signal(signal.SIGINT, signal.SIG_IGN)
        except BaseException as error:
            print(f"{name}: other error: {error!r}", flush=True)
            end, handler = "other error", signal.signal(signal.SIGINT, signal.SIG_IGN)
        came = self._came()
        is_sent()  # so that a late signal does not meet the next call
        signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = sys.__unraisablehook__
        changed = [part for part, value in read_state().items() if value != state[part]]
        if changed:
            print(f"{name}: changed {changed}", flush=True)
            return "state"
        warned = any("was interrupted" in str(w.message) for w in caught)
        if came and end == "result" and not warned:
            print(f"{name}: lost, ignored in {[i.object for i in ignored]}", flush=True)
            return "lost"
        return self._compare(name, estimator, before, "kept, warned" if warned else end)

    def _compare(self, name, estimator, before, end) -> str:
        """Return the end, or the fault that the estimator's answers show."""
        if end == "other error":
            return end
        self.n += 1
        answers = self.work.ask(estimator)
        if answers is not None and not _are_finite(answers):
            return "not finite"
        if self.n % OFTEN == 0:
            again, call = self.work.prepare(name)
            call()
            if not np.array_equal(self.work.ask(again), self.usual[name]):
                return "other bits"
        if end == "KeyboardInterrupt":
            if answers is before is None or np.array_equal(answers, before):
                return "as before"
            return "complete" if np.array_equal(answers, self.usual[name]) else "changed"
        if end == "result" and not np.array_equal(answers, self.usual[name]):
            return "other bits"
        return end


def _are_finite(answers) -> bool:
    if answers.ndim == 1:
        return bool(np.isfinite(answers).all())
    return bool(np.isfinite(answers).all()) and np.allclose(answers.sum(axis=1), 1, rtol=0)


class Child:
    """A process that calls on request; one that hangs is followed by another."""

    def __init__(self, threads):
        self.threads = threads
        self._start()

    def _start(self):
        self.pipe, theirs = _context().Pipe()
        self.process = _context().Process(target=_serve, args=(theirs, self.threads), daemon=True)
        self.process.start()
        theirs.close()
        self.seconds = self.pipe.recv()

    def interrupt(self, name: str, share: float) -> str:
        """Let it call, and send a signal; return how that ended."""
        self.pipe.send(name)
        self.pipe.recv()  # it begins
        time.sleep(share * self.seconds[name])
        os.kill(self.process.pid, signal.SIGINT)
        self.pipe.send("sent")
        if self.pipe.poll(PATIENCE):
            return self.pipe.recv()
        self.close()
        self._start()
        return "hung"

    def close(self):
        self.process.kill()
        self.process.join()


def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sklstm"])  # so that a child starts soon
    return context


def _serve(pipe, threads):
    torch.set_num_threads(threads)
    worker = Worker()
    pipe.send(worker.measure())
    while True:
        pipe.send(worker.run(pipe.recv(), lambda: pipe.send("begins"), pipe.recv))


def terminate(n, threads, rng) -> dict:
    """Send SIGTERM to children that fit; return exit codes, seconds and files that are left."""
    codes, seconds, left = Counter(), [], 0
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder:
            pipe, theirs = _context().Pipe()
            process = _context().Process(target=_fit_on, args=(theirs, threads, folder))
            process.start()
            pipe.recv()  # it begins
            time.sleep(rng.random())
            begin = time.perf_counter()
            process.terminate()
            process.join(PATIENCE)
            seconds.append(time.perf_counter() - begin)
            codes[str(process.exitcode)] += 1
            if process.is_alive():
                process.kill()
                process.join()
            left += len(os.listdir(folder))
    longest = max(seconds, default=0)
    print(f"SIGTERM: exit codes {dict(codes)}, at most {longest:.2f} s, {left} files left")
    return {"exit codes": codes, "longest seconds": longest, "files left": left}


def _fit_on(pipe, threads, folder):
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    torch.set_num_threads(threads)
    texts, labels = _make_texts(120)
    pipe.send("begins")
    while True:
        LSTMTextClassifier(**SETTINGS).fit(texts, labels)


if __name__ == "__main__":
    main()
