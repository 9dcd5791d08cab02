"""How many threads a process uses, and how they wait."""

import os
import subprocess
import sys

import pytest
import torch

from sklstm.kernels.transfer import send

COUNT = """
import torch
from sklstm.lstm import LSTM
torch.set_num_threads({threads})
assert torch.get_num_threads() == {threads}
LSTM(4, 4)(torch.zeros(3, 2, 4))
print(torch.get_num_threads())
"""


@pytest.mark.parametrize(("threads", "allowed", "expected"), [(4, 2, 2), (1, 2, 1), (3, 64, 3)])
def test_no_more_threads_than_processors(monkeypatch, threads, allowed, expected):
    # joblib takes the least of the machine, the affinity, the quota and this.
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", str(allowed))
    code = COUNT.format(threads=threads)
    if allowed > threads:  # whatever machine the test runs on
        code = f"import joblib; joblib.cpu_count = lambda: {allowed}\n{code}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("PASSIVE", "2000")),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, ("PASSIVE", None)),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
    ],
    ids=str,
)
def test_threads_soon_sleep_unless_the_user_says_otherwise(given, expected):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    variables = {name: value for name, value in os.environ.items() if name not in names} | given
    code = f"import os, sklstm; print(tuple(map(os.environ.get, {names})))"
    run = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(expected)


def test_a_forked_process_says_that_it_cannot_use_cuda(monkeypatch):
    """A fork leaves CUDA without a start, although the weights are on the card."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert send(torch.ones(2), "cpu").tolist() == [1.0, 1.0]
    with pytest.raises(RuntimeError, match="forked after CUDA was used cannot use CUDA.*'spawn'"):
        send(torch.ones(2), "cuda")
