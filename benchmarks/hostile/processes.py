"""Killed workers, threads that predict while one refits, and forks: an answer or an error, no hang.

python benchmarks/hostile/processes.py --json benchmarks/results/hostile_processes.json
"""

import argparse
import faulthandler
import os
import signal
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from joblib.externals.loky import reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.model_selection import GridSearchCV
from tables import describe_machine, write
from texts import ORDINARY

from sklstm import LSTMTextClassifier

#: After this many seconds something is hung, and the run ends with an error.
PATIENCE = 300
SETTINGS = {"embedding_dim": 8, "hidden_size": 8, "max_epochs": 2, "random_state": 0}


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    results = describe_machine() | {"seed": options.seed, "torch threads": options.threads}
    rng = np.random.default_rng(options.seed)
    for name, measure, n in (
        ("forks", fork, options.forks),
        ("threads", predict_while_refitting, options.refits),
        ("searches", kill_workers, options.searches),
    ):
        results[name] = measure(n, rng)
        print(f"{name}: {dict(results[name])}", flush=True)
        write(options.json, results)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--forks", type=int, default=100)
    parser.add_argument("--refits", type=int, default=100, help="while 8 threads predict")
    parser.add_argument("--searches", type=int, default=10, help="in which a worker is killed")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def make_texts(n, rng):
    return [" ".join(rng.choice(ORDINARY, rng.integers(3, 20))) for _ in range(n)]


def kill_workers(n, rng) -> Counter:
    """Kill a worker of a search at a random moment; then search again."""
    texts = make_texts(200, rng)
    labels = np.where(rng.random(200) < 0.5, "pos", "neg")
    grid = {"lr": [0.001, 0.002, 0.004]}
    counts = Counter()
    search = GridSearchCV(LSTMTextClassifier(**SETTINGS), grid, cv=2, n_jobs=2)
    usual = _search(search, texts, labels)  # also starts the workers
    begin = time.perf_counter()
    _search(search, texts, labels)
    seconds = time.perf_counter() - begin
    for _ in range(n):
        killer = threading.Timer(seconds * rng.random(), _kill_a_worker)
        killer.start()
        try:
            _search(search, texts, labels)
            counts["ended before the kill"] += 1
        except TerminatedWorkerError:
            counts["TerminatedWorkerError"] += 1
        killer.join()
        try:
            again = _search(search, texts, labels)
        except TerminatedWorkerError:  # of a worker that was killed after the search
            counts["TerminatedWorkerError of the next search"] += 1
            again = _search(search, texts, labels)
        equal = np.array_equal(again, usual)
        counts["next search as ever" if equal else "next search DIFFERS"] += 1
    return counts


def _search(search, texts, labels):
    """Return the mean scores; a hang ends the run with a traceback."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    scores = search.fit(texts, labels).cv_results_["mean_test_score"]
    faulthandler.cancel_dump_traceback_later()
    return scores


def _kill_a_worker():
    executor = reusable_executor._executor  # asking loky for it would make another one
    for pid in list(executor._processes)[:1]:
        os.kill(pid, signal.SIGKILL)


ASKS = ("predict_proba", "predict", "transform", "decision_function")


def predict_while_refitting(n, rng) -> Counter:
    """Refit to two sets of classes by turns; each answer must be that of one of both models."""
    texts, asked = make_texts(120, rng), make_texts(50, rng)
    pairs = np.where(rng.random(120) < 0.5, "pos", "neg")
    triples = rng.choice(["bad", "good", "so so"], 120)
    classifier = LSTMTextClassifier(**SETTINGS)
    expected = {name: [] for name in ASKS}
    for labels in (pairs, triples):
        classifier.fit(texts, labels)
        for name in ASKS:
            expected[name].append(_bytes(getattr(classifier, name)(asked)))
    counts, ends = Counter(), threading.Event()
    arguments = (classifier, asked, expected, counts, ends)
    threads = [
        threading.Thread(target=_predict, args=(ASKS[k % len(ASKS)], *arguments), daemon=True)
        for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for k in range(n):
        classifier.fit(texts, (pairs, triples)[k % 2])
    ends.set()
    for thread in threads:
        thread.join(PATIENCE)
    return counts | Counter(refits=n, hung=sum(thread.is_alive() for thread in threads))


def _predict(name, classifier, asked, expected, counts, ends):
    """Ask until the end, and count the answers."""
    while not ends.is_set():
        try:
            found = _bytes(getattr(classifier, name)(asked))
        except Exception as error:
            counts[f"ERROR {error!r}"] += 1
        else:
            counts["old or new" if found in expected[name] else "NEITHER"] += 1


def _bytes(array):
    return array.shape, array.tolist() if array.dtype == object else array.tobytes()


def fork(n, rng) -> Counter:
    """Fork after a prediction; the child must give the same answer within ``PATIENCE``."""
    # Python warns of forks in processes with threads, which is what is tested.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
    texts = make_texts(300, rng)
    classifier = LSTMTextClassifier(**SETTINGS)
    classifier.fit(texts, np.where(rng.random(300) < 0.5, "pos", "neg"))
    expected, counts = classifier.predict_proba(texts), Counter()
    for _ in range(n):
        classifier.predict_proba(texts)
        child = os.fork()
        if child == 0:
            signal.alarm(PATIENCE)  # what hangs is ended
            found = classifier.predict_proba(texts)
            os._exit(0 if np.allclose(found, expected, rtol=0, atol=1e-6) else 3)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        counts[
            {0: "same answer", 3: "OTHER ANSWER", -signal.SIGALRM: "HUNG"}.get(code, "DIED")
        ] += 1
    return counts


if __name__ == "__main__":
    main()
