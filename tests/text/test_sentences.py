"""Where sentences end, and where tokens are in a text."""

import re

import numpy as np
import pytest

from sklstm import SequenceVectorizer
from sklstm.text.sentences import CLOSES, ENDS, ID_BITS, ID_MASK, mark_word, pack


def cut(text, **settings):
    """Return the sentences of a text, each with its tokens joined by spaces."""
    vectorizer = SequenceVectorizer(**settings).fit(["a"])
    ids, _ = vectorizer.transform_ragged([text], marks=True)
    sentences, over = [[]], False
    for token, mark in zip(vectorizer.tokenize([text])[0], ids >> ID_BITS, strict=True):
        if over and not mark & CLOSES:
            sentences.append([])
        over = bool(mark & ENDS) or (over and mark == CLOSES)
        sentences[-1].append(token)
    return [" ".join(sentence) for sentence in sentences]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good", ["good"]),
        ("Good film.", ["good film ."]),
        ("Good. Bad! So", ["good .", "bad !", "so"]),
        ("What?! No...", ["what ? !", "no . . ."]),
        ("What ? ! . . . no", ["what ? ! . . .", "no"]),
        ("It cost 3.14 or 1,000.5 in all. Yes", ["it cost 3 . 14 or 1 , 000 . 5 in all .", "yes"]),
        ("Mail a.b@c.de now. Yes", ["mail a . b @ c . de now .", "yes"]),
        ("See http://a.b/c?d=e!f. Yes", ["see http : / / a . b / c ? d = e ! f .", "yes"]),
        ("Wait...what? No", ["wait . . . what ?", "no"]),
        ("Well…maybe… no", ["well … maybe …", "no"]),
        ('He said "No." She left.', ['he said " no . "', "she left ."]),
        ('He left. "No," she said.', ["he left .", '" no , " she said .']),
        ("(Why?)] He left.", ["( why ? ) ]", "he left ."]),
        ('She said "no."Then left.', ['she said " no . "', "then left ."]),
        ("The U.S.'s laws", ["the u . s . ' s laws"]),
        ("v1.2.3)", ["v1 . 2 . 3 )"]),
        (") good. bad", [") good .", "bad"]),
        ("好。不好！？嗯", ["好 。", "不 好 ！ ？", "嗯"]),
        ("他说：「好。」我走了。", ["他 说 ： 「 好 。 」", "我 走 了 。"]),
        ("３．１４です。はい", ["３ ． １４ で す 。", "は い"]),
        ("यह अच्छा है। नहीं", ["यह अच्छा है ।", "नहीं"]),
        ("هل هذا جيد؟ نعم", ["هل هذا جيد ؟", "نعم"]),
    ],
    ids=str,
)
def test_cuts_by_eye(text, expected):
    assert cut(text) == expected


def word_tokenizer(text):
    return re.findall(r"\w+|\S", text)


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer": word_tokenizer},
        {"tokenizer": str.split},
        {"token_pattern": r"\w+"},
        {"token_pattern": r"(\w+)[.]?"},
        {"stop_words": ["the"]},
        {"analyzer": "char"},
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_ends_do_not_depend_on_how_texts_are_cut(settings):
    sentences = cut('The site a.b is 3.5 good! "Is the?" Yes.', **settings)
    words = ["thesiteabis35good", "isthe", "yes"]
    if "stop_words" in settings:
        words = [word.replace("the", "") for word in words]
    assert ["".join(re.findall(r"\w", sentence)) for sentence in sentences] == words


def test_an_analyzer_that_hides_the_text_ends_sentences_by_its_tokens():
    assert cut("Good. 3.5 no", analyzer=word_tokenizer) == ["Good .", "3 .", "5 no"]


def test_ends_do_not_depend_on_the_vocabulary():
    vectorizer = SequenceVectorizer().fit(["no stop here"])
    ids, _ = vectorizer.transform_ragged(["no stop. here"], marks=True)
    assert (ids & ID_MASK).tolist() == vectorizer.transform_ragged(["no stop. here"])[0].tolist()
    assert (ids >> ID_BITS).tolist() == [0, 0, ENDS | CLOSES, 0]


@pytest.mark.parametrize("settings", [{}, {"tokenizer": word_tokenizer}], ids=len)
def test_fit_and_transform_mark_alike(settings):
    texts = ["Good film. So good!", "no. 3.5", "naïve? 房间。好", "", "(yes.) " * 9]
    settings = settings | {"max_length": 7}
    ids, offsets = SequenceVectorizer(**settings).fit_ragged(texts, marks=True)
    vectorizer = SequenceVectorizer(**settings).fit(texts)
    again, same_offsets = vectorizer.transform_ragged(texts, marks=True)
    np.testing.assert_array_equal(ids, again)
    np.testing.assert_array_equal(offsets, same_offsets)
    assert ids.dtype == np.int32 and (ids >> ID_BITS).max() == ENDS | CLOSES
    np.testing.assert_array_equal(ids & ID_MASK, vectorizer.transform_ragged(texts)[0])


def test_marks_are_above_the_ids():
    ids, marks = np.array([0, 1, ID_MASK], dtype=np.int32), np.array([0, ENDS, ENDS | CLOSES])
    packed = pack(ids, marks.astype(np.int32))
    assert packed.dtype == np.int32 and (packed >= 0).all()
    np.testing.assert_array_equal(packed & ID_MASK, ids)
    np.testing.assert_array_equal(packed >> ID_BITS, marks)


def test_time_to_mark_a_word_is_linear():
    assert mark_word(["."] * 100_000)[-1] == ENDS | CLOSES
    assert sum(mark_word(list('."') * 50_000)) > 0
