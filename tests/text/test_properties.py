"""What holds of any text, found by hypothesis: tokens, forms, batches, predictions, files."""

import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sklstm import LSTMTextClassifier, SequenceVectorizer
from sklstm.text.tokenizers import tokenize
from tests.conftest import TEXTS, TINY

#: The same cases in each run, and no files of cases left behind.
ALWAYS = {"derandomize": True, "deadline": None, "database": None}
#: Fixtures of pytest are made once for all cases: these tests do not change them.
SHARED = {"suppress_health_check": [HealthCheck.function_scoped_fixture]}

#: Characters that texts treat in a way of their own, and lone surrogates.
SPECIAL = (
    "ab n'’tT.!?<br/> \n\0\xad\u0301\u0323\u094d\u200c\u200d\ufe0f\ufeff\u0e01\u0e34房é👩\ud800"
)
characters = st.sampled_from(SPECIAL) | st.characters(exclude_categories=())
texts = st.text(characters, max_size=60)
batches = st.lists(texts, min_size=1, max_size=6)


@settings(**ALWAYS, max_examples=100)
@given(texts)
def test_tokens_are_pieces_without_white_space(text):
    tokens = tokenize(text)
    assert all(type(token) is str and token for token in tokens)
    assert not any(character.isspace() for token in tokens for character in token)
    for analyzer in ("word", "char"):
        found = SequenceVectorizer(analyzer=analyzer, max_length=None).tokenize([text])[0]
        assert all(type(token) is str and token for token in found)


@settings(**ALWAYS, max_examples=100)
@given(st.text(max_size=30))
@example("<br/>\u0338")  # ">" and this mark make one character
def test_normal_forms_of_a_text_have_the_same_tokens(text):
    """Of texts with fewer marks in a row than 30, beyond which both forms are cut."""
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    first, second = SequenceVectorizer().tokenize(forms)
    assert first == second


@settings(**ALWAYS, max_examples=100)
@given(batches, st.sampled_from([None, "ascii", "unicode"]), st.sampled_from([None, "NFC", "NFKC"]))
def test_ids_do_not_depend_on_the_batch(batch, strip_accents, form):
    vectorizer = SequenceVectorizer(
        strip_accents=strip_accents, normalize=form, max_length=8, min_df=1
    )
    ids = vectorizer.fit_transform([*batch, "good"])[:-1]
    for text, row in zip(batch, ids, strict=True):
        assert np.array_equal(vectorizer.transform([text])[0], row)
    tokens = [vectorizer.inverse_transform([row])[0].tolist() for row in ids]
    assert tokens == [words or ["<unknown>"] for words in vectorizer.tokenize(batch)]


@settings(**ALWAYS, **SHARED, max_examples=15)
@given(batch=batches)
def test_probabilities_of_any_texts(batch, classifiers):
    for classifier in classifiers:
        found = classifier.predict_proba(batch)
        assert found.shape == (len(batch), 2) and (found >= 0).all()
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-6)
        for text, row in zip(batch, found, strict=True):
            np.testing.assert_allclose(classifier.predict_proba([text])[0], row, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def classifiers():
    """Return classifiers that read as a whole, by sentence, and with n-grams."""
    settings_of_each = ({}, {"read_by": "sentence"}, {"blend": "ngrams"})
    labels = ["pos"] * 5 + ["neg"] * 5
    return [
        LSTMTextClassifier(**TINY | own | {"max_epochs": 1}).fit(TEXTS * 4, labels * 4)
        for own in settings_of_each
    ]


def split_at_tabs(text):
    return text.split("\t")


@settings(**ALWAYS, **SHARED, max_examples=8)
@given(tokens=st.lists(st.text(characters, min_size=1, max_size=9), min_size=1, unique=True))
def test_a_file_keeps_any_token(tokens, tmp_path):
    vocabulary = [token for token in tokens if "\t" not in token] or ["good"]
    vectorizer = SequenceVectorizer(vocabulary=vocabulary, tokenizer=split_at_tabs)
    classifier = LSTMTextClassifier(**TINY | {"max_epochs": 1}, vectorizer=vectorizer)
    classifier.fit(TEXTS, [0, 1] * 5)
    # What split the training texts is no data; which tokens there are is.
    for owner in (classifier, classifier.model_):
        owner.vectorizer.tokenizer = None
    classifier.save(tmp_path / "model.safetensors")
    loaded = LSTMTextClassifier.load(tmp_path / "model.safetensors")
    assert loaded.vectorizer_.vocabulary_ == classifier.vectorizer_.vocabulary_


@settings(**ALWAYS, max_examples=8)
@given(
    st.lists(st.text(max_size=8), min_size=2, max_size=4, unique=True)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=4, unique=True)
)
def test_labels_come_back(classes):
    y = [classes[k % len(classes)] for k in range(len(TEXTS))]
    classifier = LSTMTextClassifier(**TINY | {"max_epochs": 1}).fit(TEXTS, y)
    assert classifier.classes_.tolist() == sorted(classes)
    assert set(classifier.predict(TEXTS).tolist()) <= set(classes)
