"""What was learnt as a description and arrays: the writer, which walks the fields of a TextModel.

A description is what JSON can express: None, bool, int, float, str, lists, and objects with names.
Everything else is an object with the name of its kind under ``KIND``. A new field of a dataclass
needs nothing here; a new kind of thing needs a row in ``KINDS``, and one in ``MAKERS`` of the
reader.
"""

import itertools
import math
from dataclasses import fields

import numpy as np
import torch
from sklearn.pipeline import Pipeline

from sklstm.model.blending import Blend
from sklstm.model.text_model import TextModel
from sklstm.network.encoder import Encoder
from sklstm.network.state import is_usable
from sklstm.network.state import take_state as take_network_state
from sklstm.ngrams.state import is_ngram_member
from sklstm.ngrams.state import take_state as take_ngrams_state
from sklstm.tasks.multiclass import Multiclass
from sklstm.tasks.multilabel import Multilabel
from sklstm.tasks.regression import Regression
from sklstm.text.vectorizer import SequenceVectorizer
from sklstm.text.vocabulary import check_vocabulary

KIND = "$"
DATACLASSES = {
    kind.__name__: kind for kind in (TextModel, Multiclass, Multilabel, Regression, Blend)
}
#: A list or an object of more items is written as arrays, where these are alike.
MANY = 100
# The most different numbers of an array that is written as codes of two bytes.
MOST_VALUES = 2**16
# The most epochs of a history.
MOST_ROWS = 200_000
#: Fields that are not written: what a fitted model does not need.
NOT_WRITTEN = {"callbacks"}


class Writer:
    """Takes things apart; their arrays gather in ``arrays``, by their paths."""

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}

    def take_apart(self, thing, path: str):
        """Return the description of a thing.

        Raises
        ------
        ValueError
            If it, or a part of it, is no data.
        """
        if thing is None or isinstance(thing, bool):
            return thing
        if isinstance(thing, str):
            return str.__str__(thing)  # the text of an Enum too, whose own str is its name
        if isinstance(thing, np.generic) and not isinstance(thing.item(), np.generic):
            return self.take_apart(thing.item(), path)
        if isinstance(thing, int):
            return int(thing)
        for kind, take in KINDS.items():
            if isinstance(thing, kind):
                return take(self, thing, path)
        return self._refuse(thing, path)

    def _refuse(self, thing, path):
        remedies = [remedy for start, remedy in REMEDIES.items() if path.startswith(start)]
        raise ValueError(
            f"save cannot write {path}: a {type(thing).__name__} is no data of ours. Use joblib, "
            f"or {(remedies or ['leave it out'])[0]}."
        )

    def array(self, array: np.ndarray, path: str) -> dict:
        """Keep an array; strings as their bytes and ends."""
        if array.dtype.kind in "OU":
            strings = array.tolist()
            if array.ndim != 1 or not all(isinstance(string, str) for string in strings):
                self._refuse(array, path)
            return self.strings(strings, path) | {KIND: "labels", "dtype": array.dtype.str}
        if array.dtype == np.float64 and array.ndim == 1 and len(array) > MANY:
            # By their bits: as numbers, 0.0 and -0.0 are one.
            bits = np.ascontiguousarray(array).view(np.int64)
            values, codes = np.unique(bits, return_inverse=True)
            values = values.view(np.float64)
            if len(values) <= min(MOST_VALUES, len(array) // 2):  # fewer bytes
                return self._coded(values, codes, path)
        return {KIND: "array", "path": self._keep(array, path)}

    def _coded(self, values: np.ndarray, codes: np.ndarray, path: str) -> dict:
        """Keep an array of few different numbers, such as IDF, in a fourth of its bytes."""
        codes = codes.astype(np.uint16)
        paths = [self._keep(values, f"{path}.values"), self._keep(codes, f"{path}.codes")]
        return {KIND: "coded", "paths": paths}

    def _keep(self, array: np.ndarray, path: str) -> str:
        """Keep an array under its path; return that."""
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            self._refuse(array, path)
        while path in self.arrays:  # the keys 1 and "1" give one path
            path += "'"
        # In the order of bytes that all files have; a number of no dimension stays one.
        self.arrays[path] = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        return path

    def strings(self, strings: list[str], path: str) -> dict:
        """Keep a list of strings as the bytes of all and the end of each."""
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)
        ends = ends.astype(np.uint32) if len(text) < 2**32 else ends
        paths = [self._keep(text, f"{path}.text"), self._keep(ends, f"{path}.ends")]
        return {KIND: "strings", "paths": paths}

    def number(self, number: float, path: str):
        """Return a float; JSON has no name for those that are not finite."""
        return number if math.isfinite(number) else {KIND: "float", "value": repr(number)}

    def sequence(self, items: list | tuple, path: str):
        """Return a list; a tuple is marked as one."""
        if isinstance(items, list) and len(items) > MANY:
            items = [item.item() if isinstance(item, np.generic) else item for item in items]
            alike = set(map(type, items))
            if alike == {str}:
                return self.strings(items, path)
            if alike <= {dict} and all(items):
                return self._rows(items, path)
            if len(alike) == 1 and alike < {bool, int, float}:
                numbers = np.array(items)
                if numbers.dtype in (np.bool_, np.int64, np.float64):
                    return {KIND: "numbers", "path": self._keep(numbers, path)}
        parts = [self.take_apart(item, f"{path}.{k}") for k, item in enumerate(items)]
        return parts if isinstance(items, list) else {KIND: "tuple", "items": parts}

    def mapping(self, mapping: dict, path: str):
        """Return an object; names that are no strings come in pairs."""
        if len(mapping) > MANY and set(map(type, mapping)) == {str}:  # a user's vocabulary
            return {
                KIND: "table",
                "names": self.take_apart(list(mapping), f"{path}.names"),
                "values": self.take_apart(list(mapping.values()), f"{path}.values"),
            }
        parts = [(key, self.take_apart(value, f"{path}.{key}")) for key, value in mapping.items()]
        if all(type(key) is str for key in mapping) and KIND not in mapping:
            return dict(parts)
        pairs = [[self.take_apart(key, f"a key of {path}"), part] for key, part in parts]
        return {KIND: "dict", "items": pairs}

    def _rows(self, rows: list[dict], path: str) -> dict:
        """Return many objects, such as a history, as columns of those that have the same names."""
        if len(rows) > MOST_ROWS:
            raise ValueError(
                f"save can write at most {MOST_ROWS:,} rows of {path}; got {len(rows):,}. "
                "Use joblib."
            )
        runs = []
        for names, run in itertools.groupby(rows, key=tuple):
            columns = list(zip(*(row.values() for row in run), strict=True))
            place = f"{path}.{len(runs)}"
            runs.append(
                {
                    "names": self.take_apart(list(names), place),
                    "columns": [
                        self.take_apart(list(column), f"{place}.{name}")
                        for name, column in zip(names, columns, strict=True)
                    ],
                }
            )
        return {KIND: "rows", "runs": runs}

    def dataclass(self, thing, path: str) -> dict:
        """Return the fields by name."""
        kept = [field.name for field in fields(thing) if field.name not in NOT_WRITTEN]
        parts = {name: self.take_apart(getattr(thing, name), f"{path}.{name}") for name in kept}
        return {KIND: type(thing).__name__, "fields": parts}

    def tensor(self, tensor: torch.Tensor, path: str) -> dict:
        """Keep a tensor."""
        return {KIND: "tensor", "path": self._keep(tensor.detach().cpu().numpy(), path)}

    def network(self, network: Encoder, path: str) -> dict:
        """Return the state of a network, whose weights must be finite."""
        state = take_network_state(network)
        for name, weight in state["weights"].items():
            if not is_usable(weight):
                raise ValueError(
                    f"save cannot write {path}: its weight {name!r} is not finite, or too large to "
                    "use, since training diverged. Fit again with a lower lr."
                )
        return {KIND: "network", "state": self.mapping(state, path)}

    def vectorizer(self, vectorizer: SequenceVectorizer, path: str) -> dict:
        """Return the parameters, if they are data; keep the vocabulary."""
        parameters = vectorizer.get_params(deep=False)
        for name, value in parameters.items():
            if callable(value):
                raise ValueError(
                    f"save cannot write {path}: its {name} is a function, which is no data. Use "
                    "joblib."
                )
        if type(vectorizer) is not SequenceVectorizer:
            self._refuse(vectorizer, path)
        parameters["vocabulary"] = _plain_vocabulary(parameters["vocabulary"])
        described = {
            KIND: "vectorizer",
            "parameters": self.mapping(parameters, f"{path}.parameters"),
        }
        if hasattr(vectorizer, "vocabulary_"):
            described["tokens"] = self.strings(list(vectorizer.vocabulary_), f"{path}.tokens")
        return described

    def rng(self, rng: np.random.Generator, path: str) -> dict:
        """Return the state of numpy's default generator."""
        return {KIND: "rng", "state": rng.bit_generator.state}

    def ngrams(self, member: Pipeline, path: str) -> dict:
        """Return what the member of n-grams has learnt; refuse a pipeline of the user's."""
        if not is_ngram_member(member):
            self._refuse(member, path)
        vectorizer = member[0].vectorizer
        return {
            KIND: "ngrams",
            "vectorizer": self.take_apart(vectorizer, f"{path}.vectorizer"),
            "state": self.mapping(take_ngrams_state(member), path),
        }


#: Type -> what takes it apart. The first that fits counts.
KINDS = {
    float: Writer.number,
    list: Writer.sequence,
    tuple: Writer.sequence,
    dict: Writer.mapping,
    np.ndarray: Writer.array,
    torch.Tensor: Writer.tensor,
    np.random.Generator: Writer.rng,
    SequenceVectorizer: Writer.vectorizer,
    Pipeline: Writer.ngrams,
    Encoder: Writer.network,
    tuple(DATACLASSES.values()): Writer.dataclass,
}

#: Beginning of a path -> what else a user can do about a thing that is no data.
REMEDIES = {"model.blend.members": "blend='ngrams'", "parameters.blend": "blend='ngrams'"}


def _plain_vocabulary(vocabulary):
    """Return a user's vocabulary as a dict or a list of strings."""
    if vocabulary is None or isinstance(vocabulary, dict):
        return vocabulary
    return list(map(str, check_vocabulary(vocabulary)))
