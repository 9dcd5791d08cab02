"""N-grams are those that scikit-learn counts."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from sklstm import SequenceVectorizer
from sklstm.ngrams.linear import make_ngram_member
from sklstm.ngrams.naive_bayes import NaiveBayesLogisticRegression
from sklstm.ngrams.vectorizer import NgramVectorizer
from sklstm.text.tokenizers import tokenize
from tests.conftest import TEXTS


def by_scikit_learn(texts, others):
    """Return the features of texts and others, by vectorizers that go through every text."""
    words = TfidfVectorizer(
        tokenizer=tokenize, token_pattern=None, ngram_range=(1, 2), min_df=2, sublinear_tf=True
    )
    pieces = TfidfVectorizer(
        preprocessor=lambda text: " ".join(t for t in tokenize(text.lower()) if len(t) > 1),
        analyzer="char_wb",
        ngram_range=(2, 5),
        min_df=2,
        sublinear_tf=True,
    )
    pairs = [
        (vectorizer.fit_transform(texts), vectorizer.transform(others))
        for vectorizer in (words, pieces)
    ]
    return [sparse.hstack([pairs[0][k], 0.5 * pairs[1][k]]) for k in range(2)]


def test_features_are_those_of_scikit_learn(docstrings):
    texts, others = docstrings.data[:300], docstrings.data[300:400]
    expected, expected_others = by_scikit_learn(texts, others)
    vectorizer = NgramVectorizer()
    features = vectorizer.fit_transform(texts)
    assert features.shape == expected.shape
    # Columns have another order, which products of rows do not see.
    np.testing.assert_allclose(
        (features @ features.T).toarray(), (expected @ expected.T).toarray(), atol=1e-12
    )
    seen = vectorizer.transform(others) @ features.T
    np.testing.assert_allclose(seen.toarray(), (expected_others @ expected.T).toarray(), atol=1e-12)


def test_fit_then_transform_is_fit_transform():
    once = NgramVectorizer().fit_transform(TEXTS)
    again = NgramVectorizer().fit(TEXTS).transform(TEXTS)
    np.testing.assert_allclose(once.toarray(), again.toarray())


def test_pairs_do_not_cross_texts_and_unknown_tokens_make_none():
    vectorizer = NgramVectorizer().fit(["a b", "a b", "b c", "", "b c"])
    assert len(vectorizer.pairs_) == 2  # not "b b", from the end of one to the next
    assert vectorizer.transform(["a x b"]).nnz == 2
    assert vectorizer.transform(["a b"]).nnz == 3
    assert vectorizer.transform(["", "x y"]).nnz == 0


def test_unknown_words_have_known_pieces():
    vectorizer = NgramVectorizer().fit(["walked talked", "walked talked"])
    assert vectorizer.transform(["stalked"]).nnz > 0


@pytest.mark.parametrize("texts", [["one", "two"], ["房间", "很小"], ["a"], ["", "word"]])
def test_few_and_short_texts(texts):
    features = NgramVectorizer().fit_transform(texts)
    assert features.shape[1] > 0
    assert np.isfinite(features.toarray()).all()


def test_the_given_vectorizer_says_what_a_token_is_and_is_not_fitted():
    given = SequenceVectorizer(lowercase=False, max_length=1, max_features=1)
    vectorizer = NgramVectorizer(given).fit(["Good day", "good day"])
    assert set(vectorizer.token_places_) == {"Good", "good", "day"}
    assert not hasattr(given, "vocabulary_")


def test_it_is_cloned_pickled_and_repeatable():
    model = make_ngram_member("one class a text", SequenceVectorizer(lowercase=False))
    labels = [0, 1] * (len(TEXTS) // 2)
    fitted = clone(model).fit(TEXTS, labels)
    logistic, bayes = fitted[-1].estimators_
    features = fitted[0].transform(TEXTS)
    mean = (logistic.predict_proba(features) + bayes.predict_proba(features)) / 2
    np.testing.assert_allclose(fitted.predict_proba(TEXTS), mean)
    assert isinstance(logistic, LogisticRegression)
    assert isinstance(bayes, NaiveBayesLogisticRegression)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), again.predict_proba(TEXTS))


def test_of_a_very_long_token_both_ends_are_read():
    vectorizer = NgramVectorizer().fit(["abab xyxy cdcd", "abab xyxy cdcd"])
    new = [f"{'ab' * 50}{'xy' * n}{'cd' * 50}" for n in (0, 1, 1_000, 100_000)]
    whole, *cut = vectorizer.transform(new).toarray()
    assert all((features == cut[0]).all() for features in cut)
    names = list(vectorizer.pieces_)
    of_pieces = cut[0][-len(names) :]
    assert of_pieces[names.index("ab")] > 0 and of_pieces[names.index("cd")] > 0
    assert of_pieces[names.index("xy")] == 0
    assert whole.any()


def test_the_pieces_of_a_long_token_are_few():
    token = "".join(np.random.default_rng(0).choice(list("abcdefghij"), size=1_000_000))
    assert len(NgramVectorizer().fit([token]).pieces_) < 1_000


def test_a_pickle_of_an_earlier_version_is_read():
    vectorizer = NgramVectorizer().fit(TEXTS)
    state = vars(vectorizer).copy()
    cutter, weights = CountVectorizer(), []
    cutter.vocabulary_ = state.pop("pieces_")
    for idf in state["idf_"]:
        weights.append(TfidfTransformer())
        weights[-1].idf_ = idf
    again = NgramVectorizer.__new__(NgramVectorizer)
    again.__setstate__(state | {"cutter_": cutter, "idf_": weights})
    expected = vectorizer.transform(TEXTS).toarray()
    np.testing.assert_array_equal(again.transform(TEXTS).toarray(), expected)


def test_features_stay_sparse_where_frames_are_asked_for():
    with config_context(transform_output="pandas"):
        assert sparse.issparse(NgramVectorizer().fit(TEXTS).transform(TEXTS))


@pytest.mark.parametrize(
    "fitted_to", [["not good", "good not bad", "very good"], ["我 们", "们 我 我"]]
)
def test_one_text_has_the_bits_that_it_has_among_others(fitted_to):
    """Also the order of what is stored, by which products with coefficients are rounded."""
    vectorizer = NgramVectorizer().fit(fitted_to)
    texts = [*fitted_to, "", "!", "a new word", "good good not goodness not good, very very 我们"]
    for text in texts:
        one = vectorizer.transform([text])
        general = vectorizer._weigh(vectorizer._count(*vectorizer._vectorizer.read_tokens([text])))
        among = vectorizer.transform([text, *texts])[[0]]
        assert one.shape == general.shape and one.indices.dtype == general.indices.dtype
        for other in (general, among):
            assert np.array_equal(one.indices, other.indices)
            assert np.array_equal(one.data, other.data)
            assert np.array_equal(one.indptr, other.indptr)


def test_what_is_remembered_of_tokens_is_of_this_fit_and_in_no_pickle():
    vectorizer = NgramVectorizer().fit(TEXTS)
    before = pickle.dumps(vectorizer)
    expected = vectorizer.transform(TEXTS).toarray()
    assert pickle.dumps(vectorizer) == before
    np.testing.assert_array_equal(vectorizer.transform(TEXTS).toarray(), expected)
    others = [text.upper() + " mehr" for text in TEXTS]
    again, fresh = vectorizer.fit(others), NgramVectorizer().fit(others)
    for texts in (TEXTS, others, others[:1]):
        np.testing.assert_array_equal(
            again.transform(texts).toarray(), fresh.transform(texts).toarray()
        )
