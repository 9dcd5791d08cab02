"""Which tokens get an id: chosen by their frequency, or given by the user."""

import numbers
import warnings
from collections.abc import Callable, Mapping, Set

import numpy as np
from scipy import sparse

from sklstm.checks import level_of_user
from sklstm.text.special_tokens import SPECIAL_TOKENS

# From this number of texts on, ``min_df="auto"`` leaves out tokens that occur in one text only.
MANY_TEXTS = 1_000


def number_tokens(tokens) -> dict[str, int]:
    """Return the ids of tokens, which follow those of the special tokens."""
    return {token: i for i, token in enumerate(tokens, len(SPECIAL_TOKENS))}


def choose_tokens(
    tokens: np.ndarray,  # (n_tokens,) str objects
    positions: np.ndarray,  # (n_positions,) places among the tokens, one text after another
    offsets: np.ndarray,  # (n_texts + 1,)
    *,
    min_df,
    max_df,
    max_features: int | None,
) -> np.ndarray:
    """Return the places of the tokens to keep, the most frequent first.

    Raises
    ------
    ValueError
        If no token is left.
    """
    n_texts = len(offsets) - 1
    frequency = np.bincount(positions, minlength=len(tokens))
    least = 1 + (n_texts >= MANY_TEXTS) if min_df == "auto" else min_df
    lowest, highest = _to_count(least, n_texts), _to_count(max_df, n_texts)
    if lowest <= 1 and highest >= n_texts:  # no need to count: every token passes
        n_texts_with = np.ones(len(tokens))
    else:
        n_texts_with = count_texts(positions, offsets, n_tokens=len(tokens))
    if min_df == "auto":  # rare tokens are better than none
        lowest = min(lowest, n_texts_with.max(initial=1))
    kept = np.flatnonzero((n_texts_with >= lowest) & (n_texts_with <= highest))
    if len(kept) == 0:
        raise ValueError(_say_empty(n_texts, n_texts_with, lowest, min_df, max_df))
    kept = kept[np.lexsort((tokens[kept], -frequency[kept]))]
    return kept[:max_features]


def _to_count(limit, n_texts):
    return limit if isinstance(limit, numbers.Integral) else limit * n_texts


def _say_empty(n_texts, n_texts_with, lowest, min_df, max_df):
    """Return the error message for a vocabulary without tokens."""
    if len(n_texts_with) == 0:
        return (
            f"X must hold at least one token; got none in {n_texts} texts, so the vocabulary "
            "is empty. Check token_pattern and stop_words."
        )
    if n_texts_with.max() < lowest:
        return (
            f"No token occurs in at least min_df={min_df} of the {n_texts} texts, so the "
            "vocabulary is empty. Lower min_df."
        )
    return (
        f"Every token occurs in fewer than min_df={min_df} or more than max_df={max_df} of the "
        f"{n_texts} texts, so the vocabulary is empty. Lower min_df or raise max_df."
    )


def count_texts(positions: np.ndarray, offsets: np.ndarray, *, n_tokens: int) -> np.ndarray:
    """Return the number of texts in which each token occurs.

    The conversion to columns is a counting sort: the texts of each token come in order, with equal
    ones next to each other.
    """
    shape = (len(offsets) - 1, n_tokens)
    marks = np.ones(len(positions), dtype=np.int8)
    columns = sparse.csr_array((marks, positions, offsets), shape=shape).tocsc()
    is_new = np.ones(len(positions), dtype=bool)
    is_new[1:] = columns.indices[1:] != columns.indices[:-1]
    is_new[columns.indptr[:-1]] = True
    token = np.repeat(np.arange(n_tokens), np.diff(columns.indptr))
    return np.bincount(token[is_new], minlength=n_tokens)


def check_vocabulary(vocabulary) -> list[str]:
    """Return the tokens of a user's vocabulary in the order of their ids.

    Raises
    ------
    ValueError
        If it does not hold different tokens, at least one.
    """
    if isinstance(vocabulary, Mapping):
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    else:  # the order of a set differs from process to process
        tokens = sorted(vocabulary) if isinstance(vocabulary, Set) else list(vocabulary)
    if isinstance(vocabulary, str) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(
            f"vocabulary must be a mapping or a collection of str tokens; got {vocabulary!r:.60}."
        )
    keys = vocabulary.values() if isinstance(vocabulary, Mapping) else tokens
    if not tokens or len(set(keys)) < len(tokens):
        raise ValueError(
            f"vocabulary must hold different tokens, at least one; got {len(tokens)} "
            f"of which {len(set(keys))} differ."
        )
    return tokens


def warn_of_tokens_never_made(tokens: list[str], analyze: Callable[[str], list[str]]) -> None:
    """Warn of tokens that no text can give, since reading them gives others."""
    never = [token for token in tokens if token not in analyze(token)]
    if never:
        first = str(never[0])
        warnings.warn(
            f"vocabulary holds {len(never)} of {len(tokens)} tokens that no text can give, such as "
            f"{first!r:.40}, of which the vectorizer makes {analyze(first)[:5]}. Write them as it "
            "does.",
            UserWarning,
            stacklevel=level_of_user(),
        )
