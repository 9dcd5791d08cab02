"""Functions called in processes of their own, and the memory that they take there."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

CALL = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
function = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])
print("result:", json.dumps(function(**json.loads(sys.argv[4]))))
"""


def call_in_fresh_process(function, *, timeout=None, **arguments):
    """Return what a function of one of our scripts returns when nothing ran before it.

    Arguments and result pass as JSON. Raises ``subprocess.TimeoutExpired`` where it takes longer.
    """
    # A script run by its path is called __main__, which the other process could not import.
    module = Path(sys.modules[function.__module__].__file__)
    command = [sys.executable, "-c", CALL, str(module.parent), module.stem, function.__name__]
    process = subprocess.Popen(
        [*command, json.dumps(arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except BaseException:
        end_with_its_workers(process)
        raise
    if process.returncode != 0:
        raise RuntimeError(f"{function.__name__}({arguments}) failed:\n{errors}")
    return json.loads(output.rpartition("result:")[2])


def end_with_its_workers(process):
    """End a process and those that it started, which would keep its output open."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.communicate()


class PeakMemory:
    """Bytes by which the memory of this process rose at most since the object was made.

    With ``begin``, the memory before something earlier, its peak is forgotten and what it still
    holds counts.

    On Linux the peak is read from the process' own account and can be set back to what is in use.
    ``ru_maxrss``, all that macOS has, can not, and on Linux it even begins with the memory of the
    process that started this one.
    """

    def __init__(self, begin=None):
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not Linux, or not allowed: then the peak so far hides smaller ones
            pass
        self.begin = peak_memory() if begin is None else begin

    def rise(self):
        """Return the bytes, or None where the system does not tell."""
        return None if self.begin is None else peak_memory() - self.begin


def peak_memory():
    """Return the largest resident memory of this process in bytes, or None on Windows."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
