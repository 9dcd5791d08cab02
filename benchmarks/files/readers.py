"""Processes that read files and say what came of it: a clear error, the estimator, or a fault.

CPU seconds are those of ``load`` only. The memory of ``load`` is the peak of the resident memory
(VmHWM of Linux, set back before each file) above what the process held before. A process may take
1 GiB of address space more than it had at first, so that no file can harm the machine.
"""

import contextlib
import io
import linecache
import multiprocessing
import os
import resource
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from subjects import ASKED

import sklstm

CLEAR, EQUAL, VALID = "clear error", "equal", "another valid model"
RAW, LATER = "raw error", "raw error later"
DIFFERENT, SLOW, LARGE = "different", "too slow", "too large"
#: The outcomes, the good ones first.
OUTCOMES = (CLEAR, EQUAL, VALID, RAW, LATER, DIFFERENT, SLOW, LARGE)
FAULTS = (RAW, LATER, DIFFERENT, SLOW, LARGE)
MOST_SECONDS, MOST_BYTES = 1.0, 200e6
ADDRESS_SPACE = 2**30
#: After this many seconds a process is ended, and another one started.
PATIENCE = 60


class Reader:
    """A process that reads one file after another."""

    def __init__(self, originals: dict[str, str]):
        self.originals = originals
        self._start()

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.originals), daemon=True)
        self.process.start()
        theirs.close()
        if self.pipe.recv() != "ready":
            raise RuntimeError("a process cannot load what was saved")

    def read(self, path, subject: str, *, signed: bool, read_by: str) -> dict:
        """Return the outcome of a file, its seconds and bytes, and the words of an error."""
        try:
            self.pipe.send((str(path), subject, signed, read_by))
            if self.pipe.poll(PATIENCE):
                return self.pipe.recv()
            found = {"outcome": SLOW, "seconds": PATIENCE, "bytes": 0, "words": "no answer"}
        except (EOFError, OSError) as error:
            found = {
                "outcome": RAW,
                "seconds": 0,
                "bytes": 0,
                "words": f"the process died: {error}",
            }
        self.close()
        self._start()
        return found

    def close(self):
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe, originals):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        prints = {name: _print_of(sklstm.load(path)) for name, path in originals.items()}
    except Exception:
        pipe.send("not ready")
        raise
    pipe.send("ready")
    size = int(_read_status("VmSize"))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, hard))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        while True:
            path, subject, signed, read_by = pipe.recv()
            pipe.send(_judge(path, prints.get(subject), signed, read_by))


def _judge(path, expected, signed, read_by) -> dict:
    load = sklstm.load if read_by == "sklstm" else getattr(sklstm, read_by).load
    before, begin = _mark_memory(), time.process_time()
    estimator, words = None, ""
    try:
        estimator = load(path)
        outcome = EQUAL
    except MemoryError as error:
        outcome, words = LARGE, repr(error)
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        lines = str(error).splitlines()
        is_ours = isinstance(error, ValueError | FileNotFoundError | TypeError)
        clear = is_ours and len(lines) == 1 and path in lines[0]
        outcome = CLEAR if clear else RAW
    seconds, rise = time.process_time() - begin, _read_status("VmHWM") - before
    if estimator is not None:
        outcome, words = _use(estimator, expected, signed)
    if rise > MOST_BYTES:
        outcome = LARGE
    if seconds > MOST_SECONDS:
        outcome = SLOW
    words = words.replace(path, "FILE")[:300]
    return {"outcome": outcome, "seconds": seconds, "bytes": rise, "words": words}


def _use(estimator, expected, signed) -> tuple[str, str]:
    """Return whether a loaded estimator is the one that was saved, and what it failed in."""
    begin = time.process_time()
    try:
        found = _print_of(estimator)
    except Exception as error:
        return LATER, f"{type(error).__name__}: {error} at {_place_of(error)}"
    if time.process_time() - begin > 10:
        return SLOW, "slow in use"
    if found == expected:
        return EQUAL, ""
    if signed and found["sane"]:
        return VALID, ""
    return DIFFERENT, "signed, and its answers are insane" if signed else "not signed"


def _print_of(estimator) -> dict:
    """Return all that an estimator answers, in comparable form.

    Refusals in words of ours are answers too. Other errors are raised.
    """
    learns_labels = hasattr(estimator, "predict")
    answers = {"parameters": _parameters(estimator), "repr": repr(estimator)}
    clone(estimator)
    estimator._validate_params()
    answers["history"] = repr(estimator.history_) + repr(estimator.loss_curve_)
    if learns_labels:
        sane = _ask_about_labels(estimator, answers)
    else:
        sane = _ask_language_model(estimator, answers)
    answers["saved"] = _answer(lambda: _save(estimator))
    if learns_labels:
        answers["next"] = _answer(lambda: _train(estimator))
    return answers | {"sane": sane}


def _ask_about_labels(estimator, answers) -> bool:
    predicted = _answer(lambda: estimator.predict(ASKED))
    answers["predicted"] = repr(_answer(predicted.tolist))
    answers["features"] = _bytes(_answer(lambda: estimator.transform(ASKED)))
    answers["rest"] = repr(
        (
            estimator.temperature_,
            estimator.blend_weights_,
            estimator.validation_scores_,
            estimator.embedding_coverage_,
            estimator.vocabulary_coverage_,
        )
    )
    if estimator.read_by == "sentence":
        answers["sentences"] = _answer(lambda: repr(estimator.predict_sentences(ASKED)))
    if hasattr(estimator, "predict_proba"):
        return _ask_about_classes(estimator, answers)
    return predicted.dtype == np.float64 and bool(np.isfinite(predicted).all())


def _ask_about_classes(estimator, answers) -> bool:
    probabilities = _answer(lambda: estimator.predict_proba(ASKED))
    answers["probabilities"] = _bytes(probabilities)
    classes = estimator.classes_
    answers["classes"] = repr((classes.tolist(), classes.dtype.str))
    are_sets = estimator.model_.task.kind == "label sets"
    return (
        isinstance(probabilities, np.ndarray)
        and bool(np.isfinite(probabilities).all() and (probabilities >= 0).all())
        and bool((probabilities <= 1).all())
        and (are_sets or bool(np.allclose(probabilities.sum(axis=1), 1)))
        and len(set(classes.tolist())) == len(classes)
    )


def _ask_language_model(estimator, answers) -> bool:
    perplexity = _answer(lambda: estimator.perplexity(ASKED))
    answers["perplexity"] = repr(perplexity)
    answers["backward"] = repr(_answer(lambda: estimator.perplexity(ASKED, "backward")))
    answers["texts"] = _answer(lambda: repr(estimator.generate(3, random_state=0, max_tokens=9)))
    answers["rest"] = repr(estimator.validation_perplexities_)
    return isinstance(perplexity, float) and bool(np.isfinite(perplexity))


def _train(estimator):
    """Return what it answers after one more pass over texts, all that learning changes with it."""
    estimator.partial_fit(ASKED, estimator.predict(ASKED))
    return _bytes(estimator.transform(ASKED)), repr(estimator.loss_curve_)


def _save(estimator):
    path = Path(f"/dev/shm/sklstm-{os.getpid()}")
    try:
        estimator.save(path)
        return "saved"
    finally:
        path.unlink(missing_ok=True)


def _parameters(estimator):
    parameters = estimator.get_params(deep=False)
    return repr(
        {
            name: _parameters(value) if isinstance(value, BaseEstimator) else value
            for name, value in parameters.items()
        }
    )


def _bytes(array):
    return (array.shape, array.tobytes()) if isinstance(array, np.ndarray) else array


def _answer(ask):
    """Return the answer, or the error if it is one in words of ours."""
    try:
        return ask()
    except (ValueError, TypeError, ImportError) as error:
        if not _is_ours(error):
            raise
        return f"{type(error).__name__}: {error}"


def _is_ours(error) -> bool:
    """Whether an error was raised on purpose: by a ``raise`` in sklstm, or by its constraints."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if type(error).__name__ == "InvalidParameterError":
        return True
    line = linecache.getline(frame.filename, frame.lineno).strip()
    return "/sklstm/" in frame.filename and line.startswith("raise")


def _place_of(error):
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "/sklstm/" in f.filename]
    places = [*ours[-1:], frame]
    return " in ".join(f"{Path(f.filename).name}:{f.lineno}" for f in places)


def _mark_memory() -> float:
    """Set the peak of the resident memory back; return what is resident, in bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _read_status("VmHWM")


def _read_status(name) -> float:
    for line in io.StringIO(Path("/proc/self/status").read_text()):
        if line.startswith(name + ":"):
            return 1024 * float(line.split()[1])
    raise OSError("the campaign needs Linux")
