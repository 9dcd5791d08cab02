"""Token to id and back."""

import pickle
import re
import sys
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklstm import SequenceVectorizer
from sklstm.text import reading
from sklstm.text.tokenizers import TOKEN_PATTERN
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
    names = vectorizer.tokens_
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


@pytest.mark.parametrize(
    "parameters", [{}, {"max_length": 3}, {"analyzer": "char", "max_length": 4, "keep": "tail"}]
)
def test_tokens_are_those_behind_the_ids(parameters):
    vectorizer = SequenceVectorizer(**parameters, min_df=2).fit(TEXTS)
    texts = [*TEXTS, "Unseen words are<br />good", ""]
    tokens = vectorizer.tokenize(texts)
    known = [
        [token if token in vectorizer.vocabulary_ else "<unknown>" for token in of_text]
        for of_text in tokens
    ]
    by_id = [row.tolist() for row in vectorizer.inverse_transform(vectorizer.transform(texts))]
    assert known[:-1] == by_id[:-1]
    assert tokens[-1] == [] and by_id[-1] == ["<unknown>"]
    assert vectorizer.tokenize([]) == []


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
    with warnings.catch_warnings():  # token_pattern together with a tokenizer
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


# Every kind of character that the default pattern, lower-casing or white space knows, made to meet.
ADVERSARIAL = [
    *"nNtT'’'’_09azAZ.,!?-<>/",
    *("n't", "N'T", "n’t", "can't", "<br />", "<BR>", "<br", "not", "İ", "ß", "Σ", "ΑΣ", "ſ", "ŉ"),
    *(
        "房",
        "间",
        "。",
        "か",
        "ー",
        "\U00020000",
        "한",
        "ä",
        "a\u0308",
        "\u0300",
        "\u20e3",
        "\u200d",
    ),
    *("😀", "👍🏽", "٣", "²", "ª", "‿", "ʼ", "\ufeff", "\u200b", "\x00", "\x7f"),
    *" \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000",
]


def random_texts(n_texts, seed):
    """Return texts of adversarial pieces, and some of characters of all planes but surrogates."""
    rng = np.random.default_rng(seed)
    of_pieces = ["".join(rng.choice(ADVERSARIAL, size=rng.integers(20))) for _ in range(n_texts)]
    codes = [rng.integers(sys.maxunicode + 1, size=8) for _ in range(n_texts // 4)]
    codes += [rng.integers(0x3100, size=8) for _ in range(n_texts // 4)]
    of_all = ["".join(chr(c) for c in row if not 0xD800 <= c < 0xE000) for row in codes]
    return of_pieces + of_all


def read_by_analyzer(texts, fitted):
    """Return the ids of each text by the definition: the analyzer, token by token."""
    analyze = fitted.build_analyzer()
    return [[fitted.vocabulary_.get(token, 1) for token in analyze(text)] for text in texts]


READINGS = [
    {},
    {"lowercase": False},
    {"strip_accents": "unicode"},
    {"strip_accents": "ascii"},
    {"preprocessor": str.upper},
    {"stop_words": ["not", "n't", "房", "é"]},
    {"token_pattern": r"(?s)\w+\s\w+|."},
    {"token_pattern": r"(?u)\b\w\w+\b"},
    {"analyzer": "char"},
    {"tokenizer": str.split, "token_pattern": TOKEN_PATTERN},
]


@pytest.mark.filterwarnings("ignore:The parameter 'token_pattern' will not be used:UserWarning")
@pytest.mark.parametrize("parameters", READINGS, ids=str)
@pytest.mark.parametrize("n_texts", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_reading_is_that_of_the_analyzer(parameters, n_texts, docstrings):
    texts = [*random_texts(n_texts, seed=0), *TEXTS, *docstrings.data[:50]]
    fitted = SequenceVectorizer(**parameters, max_length=None, max_features=None)
    ids, offsets = fitted.fit_ragged(texts)
    expected = read_by_analyzer(texts, fitted)
    assert np.split(ids, offsets[1:-1])[0].dtype == np.int32
    assert [row.tolist() for row in np.split(ids, offsets[1:-1])] == [
        row or [1] for row in expected
    ]
    np.testing.assert_array_equal(fitted.transform_ragged(texts)[0], ids)
    unseen = random_texts(n_texts // 2, seed=1)
    ids, offsets = fitted.transform_ragged(unseen)
    expected = [row or [1] for row in read_by_analyzer(unseen, fitted)]
    assert [row.tolist() for row in np.split(ids, offsets[1:-1])] == expected
    check_texts_one_by_one(fitted, unseen[:200])


def check_texts_one_by_one(fitted, texts):
    """Check that each text by itself, which is read in another way, is what it is among others."""
    ids, offsets = fitted.transform_ragged(texts)
    tokens, places, ends = fitted.read_tokens(texts)
    for k, text in enumerate(texts):
        own, own_offsets = fitted.transform_ragged([text])
        np.testing.assert_array_equal(own, ids[offsets[k] : offsets[k + 1]])
        own_tokens, own_places, own_ends = fitted.read_tokens([text])
        expected = tokens[places[ends[k] : ends[k + 1]]].tolist()
        assert own_tokens[own_places].tolist() == expected
        assert own_tokens.tolist() == list(dict.fromkeys(expected))
        for array, other in ((own, ids), (own_places, places), (own_ends, ends)):
            assert array.dtype == other.dtype
        assert own_offsets.dtype == offsets.dtype and own_offsets.tolist() == [0, len(own)]


@pytest.mark.parametrize("keep", ["head", "tail", "both"])
@pytest.mark.parametrize("max_length", [1, 2, 5])
@pytest.mark.parametrize("parameters", READINGS[:6], ids=str)
def test_cutting_while_reading_is_cutting_afterwards(parameters, max_length, keep):
    texts = random_texts(300, seed=2)
    whole = SequenceVectorizer(**parameters, max_length=None).fit(texts)
    short = SequenceVectorizer(**parameters, max_length=max_length, keep=keep)
    ids, offsets = short.fit_ragged(texts)
    assert short.vocabulary_ == whole.vocabulary_
    head = {"head": max_length, "tail": 0, "both": max_length * 3 // 8}[keep]
    expected = [
        row if len(row) <= max_length else row[:head] + row[len(row) - max_length + head :]
        for row in read_by_analyzer(texts, short)
    ]
    assert [row.tolist() for row in np.split(ids, offsets[1:-1])] == [
        row or [1] for row in expected
    ]
    np.testing.assert_array_equal(short.transform_ragged(texts)[0], ids)
    np.testing.assert_array_equal(short.transform_ragged(texts)[1], offsets)
    check_texts_one_by_one(short, texts[:100])


def test_an_analyzer_of_a_subclass_is_used():
    class Shouting(SequenceVectorizer):
        def build_analyzer(self):
            return lambda text: text.upper().split()

    assert Shouting().fit(["a b-c"]).vocabulary_ == {"A": 3, "B-C": 4}


def test_white_space_of_the_pattern_is_that_of_split():
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    kept = "".join(characters.split())
    assert re.findall(r"\s", kept) == []
    assert len(re.findall(r"\S", characters)) == len(kept)


def test_the_cache_of_words_is_emptied_when_it_is_full(monkeypatch):
    ids = SequenceVectorizer().fit_transform(TEXTS)
    monkeypatch.setattr(reading, "MOST_CACHED", 3)
    np.testing.assert_array_equal(SequenceVectorizer().fit_transform(TEXTS), ids)


@pytest.mark.parametrize("limits", [{"min_df": 2}, {"max_df": 0.2}, {"min_df": 0.01, "max_df": 9}])
def test_limits_count_texts_not_tokens(limits, docstrings):
    texts = docstrings.data[:120]
    counter = CountVectorizer(token_pattern=TOKEN_PATTERN, **limits).fit(texts)
    fitted = SequenceVectorizer(max_features=None, **limits).fit(texts)
    assert set(fitted.vocabulary_) == set(counter.vocabulary_)


def test_ids_can_be_written_to():
    fitted = SequenceVectorizer().fit(TEXTS)
    assert fitted.transform_ragged(TEXTS)[0].flags.writeable


def test_before_fit():
    with pytest.raises(NotFittedError):
        SequenceVectorizer().transform(["a"])
    with pytest.raises(NotFittedError):
        SequenceVectorizer().get_feature_names_out()
    assert not hasattr(SequenceVectorizer(), "tokens_")


@pytest.mark.parametrize("kind", ["default", "pandas", "polars"])
def test_columns_have_names(kind):
    vectorizer = SequenceVectorizer(max_length=4).set_output(transform=kind)
    ids = vectorizer.fit_transform(TEXTS)
    names = vectorizer.get_feature_names_out()
    assert ids.shape == (len(TEXTS), 4) and names.tolist()[::3] == ["token_0", "token_3"]
    if kind != "default":
        assert list(ids.columns) == list(names)
    np.testing.assert_array_equal(ids, SequenceVectorizer(max_length=4).fit_transform(TEXTS))
    pipeline = make_pipeline(vectorizer, StandardScaler()).fit(TEXTS)
    assert pipeline.get_feature_names_out().tolist() == names.tolist()


def test_columns_of_a_number_that_is_not_known_have_no_names():
    vectorizer = SequenceVectorizer(max_length=None).fit(TEXTS)
    with pytest.raises(ValueError, match="got max_length=None. Set max_length.* use tokens_"):
        vectorizer.get_feature_names_out()


def test_a_global_setting_of_the_output_changes_no_fit(tiny, texts, labels):
    before = tiny.fit(texts, labels).predict_proba(texts)
    with sklearn.config_context(transform_output="pandas"):
        np.testing.assert_array_equal(tiny.fit(texts, labels).predict_proba(texts), before)
        assert list(tiny.transform(texts).columns) == list(tiny.get_feature_names_out())


@pytest.mark.parametrize(
    ("parameters", "texts", "match"),
    [
        (
            {"min_df": 5},
            ["a b", "c"],
            "No token occurs in at least min_df=5 of the 2 texts, so the vocabulary is empty. "
            "Lower min_df.",
        ),
        (
            {"max_df": 0.4},
            ["a", "a"],
            "more than max_df=0.4 of the 2 texts, .* Lower min_df or raise",
        ),
        (
            {"min_df": 2},
            ["", " "],
            "at least one token; got none in 2 texts, .* Check token_pattern",
        ),
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


class Word:
    """A token that is no str, as spaCy's are."""

    def __init__(self, text):
        self.text = text


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (
            {"tokenizer": lambda text: [Word(word) for word in text.split()]},
            r"tokenizer must return a list of str; got Word \(.*\) for the text 'a b'. Return the "
            "words of such objects.",
        ),
        (
            {"tokenizer": lambda text: [["a"], "b"]},
            r"tokenizer must .* got list \(\['a'\]\) for the",
        ),
        (
            {"analyzer": lambda text: text},
            "analyzer must return a list of str; got str for",
        ),
        ({"analyzer": lambda text: None}, "analyzer must return a list of str; got NoneType for"),
        (
            {"analyzer": lambda text: [b"a"]},
            r"analyzer must return a list of str; got bytes",
        ),
        (
            {"preprocessor": lambda text: None},
            "preprocessor must return a str; got NoneType",
        ),
        (
            {"preprocessor": str.encode},
            "preprocessor must return a str; got bytes",
        ),
    ],
    ids=["objects", "lists", "a str", "nothing", "bytes", "no text", "bytes of a text"],
)
@pytest.mark.filterwarnings("ignore:The parameter 'token_pattern' will not be used:UserWarning")
def test_what_functions_of_the_users_return_is_checked(parameters, sentence):
    for method in ("fit_transform", "tokenize"):
        with pytest.raises(TypeError, match=sentence):
            getattr(SequenceVectorizer(**parameters), method)(["a b"])


@pytest.mark.filterwarnings("ignore:The parameter 'token_pattern' will not be used:UserWarning")
def test_tokens_may_come_from_an_iterator_and_be_a_kind_of_str():
    class Token(str):
        __slots__ = ()

    vectorizer = SequenceVectorizer(tokenizer=lambda text: map(Token, text.split()), min_df=1)
    with pytest.warns(UserWarning, match="tokenizer cannot be pickled"):
        vectorizer.fit(["a b", "b c"])
    assert {"a", "b", "c"} <= set(vectorizer.vocabulary_)
    assert vectorizer.tokenize(["c a"]) == [["c", "a"]]


def split_words(text):
    return text.split()


@pytest.mark.parametrize("name", ["preprocessor", "strip_accents", "analyzer"])
def test_a_function_that_no_pickle_can_hold_is_warned_of_at_fit(name):
    functions = {"preprocessor": str.lower, "strip_accents": str.upper, "analyzer": split_words}
    function = functions[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.dumps(SequenceVectorizer(**{name: function}).fit(["a b"]))
    nameless = SequenceVectorizer(**{name: lambda text: function(text)})
    with pytest.warns(UserWarning, match=rf"^{name} cannot be pickled \(Can") as caught:
        nameless.fit(["a b"])
    assert caught[0].filename == __file__
    assert str(caught[0].message).endswith(
        "so the fitted model cannot be saved with joblib or pickle. Use a function that is defined "
        "at the top of a module."
    )
    with warnings.catch_warnings():  # said once, at fit
        warnings.simplefilter("error")
        nameless.transform(["a b"])


def test_tokens_that_no_text_can_give_are_warned_of():
    vocabulary = ["good", "Bad", "New York", "don't"]
    with pytest.warns(UserWarning) as caught:
        SequenceVectorizer(vocabulary=vocabulary).fit(["a good one"])
    (warning,) = caught
    assert str(warning.message) == (
        "vocabulary holds 3 of 4 tokens that no text can give, such as 'Bad', of which the "
        "vectorizer makes ['bad']. Write them as it does."
    )
    assert warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SequenceVectorizer(vocabulary=vocabulary, analyzer=str.split).fit(["a good one"])
        SequenceVectorizer(vocabulary=["good", "Bad"], lowercase=False).fit(["a good one"])


@pytest.mark.parametrize("stop_words", [["The"], ["good", "ONE"]])
def test_stop_words_that_no_text_can_give_are_warned_of(stop_words):
    """By scikit-learn, in its words."""
    with pytest.warns(UserWarning, match="Your stop_words may be inconsistent with your prep"):
        SequenceVectorizer(stop_words=stop_words).fit(["a good one"])
    with pytest.warns(UserWarning, match="Your stop_words may be inconsistent with your prep"):
        CountVectorizer(stop_words=stop_words).fit(["a good one"])
