"""Word vectors of files, mappings and gensim, as the first rows of an embedding."""

import bz2
import gzip
import itertools
import lzma
import os
import reprlib
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
USE_TEXT = (
    "Files that are zipped or binary are not read: unpack them, or pass them as KeyedVectors of "
    "gensim."
)
LARGEST = np.finfo(np.float32).max


class WordVectors(NamedTuple):
    """The word vectors of a vocabulary."""

    matrix: np.ndarray  # (V, E) float32; 0 where there is none
    covered: np.ndarray  # (V,) bool: whether an id has one
    n_special: int  # the first ids, which are no words

    @property
    def width(self) -> int:
        """The number E of numbers a vector."""
        return self.matrix.shape[1]

    def coverage(self, ids: np.ndarray) -> tuple[float, float]:
        """Return the shares of these ids, and of the vocabulary, that have a vector."""
        return float(self.covered[ids].mean()), float(self.covered[self.n_special :].mean())

    @torch.no_grad()
    def copy_into(self, weight: Tensor) -> None:
        """Copy the vectors into the weight (V, E) of an embedding; other rows keep their values."""
        rows = torch.from_numpy(np.flatnonzero(self.covered)).to(weight.device)
        weight[rows] = torch.from_numpy(self.matrix[self.covered]).to(weight)


def check_embeddings(embeddings) -> None:
    """Raise TypeError unless ``embeddings`` is of a kind that word vectors come in."""
    is_path = isinstance(embeddings, str | os.PathLike)
    if embeddings is None or is_path or isinstance(embeddings, Mapping):
        return
    if hasattr(embeddings, "key_to_index"):
        return
    remedy = " Pass its attribute wv." if hasattr(embeddings, "wv") else ""
    raise TypeError(
        "embeddings must be the path of a text file of word vectors, a mapping from token to "
        f"vector, KeyedVectors of gensim or None; got {type(embeddings).__name__}.{remedy}"
    )


def find_vectors(
    embeddings, tokens: Sequence[str], *, n_special: int, width: int | None = None
) -> WordVectors:
    """Return the word vectors of the tokens.

    A token is looked up as it is, then in lower case.

    Parameters
    ----------
    embeddings : str, path, mapping or KeyedVectors
        As in :class:`~sklstm.LSTMTextClassifier`.
    tokens : sequence of str
        The token of each id.
    n_special : int
        The first so many tokens are no words, and are not looked up.
    width : int or None
        What the width of the vectors must be; None takes any.

    Raises
    ------
    TypeError
        If ``embeddings`` is of another kind.
    OSError
        If the file is not there, or cannot be read to its end.
    ValueError
        If the file or a vector is malformed, the width another, or no token has a vector.
    """
    check_embeddings(embeddings)
    words = list(tokens[n_special:])
    wanted = {*words, *map(str.lower, words)}
    vectors = _gather(embeddings, wanted)
    names = [word if word in vectors else word.lower() for word in words]
    found = [vectors[name] for name in names if name in vectors]
    if not found:
        raise ValueError(
            f"embeddings must hold vectors of words of the texts; got one for none of the "
            f"{len(words)} words of the vocabulary, such as {words[0]!r}. Check that texts and "
            "vectors are of one language and cut into the same kind of tokens."
        )
    if width not in (None, len(found[0])):
        raise ValueError(
            f"embedding_dim must be {len(found[0])}, the width of the vectors in embeddings, or "
            f"'auto'; got {width}."
        )
    covered = np.zeros(len(tokens), dtype=bool)
    covered[n_special:] = [name in vectors for name in names]
    matrix = np.zeros((len(tokens), len(found[0])), dtype=np.float32)
    matrix[covered] = found
    return WordVectors(matrix, covered, n_special)


def _gather(embeddings, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """Return the vectors of the wanted words, float32 and of one width."""
    if isinstance(embeddings, str | os.PathLike):
        return VectorFile(embeddings).read(wanted)
    if hasattr(embeddings, "__getitem__"):  # KeyedVectors of FastText know more than their keys
        raw = {word: embeddings[word] for word in wanted if word in embeddings}
    else:
        row_of, rows = embeddings.key_to_index, embeddings.vectors
        raw = {word: rows[row_of[word]] for word in wanted if word in row_of}
    vectors, width = {}, None
    for word in sorted(raw):
        vectors[word] = _to_vector(raw[word], width=width, where=f"embeddings[{word!r}]")
        width = len(vectors[word])
    return vectors


def _to_vector(values, *, width: int | None, where: str) -> np.ndarray:
    """Return a vector as float32, or say what is wrong with it."""
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (RuntimeError, TypeError, ValueError):
        got = reprlib.repr(values)
    else:
        if vector.ndim != 1 or len(vector) != (width or max(1, vector.size)):
            got = f"shape {vector.shape}"
        else:
            refused = vector[~(np.abs(vector) <= LARGEST)]
            if not refused.size:
                return vector.astype(np.float32)
            got = f"{refused[0]} among them"
    many = "one or more" if width is None else width
    raise ValueError(f"{where} must hold {many} finite numbers; got {got}. Mend or remove it.")


class VectorFile:
    """A text file of word vectors: a line for each word, which numbers follow.

    That is the format of GloVe; in word2vec's text format a line with the number of words and the
    width comes first. Lines end with a line feed, numbers are parted by white space, and words
    are in UTF-8. The last numbers of a line are its vector, as many as there are in the first; what
    is before them is the word, spaces in it included. Of equal words the first one counts.

    The file is read line by line. Of words that are not wanted only the width is checked.

    Parameters
    ----------
    path : str or path
        Its name; with the ending .gz, .bz2 or .xz it is unpacked on the way.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.name = f"embeddings={os.fspath(path)!r}"
        self.width = None
        self.n_words = None  # what the first line says of them

    def read(self, wanted: Collection[str]) -> dict[str, np.ndarray]:
        """Return the vectors of the wanted words that have one."""
        # Bytes are compared, so that nothing is decoded that no one wants.
        words = {word.encode(errors="surrogatepass"): word for word in wanted}
        beginnings = {part for word in words for part in word.split()[:1]}
        vectors = {}
        n_words = 0
        with closing(self._lines()) as lines:
            for number, line in lines:
                n_words += 1
                is_plain = line.count(b" ") == self.width
                if is_plain and line[: line.index(b" ")] not in beginnings:
                    continue
                name, numbers = self._split(number, line)
                word = words.get(name)
                if word is not None and word not in vectors:
                    where = f"Line {number} of {self.name}, the vector of {word!r},"
                    vectors[word] = _to_vector(numbers, width=self.width, where=where)
        self._check_length(n_words)
        return vectors

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the content of the lines that hold a word; find the width."""
        if not self.path.exists():
            raise FileNotFoundError(
                f"{self.name} must be the path of a text file of word vectors; there is no such "
                "file. Check the name and the working directory."
            )
        unpack = OPENERS.get(self.path.suffix.lower(), open)
        try:
            with unpack(self.path, "rb") as file:
                for number, line in enumerate(file, 1):
                    line = line.removeprefix(BYTE_ORDER_MARK if number == 1 else b"").strip()
                    if line and (self.width is not None or not self._begin(number, line)):
                        yield number, line
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise OSError(
                f"{self.name} must be a file that can be read to its end; got the error "
                f"{str(error)!r}. Check that it is complete and packed as its ending says."
            ) from error

    def _begin(self, number: int, line: bytes) -> bool:
        """Find the width in the first line; return whether it is a header."""
        fields = line.split()
        if len(fields) == 2 and all(field.isdigit() for field in fields) and int(fields[1]) > 0:
            self.n_words, self.width = map(int, fields)
            return True
        self.width = sum(1 for _ in itertools.takewhile(_is_number, reversed(fields[1:])))
        if self.width < 1:
            raise ValueError(
                f"Line {number} of {self.name} must hold a word and its vector, or the number of "
                f"words and the width; got {_show(line)}. {USE_TEXT}"
            )
        return False

    def _split(self, number: int, line: bytes) -> tuple[bytes, list[str]]:
        """Return the word of a line and its numbers."""
        word, *numbers = line.rsplit(None, self.width)
        *before, last = word.split()
        is_wider = bool(before) and _is_number(last)
        if len(numbers) < self.width or is_wider:
            raise ValueError(
                f"Line {number} of {self.name} must hold a word and {self.width} numbers, as the "
                f"first line has it; got {'more' if is_wider else len(numbers)} behind "
                f"{_show(word)}. {'Mend or remove it.' if _is_text(line) else USE_TEXT}"
            )
        return word, [text.decode(errors="replace") for text in numbers]

    def _check_length(self, n_words: int) -> None:
        if n_words == 0 and self.width is None:
            raise ValueError(f"{self.name} must hold a line for each word; got an empty file.")
        if self.n_words not in (None, n_words):
            raise ValueError(
                f"{self.name} must hold {self.n_words} words, as its first line says; got "
                f"{n_words}. Fetch it again, or put the right number into its first line."
            )


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _show(text: bytes) -> str:
    """Return the beginning of a line for a message."""
    return reprlib.repr(text.decode(errors="replace"))
