"""Words of all scripts: their marks, their forms, what is not seen, and floods."""

import re
import unicodedata

import numpy as np
import pytest

from sklstm import SequenceVectorizer
from sklstm.text.tokenizers import TOKEN_PATTERN, find_tokens, tokenize
from sklstm.text.unicode import MARK, MOST_MARKS, normalize

#: Words of scripts with marks. A word is one token, and its marks stay on it.
WORDS = {
    "Latin, decomposed": "cre\u0300me bru\u0302le\u0301e Tie\u0302\u0301ng Vie\u0323\u0302t",
    "Cyrillic, stressed": "сло\u0301во",
    "Greek, decomposed": "Ἀθη\u0301να",
    "Hebrew, pointed": "שָׁלוֹם עֲלֵיכֶם",
    "Arabic, pointed": "العَرَبِيَّة مُحَمَّد",
    "Persian, with a joiner": "می\u200cخواهم",
    "Syriac": "ܫܠܵܡܵܐ",
    "Devanagari": "हिन्दी में नहीं क्षत्रिय",
    "Bengali": "বাংলা ভাষা",
    "Gurmukhi": "ਪੰਜਾਬੀ",
    "Gujarati": "ગુજરાતી",
    "Odia": "ଓଡ଼ିଆ",
    "Tamil": "தமிழ் மொழி",
    "Telugu": "తెలుగు",
    "Kannada": "ಕನ್ನಡ",
    "Malayalam": "മലയാളം",
    "Sinhala": "සිංහල",
    "Tibetan": "བོད",
    "Thaana": "ދިވެހި",
    "N'Ko": "ߒߞߏ߫",
    "Javanese": "ꦗꦮ",
    "Chakma, beyond 65,536": "𑄌𑄋𑄴𑄟𑄳𑄦",
}

#: Texts of scripts without spaces, and their tokens: base characters with their marks.
UNSPACED = {
    "ภาษาที่": ["ภ", "า", "ษ", "า", "ที่"],
    "ພາສາ": ["ພ", "າ", "ສ", "າ"],
    "ភាសា": ["ភា", "សា"],
    "မြန်မာ": ["မြ", "န်", "မာ"],
    "房间は": ["房", "间", "は"],
}


@pytest.mark.parametrize("text", WORDS.values(), ids=WORDS)
def test_a_word_keeps_its_marks(text):
    words = text.split()
    for vectorizer in (SequenceVectorizer(lowercase=False), SequenceVectorizer(normalize=None)):
        tokens = vectorizer.tokenize([text])[0]
        form = vectorizer.normalize or "NFD"
        expected = [unicodedata.normalize(form, word) for word in words]
        if vectorizer.lowercase:
            expected = [word.lower() for word in expected]
        assert [unicodedata.normalize(form, token) for token in tokens] == expected


@pytest.mark.parametrize("text", UNSPACED)
def test_scripts_without_spaces_are_read_by_character(text):
    assert tokenize(text) == UNSPACED[text]


@pytest.mark.parametrize("text", [*WORDS.values(), *UNSPACED])
def test_all_forms_of_a_word_are_one(text):
    forms = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    assert len({tuple(tokenize(form)) for form in forms}) == 1


@pytest.mark.parametrize(
    "invisible", ["\xad", "\u200b", "\u200f", "\u202c", "\u2060", "\ufeff", "\ufe0f"], ids=ascii
)
def test_what_is_not_seen_does_not_split_a_word(invisible):
    vectorizer = SequenceVectorizer()
    assert vectorizer.tokenize([f"co{invisible}operate"]) == [["cooperate"]]
    assert vectorizer.tokenize([f"{invisible}good {invisible}"]) == [["good"]]
    assert vectorizer.tokenize([invisible]) == [[]]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("❤\ufe0f!", ["❤", "!"]),
        ("👨\u200d👩\u200d👧 👍", ["👨\u200d👩\u200d👧", "👍"]),
        ("a\u200db c\u200c, \u200dd\u200d", ["a\u200db", "c", ",", "d"]),
        ("שלום\u200f.", ["שלום", "."]),
        ("isn\u2019t caf\u00e9n't", ["is", "n\u2019t", "café", "n't"]),
        ("नहीं। हाँ", ["नहीं", "।", "हाँ"]),
        ("\u0301", ["\u0301"]),
    ],
)
def test_tokens(text, tokens):
    assert tokenize(text) == tokens


@pytest.mark.parametrize("base", ["a", "क", "!", "ก", "", "\u200d"])
@pytest.mark.parametrize("marks", ["\u0301", "\u0301\u0323", "\u094d", "\U0001e8d0"], ids=ascii)
def test_floods_of_marks_are_cut(base, marks):
    """200,000 marks, whose canonical order alone would take minutes."""
    assert len("".join(tokenize(base + marks * 100_000))) <= len(base) + MOST_MARKS
    vectorizer = SequenceVectorizer(normalize=None, max_length=None)
    tokens = vectorizer.tokenize([base + marks * 10_000])[0]
    assert max(map(len, tokens)) <= len(base) + MOST_MARKS


@pytest.mark.parametrize("strip_accents", ["ascii", "unicode"])
def test_accents_of_floods_are_removed(strip_accents):
    """In linear time also without a normal form: 200,000 marks would take minutes."""
    vectorizer = SequenceVectorizer(normalize=None, strip_accents=strip_accents)
    assert vectorizer.tokenize(["cafe" + "\u0301\u0316" * 100_000 + "s"]) == [["cafes"]]


@pytest.mark.parametrize("joiners", ["\u200d", "\u200c\u200d"], ids=ascii)
def test_long_runs_of_joiners(joiners):
    """Inside a word they stay, and at its ends they go; in linear time, else it would be hours."""
    run = joiners * (1_000_000 // len(joiners))
    assert normalize(f"é{run}é", "NFC") == f"é{run}é"
    assert normalize(f"{run}é {run}é{run} {run}", "NFC") == "é é "


def test_a_normal_form_is_asked_for():
    texts = ["ﬁne ①", "fine 1"]
    first, second = SequenceVectorizer(normalize="NFKC").fit_transform(texts)
    assert np.array_equal(first, second)
    first, second = SequenceVectorizer().fit_transform(texts)
    assert not np.array_equal(first, second)
    with pytest.raises(ValueError, match="'normalize' parameter .* must be a str among"):
        SequenceVectorizer(normalize="NFX").fit(texts)


def test_marks_are_those_of_unicode():
    """Later versions of Unicode have a few marks more."""
    is_mark = re.compile(MARK).fullmatch
    ours = {k for k in range(0x110000) if is_mark(chr(k))}
    theirs = {k for k in range(0x110000) if unicodedata.category(chr(k))[0] == "M"}
    assert ours <= theirs
    assert len(theirs - ours) < 100


def test_the_fast_way_finds_the_same_tokens():
    rng = np.random.default_rng(0)
    letters = list("ab'n’tn't!? \n1_é\u0301\u0323\u200d\xad\ufeffकि्ักา房は❤\ufe0f👨ﬁİ\u2000")
    texts = ["".join(rng.choice(letters, size=rng.integers(30))) for _ in range(2_000)]
    for settings in ({}, {"strip_accents": "unicode"}, {"normalize": None}, {"stop_words": ["a"]}):
        vectorizer = SequenceVectorizer(max_length=None, min_df=1, **settings).fit(texts)
        analyze, known = vectorizer.build_analyzer(), vectorizer.vocabulary_
        ids, offsets = vectorizer.transform_ragged(texts)
        for text, begin, end in zip(texts, offsets, offsets[1:], strict=False):
            assert ids[begin:end].tolist() == ([known[t] for t in analyze(text)] or [1])
    find = re.compile(TOKEN_PATTERN).findall
    for text in texts:
        assert find_tokens(text) == find(text)
        assert normalize(normalize(text, "NFC"), "NFC") == normalize(text, "NFC")
