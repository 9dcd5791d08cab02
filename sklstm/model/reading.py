"""What a description and arrays describe, put together: the reader of what ``writing`` has written.

Which class is made of a kind comes from ``MAKERS``, never from a file.
"""

import math
import re
from dataclasses import fields

import numpy as np
import torch
from sklearn.pipeline import Pipeline

from sklstm.composition import NGRAMS
from sklstm.model.blending import Blend
from sklstm.model.container import DamagedFile
from sklstm.model.writing import DATACLASSES, KIND, MOST_ROWS, NOT_WRITTEN
from sklstm.network.encoder import Encoder
from sklstm.network.state import from_state as network_from_state
from sklstm.network.state import is_usable
from sklstm.ngrams.state import from_state as ngrams_from_state
from sklstm.text.vectorizer import OWN_PATTERNS, SequenceVectorizer
from sklstm.text.vocabulary import check_vocabulary, number_tokens

# The deepest nesting of lists and objects; save needs a few frames of Python for each level.
MOST_DEPTH = 50
# The most memory of labels whose dtype has a width; larger ones become objects.
MOST_BYTES_OF_LABELS = 10**8


class Reader:
    """Puts things together from a description and arrays.

    Parameters
    ----------
    arrays : dict of str to ndarray
        The arrays by their paths.
    trust_pattern : bool
        Whether a regular expression for tokens that is not our own may be used.
    """

    def __init__(self, arrays: dict[str, np.ndarray], *, trust_pattern: bool = False):
        self.arrays, self.trust_pattern = arrays, trust_pattern
        self.depth = 0

    def put_together(self, part):
        """Return the thing that a description describes.

        Raises
        ------
        DamagedFile
            If the description is none that ``Writer`` makes.
        """
        if not isinstance(part, list | dict):
            return part
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise DamagedFile("one that is nested too deeply")
        thing = self._make(part)
        self.depth -= 1
        return thing

    def _make(self, part):
        if isinstance(part, list):
            return [self.put_together(item) for item in part]
        if KIND not in part:
            return {name: self.put_together(item) for name, item in part.items()}
        make = MAKERS.get(part[KIND]) if isinstance(part[KIND], str) else None
        if make is None:
            raise DamagedFile(f"one with a {part[KIND]!r:.40}, which this version does not know")
        return make(self, part)

    def array(self, part) -> np.ndarray:
        """Return an array of its own memory; each comes once, so that few bytes stay few."""
        return self.arrays.pop(part["path"]).copy()

    def coded(self, part) -> np.ndarray:
        """Return an array of few different numbers."""
        values, codes = (self.arrays.pop(path) for path in part["paths"])
        if values.dtype != np.float64 or codes.dtype != np.uint16 or values.ndim != 1:
            raise DamagedFile("one with numbers that are none")
        return values[codes]

    def tensor(self, part) -> torch.Tensor:
        """Return a tensor on the CPU."""
        return torch.from_numpy(self.array(part))

    def strings(self, part) -> list[str]:
        """Return a list of strings."""
        text, ends = (self.arrays.pop(path) for path in part["paths"])
        are_ends = ends.ndim == 1 and ends.dtype in (np.uint32, np.int64)
        if not are_ends or text.dtype != np.uint8 or text.ndim != 1:
            raise DamagedFile("one with strings that are none")
        begins = np.concatenate([[0], ends]).tolist()
        if begins[-1] != len(text) or (np.diff(begins) < 0).any():
            raise DamagedFile("one with strings that are none")
        content = text.tobytes()
        pairs = zip(begins[:-1], begins[1:], strict=True)
        return [content[a:b].decode("utf-8", "surrogatepass") for a, b in pairs]

    def labels(self, part) -> np.ndarray:
        """Return an array of strings."""
        if not re.fullmatch(r"\|O|[<>]U\d{1,9}", part["dtype"]):
            raise DamagedFile("one with labels that are no strings")
        strings = self.strings(part)
        dtype = np.dtype(part["dtype"])
        longest = max(map(len, strings), default=0)
        if dtype.kind == "U" and 4 * longest > dtype.itemsize:
            raise DamagedFile("one with labels that are longer than they are")
        # All take as much memory as the longest, which a small file may claim to be any number.
        is_small = len(strings) * dtype.itemsize <= MOST_BYTES_OF_LABELS
        return np.array(strings, dtype=dtype if is_small else object)

    def number(self, part) -> float:
        """Return a number that is not finite."""
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[part["value"]]

    def sequence(self, part) -> tuple:
        """Return a tuple."""
        return tuple(self.put_together(item) for item in part["items"])

    def mapping(self, part) -> dict:
        """Return a dict whose keys are no strings."""
        return {self.put_together(key): self.put_together(item) for key, item in part["items"]}

    def numbers(self, part) -> list:
        """Return a long list of numbers."""
        return self.array(part).tolist()

    def table(self, part) -> dict:
        """Return a large dict whose keys are strings."""
        names, values = (self.put_together(part[of]) for of in ("names", "values"))
        return dict(zip(names, values, strict=True))

    def rows(self, part) -> list[dict]:
        """Return a long list of dicts."""
        rows = []
        for run in part["runs"]:
            names, columns = (self.put_together(run[of]) for of in ("names", "columns"))
            if len(rows) + max(map(len, columns), default=0) > MOST_ROWS:
                raise DamagedFile("one with too many rows")
            rows += [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        return rows

    def dataclass(self, part):
        """Return an object of one of ``DATACLASSES``."""
        kind = DATACLASSES[part[KIND]]
        names = {field.name for field in fields(kind)} - NOT_WRITTEN
        described = part["fields"]
        if kind is Blend and "member" in described:
            described = _read_one_member(described)
        if not described.keys() <= names:
            raise DamagedFile("one of a later version of sklstm, which has more fields")
        return kind(**{name: self.put_together(item) for name, item in described.items()})

    def network(self, part) -> Encoder:
        """Return a network of finite weights whose outputs are finite too."""
        state = self.put_together(part["state"])
        for name, weight in state["weights"].items():
            if not is_usable(weight):
                raise DamagedFile(f"one whose weight {name!r} is not finite, or too large to use")
        return network_from_state(state)

    def vectorizer(self, part) -> SequenceVectorizer:
        """Return a vectorizer whose parameters its own fit would take."""
        parameters = {"normalize": None} | self.put_together(part["parameters"])  # earlier files
        vectorizer = SequenceVectorizer(**parameters)
        vectorizer._validate_params()
        functions = [name for name, value in vars(vectorizer).items() if callable(value)]
        if functions:
            raise DamagedFile(f"one with a function as {functions[0]}")
        if vectorizer.token_pattern not in OWN_PATTERNS and not self.trust_pattern:
            raise DamagedFile(
                "one whose vectorizer has a token_pattern of its own, which can be made to take "
                "for ever on some texts (load it with trust_pattern=True if you trust its source)"
            )
        if not all(isinstance(word, str) for word in vectorizer.stop_words or ()):
            raise DamagedFile("one with stop_words that are no strings")
        if vectorizer.vocabulary is not None:
            check_vocabulary(vectorizer.vocabulary)
        if "tokens" in part:
            vectorizer.vocabulary_ = self._vocabulary(part["tokens"])
        return vectorizer

    def _vocabulary(self, part) -> dict[str, int]:
        tokens = self.strings(part)
        vocabulary = number_tokens(tokens)
        if len(vocabulary) < len(tokens) or not tokens:
            raise DamagedFile("one with a token that comes twice, or with none")
        return vocabulary

    def rng(self, part) -> np.random.Generator:
        """Return a generator of numpy's default kind in a state."""
        rng = np.random.default_rng(0)
        rng.bit_generator.state = part["state"]
        return rng

    def ngrams(self, part) -> Pipeline:
        """Return the fitted member of n-grams."""
        vectorizer = self.put_together(part["vectorizer"])
        if not isinstance(vectorizer, SequenceVectorizer | None):
            raise DamagedFile("one whose n-grams have another vectorizer")
        return ngrams_from_state(self.put_together(part["state"]), vectorizer)


def _read_one_member(described: dict) -> dict:
    """Return the fields of a blend as they are now; up to version 3 it had one member or None."""
    rest = {name: item for name, item in described.items() if name != "member"}
    member = described["member"]
    if member is None:
        return rest | {"weights": {KIND: "tuple", "items": described["weights"]["items"][:1]}}
    named = {KIND: "tuple", "items": [NGRAMS, member]}  # files hold no other member
    return rest | {"members": {KIND: "tuple", "items": [named]}}


#: Name of a kind -> what makes it.
MAKERS = {
    "array": Reader.array,
    "coded": Reader.coded,
    "tensor": Reader.tensor,
    "strings": Reader.strings,
    "labels": Reader.labels,
    "float": Reader.number,
    "tuple": Reader.sequence,
    "dict": Reader.mapping,
    "numbers": Reader.numbers,
    "table": Reader.table,
    "rows": Reader.rows,
    "network": Reader.network,
    "vectorizer": Reader.vectorizer,
    "rng": Reader.rng,
    "ngrams": Reader.ngrams,
    **dict.fromkeys(DATACLASSES, Reader.dataclass),
}
