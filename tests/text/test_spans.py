"""Where tokens are in the original text."""

import pytest

from sklstm import SequenceVectorizer
from sklstm.text.spans import trace_characters


def pieces(text, **settings):
    """Return the pieces of the original text that the tokens come from."""
    vectorizer = SequenceVectorizer(**settings).fit(["ab xo"])
    (spans,), (tokens,) = vectorizer.locate_tokens([text]), vectorizer.tokenize([text])
    assert len(spans) == len(tokens)
    return [span and text[slice(*span)] for span in spans]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So  good, isn't it?", ["So", "good", ",", "is", "n't", "it", "?"]),
        ("Dull.<br /><br />Very DULL", ["Dull", ".", "Very", "DULL"]),
        ("cafe\u0301 na\u0131\u0308ve", ["cafe\u0301", "na\u0131\u0308ve"]),
        ("co\xadoperate\ufeff now", ["co\xadoperate\ufeff", "now"]),
        ("İstanbul ŒUVRE", ["İstanbul", "ŒUVRE"]),
        ("ΟΔΟΣ ΣΑΣ.", ["ΟΔΟΣ", "ΣΑΣ", "."]),
        ("房间 很好。", ["房", "间", "很", "好", "。"]),
        ("หนังดี", ["ห", "นั", "ง", "ดี"]),
        ("👨‍👩‍👧 yes 👍🏽", ["👨‍👩‍👧", "yes", "👍", "🏽"]),
        ("", []),
        ("  \n ", []),
    ],
    ids=ascii,
)
def test_tokens_are_where_they_were_cut_from(text, expected):
    assert pieces(text) == expected


def test_accents_and_forms_that_are_replaced():
    assert pieces("Déjà vu", strip_accents="unicode") == ["Déjà", "vu"]
    assert pieces("ｆｕｌｌ ﬁn ½", normalize="NFKC") == ["ｆｕｌｌ", "ﬁn", *["½"] * 3]
    assert pieces("A\u0301", normalize=None) == ["A\u0301"]


def lower_words(text):
    return text.lower().split()


def reverse_words(text):
    return [word[::-1] for word in text.split()]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"token_pattern": r"\w+"}, ["So", "good", "so"]),
        ({"token_pattern": r"(\w)\w"}, ["S", "g", "o", "s"]),
        (
            {"token_pattern": r"o*"},
            [None, "o", None, None, None, "oo", None, None, None, None, "o", None],
        ),
        ({"token_pattern": r"(x)|good"}, [None]),
        ({"tokenizer": str.split}, ["So", "good,", "so"]),
        ({"tokenizer": reverse_words}, [None, None, None]),
        ({"stop_words": ["so"]}, ["good", ","]),
        ({"analyzer": "char"}, [*"So", "  ", *"good, so"]),
        ({"analyzer": lower_words}, [None] * 3),
        ({"preprocessor": str.upper}, [None] * 4),
        ({"max_length": 2, "keep": "tail"}, [",", "so"]),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_other_ways_to_cut(settings, expected):
    assert pieces("So  good, so", **settings) == expected


@pytest.mark.parametrize("settings", [{}, {"stop_words": ["a"]}, {"analyzer": "char"}], ids=str)
def test_located_tokens_are_those_of_the_analyzer(settings):
    vectorizer = SequenceVectorizer(max_length=None, **settings).fit(["a b"])
    analyze, locate = vectorizer.build_analyzer(), vectorizer._build_locator()
    for text in ("A  b, isn't a\tñ n\u0303!", "房间 a", "\u0301x \u200d", "x" * 300, ""):
        assert locate(text)[0] == analyze(text)


def test_words_that_depend_on_each_other_have_no_origin():
    assert trace_characters("a b", lambda text: text[::-1]) is None
