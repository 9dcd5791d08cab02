"""Tables, and results as JSON."""

import json
import platform
from pathlib import Path


def describe_machine() -> dict:
    """Print and return what the figures depend on."""
    processor = platform.processor() or platform.machine()
    with_name = Path("/proc/cpuinfo")
    if with_name.exists():
        lines = with_name.read_text().splitlines()
        names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
        processor = f"{len(names)} x {names[0]}" if names else processor
    machine = {"processor": processor, "python": platform.python_version()}
    print("{processor}, Python {python}".format(**machine), flush=True)
    return machine


def print_table(title: str, columns, rows: dict[str, list]) -> None:
    """Print rows by their names; 0 is a dash."""
    width = max(map(len, [title, *rows]))
    widths = [max(7, len(name)) for name in columns]
    print(
        f"\n{title:<{width}} " + " ".join(f"{n:>{w}}" for n, w in zip(columns, widths, strict=True))
    )
    for name, values in rows.items():
        cells = ["-" if value == 0 else str(value) for value in values]
        print(
            f"{name:<{width}} " + " ".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))
        )
    print(flush=True)


def write(path, results: dict) -> None:
    """Write the results where ``--json`` was given."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")
