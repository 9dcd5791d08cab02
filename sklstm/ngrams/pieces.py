"""Pieces: n-grams of 2 to 5 characters inside tokens, found once for each different token.

They are those of scikit-learn's ``analyzer="char_wb"``, which reads each token by a regular
expression and counts its pieces in a dictionary of its own; here all tokens are counted at once.
"""

from array import array
from collections import defaultdict
from itertools import chain

import numpy as np
from scipy import sparse

from sklstm.text.reading import Cache

SIZES = (2, 3, 4, 5)
# What is read at each end of a token that is longer than twice that. No word is; a token of a
# megabyte, such as an encoded file, would have four million pieces.
MOST_CHARACTERS = 100
# The columns of tokens are forgotten at this number: those of some 80,000 words, and some 20 MB.
MOST_REMEMBERED = 2**21


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
    lengths = np.array(list(map(len, pieces)), dtype=np.int64)
    columns = np.fromiter(columns, dtype=np.int32, count=lengths.sum())
    return list(column_of), tabulate(columns, lengths, n_columns=len(column_of))


class TokenColumns:
    """The columns of the pieces of tokens; those of a token are found once for many calls.

    Parameters
    ----------
    column_of : dict of str to int
        The column of each known piece.
    """

    def __init__(self, column_of: dict[str, int]):
        self.column_of = column_of
        self._forget()

    def find(self, tokens) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns of the tokens' known pieces, and how many each token has.

        Parameters
        ----------
        tokens : sequence of str of length n_tokens
            The tokens.

        Returns
        -------
        columns : ndarray of int32
            Those of all tokens, one token after another; of a piece that is there twice, twice.
        lengths : ndarray of shape (n_tokens,), int64
        """
        if not self.column_of:  # every token is one character, as in Chinese
            return np.empty(0, dtype=np.int32), np.zeros(len(tokens), dtype=np.int64)
        if self._n_remembered > MOST_REMEMBERED:
            self._forget()
        of_tokens = list(map(self._of_token.__getitem__, tokens))
        sizes = np.fromiter(map(len, of_tokens), dtype=np.int64, count=len(of_tokens))
        columns = np.frombuffer(b"".join(of_tokens), dtype=np.int32)
        return columns, sizes // columns.itemsize

    def _find_one(self, token):
        columns = [self.column_of.get(piece) for piece in find_pieces(token)]
        columns = array("i", [column for column in columns if column is not None])
        self._n_remembered += len(columns)
        return columns.tobytes()

    def _forget(self):
        """Begin anew; a thread that reads meanwhile keeps what it has."""
        self._of_token, self._n_remembered = Cache(self._find_one), 0


def tabulate(columns: np.ndarray, lengths: np.ndarray, n_columns: int) -> sparse.csr_array:
    """Return a one for each column, row by row, (n_rows, n_columns), float64.

    Parameters
    ----------
    columns : ndarray of int32
        The columns of all rows, one row after another.
    lengths : ndarray of shape (n_rows,), int64
        How many are of each row.
    n_columns : int
        The number of columns there are.
    """
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return sparse.csr_array((np.ones(len(columns)), columns, ends), (len(lengths), n_columns))
