"""An n-gram's share goes to the tokens that made it."""

import numpy as np
import pytest
from scipy import sparse

from sklstm import SequenceVectorizer
from sklstm.ngrams.origins import spread_over_tokens
from sklstm.ngrams.vectorizer import NgramVectorizer
from tests.conftest import TEXTS, UNUSUAL


@pytest.fixture
def fitted():
    return NgramVectorizer().fit(TEXTS)


def spread(vectorizer, text, name):
    """Return what the tokens of a text get where one feature has a share of 1."""
    share = np.zeros((1, len(vectorizer.get_feature_names_out())))
    share[0, vectorizer.get_feature_names_out().tolist().index(name)] = 1.0
    (found,) = spread_over_tokens(vectorizer, [text], sparse.csr_array(share))
    return found.tolist()


def test_a_word_gets_its_share_and_its_places_divide_it(fitted):
    assert spread(fitted, "so dull , zzz", "word__dull") == [0, 1, 0, 0]
    assert spread(fitted, "dull , dull", "word__dull") == [0.5, 0, 0.5]


def test_both_tokens_of_a_pair_get_half(fitted):
    assert spread(fitted, "was a good one", "pair__a good") == [0, 0.5, 0.5, 0]
    assert spread(fitted, "a good a good", "pair__a good") == [0.25] * 4


def test_a_token_gets_what_its_characters_make(fitted):
    assert spread(fitted, "wonder of wonders", "characters__ wond") == [0.5, 0, 0.5]
    assert spread(fitted, "lol dull", "characters__ll") == [0, 1]


@pytest.mark.parametrize("analyzer", ["word", "char"])
def test_shares_of_features_are_all_divided(analyzer):
    vectorizer = NgramVectorizer(SequenceVectorizer(analyzer=analyzer)).fit(TEXTS)
    texts = [*TEXTS, *UNUSUAL, "good" * 100]
    shares = sparse.csr_array(vectorizer.transform(texts))
    shares.data = np.random.default_rng(0).normal(size=len(shares.data))
    found = spread_over_tokens(vectorizer, texts, shares)
    np.testing.assert_allclose([own.sum() for own in found], shares.sum(axis=1), atol=1e-9)
    tokens = SequenceVectorizer(analyzer=analyzer, max_length=None).tokenize(texts)
    assert list(map(len, found)) == list(map(len, tokens))


def test_chinese_has_no_characters_inside_tokens():
    vectorizer = NgramVectorizer().fit(["房间好", "房间小"])
    assert spread(vectorizer, "小房间", "pair__房 间") == [0, 0.5, 0.5]


def test_feature_names_are_those_of_the_columns(fitted):
    names = fitted.get_feature_names_out()
    assert len(names) == fitted.transform(TEXTS).shape[1] == len(set(names))
    for text, row in zip(TEXTS, fitted.transform(TEXTS), strict=True):
        padded = [f" {token} " for token in text.split()]
        for name in names[row.indices]:
            kind, ngram = name.split("__")
            if kind == "characters":
                assert any(ngram in token for token in padded)
            else:
                assert f" {ngram} " in f" {text} " and (kind == "pair") == (" " in ngram)
    assert {"word__dull", "pair__simply dull"} & set(names) == {"word__dull"}
