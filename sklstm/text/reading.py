"""Texts to ids, fast: each different word is cut into tokens and looked up once.

While texts are read, their ids are bytes. Joining bytes costs less than gathering numbers in
Python, and less memory.
"""

import sys
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from sklstm.text.sentences import pack

BYTES_PER_ID = np.dtype(np.int32).itemsize
# The cache of words between white space is emptied at this size; only texts that repeat few words
# have more.
MOST_CACHED = 2**19
# The share of a long text that ``keep="both"`` takes from its beginning. Reviews conclude at the
# end, so the larger part comes from there.
HEAD_SHARE = 3 / 8
SHARE_OF_HEAD = {"head": 1, "tail": 0, "both": HEAD_SHARE, "auto": HEAD_SHARE}


class Cache(dict):
    """The results of a function, each computed when its key is first asked for."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def __missing__(self, key):
        value = self[key] = self.function(key)
        return value


def to_bytes(token_id: int) -> bytes:
    """Return an id as bytes."""
    return token_id.to_bytes(BYTES_PER_ID, sys.byteorder)


def to_arrays(texts_read: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and offsets of texts whose ids are bytes."""
    ids = np.frombuffer(bytearray().join(texts_read), dtype=np.int32)  # as bytes: read-only
    lengths = np.fromiter(map(len, texts_read), dtype=np.int64, count=len(texts_read))
    return ids, np.concatenate([[0], np.cumsum(lengths // BYTES_PER_ID)])


def number_in_order(tokens: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the different tokens, as they come first, and the place of each token among them."""
    place_of = defaultdict()
    place_of.default_factory = place_of.__len__
    places = np.fromiter(map(place_of.__getitem__, tokens), dtype=np.int32, count=len(tokens))
    return np.array(list(place_of), dtype=object), places


def join_ids(tokens: list[str], ids_of_token: Cache, marks: list[int] | None = None) -> bytes:
    """Return the ids of tokens, with the marks above them if there are any."""
    ids = b"".join(map(ids_of_token.__getitem__, tokens))
    if marks is None:
        return ids
    return pack(np.frombuffer(ids, dtype=np.int32), np.array(marks, dtype=np.int32)).tobytes()


def read_by_words(
    preprocess: Callable[[str], str],
    read_word: Callable[[str], bytes],
    shorten: Callable[[list], list] | None = None,
) -> Callable[[str], bytes]:
    """Return the function from a text to its ids, where no token holds or sees white space.

    Texts are split at white space, and each different word is read once. ``shorten`` drops words of
    long texts; it may drop only words whose ids ``max_length`` drops anyway.
    """
    ids_of_word = Cache(read_word)

    def read(text):
        if len(ids_of_word) > MOST_CACHED:
            ids_of_word.clear()
        words = str.split(preprocess(text))
        if shorten is not None:
            words = shorten(words)
        return b"".join(map(ids_of_word.__getitem__, words))

    return read


def shorten(sequence, *, max_length: int | None, keep: str, size: int = 1):
    """Return what ``max_length`` leaves of a text, whose items take ``size`` places each."""
    if max_length is None or len(sequence) <= size * max_length:
        return sequence
    head = int(max_length * SHARE_OF_HEAD[keep])
    tail = max_length - head
    return sequence[: size * head] + sequence[len(sequence) - size * tail :]
