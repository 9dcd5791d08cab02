"""What is left of a file where ``save`` over it is ended: by Ctrl-C, or by a kill.

A child process saves two models over one file by turns, and is sent a signal at a random moment
of a save, from its beginning to a little after its usual end. The file must then hold one of the
two models, with all its bits.

    python benchmarks/files/interrupts.py --json benchmarks/results/interrupts.json
"""

import argparse
import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from subjects import ASKED, LABELS, TEXTS
from tables import describe_machine, print_table, write

import sklstm

COLUMNS = (
    "signals",
    "old",
    "new",
    "neither",
    "KeyboardInterrupt",
    "other error",
    "saved",
    "temporary",
)
#: A signal comes up to this many times the seconds of a save after its beginning.
LATEST = 1.2


def main():
    options = parse()
    results = describe_machine() | {"seed": options.seed}
    rng = np.random.default_rng(options.seed)
    sizes = {"embedding_dim": 256, "hidden_size": 128, "max_epochs": 1}  # some MB, some time
    models = [
        sklstm.LSTMTextClassifier(random_state=seed, **sizes).fit(TEXTS, LABELS) for seed in (0, 1)
    ]
    for name, number, n in (
        ("SIGINT", signal.SIGINT, options.interrupts),
        ("SIGKILL", signal.SIGKILL, options.kills),
    ):
        results[name] = measure(models, number, n, rng)
        print_table("signal", COLUMNS, {name: list(results[name].values())})
        write(options.json, results)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--interrupts", type=int, default=500)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def measure(models, number, n_signals, rng) -> dict:
    """Return what became of file, child and temporary files."""
    counts = Counter()
    answers = [model.predict_proba(ASKED).tobytes() for model in models]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        models[0].save(path)
        holds, child = 0, Child(models, path)
        for _ in range(n_signals):
            end = child.interrupt(1 - holds, number, LATEST * rng.random())
            counts[end] += 1
            left = [name for name in os.listdir(folder) if name != path.name]
            counts["temporary"] += len(left)
            for name in left:
                os.unlink(Path(folder) / name)
            try:
                found = answers.index(sklstm.load(path).predict_proba(ASKED).tobytes())
            except (OSError, ValueError) as error:
                print(f"neither: {error}")
                counts["neither"] += 1
                models[holds].save(path)
                continue
            counts["old" if found == holds else "new"] += 1
            holds = found
        child.close()
    return {"signals": n_signals} | {name: counts[name] for name in COLUMNS[1:]}


class Child:
    """A process that saves on request; a killed one is followed by another."""

    def __init__(self, models, path):
        self.models, self.path = models, path
        self._start()

    def _start(self):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["sklstm"])  # so that a child starts soon
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.models, self.path), daemon=True
        )
        self.process.start()
        theirs.close()
        self.seconds = self.pipe.recv()

    def interrupt(self, which: int, number: int, share: float) -> str:
        """Let it save a model, and send a signal; return how its save ended."""
        self.pipe.send(which)
        self.pipe.recv()  # it begins
        time.sleep(share * self.seconds)
        os.kill(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.join()
            self.pipe.close()
            self._start()
            return "killed"
        return self.pipe.recv()

    def close(self):
        self.process.kill()
        self.process.join()


def _serve(pipe, models, path):
    """Save on request; a signal that comes after a save is waited for, so that none is lost."""
    # A shell lets what runs in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seconds = []
    twin = path.with_name("twin")
    for _ in range(3):
        begin = time.perf_counter()
        models[0].save(twin)
        seconds.append(time.perf_counter() - begin)
    twin.unlink()
    pipe.send(sorted(seconds)[1])
    while True:
        which = pipe.recv()
        end = "not begun"
        try:
            pipe.send("begins")
            try:
                models[which].save(path)
            except KeyboardInterrupt:
                end = "KeyboardInterrupt"
            except BaseException as error:
                print(f"other error: {error!r}")
                end = "other error"
            else:
                end = "saved"
                time.sleep(10)
        except KeyboardInterrupt:
            pass
        pipe.send(end)


if __name__ == "__main__":
    main()
