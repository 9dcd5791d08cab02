"""Pieces of tokens are scikit-learn's."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from sklstm.ngrams.pieces import MOST_CHARACTERS, count_pieces, find_pieces, learn_pieces

TOKENS = [
    "good",
    "a",
    "ab",
    "abcdefg",
    "aaaaaa",
    "a b",
    " ab  cde\n",
    "x\u3000yz",
    "",
    " ",
    "नमस्ते",
    "👩‍👩‍👧",
]


def by_scikit_learn(tokens):
    """Return the counter of pieces, and how often each is in each token."""
    counter = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5), lowercase=False)
    return counter, counter.fit_transform(without_single_characters(tokens))


def without_single_characters(tokens):
    return [token if len(token.strip()) > 1 else "" for token in tokens]


@pytest.mark.parametrize("token", TOKENS)
def test_pieces_are_those_of_char_wb(token):
    analyze = CountVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), lowercase=False
    ).build_analyzer()
    assert find_pieces(token) == (analyze(token) if len(token.strip()) > 1 else [])


def test_counts_are_those_of_scikit_learn(docstrings):
    tokens = [*TOKENS, *dict.fromkeys(" ".join(docstrings.data[:200]).split())]
    counter, expected = by_scikit_learn(tokens)
    pieces, counts = learn_pieces(tokens)
    order = [counter.vocabulary_[piece] for piece in pieces]
    assert len(pieces) == expected.shape[1]
    np.testing.assert_array_equal(counts.toarray(), expected[:, order].toarray())
    new = ["goodness", "zzz", *tokens[:50]]
    known = count_pieces(new, {piece: column for column, piece in enumerate(pieces)})
    np.testing.assert_array_equal(
        known.toarray(), counter.transform(without_single_characters(new))[:, order].toarray()
    )


def test_of_a_long_token_both_ends_are_read():
    begin, end = "ab" * (MOST_CHARACTERS // 2), "cd" * (MOST_CHARACTERS // 2)
    assert find_pieces(begin + "xy" * 99 + end) == find_pieces(begin) + find_pieces(end)


def test_no_token_and_no_piece():
    assert learn_pieces([])[1].shape == (0, 0)
    assert learn_pieces(["a", "b"])[1].shape == (2, 0)
    assert count_pieces(["abc"], {}).shape == (1, 0)
    assert count_pieces([], {"ab": 0}).shape == (0, 1)
