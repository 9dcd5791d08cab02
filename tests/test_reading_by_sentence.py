"""read_by="sentence": what a classifier learns of sentences, and what it says of each."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklstm import LSTMTextClassifier
from sklstm.model import prediction
from tests.conftest import TEXTS, TINY, UNUSUAL


def opinions(n_texts):
    """Return texts of which one sentence tells the label, and the sentence's place."""
    rng = np.random.default_rng(0)
    words = ["rain", "train", "plain", "grain", "Spain"]
    labels = np.array(["neg", "pos"])[np.arange(n_texts) % 2]
    places = rng.integers(0, 3, n_texts)
    texts = []
    for label, place in zip(labels, places, strict=True):
        sentences = ["The " + " ".join(rng.choice(words, rng.integers(1, 6))) for _ in range(3)]
        sentences[place] = f"It was {'great' if label == 'pos' else 'awful'}"
        ends = rng.choice([".", "?!", ".')"], 3)
        texts.append(" ".join(map("".join, zip(sentences, ends, strict=True))))
    return texts, labels, places


@pytest.fixture(scope="module")
def by_sentences():
    """Return a classifier that has learnt which sentences matter."""
    texts, labels, _ = opinions(120)
    return LSTMTextClassifier(**TINY, read_by="sentence").fit(texts, labels)


def test_sentences_that_tell_the_label_are_found(by_sentences):
    texts, labels, places = opinions(20)
    assert by_sentences.score(texts, labels) == 1.0
    for sentences, label, place in zip(
        by_sentences.predict_sentences(texts), labels, places, strict=True
    ):
        assert len(sentences) == 3 and sentences[place].tokens[:2] == ["it", "was"]
        evidence = [s.weight * np.log(s.probabilities[1] / s.probabilities[0]) for s in sentences]
        assert np.argmax(np.abs(evidence)) == place
        assert (evidence[place] > 0) == (label == "pos")


def test_sentences_add_up_to_the_prediction_for_the_text(monkeypatch, by_sentences):
    texts = [*UNUSUAL, *opinions(12)[0], "Good. " * 300, "A 'b.' C?! (D.) e"]
    found = by_sentences.predict_sentences(texts)
    tokens = by_sentences.vectorizer_.tokenize(texts)
    assert [sum((s.tokens for s in sentences), []) for sentences in found] == tokens
    merged = [sum(s.weight * np.log(s.probabilities) for s in sentences) for sentences in found]
    odds = np.exp(np.array(merged))
    probabilities = by_sentences.predict_proba(texts)
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), probabilities, atol=1e-6)
    np.testing.assert_allclose([sum(s.weight for s in text) for text in found], 1, atol=1e-6)
    spans = [texts[-1][slice(*sentence.span)] for sentence in found[-1]]
    assert spans == ["A 'b.'", "C?!", "(D.)", "e"]
    assert [sentence.tokens for sentence in found[-1]] == [
        ["a", "'", "b", ".", "'"],
        ["c", "?", "!"],
        ["(", "d", ".", ")"],
        ["e"],
    ]
    assert len(found[-2]) == 128 and [sentence.tokens for sentence in found[0]] == [[]]
    one_by_one = [by_sentences.predict_sentences([text])[0] for text in texts]
    monkeypatch.setattr(prediction, "TEXTS_PER_CHUNK", 5)
    for others in (one_by_one, by_sentences.predict_sentences(texts)):
        for one, other in zip(found, others, strict=True):
            assert [s.tokens for s in one] == [s.tokens for s in other]
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=0, atol=1e-6)
                assert a.weight == pytest.approx(b.weight, abs=1e-6)


@pytest.mark.parametrize("pooling", ["last", ("mean", "max"), "attention", "embedding_mean"])
@pytest.mark.parametrize("backend", ["auto", "aten", "reference"])
def test_sentences_do_not_depend_on_other_texts(pooling, backend):
    texts, labels, _ = opinions(40)
    changes = {"pooling": pooling, "backend": backend, "num_layers": 2, "max_epochs": 2}
    model = LSTMTextClassifier(**(TINY | changes), read_by="sentence").fit(texts, labels)
    mixed = [
        *UNUSUAL,
        *TEXTS,
        *texts[:9],
        *(word * n for word in ("good. ", "bad ") for n in (3, 99)),
    ]
    together = model.predict_proba(mixed)
    one_by_one = np.vstack([model.predict_proba([text]) for text in mixed])
    np.testing.assert_allclose(one_by_one, together, rtol=0, atol=1e-6)


def test_fits_are_repeatable_pickled_and_resumed(by_sentences):
    texts, labels, _ = opinions(60)
    model = copy.deepcopy(by_sentences)
    probabilities = model.predict_proba(texts)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(model)).predict_proba(texts), probabilities
    )
    np.testing.assert_array_equal(
        clone(model).fit(*opinions(120)[:2]).predict_proba(texts), probabilities
    )
    assert model.transform(texts).shape == (60, 40)
    assert model.partial_fit(texts, labels).score(texts, labels) == 1.0
    model.set_params(adversarial=0.25, dropout=0.2, warm_start=True, max_epochs=2)
    assert model.fit(texts, labels).score(texts, labels) == 1.0
    with pytest.raises(ValueError, match="read_by must stay 'sentence', as in the fit"):
        model.set_params(read_by=None).fit(texts, labels)
    assert len(model.predict_sentences(texts)) == 60


def test_sentences_of_a_classifier_that_does_not_read_them(fitted, tiny):
    with pytest.raises(ValueError, match="needs a classifier fitted with read_by='sentence'"):
        fitted.set_params(read_by="sentence").predict_sentences(TEXTS)
    with pytest.raises(NotFittedError):
        tiny.set_params(read_by="sentence").predict_sentences(TEXTS)


def test_bad_input_of_predict_sentences(by_sentences):
    with pytest.raises(TypeError, match="X must be a sequence of texts; got a single str"):
        by_sentences.predict_sentences("one text")
