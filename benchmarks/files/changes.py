"""Damaged and hostile files: what becomes of a file that was saved."""

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import safetensors.numpy
from subjects import Subject, sign

from sklstm.model.container import DESCRIPTION, DIGEST, LENGTH, MOST_ITEMS, NO_DIGEST

#: Pieces of JSON that the encoder of Python does not write: they take the place of their names.
RAW = {
    "@deep@": "[" * 10_000 + "]" * 10_000,
    "@deep objects@": '{"a":' * 10_000 + "0" + "}" * 10_000,
    "@rather deep@": "[" * 900 + "]" * 900,
    "@million@": "[" + ",".join(["0"] * 10**6) + "]",
    "@half a million@": "[" + ",".join(["0"] * 500_000) + "]",
    "@strings@": "[" + ",".join(f'"{k}"' for k in range(500_000)) + "]",
    "@lists@": "[" + ",".join(["[]"] * 400_000) + "]",
    "@objects@": "[" + ",".join(["{}"] * 400_000) + "]",
    "@names@": "{" + ",".join(f'"{k}":0' for k in range(500_000)) + "}",
    "@NaN@": "NaN",
    "@Infinity@": "-Infinity",
    "@1e999@": "1e999",
    "@digits@": "9" * 5_000,
}
#: What takes the place of each node of a description.
VALUES = [None, True, -1, 0, 1, 0.5, -0.5, 1e308, 10**30, "", "x", "\ud800", [], {}, [[]], [None]]
VALUES += [{"$": "x"}, {"$": []}, {"$": "float", "value": "nan"}, {"$": "float", "value": "x"}]
VALUES += [{"$": "tuple", "items": []}, {"$": "dict", "items": [[[], 1]]}, {"$": "array"}]
VALUES += [{"$": "dict", "items": [[{"$": "float", "value": "nan"}, 1]]}, {"$": "rng", "state": {}}]
VALUES += [{"$": "vectorizer", "parameters": {}}, {"$": "Blend", "fields": {}}]
#: Names of objects that are hostile anywhere.
NAMES = ["", "$", "x", "__class__", "kind", "a\ud800"]
DTYPES = ("f2", "f4", "f8", "i1", "u1", "i4", "i8", "u8", "?", "c8")


@dataclass(frozen=True)
class Case:
    """A file to be read."""

    subject: str
    group: str
    what: str
    make: Callable[[], bytes]
    signed: bool = False  # whether whoever made it has computed its digest, if there is one
    read_by: str = "sklstm"  # or the name of the estimator's class


def list_cases(subjects: list[Subject], *, n_cases: int, seed: int) -> list[Case]:
    """Return about ``n_cases`` cases: all rare ones, and a share of the others.

    A half is random damage; of the sweeps through descriptions and arrays, each node has a part.
    """
    rng = np.random.default_rng(seed)
    cases = [case for subject in subjects for case in _list_lies(subject)]
    cases += [*_list_bombs(subjects[0]), *_list_strangers(subjects)]
    arrays = [case for subject in subjects for case in _sweep_arrays(subject)]
    nodes = [case for subject in subjects for case in _sweep_description(subject, rng)]
    left = max(0, n_cases - len(cases))
    cases += _draw(rng, arrays, left // 5)
    cases += _draw(rng, nodes, left // 2)
    while len(cases) < n_cases:
        subject = subjects[rng.integers(len(subjects))]
        name = list(RANDOM)[rng.integers(len(RANDOM))]
        cases.append(_damage(subject, name, int(rng.integers(2**32))))
    return cases


def _draw(rng, cases, n):
    places = rng.permutation(len(cases))[:n]
    return [cases[place] for place in np.sort(places)]


# --- Random damage ---


def _flip(content, rng):
    place = rng.integers(len(content))
    content[place] ^= 1 << rng.integers(8)


def _change(content, rng):
    for place in rng.integers(len(content), size=rng.integers(1, 17)):
        content[place] = rng.integers(256)


def _truncate(content, rng):
    del content[rng.integers(len(content)) :]


def _append(content, rng):
    content += rng.bytes(rng.integers(1, 1000))


def _swap(content, rng):
    size = rng.integers(1, 64)
    a, b = rng.integers(len(content) - size, size=2)
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]


def _zero(content, rng):
    begin, size = rng.integers(len(content)), rng.integers(1, 4096)
    end = min(len(content), begin + size)
    content[begin:end] = bytes(end - begin)


def _delete(content, rng):
    begin = rng.integers(len(content))
    del content[begin : begin + rng.integers(1, 256)]


def _repeat(content, rng):
    begin = rng.integers(len(content))
    content[begin:begin] = content[begin : begin + rng.integers(1, 256)]


RANDOM = {
    "a flipped bit": _flip,
    "changed bytes": _change,
    "truncated": _truncate,
    "appended bytes": _append,
    "swapped blocks": _swap,
    "a block of zeros": _zero,
    "a block deleted": _delete,
    "a block twice": _repeat,
}


def _damage(subject: Subject, name: str, seed: int) -> Case:
    def make():
        content = bytearray(subject.content)
        RANDOM[name](content, np.random.default_rng(seed))
        return bytes(content)

    group = "random: " + name if subject.has_digest else "random, no digest (version 1)"
    return Case(subject.name, group, f"{name}, seed {seed}", make)


# --- The description, node by node ---


def _walk(node, path=()) -> Iterator[tuple]:
    yield path
    children = node.items() if isinstance(node, dict) else ()
    for key, child in enumerate(node) if isinstance(node, list) else children:
        yield from _walk(child, (*path, key))


def _at(node, path):
    for key in path:
        node = node[key]
    return node


def _sweep_description(subject: Subject, rng) -> Iterator[Case]:
    paths = list(_walk(subject.description))[1:]
    for path in paths:
        own = type(_at(subject.description, path[:-1])) is dict
        changes = [("deleted", lambda parent, key: parent.pop(key))]
        changes += [("twice", _twice)]
        changes += [(f"now {value!r}", _setter(value)) for value in VALUES]
        changes += [(f"now {name}", _setter(name)) for name in RAW]
        for other in rng.integers(len(paths), size=3):
            value = copy.deepcopy(_at(subject.description, paths[other]))
            changes.append((f"now {'.'.join(map(str, paths[other]))}", _setter(value)))
        if own:
            siblings = list(_at(subject.description, path[:-1]))
            names = [*NAMES, path[-1] + "x", siblings[rng.integers(len(siblings))]]
            changes += [(f"named {name!r}", _renamer(name)) for name in names]
        for what, change in changes:
            where = ".".join(map(str, path))
            group = "JSON: " + ("other values" if what.startswith("now ") else "other structure")
            if what.startswith("now @"):
                group = "JSON: bombs and no numbers"
            make = _changing(subject, path, change)
            yield Case(subject.name, group, f"{where} {what}", make, signed=True)


def _changing(subject, path, change):
    def make():
        description = copy.deepcopy(subject.description)
        change(_at(description, path[:-1]), path[-1])
        return subject.pack(to_text(description))

    return make


def to_text(description) -> str:
    """Return JSON, with raw pieces in the place of their names."""
    text = json.dumps(description).replace('"@again@', '"')
    for name, raw in RAW.items():
        if name in text:
            text = text.replace(json.dumps(name), raw)
    return text


def _setter(value):
    def change(parent, key):
        parent[key] = copy.deepcopy(value)

    return change


def _renamer(name):
    def change(parent, key):
        items = list(parent.items())
        parent.clear()
        parent.update((name if old == key else old, value) for old, value in items)

    return change


def _twice(parent, key):
    if isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent["@again@" + key] = copy.deepcopy(parent[key])


# --- The arrays ---


def _sweep_arrays(subject: Subject) -> Iterator[Case]:
    for name in subject.arrays:
        for what, change in ARRAY_CHANGES.items():
            make = _changing_array(subject, name, change)
            yield Case(subject.name, "arrays: other values", f"{name} {what}", make, signed=True)
        for what, change in TABLE_CHANGES.items():
            if subject.has_digest:
                make = _changing_table(subject, name, change)
                yield Case(subject.name, "arrays: lies", f"{name} {what}", make, signed=True)


def _with(position, value):
    def change(array):
        array = array.copy()
        array.reshape(-1)[position : None if position == 0 else position + 1] = value
        return array

    return change


ARRAY_CHANGES = {f"as {dtype}": lambda array, dtype=dtype: array.astype(dtype) for dtype in DTYPES}
ARRAY_CHANGES |= {
    "flat": lambda array: array.reshape(-1),
    "in a row": lambda array: array[None],
    "in a column": lambda array: array[..., None],
    "turned": lambda array: array.T,
    "shorter": lambda array: array[:-1],
    "longer": lambda array: np.concatenate([array, array[:1]]),
    "empty": lambda array: array[:0],
    "empty and wide": lambda array: np.empty((0, 2**40), array.dtype),
    "of no dimension": lambda array: array.reshape(-1)[:1].sum(),
    "of 33 dimensions": lambda array: array.reshape(array.shape + (1,) * (33 - array.ndim)),
    "backwards": lambda array: array[::-1],
    "zeros": np.zeros_like,
    "all NaN": lambda array: np.full_like(array, np.nan, dtype=_floating(array)),
    "one NaN": lambda array: _with(array.size // 2, np.nan)(array.astype(_floating(array))),
    "one inf": lambda array: _with(array.size // 2, np.inf)(array.astype(_floating(array))),
    "one huge": lambda array: _with(array.size // 2, _largest(array))(array),
    "all huge": lambda array: np.full_like(array, _largest(array)),
    "one negative": lambda array: _with(array.size // 2, _smallest(array))(array),
    "a million": lambda array: np.resize(array, (10**6 // (array[:1].size or 1), *array.shape[1:])),
}


def _floating(array):
    return array.dtype if array.dtype.kind == "f" else np.float64


def _largest(array):
    kind = array.dtype.kind
    return True if kind == "b" else np.iinfo(array.dtype).max if kind in "iu" else 1e38


def _smallest(array):
    kind = array.dtype.kind
    return False if kind == "b" else np.iinfo(array.dtype).min if kind in "iu" else -1.0


def _changing_array(subject, name, change):
    def make():
        with np.errstate(all="ignore"):
            changed = np.array(change(np.atleast_1d(subject.arrays[name])), order="C")
        description = copy.deepcopy(subject.description)
        if subject.has_digest:
            description["arrays"][name] = [changed.dtype.str, list(changed.shape)]
        return subject.pack(to_text(description), subject.arrays | {name: changed})

    return make


def _move(table, arrays, name):
    table[name + "x"], arrays[name + "x"] = table.pop(name), arrays.pop(name)


def _forget(table, arrays, name):
    del table[name], arrays[name]


def _lie(place, value):
    def change(table, arrays, name):
        table[name][place] = value

    return change


TABLE_CHANGES = {
    "missing": _forget,
    "missing in the file": lambda table, arrays, name: arrays.pop(name),
    "missing in the table": lambda table, arrays, name: table.pop(name),
    "under another name": _move,
    "as another one": lambda table, arrays, name: arrays.update(
        {name: next(iter(arrays.values()))}
    ),
    "said to be huge": _lie(1, [2**40, 2**20]),
    "said to be negative": _lie(1, [-1, 4]),
    "said to be of endless shape": _lie(1, [1] * 10_000),
    "said to be objects": _lie(0, "|O"),
    "said to be big-endian": _lie(0, ">f4"),
    "said to be x": _lie(0, "x"),
}


def _changing_table(subject, name, change):
    def make():
        description, arrays = copy.deepcopy(subject.description), dict(subject.arrays)
        change(description["arrays"], arrays, name)
        return subject.pack(to_text(description), arrays)

    return make


# --- The header ---


def _list_lies(subject: Subject) -> Iterator[Case]:
    """Headers that lie about the arrays or are no headers, signed by whoever lies."""
    first = next(iter(subject.arrays))
    for what, change in HEADER_CHANGES.items():

        def make(change=change):
            length = int.from_bytes(subject.content[:LENGTH], "little")
            header = json.loads(subject.content[LENGTH : LENGTH + length])
            if subject.has_digest:
                header["__metadata__"][DIGEST] = NO_DIGEST
            data = subject.content[LENGTH + length :]
            header, data = change(header, data, first)
            header = header if isinstance(header, bytes) else _to_bytes(header)
            return sign(len(header).to_bytes(LENGTH, "little") + header + data)

        yield Case(subject.name, "header: lies", what, make, signed=True)
    for length in (0, 1, 2, 100, 2**24, 2**24 + 1, 2**31, 2**32, 2**63, 2**64 - 1):

        def make(length=length):
            return length.to_bytes(LENGTH, "little") + subject.content[LENGTH:]

        yield Case(subject.name, "header: lengths", f"{length} bytes", make)


def _to_bytes(header) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()


def _entry(**values):
    def change(header, data, first):
        header[first].update(values)
        return header, data

    return change


def _metadata(**values):
    def change(header, data, first):
        header["__metadata__"].update(values)
        return header, data

    return change


def _again(header, data, first):
    return _to_bytes(header)[:-1] + b"," + _to_bytes({first: header[first]})[1:], data


def _overlap(header, data, first):
    names = [name for name in header if name != "__metadata__"]
    header[names[-1]]["data_offsets"] = header[names[0]]["data_offsets"]
    return header, data


def _gap(header, data, first):
    for name in header.keys() - {"__metadata__"}:
        header[name]["data_offsets"] = [end + 8 for end in header[name]["data_offsets"]]
    return header, bytes(8) + data


HEADER_CHANGES = {
    "offsets beyond the end": _entry(data_offsets=[0, 2**40]),
    "offsets backwards": _entry(data_offsets=[8, 0]),
    "negative offsets": _entry(data_offsets=[-8, 0]),
    "offsets of no numbers": _entry(data_offsets=["0", "8"]),
    "one offset": _entry(data_offsets=[0]),
    "a huge shape": _entry(shape=[2**40, 2**20]),
    "a shape that overflows": _entry(shape=[2**63, 2]),
    "a negative shape": _entry(shape=[-1]),
    "an empty shape": _entry(shape=[]),
    "an unknown dtype": _entry(dtype="F128"),
    "bfloat16": _entry(dtype="BF16"),
    "float8": _entry(dtype="F8_E4M3"),
    "no dtype": _entry(dtype=None),
    "more in an entry": _entry(more=1),
    "a number as an entry": lambda header, data, first: (header | {first: 3}, data),
    "a name twice": _again,
    "arrays that overlap": _overlap,
    "arrays behind a gap": _gap,
    "no metadata": lambda h, data, f: ({n: e for n, e in h.items() if n != "__metadata__"}, data),
    "metadata that are a list": lambda h, data, f: (h | {"__metadata__": []}, data),
    "more metadata": _metadata(more="x"),
    "metadata of numbers": _metadata(more=3),
    "a description of a number": _metadata(**{DESCRIPTION: 3}),
    "a description of a list": _metadata(**{DESCRIPTION: "[]"}),
    "an empty description": _metadata(**{DESCRIPTION: ""}),
    "no digest": _metadata(**{DIGEST: ""}),
    "a digest of a number": _metadata(**{DIGEST: 0}),
    "a digest of other signs": _metadata(**{DIGEST: "é" * 64}),
    "a wrong digest": _metadata(**{DIGEST: "1" * 64}),
    "a list": lambda header, data, first: (b"[]", data),
    "not JSON": lambda header, data, first: (b"{'a': 1}", data),
    "not UTF-8": lambda header, data, first: (b"\xff" * 100, data),
    "UTF-16": lambda header, data, first: (_to_bytes(header).decode().encode("utf-16"), data),
    "deep JSON": lambda header, data, first: (b"[" * 100_000, data),
    "spaces before": lambda header, data, first: (b" " * 8 + _to_bytes(header), data),
    "spaces behind": lambda header, data, first: (_to_bytes(header) + b" " * 8, data),
    "more data": lambda header, data, first: (header, data + bytes(8)),
    "less data": lambda header, data, first: (header, data[:-8]),
    "no data": lambda header, data, first: (header, b""),
    "an extra array": lambda header, data, first: (
        header | {"x": {"dtype": "U8", "shape": [8], "data_offsets": [len(data), len(data) + 8]}},
        data + bytes(8),
    ),
}


# --- Bombs, and files of others ---


def _list_bombs(subject: Subject) -> Iterator[Case]:
    """Descriptions that are small or allowed as text, and large as objects."""
    size = 16_000_000
    for name, item in {
        "lists": "[]",
        "objects": "{}",
        "numbers": "1.5",
        "names": '{"a":0}',
        "strings": '"{k}"',
        "texts": '"' + "x" * 40 + '"',
    }.items():
        for commas in (1, 2, 3):
            n = min(size // (len(item) + 4), MOST_ITEMS // commas - 2_000)

            def make(item=item, n=n):
                items = ",".join(item.replace("{k}", str(k)) for k in range(n))
                description = to_text(subject.description)[:-1]
                return subject.pack(f'{description}, "more": [{items}]}}')

            what = f"{n:,} {name}"
            yield Case(subject.name, "JSON: large descriptions", what, make, signed=True)
    for name in RAW:
        for key in ("more", "kind", "version", "parameters", "model", "arrays"):

            def make(name=name, key=key):
                return subject.pack(to_text(subject.description | {key: name}))

            what = f"{key} now {name}"
            yield Case(subject.name, "JSON: bombs and no numbers", what, make, signed=True)


def _list_strangers(subjects: list[Subject]) -> Iterator[Case]:
    """Files of other programs, and of ours where another kind is expected."""
    weights = {"a": np.zeros((3, 4), np.float32)}
    strangers = {
        "empty": b"",
        "one byte": b"x",
        "eight bytes": bytes(8),
        "text": b"a good film\n" * 100,
        "zeros": bytes(10_000),
        "pickle": pickle.dumps({"a": 1}),
        "safetensors": safetensors.numpy.save(weights),
        "safetensors with metadata": safetensors.numpy.save(weights, metadata={"format": "pt"}),
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "zip": b"PK\x03\x04" + bytes(100),
    }
    for name, content in strangers.items():
        yield Case(name, "files of others", name, lambda content=content: content)
    for subject in subjects:
        is_classifier = subject.description["kind"] == "LSTMTextClassifier"
        other = "LSTMLanguageModel" if is_classifier else "LSTMTextClassifier"
        yield Case(
            subject.name,
            "another kind",
            f"read by {other}",
            lambda content=subject.content: content,
            read_by=other,
        )
