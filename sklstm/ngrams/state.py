"""The n-gram member as plain data, and back: what is learnt, without code."""

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import Bunch

from sklstm.labels import LARGEST_NUMBER
from sklstm.ngrams.label_sets import LinearLabelSets
from sklstm.ngrams.linear import make_ngram_member
from sklstm.ngrams.naive_bayes import NaiveBayesLogisticRegression
from sklstm.ngrams.ridge import ValidatedRidge
from sklstm.ngrams.vectorizer import NgramVectorizer
from sklstm.text.vectorizer import SequenceVectorizer

#: The learnt attributes that prediction needs, by the name of the linear model.
LEARNT = {
    LogisticRegression: ("coef_", "intercept_", "n_iter_"),
    NaiveBayesLogisticRegression: ("coef_", "intercept_"),
    LinearLabelSets: ("coef_", "intercept_", "ratio_coef_", "ratio_intercept_"),
    ValidatedRidge: ("coef_", "intercept_", "mean_", "scale_", "alpha_", "is_flat_"),
}
#: The kind of y by the linear model of it.
KINDS = {
    VotingClassifier: "one class a text",
    LinearLabelSets: "label sets",
    ValidatedRidge: "numbers",
}
#: Those that have one number for each column of y.
ONE_A_COLUMN = ("intercept_", "mean_", "scale_")
# Sums of the products of two such numbers are finite.
MOST = 1e15


def is_ngram_member(estimator) -> bool:
    """Whether an estimator is what ``blend='ngrams'`` fits, fitted, and not a user's own."""
    kind = KINDS.get(type(estimator[-1])) if type(estimator) is Pipeline else None
    if kind is None or not hasattr(estimator[0], "token_places_"):
        return False
    is_fitted = any(hasattr(estimator[-1], name) for name in ("estimators_", "coef_"))
    return is_fitted and _describe(estimator) == _describe(make_ngram_member(kind))


def _describe(estimator: Pipeline) -> dict:
    """Return the parameters but for the vectorizer; of estimators among them, the classes.

    Solvers are left out: which one found the coefficients depends on the number of classes.
    """
    return {
        name: type(value) if hasattr(value, "get_params") else value
        for name, value in estimator.get_params().items()
        if not (name.startswith("ngrams__vectorizer") or name.endswith("__solver"))
        and not isinstance(value, list)
    }


def take_state(member: Pipeline) -> dict:
    """Return what a fitted member of n-grams has learnt, as arrays, strings and numbers."""
    ngrams, linear = (step for _, step in member.steps)
    if isinstance(linear, VotingClassifier):
        learnt = {"classes": linear.classes_, "members": list(map(_take, linear.estimators_))}
    else:
        learnt = _take(linear)
    return {
        "kind": KINDS[type(linear)],
        "tokens": list(ngrams.token_places_),
        "words": ngrams.words_,
        "pairs": ngrams.pairs_,
        "pieces": list(ngrams.pieces_) or None,  # in the order of the columns
        "idf": ngrams.idf_,
    } | learnt


def _take(model) -> dict:
    return {name: getattr(model, name) for name in LEARNT[type(model)]}


def from_state(state: dict, vectorizer: SequenceVectorizer) -> Pipeline:
    """Return the fitted member of n-grams that ``take_state`` was given.

    Raises
    ------
    ValueError, TypeError, KeyError
        If the parts do not fit together.
    """
    kind = state.get("kind", "one class a text")  # the first files have none
    _check(kind in KINDS.values(), "another kind of model")
    member = make_ngram_member(kind, vectorizer)
    ngrams, linear = (step for _, step in member.steps)
    _load_ngrams(ngrams, state)
    load_linear(linear, state, sum(len(idf) for idf in state["idf"]))
    return member


def load_linear(linear, state: dict, n_features: int) -> None:
    """Give a linear model what the state of its member holds of it.

    Raises
    ------
    ValueError, TypeError, KeyError
        If the parts do not fit together.
    """
    if isinstance(linear, VotingClassifier):
        _load_voting(linear, state, n_features)
    else:
        _load_columns(linear, state, n_features)


def _load_voting(linear: VotingClassifier, state: dict, n_features: int) -> None:
    classes = state["classes"]
    _check(isinstance(classes, np.ndarray) and classes.ndim == 1, "other classes")
    linear.le_ = LabelEncoder()
    linear.le_.classes_ = linear.classes_ = classes
    members = [
        _load_member(clone(member), learnt, len(classes), n_features)
        for (_, member), learnt in zip(linear.estimators, state["members"], strict=True)
    ]
    linear.estimators_ = members
    names = [name for name, _ in linear.estimators]
    linear.named_estimators_ = Bunch(**dict(zip(names, members, strict=True)))


def _load_columns(linear, state: dict, n_features: int) -> None:
    """Give a model of label sets or numbers its coefficients, one row a label or number."""
    n_columns = len(state["intercept_"])
    shapes = {"coef_": (n_columns, n_features)} | dict.fromkeys(ONE_A_COLUMN, (n_columns,))
    for name in LEARNT[type(linear)]:
        value, shape = state[name], shapes.get(name.removeprefix("ratio_"))
        if shape is not None:
            _check(isinstance(value, np.ndarray) and value.shape == shape, "other coefficients")
            _check_numbers(value, LARGEST_NUMBER if name in ("mean_", "scale_") else MOST)
        setattr(linear, name, value)
    if isinstance(linear, LinearLabelSets):
        linear.classes_ = np.arange(n_columns)
    else:
        _check(type(linear.alpha_) is float and type(linear.is_flat_) is bool, "no penalty")
        _check(n_columns == 1 or not linear.is_flat_, "other columns")


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
    ngrams.words_, ngrams.pairs_ = words, pairs
    ngrams.pieces_ = {piece: column for column, piece in enumerate(pieces or [])}
    _check(len(ngrams.pieces_) == len(pieces or []), "pieces that come twice")
    n_columns = [len(words) + len(pairs), len(pieces or [])]
    _check([idf.shape for idf in state["idf"]] == [(n,) for n in n_columns if n], "other weights")
    for idf in state["idf"]:
        _check_numbers(idf)
    ngrams.idf_ = state["idf"]


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


def _check_numbers(array: np.ndarray, most: float = MOST) -> None:
    usable = array.dtype.kind in "fi" and float(np.abs(array).max(initial=0)) <= most
    _check(usable, "numbers that are not finite, or too large to use")


def _check(right: bool, what: str) -> None:
    if not right:
        raise ValueError(f"the n-grams hold {what}")
