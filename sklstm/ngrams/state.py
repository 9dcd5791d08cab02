"""The n-gram member as plain data, and back: what is learnt, without code."""

import numpy as np
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import Bunch

from sklstm.ngrams.naive_bayes import NaiveBayesLogisticRegression
from sklstm.ngrams.vectorizer import NgramVectorizer, make_cutter, make_ngram_classifier
from sklstm.text.vectorizer import SequenceVectorizer

#: The learnt attributes that prediction needs, by the name of the linear model.
LEARNT = {
    LogisticRegression: ("coef_", "intercept_", "n_iter_"),
    NaiveBayesLogisticRegression: ("coef_", "intercept_"),
}
# Sums of the products of two such numbers are finite.
MOST = 1e15


def is_ngram_classifier(estimator) -> bool:
    """Whether an estimator is what ``blend='ngrams'`` fits, fitted, and not a user's own."""
    if type(estimator) is not Pipeline:
        return False
    is_fitted = hasattr(estimator[0], "token_places_") and hasattr(estimator[-1], "estimators_")
    return is_fitted and _describe(estimator) == _describe(make_ngram_classifier())


def _describe(estimator: Pipeline) -> dict:
    """Return the parameters but for the vectorizer; of estimators among them, the classes."""
    return {
        name: type(value) if hasattr(value, "get_params") else value
        for name, value in estimator.get_params().items()
        if not name.startswith("ngrams__vectorizer") and not isinstance(value, list)
    }


def take_state(classifier: Pipeline) -> dict:
    """Return what a fitted classifier of n-grams has learnt, as arrays, strings and numbers."""
    ngrams, linear = (step for _, step in classifier.steps)
    cutter = ngrams.cutter_
    return {
        "tokens": list(ngrams.token_places_),
        "words": ngrams.words_,
        "pairs": ngrams.pairs_,
        "pieces": None if cutter is None else list(cutter.vocabulary_),  # in order of the columns
        "idf": [idf.idf_ for idf in ngrams.idf_],
        "classes": linear.classes_,
        "members": [
            {name: getattr(member, name) for name in LEARNT[type(member)]}
            for member in linear.estimators_
        ],
    }


def from_state(state: dict, vectorizer: SequenceVectorizer) -> Pipeline:
    """Return the fitted classifier of n-grams that ``take_state`` was given.

    Raises
    ------
    ValueError, TypeError, KeyError
        If the parts do not fit together.
    """
    classifier = make_ngram_classifier(vectorizer)
    ngrams, linear = (step for _, step in classifier.steps)
    _load_ngrams(ngrams, state)
    classes = state["classes"]
    _check(isinstance(classes, np.ndarray) and classes.ndim == 1, "other classes")
    linear.le_ = LabelEncoder()
    linear.le_.classes_ = linear.classes_ = classes
    n_features = sum(len(idf) for idf in state["idf"])
    members = [
        _load_member(clone(member), learnt, len(classes), n_features)
        for (_, member), learnt in zip(linear.estimators, state["members"], strict=True)
    ]
    linear.estimators_ = members
    names = [name for name, _ in linear.estimators]
    linear.named_estimators_ = Bunch(**dict(zip(names, members, strict=True)))
    return classifier


def _load_ngrams(ngrams: NgramVectorizer, state: dict) -> None:
    tokens, words, pairs, pieces = (state[name] for name in ("tokens", "words", "pairs", "pieces"))
    _check(all(isinstance(token, str) for token in [*tokens, *(pieces or [])]), "no strings")
    ngrams.token_places_ = {token: place for place, token in enumerate(tokens)}
    _check(len(ngrams.token_places_) == len(tokens), "tokens that come twice")
    for places, end in ((words, len(tokens)), (pairs, len(tokens) ** 2)):
        ascends = len(places) == 0 or (np.diff(places) > 0).all()
        inside = len(places) == 0 or (places[0] >= 0 and places[-1] < end)
        _check(places.dtype == np.int64 and places.ndim == 1, "n-grams that are no n-grams")
        _check(ascends and inside, "n-grams that are no n-grams")
    ngrams.words_, ngrams.pairs_, ngrams.cutter_ = words, pairs, None
    if pieces is not None:
        ngrams.cutter_ = make_cutter()
        ngrams.cutter_.vocabulary_ = {piece: column for column, piece in enumerate(pieces)}
        _check(len(ngrams.cutter_.vocabulary_) == len(pieces), "pieces that come twice")
        ngrams.cutter_.fixed_vocabulary_ = False
    n_columns = [len(words) + len(pairs), len(pieces or [])]
    _check([idf.shape for idf in state["idf"]] == [(n,) for n in n_columns if n], "other weights")
    ngrams.idf_ = []
    for idf in state["idf"]:
        _check_numbers(idf)
        ngrams.idf_.append(TfidfTransformer(sublinear_tf=True))
        ngrams.idf_[-1].idf_ = idf
        ngrams.idf_[-1].n_features_in_ = len(idf)


def _load_member(member, learnt: dict, n_classes: int, n_features: int):
    """Return a linear model with the coefficients of a state; its parameters are ours."""
    _check(learnt.keys() == set(LEARNT[type(member)]), "other coefficients")
    n_regressions = 1 if n_classes == 2 else n_classes
    _check(learnt["coef_"].shape == (n_regressions, n_features), "other coefficients")
    _check(learnt["intercept_"].shape == (n_regressions,), "other coefficients")
    for name, value in learnt.items():
        _check_numbers(value)
        setattr(member, name, value)
    member.classes_ = np.arange(n_classes)
    if isinstance(member, LogisticRegression):
        member.n_features_in_ = n_features
    return member


def _check_numbers(array: np.ndarray) -> None:
    usable = array.dtype.kind in "fi" and float(np.abs(array).max(initial=0)) <= MOST
    _check(usable, "numbers that are not finite, or too large to use")


def _check(right: bool, what: str) -> None:
    if not right:
        raise ValueError(f"the n-grams hold {what}")
