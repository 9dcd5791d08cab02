"""Too little memory, a full disk, a folder that cannot be written, no home."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import TEXTS

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and limits of Linux")
ROOT = Path(__file__).parents[1]


def run(program, **options):
    """Run a program in a fresh process; return what it prints."""
    options = {"env": dict(os.environ, PYTHONPATH=str(ROOT)), "timeout": 300} | options
    command = [sys.executable, "-c", textwrap.dedent(program)]
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


@ON_LINUX
@pytest.mark.slow
def test_a_limit_of_memory_says_what_to_do_and_loses_nothing():
    out = run(
        """
        import re, resource
        import numpy as np
        import torch
        from sklstm import LSTMTextClassifier, SequenceVectorizer
        torch.set_num_threads(1)
        texts, labels = ["good film", "bad film"] * 40, [1, 0] * 40
        vectorizer = SequenceVectorizer(max_length=None)
        settings = {"blend": None, "max_epochs": 1, "embedding_dim": 8, "random_state": 0}
        clf = LSTMTextClassifier(attention="dot", hidden_size=8, vectorizer=vectorizer, **settings)
        clf.set_params(batch_size=64, early_stopping=False).fit(texts, labels)
        before = clf.predict_proba(texts)
        status = open("/proc/self/status").read()
        used = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", status)[1])
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
        # Similarities of all tokens of 64 texts with each other: 64 * 4000 ** 2 floats, 4 GB.
        long = [text + " so" * 4_000 for text in texts]
        for call in (lambda: clf.fit(long, labels), lambda: clf.predict(long)):
            try:
                call()
            except MemoryError as error:
                print(error)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert np.array_equal(clf.predict_proba(texts), before)
        """
    )
    assert out.splitlines() == [
        "The device has too little memory for a batch of 64 texts of up to 4,002 tokens. Use "
        "batch_size=32 or a vectorizer with a smaller max_length.",
        "There is too little memory to predict texts of up to 12,009 characters. Set max_length of "
        "the vectorizer, which bounds what the network reads, or cut very long texts.",
    ]


def test_a_full_disk_keeps_the_earlier_file(fitted, tmp_path, monkeypatch):
    fitted.save(tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="save needs 0.0 MB in .* there is less room") as caught:
        fitted.save(tmp_path / "model.safetensors")
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


@ON_LINUX
@pytest.mark.slow
def test_nothing_but_the_python_path_is_needed(tmp_path):
    """No HOME, no PATH, and a working directory that nobody can write to."""
    out = run(
        f"""
        import joblib
        from sklstm import LSTMLanguageModel, LSTMTextClassifier, load
        texts, labels = {TEXTS!r}, [1, 0] * 5
        clf = LSTMTextClassifier(max_epochs=1, random_state=0).fit(texts, labels)
        clf.save("{tmp_path}/model.safetensors")
        joblib.dump(clf, "{tmp_path}/model.joblib")
        print((load("{tmp_path}/model.safetensors").predict(texts) == clf.predict(texts)).all())
        LSTMLanguageModel(max_epochs=1).fit(texts).generate()
        """,
        env={"PYTHONPATH": str(ROOT)},
        cwd="/proc",
    )
    assert out.splitlines()[-1] == "True"
