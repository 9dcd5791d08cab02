"""``import sklstm`` beside the libraries it stands on, alternating in fresh processes."""

import statistics
import subprocess
import sys
import time

STATEMENTS = {
    "torch, sklearn, skorch": "import torch, sklearn, skorch",
    "sklstm": "import sklstm",
}


def main(repeats=9):
    seconds = {name: [] for name in STATEMENTS}
    for _ in range(repeats + 1):
        for name, statement in STATEMENTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            seconds[name].append(time.perf_counter() - start)
    # The first round warms the disk's cache.
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    for name, median in medians.items():
        spread = (max(seconds[name][1:]) - min(seconds[name][1:])) / median
        print(f"{name:<26}{median:>7.2f} s   spread {spread:.0%}")
    base, ours = medians.values()
    print(f"ratio {ours / base:.2f}")


if __name__ == "__main__":
    main()
