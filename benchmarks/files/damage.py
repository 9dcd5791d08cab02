"""What becomes of damaged and hostile files: each is to give one clear error, soon and cheaply.

Small estimators are saved. Their files are damaged at random, or changed by someone who computes
the right digest: every node of the description, every array, the header. Processes load what comes
of it, and use what loads: predictions, parameters, clone, repr, save, further training.

    python benchmarks/files/damage.py --json benchmarks/results/damage.json
    python benchmarks/files/damage.py --cases 500          # does it run?
"""

import argparse
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from changes import Case, list_cases
from readers import FAULTS, OUTCOMES, Reader
from subjects import Subject, make_subjects
from tables import describe_machine, print_table, write

#: Examples of each fault that are printed.
MOST_EXAMPLES = 25


def main():
    options = parse()
    results = describe_machine() | {"seed": options.seed}
    subjects = make_subjects()
    for subject in subjects:
        print(f"{subject.name}: {len(subject.content):,} bytes, {len(subject.arrays)} arrays")
    cases = list_cases(subjects, n_cases=options.cases, seed=options.seed)
    cases = [case for case in cases if options.only in f"{case.group} {case.subject} {case.what}"]
    begin = time.perf_counter()
    results["rows"] = read_all(cases, subjects, options.processes)
    results["seconds"] = time.perf_counter() - begin
    show(results)
    write(options.json, results)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose group, file or change has this")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def read_all(cases: list[Case], subjects: list[Subject], n_processes: int) -> list[dict]:
    """Return what came of each case."""
    with tempfile.TemporaryDirectory() as folder:
        originals = {}
        for subject in subjects:
            originals[subject.name] = f"{folder}/{subject.name}"
            Path(originals[subject.name]).write_bytes(subject.content)
        readers, free = [Reader(originals) for _ in range(n_processes)], SimpleQueue()
        for k, reader in enumerate(readers):
            free.put((reader, Path(folder) / f"case-{k}.safetensors"))

        def read(case):
            reader, path = free.get()
            try:
                content = case.make()
                path.write_bytes(content)
                told = reader.read(path, case.subject, signed=case.signed, read_by=case.read_by)
            finally:
                free.put((reader, path))
            about = {"group": case.group, "subject": case.subject, "what": case.what[:200]}
            return about | {"file bytes": len(content)} | told

        with ThreadPoolExecutor(n_processes) as threads:
            rows = list(threads.map(read, cases))
        for reader in readers:
            reader.close()
    return rows


def show(results: dict) -> None:
    """Print outcomes by group, the slowest and largest file, and the faults."""
    rows = results["rows"]
    groups = sorted({row["group"] for row in rows})
    counts = Counter((row["group"], row["outcome"]) for row in rows)
    table = {group: [counts[group, outcome] for outcome in OUTCOMES] for group in groups}
    table = {group: [sum(numbers), *numbers] for group, numbers in table.items()}
    table["all"] = [sum(column) for column in zip(*table.values(), strict=True)]
    print_table("damage", ["files", *OUTCOMES], table)
    slowest, largest = (max(rows, key=lambda row: row[of]) for of in ("seconds", "bytes"))
    print(f"slowest: {slowest['seconds']:.2f} s of CPU, {slowest['subject']}, {slowest['what']}")
    print(f"largest: {largest['bytes'] / 1e6:.0f} MB, {largest['subject']}, {largest['what']}")
    print(f"{len(rows):,} files in {results['seconds']:.0f} s")
    for outcome in FAULTS:
        found = [row for row in rows if row["outcome"] == outcome]
        words = Counter(row["words"] for row in found)
        for text, n in words.most_common(MOST_EXAMPLES):
            row = next(row for row in found if row["words"] == text)
            print(f"\n{outcome}, {n} times: {text}\n    {row['subject']}: {row['what']}")


if __name__ == "__main__":
    main()
