"""An explanation: what it shows, how it looks, and what cannot be explained."""

import re
from html import unescape

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from sklstm import LSTMTextClassifier, LSTMTextRegressor
from sklstm.model.explanation import Explanation, SentenceAttribution
from tests.conftest import LABELS, TEXTS, TINY


def explanation(text="so good", spans=((0, 2), (3, 7)), numbers=(-1.0, 2.0), **fields):
    defaults = {
        "tokens": text.split(),
        "ngrams": np.zeros(len(numbers)),
        "target": "pos",
        "probability": 0.75,
        "value": 1.1,
        "base": 0.1,
    }
    network = np.array(numbers)
    return Explanation(text=text, spans=list(spans), network=network, **defaults | fields)


def visible(html):
    """Return the text of the last block, without tags."""
    body = html.rpartition("pre-wrap")[2].partition(">")[2]
    return unescape(re.sub("<[^>]*>", "", body))


def test_html_highlights_the_original_text():
    html = explanation()._repr_html_()
    assert visible(html) == "so good"
    assert 'rgba(234,134,0,0.33)" title="-1.000">so<' in html
    assert 'rgba(66,133,244,0.65)" title="+2.000">good<' in html


def test_html_escapes_texts_and_labels():
    text = "<script> & \"'"
    found = explanation(text, [(0, 8), (9, 10), (11, 13)], [1, 2, 3], target="<b>")
    html = found._repr_html_()
    assert "<script>" not in html and "<b>" not in html
    assert visible(html) == text


def test_html_of_tokens_that_share_characters_and_of_none():
    html = explanation("ﬁne", [(0, 1), (0, 1), (1, 3)], [1, 2, 0], tokens=["f", "i", "ne"])
    assert visible(html._repr_html_()) == "ﬁne" and 'title="+3.000">ﬁ<' in html._repr_html_()
    assert visible(explanation("", [], [])._repr_html_()) == ""
    zero = explanation(numbers=(0.0, 0.0))._repr_html_()
    assert "nan" not in zero and visible(zero) == "so good"


def test_html_shows_tokens_where_their_places_are_hidden():
    html = explanation("SO-GOOD", [None, None], tokens=["so", "good"])._repr_html_()
    assert visible(html).split() == ["so", "good"]


def test_html_shows_the_evidence_of_each_sentence():
    sentences = [
        SentenceAttribution(["so"], (0, 2), -1.0),
        SentenceAttribution(["good"], (3, 7), 2.0),
    ]
    html = explanation(sentences=sentences)._repr_html_()
    assert visible(html) == "so-1.00 good+2.00"


def test_repr_names_the_strongest_tokens():
    assert repr(explanation()) == (
        "Explanation(probability 0.750 of pos: 'good' +2.00, 'so' -1.00)"
    )
    numbers = explanation(probability=None, target=0)
    assert repr(numbers) == "Explanation(prediction 1.1, base 0.1: 'good' +2.00, 'so' -1.00)"
    assert "no tokens" in repr(explanation("", [], []))


def test_top_is_sorted_by_size():
    assert explanation().top() == [("good", 2.0), ("so", -1.0)]
    assert explanation().top(1) == [("good", 2.0)]


def test_bad_input(fitted):
    with pytest.raises(NotFittedError):
        LSTMTextClassifier().explain(["good"])
    with pytest.raises(TypeError, match="got a single str. Wrap it in a list"):
        fitted.explain("good")
    with pytest.raises(ValueError, match="at least one text"):
        fitted.explain([])
    for target in ("positive", 1, ["pos"], np.array(["pos", "neg"])):
        with pytest.raises(ValueError, match=r"target must be one of \['neg', 'pos'\], or None"):
            fitted.explain(["good"], target)


def test_bad_target_of_a_regressor():
    numbers = np.column_stack([np.arange(40.0), np.arange(40.0) % 3])
    reg = LSTMTextRegressor(**TINY | {"max_epochs": 1}).fit(TEXTS * 4, numbers)
    for target in (None, 2, -1, 0.5, True, "0"):
        with pytest.raises(ValueError, match="number of a column of y, from 0 to 1"):
            reg.explain(["good"], target)
    assert reg.explain(["good"], np.int64(1))[0].target == 1


def test_a_blend_of_the_users_own_is_refused():
    bayes = make_pipeline(CountVectorizer(), MultinomialNB())
    clf = LSTMTextClassifier(**TINY | {"blend": bayes, "max_epochs": 1}).fit(TEXTS * 4, LABELS * 4)
    with pytest.raises(ValueError, match="explain needs blend='ngrams' or blend=None.*Pipeline"):
        clf.explain(["good"])
