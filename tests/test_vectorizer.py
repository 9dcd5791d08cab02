"""Token to id and back."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer

from sklstm import SequenceVectorizer
from tests.conftest import TEXTS


def test_ids_by_eye():
    vectorizer = SequenceVectorizer(max_length=None)
    ids = vectorizer.fit_transform(["b a b !", "a c", ""])
    assert vectorizer.vocabulary_ == {"a": 3, "b": 4, "!": 5, "c": 6}
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, [[4, 3, 4, 5], [3, 6, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(vectorizer.transform(["c unseen"]), [[6, 1]])


def test_inverse_transform_gives_the_tokens_back():
    vectorizer = SequenceVectorizer(max_length=6, max_features=2)
    ids = vectorizer.fit_transform(["b a b !", "a"])
    tokens = [row.tolist() for row in vectorizer.inverse_transform(ids)]
    assert tokens == [["b", "a", "b", "<unknown>"], ["a"]]


def test_names_are_in_the_order_of_the_ids():
    vectorizer = SequenceVectorizer().fit(TEXTS)
    names = vectorizer.get_feature_names_out()
    assert names[:3].tolist() == ["<padding>", "<unknown>", "<boundary>"]
    assert all(names[i] == token for token, i in vectorizer.vocabulary_.items())


@pytest.mark.parametrize(
    ("keep", "expected"), [("head", "abcdefgh"), ("tail", "mnopqrst"), ("both", "abcpqrst")]
)
def test_long_texts_are_cut(keep, expected):
    text = "abcdefghijklmnopqrst"
    vectorizer = SequenceVectorizer(analyzer="char", max_length=8, keep=keep)
    ids = vectorizer.fit_transform([text, "ab", "", "abcdefgh"])
    rows = ["".join(row) for row in vectorizer.inverse_transform(ids)]
    assert rows == [expected, "ab", "<unknown>", "abcdefgh"]


def test_width_is_max_length_or_the_longest_text():
    assert SequenceVectorizer().fit_transform(TEXTS).shape == (10, 256)
    assert SequenceVectorizer(max_length=None).fit_transform(TEXTS).shape == (10, 6)
    assert SequenceVectorizer(max_length=None).fit(TEXTS).transform([]).shape == (0, 1)


def test_text_of_a_million_tokens():
    vectorizer = SequenceVectorizer(max_length=None)
    assert vectorizer.fit_transform(["good " * 1_000_000]).shape == (1, 1_000_000)


@pytest.mark.parametrize(
    "parameters",
    [
        {"min_df": 2},
        {"min_df": 0.3},
        {"max_df": 0.3},
        {"max_df": 3, "min_df": 2},
        {"max_features": 5},
        {"stop_words": "english"},
        {"lowercase": False},
        {"strip_accents": "unicode"},
        {"analyzer": "char"},
        {"analyzer": str.split},
        {"tokenizer": str.split, "token_pattern": r"\S+"},
        {"preprocessor": str.upper},
    ],
    ids=str,
)
def test_vocabulary_is_that_of_count_vectorizer(parameters):
    texts = [*TEXTS, "Café au lait", "CAFÉ !"]
    counter = CountVectorizer(**({"token_pattern": r"(?u)\b\w+\b"} | parameters))
    ours = SequenceVectorizer(**({"token_pattern": r"(?u)\b\w+\b"} | parameters))
    with warnings.catch_warnings():  # token_pattern beside a tokenizer
        warnings.simplefilter("ignore", UserWarning)
        assert set(ours.fit(texts).vocabulary_) == set(counter.fit(texts).vocabulary_)


def test_default_vocabulary_keeps_what_carries_sentiment():
    vocabulary = SequenceVectorizer().fit(["It ISN'T good, not at all! Why?"]).vocabulary_
    assert {"n't", "not", "!", "?"} <= set(vocabulary)


def test_same_texts_give_the_same_vocabulary_in_any_order():
    first = SequenceVectorizer().fit(TEXTS).vocabulary_
    second = SequenceVectorizer().fit(TEXTS[::-1]).vocabulary_
    assert list(first.items()) == list(second.items())


@pytest.mark.parametrize("given", [["b", "a"], {"b": 0, "a": 1}, {"a": 9, "b": 2}, ("b", "a")])
def test_given_vocabulary(given):
    vectorizer = SequenceVectorizer(vocabulary=given, max_length=3)
    np.testing.assert_array_equal(vectorizer.fit_transform(["a b c"]), [[4, 3, 1]])


def test_a_set_as_vocabulary_is_sorted():
    tokens = [f"token{k}" for k in range(50)]
    vocabulary = SequenceVectorizer(vocabulary=set(tokens)).fit(["x"]).vocabulary_
    assert list(vocabulary) == sorted(tokens)


def test_transform_reads_as_fit_did():
    vectorizer = SequenceVectorizer(min_df=2, max_length=4)
    ids = vectorizer.fit_transform(TEXTS)
    np.testing.assert_array_equal(vectorizer.transform(TEXTS), ids)


def test_before_fit():
    with pytest.raises(NotFittedError):
        SequenceVectorizer().transform(["a"])
    with pytest.raises(NotFittedError):
        SequenceVectorizer().get_feature_names_out()


@pytest.mark.parametrize(
    ("parameters", "texts", "match"),
    [
        (
            {"min_df": 5},
            ["a b", "c"],
            "No token of the 2 texts stands in min_df=5 texts or more, so the vocabulary is empty. "
            "Lower min_df.",
        ),
        ({"max_df": 0.4}, ["a", "a"], "more than max_df=0.4 of them, .* Lower min_df or raise max"),
        ({}, ["", " "], "at least one token; got none in 2 texts, so the vocabulary is empty"),
        ({"vocabulary": []}, ["a"], "vocabulary must hold different tokens, at least one; got 0"),
        ({"vocabulary": ["a", "a"]}, ["a"], "got 2 of which 1 differ"),
        ({"vocabulary": {"a": 1, "b": 1}}, ["a"], "got 2 of which 1 differ"),
        ({"vocabulary": iter(["a"])}, ["a"], "The 'vocabulary' parameter of SequenceVectorizer"),
        ({"token_pattern": "("}, ["a"], r"token_pattern must be a regular expression; got '\('"),
        ({"vocabulary": [1]}, ["a"], "vocabulary must be a mapping or a collection of str tokens"),
        ({"vocabulary": "ab"}, ["a"], "vocabulary must be a mapping or a collection of str tokens"),
        ({}, "a b", "X must be a sequence of texts; got a single str"),
        ({"keep": "middle"}, ["a"], "The 'keep' parameter of SequenceVectorizer must be a str"),
    ],
)
def test_bad_input_gets_a_sentence(parameters, texts, match):
    vectorizer = SequenceVectorizer(**parameters)
    with pytest.raises((TypeError, ValueError), match=match):
        vectorizer.fit(texts)
    assert not hasattr(vectorizer, "vocabulary_")


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        ([3, 4], r"X must be a matrix of ids as transform returns it; got shape \(2,\)"),
        ([[0.5]], "got shape .* of float64"),
        ([[99]], "X must hold ids from 0 to 18; got values from 99 to 99"),
        ([[-1]], "got values from -1 to -1"),
    ],
)
def test_inverse_transform_refuses_what_are_not_ids(ids, match):
    with pytest.raises(ValueError, match=match):
        SequenceVectorizer(max_features=16).fit(TEXTS).inverse_transform(ids)
