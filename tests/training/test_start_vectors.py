"""The parameter embeddings: a classifier that starts from word vectors."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import GradientNormClipping

from sklstm import LSTMTextClassifier, SequenceVectorizer
from tests.conftest import TEXTS, TINY
from tests.text.test_word_vectors import REAL, KeyedVectors

#: Vectors of 5 numbers for most words of the corpus.
WORDS = ["good", "bad", "wonderful", "dull", "film", "story", "not", "a", ","]
VECTORS = dict(zip(WORDS, np.random.default_rng(0).normal(size=(9, 5)), strict=True))


@pytest.fixture
def model(tiny):
    """Return a small classifier that starts from the vectors."""
    return tiny.set_params(embedding_dim="auto", embeddings=VECTORS, max_epochs=3)


def rows_of(model, words=WORDS):
    """Return the embedding's rows of some words."""
    ids = [model.vectorizer_.vocabulary_[word] for word in words]
    return model.net_.module_.embedding.weight.detach()[ids].numpy()


EXPECTED = np.float32(list(VECTORS.values()))


def test_tuned_vectors_start_from_those_given(model, texts, labels):
    model.set_params(max_epochs=1, lr=1e-9).fit(texts, labels)
    np.testing.assert_allclose(rows_of(model), EXPECTED, atol=1e-6)
    model.set_params(max_epochs=10, lr=0.05).fit(texts, labels)
    assert model.score(texts, labels) >= 0.8
    assert (rows_of(model) != EXPECTED).any(axis=1).all()
    assert model.net_.module_.embedding.embedding_dim == 5
    assert model.embedding_dim == "auto"
    assert not model.net_.module_.embedding.weight[0].any()


def test_words_without_a_vector_are_drawn_as_without_vectors(model, texts, labels):
    model.set_params(freeze_embeddings=True, max_epochs=1).fit(texts, labels)
    some = {word: VECTORS[word] for word in WORDS[:2]}
    fewer = clone(model).set_params(embeddings=some).fit(texts, labels)
    plain = clone(model).set_params(
        embeddings=None, freeze_embeddings=False, embedding_dim=5, lr=1e-12, weight_decay=0.0
    )
    np.testing.assert_array_equal(rows_of(fewer, WORDS[:2]), EXPECTED[:2])
    others = [word for word in model.vectorizer_.vocabulary_ if word not in some]
    drawn = rows_of(plain.fit(texts, labels), others)
    np.testing.assert_allclose(rows_of(fewer, others), drawn, rtol=0, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"ema": None}, {"callbacks": [GradientNormClipping(1.0)]}])
def test_frozen_vectors_are_neither_moved_nor_decayed_nor_averaged(model, texts, labels, changes):
    model.set_params(freeze_embeddings=True, weight_decay=0.5, max_epochs=10, lr=0.05, **changes)
    model.fit(texts, labels)
    np.testing.assert_array_equal(rows_of(model), EXPECTED)
    assert model.score(texts, labels) >= 0.8
    drawn = model.net_.module_.embedding.weight.detach().clone()
    model.set_params(max_epochs=1).fit(texts, labels)
    assert torch.equal(model.net_.module_.embedding.weight, drawn)  # words without a vector too


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("freeze", [True, False])
def test_probabilities_do_not_depend_on_the_texts_in_the_batch(
    model, texts, labels, freeze, early_stopping
):
    model.set_params(freeze_embeddings=freeze, early_stopping=early_stopping).fit(texts, labels)
    together = model.predict_proba(TEXTS)
    one_by_one = np.vstack([model.predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(one_by_one, together, rtol=0, atol=1e-6)


def test_a_file_gives_the_bits_of_a_mapping_and_is_needed_once(model, texts, labels, tmp_path):
    lines = (" ".join([word, *map(repr, v.tolist())]) for word, v in VECTORS.items())
    path = tmp_path / "vectors.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    expected = model.fit(texts, labels).predict_proba(texts)
    from_file = clone(model).set_params(embeddings=path).fit(texts, labels)
    np.testing.assert_array_equal(from_file.predict_proba(texts), expected)
    path.unlink()
    pickled = pickle.dumps(from_file)
    assert b"truly good" not in pickled
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again.predict_proba(texts), expected)
    again.partial_fit(texts, labels)
    again.set_params(warm_start=True).fit(texts, labels)
    before = again.predict_proba(texts)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        again.set_params(warm_start=False).fit(texts, labels)
    np.testing.assert_array_equal(again.predict_proba(texts), before)


def test_searches_clone_them_and_choose_between_them(model, texts, labels):
    grid = {"embeddings": [None, VECTORS, KeyedVectors(VECTORS)], "max_epochs": [2]}
    search = GridSearchCV(model, grid, cv=2).fit(texts, labels)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and scores[1] == scores[2]
    assert clone(model).embeddings is not VECTORS and set(clone(model).embeddings) == set(VECTORS)


def test_coverage_is_kept_and_printed(model, texts, labels, capfd):
    model.set_params(early_stopping=False, verbose=1, max_epochs=1).fit(texts, labels)
    tokens = [token for text in texts for token in text.split()]
    covered = np.mean([token in VECTORS for token in tokens])
    assert model.embedding_coverage_ == pytest.approx(covered)
    assert model.vocabulary_coverage_ == pytest.approx(len(VECTORS) / len(set(tokens)))
    assert capfd.readouterr().out.startswith(
        f"Word vectors of 5 numbers cover {covered:.1%} of the tokens and "
        f"{model.vocabulary_coverage_:.1%} of the vocabulary.\n"
    )
    model.set_params(verbose=0).partial_fit(texts, labels)
    assert model.embedding_coverage_ == pytest.approx(covered)
    model.set_params(embeddings=None).fit(texts, labels)
    assert model.embedding_coverage_ is model.vocabulary_coverage_ is None
    assert capfd.readouterr().out == ""


def test_partial_fit_starts_from_them_and_can_unfreeze_them(model, texts, labels):
    model.set_params(freeze_embeddings=True).partial_fit(texts, labels, classes=["neg", "pos"])
    model.partial_fit(texts, labels)
    np.testing.assert_array_equal(rows_of(model), EXPECTED)
    model.set_params(freeze_embeddings=False).partial_fit(texts, labels)
    assert (rows_of(model) != EXPECTED).any(axis=1).all()


def test_warm_start_freezes_what_has_been_learnt(tiny, texts, labels):
    tiny.set_params(max_epochs=3).fit(texts, labels)
    learnt = tiny.net_.module_.embedding.weight.detach().clone()
    tiny.set_params(warm_start=True, freeze_embeddings=True).fit(texts, labels)
    assert torch.equal(tiny.net_.module_.embedding.weight, learnt)


def test_words_keep_their_case_where_the_vectorizer_does(tiny, labels):
    texts = ["Good film", "bad film"] * 5
    vectors = {"Good": [1.0, 2.0], "good": [3.0, 4.0], "bad": [5.0, 6.0]}
    tiny.set_params(embedding_dim="auto", embeddings=vectors, freeze_embeddings=True)
    for lowercase, word, row in ((True, "good", [3.0, 4.0]), (False, "Good", [1.0, 2.0])):
        tiny.set_params(vectorizer=SequenceVectorizer(lowercase=lowercase))
        tiny.fit(texts, ["pos", "neg"] * 5)
        assert rows_of(tiny, [word]).tolist() == [row]


def test_without_them_nothing_changes(tiny, fitted, texts, labels):
    same = tiny.set_params(embeddings=None).fit(texts, labels)
    np.testing.assert_array_equal(same.predict_proba(texts), fitted.predict_proba(texts))
    assert fitted.embedding_coverage_ is None


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"embeddings": [1.0]}, "embeddings must be the path of a text file .* got list"),
        ({"embeddings": {"zzz": [1.0]}}, "got one for none of the 1[0-9] words"),
        ({"embeddings": VECTORS}, "embedding_dim must be 5, .* or 'auto'; got 8"),
        (
            {"embeddings": VECTORS, "embedding_dim": 128},
            "embedding_dim must be 5, .* or 'auto'; got 128",
        ),
        (
            {"freeze_embeddings": True},
            "freeze_embeddings=True needs word vectors to freeze; got embeddings=None. Give "
            "embeddings or pretrained, or set freeze_embeddings=False",
        ),
        (
            {"embeddings": VECTORS, "embedding_dim": "auto", "warm_start": True},
            "embeddings must be given to the first fit; got them for a network that was "
            "fitted without. Use fit with warm_start=False to start anew",
        ),
        ({"freeze_embeddings": "yes"}, "The 'freeze_embeddings' parameter .* Got 'yes' instead"),
    ],
)
def test_what_cannot_be_keeps_an_earlier_fit(fitted, texts, labels, parameters, match):
    before = fitted.predict_proba(texts)
    with pytest.raises((TypeError, ValueError), match=match):
        fitted.set_params(**parameters).fit(texts, labels)
    np.testing.assert_array_equal(fitted.predict_proba(texts), before)


def test_a_set_width_must_be_that_of_the_vectors_and_stay(model, texts, labels):
    model.set_params(embedding_dim=5).fit(texts, labels)
    model.set_params(warm_start=True).fit(texts, labels)
    model.set_params(embedding_dim="auto").fit(texts, labels)
    with pytest.raises(ValueError, match="embedding_dim must stay 5, .* got 128"):
        model.set_params(embeddings=None, embedding_dim=128).fit(texts, labels)


@pytest.mark.skipif(not REAL.exists(), reason=f"there is no {REAL}")
def test_a_real_file_of_glove():
    words = [line.split(" ")[0] for line in REAL.read_text(encoding="utf-8").splitlines()]
    texts = [f"{good} {bad}" for good, bad in zip(words[:200:2], words[1:200:2], strict=True)]
    labels = ["even", "odd"] * 50
    model = LSTMTextClassifier(
        **(TINY | {"embedding_dim": "auto", "max_epochs": 1}), embeddings=REAL
    )
    assert model.fit(texts, labels).embedding_coverage_ > 0.9
