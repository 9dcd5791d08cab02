"""Pieces: n-grams of 2 to 5 characters inside tokens, found once for each different token.

They are those of scikit-learn's ``analyzer="char_wb"``, which reads each token by a regular
expression and counts its pieces in a dictionary of its own; here all tokens are counted at once.
"""

from collections import defaultdict
from itertools import chain, repeat

import numpy as np
from scipy import sparse

SIZES = (2, 3, 4, 5)
# What is read at each end of a token that is longer than twice that. No word is; a token of a
# megabyte, such as an encoded file, would have four million pieces.
MOST_CHARACTERS = 100


def find_pieces(token: str) -> list[str]:
    """Return the pieces of a token with a space at both ends; none of a single character.

    No piece crosses white space inside the token, nor the middle that is left out of a long one.
    """
    if len(token) > 2 * MOST_CHARACTERS:
        token = f"{token[:MOST_CHARACTERS]} {token[-MOST_CHARACTERS:]}"
    if len(token.strip()) < 2:
        return []
    pieces = []
    for word in token.split():
        padded = f" {word} "
        length = len(padded)
        for size in SIZES:
            if size >= length:  # the whole word, once
                pieces.append(padded)
                break
            pieces += [padded[i : i + size] for i in range(length - size + 1)]
    return pieces


def learn_pieces(tokens) -> tuple[list[str], sparse.csr_array]:
    """Return the different pieces of tokens, and how often each is in each token.

    Returns
    -------
    pieces : list of str of length n_pieces
        In the order in which they come first.
    counts : csr_array of shape (n_tokens, n_pieces), float64
        A piece that a token has twice is stored twice.
    """
    column_of = defaultdict()
    column_of.default_factory = column_of.__len__
    pieces = list(map(find_pieces, tokens))
    columns = map(column_of.__getitem__, chain.from_iterable(pieces))
    lengths = list(map(len, pieces))
    columns = np.fromiter(columns, dtype=np.int32, count=sum(lengths))
    return list(column_of), _tabulate(columns, lengths)


def count_pieces(tokens, column_of: dict[str, int]) -> sparse.csr_array:
    """Return how often each known piece is in each token, (n_tokens, n_pieces), float64.

    A piece that a token has twice is stored twice.
    """
    if not column_of:  # every token is one character, as in Chinese
        return sparse.csr_array((len(tokens), 0))
    columns, lengths = find_columns(tokens, column_of)
    return _tabulate(columns, lengths, n_columns=len(column_of))


def find_columns(tokens, column_of: dict[str, int]) -> tuple[np.ndarray, list[int]]:
    """Return the columns of all tokens' pieces, -1 of an unknown one, and how many each has."""
    pieces = list(map(find_pieces, tokens))
    lengths = list(map(len, pieces))
    columns = map(column_of.get, chain.from_iterable(pieces), repeat(-1))
    return np.fromiter(columns, dtype=np.int32, count=sum(lengths)), lengths


def _tabulate(
    columns: np.ndarray, lengths: list[int], n_columns: int | None = None
) -> sparse.csr_array:
    """Return a one for each column of 0 or more, row by row.

    Parameters
    ----------
    columns : ndarray of int32
        The columns of all rows, one row after another.
    lengths : list of int
        How many are of each row.
    n_columns : int or None
        None: as many as the columns need.
    """
    if n_columns is None:
        n_columns = int(columns.max(initial=-1)) + 1
    known = columns >= 0
    kept = np.concatenate([[0], np.cumsum(known)])
    ends = kept[np.cumsum([0, *lengths])]
    indices = columns[known]
    shape = (len(lengths), n_columns)
    return sparse.csr_array((np.ones(len(indices)), indices, ends), shape=shape)
