"""Functions called in processes of their own, and the memory that they take there.

python benchmarks/speed/fresh.py     # import sklstm, and the packages that it needs
"""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from measure import Table, alternate, speedup, summarise

IMPORTS = ("import torch, sklearn, skorch", "import sklstm")
CALL = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
function = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])
print("result:", json.dumps(function(**json.loads(sys.argv[4]))))
"""


def call_in_fresh_process(function, *, timeout=None, **arguments):
    """Return what a function of one of our scripts returns in a new process.

    Arguments and result pass as JSON. Raises ``subprocess.TimeoutExpired`` where it takes longer.
    """
    # The name of a script that is run is __main__, which the other process could not import.
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
        kill_with_its_workers(process)
        raise
    if process.returncode != 0:
        raise RuntimeError(f"{function.__name__}({arguments}) failed:\n{errors}")
    return json.loads(output.rpartition("result:")[2])


def kill_with_its_workers(process):
    """Kill a process and those that it started, which would keep its output open."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.communicate()


class PeakMemory:
    """The largest rise of this process's memory, in bytes, since the object was made.

    With ``begin``, an earlier amount of memory, the rise is counted from there.

    Linux reports the peak and can reset it. macOS reports ``ru_maxrss`` only, which cannot be reset
    (and which on Linux starts with the memory of the parent process).
    """

    def __init__(self, begin=None):
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not Linux, or not allowed: an earlier peak then hides later ones
            pass
        self.begin = peak_memory() if begin is None else begin

    def rise(self):
        """Return the bytes, or None where the system does not report them."""
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


def main():
    calls = {code: partial(subprocess.run, [sys.executable, "-c", code]) for code in IMPORTS}
    seconds = alternate(calls, repeats=5)
    table = Table("a fresh process", {"seconds": ".2f", "spread": ".0%", "ratio": ".2f"})
    for code, of_code in seconds.items():
        ratio = 1 / speedup(of_code, seconds[IMPORTS[0]])
        table.add(code, *summarise(of_code).values(), ratio)


if __name__ == "__main__":
    main()
