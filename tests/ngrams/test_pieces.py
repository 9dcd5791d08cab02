"""Pieces of tokens are scikit-learn's."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from sklstm.ngrams import pieces as pieces_module
from sklstm.ngrams.pieces import (
    MOST_CHARACTERS,
    TokenColumns,
    find_pieces,
    learn_pieces,
    tabulate,
)

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
    columns = TokenColumns({piece: column for column, piece in enumerate(pieces)})
    expected = counter.transform(without_single_characters(new))[:, order].toarray()
    for _ in range(2):  # found, and remembered
        known = tabulate(*columns.find(new), n_columns=len(pieces))
        np.testing.assert_array_equal(known.toarray(), expected)


def test_of_a_long_token_both_ends_are_read():
    begin, end = "ab" * (MOST_CHARACTERS // 2), "cd" * (MOST_CHARACTERS // 2)
    assert find_pieces(begin + "xy" * 99 + end) == find_pieces(begin) + find_pieces(end)


def test_no_token_and_no_piece():
    assert learn_pieces([])[1].shape == (0, 0)
    assert learn_pieces(["a", "b"])[1].shape == (2, 0)
    for column_of, tokens in (({}, ["abc"]), ({"ab": 0}, [])):
        columns, lengths = TokenColumns(column_of).find(tokens)
        assert len(columns) == 0 and lengths.tolist() == [0] * len(tokens)


def test_a_bounded_number_of_columns_is_remembered(monkeypatch):
    monkeypatch.setattr(pieces_module, "MOST_REMEMBERED", 100)
    tokens = [f"token{number}" for number in range(300)]
    column_of = {piece: column for column, piece in enumerate(learn_pieces(tokens)[0])}
    columns, fresh = TokenColumns(column_of), TokenColumns(column_of)
    for token in tokens:
        np.testing.assert_array_equal(
            columns.find([token])[0], TokenColumns(column_of).find([token])[0]
        )
        assert columns._n_remembered <= 100 + len(find_pieces(token))
    np.testing.assert_array_equal(columns.find(tokens)[0], fresh.find(tokens)[0])
