"""Fits in joblib's workers: no more threads than processors, and the results of one job."""

from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.model_selection import GridSearchCV

# Nothing of conftest is imported here: workers import this file, and it sets their threads.

WORKERS = 2


def fit_and_look(classifier, texts, labels):
    """Return torch's threads in this worker, and by how many threads a fit left it with more."""
    classifier.fit(texts[:8], labels[:8])  # modules are loaded, and their threads are there
    before = count_alive()
    classifier.fit(texts, labels)
    return torch.get_num_threads(), count_alive() - before


def count_alive():
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 0


def search(classifier, n_jobs):
    grid = {"hidden_size": [4, 8]}
    return GridSearchCV(classifier, grid, cv=2, n_jobs=n_jobs, scoring="neg_log_loss")


@pytest.mark.slow
def test_workers_share_the_processors(tiny, texts, labels):
    with parallel_config(backend="loky", n_jobs=WORKERS):
        looks = Parallel()([delayed(fit_and_look)(tiny, texts, labels)] * WORKERS)
    # One thread each is the least, also where there are fewer processors than workers.
    assert max(n_threads for n_threads, _ in looks) * WORKERS <= max(joblib.cpu_count(), WORKERS)


@pytest.mark.slow
def test_fit_in_a_worker_of_one_thread_starts_none(tiny, texts, labels):
    with parallel_config(backend="loky", n_jobs=WORKERS, inner_max_num_threads=1):
        looks = Parallel()([delayed(fit_and_look)(tiny, texts, labels)] * WORKERS)
    assert looks == [(1, 0)] * WORKERS


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_search_with_two_jobs_finds_what_one_finds(backend, tiny, texts, labels):
    assert torch.get_num_threads() == 1  # sums are the same where the threads are as many
    one = search(tiny, n_jobs=1).fit(texts, labels)
    threads = {"inner_max_num_threads": 1} if backend == "loky" else {}
    with parallel_config(backend=backend, **threads):
        two = search(tiny, n_jobs=WORKERS).fit(texts, labels)
    np.testing.assert_array_equal(
        one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(one.predict_proba(texts), two.predict_proba(texts))
