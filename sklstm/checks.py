"""Checks of texts and their weights; the only imports of private scikit-learn helpers."""

import numbers
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Set

import numpy as np
from scipy import sparse
from sklearn.base import _fit_context as fit_context
from sklearn.metrics import get_scorer_names
from sklearn.utils import _param_validation
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    RealNotInt,
    validate_parameter_constraints,
)
from sklearn.utils.validation import check_is_fitted

__all__ = [
    "HasMethods",
    "Interval",
    "InvalidParameterError",
    "RealNotInt",
    "ScorerNames",
    "StrOptions",
    "check_has",
    "check_sample_weight",
    "check_preprocessed",
    "check_same_length",
    "check_texts",
    "check_tokens",
    "fit_context",
    "is_missing",
    "level_of_user",
    "shorten",
    "validate_parameter_constraints",
    "warn_of_no_pickle",
]


class StrOptions(_param_validation.StrOptions):
    """A str of several, which messages name in the order of the alphabet."""

    def __str__(self):
        return f"a str among {{{', '.join(map(repr, sorted(self.options)))}}}"


class ScorerNames(StrOptions):
    """The name of a scorer; there are too many for a message."""

    def __init__(self):
        super().__init__(set(get_scorer_names()))

    def __str__(self):
        return "the name of a scorer of scikit-learn (sklearn.metrics.get_scorer_names)"


def check_has(estimator, attribute: str) -> None:
    """Check that an estimator is fitted, by what its fit sets.

    For predictions of one text, where scikit-learn's check, which collects all tags first, takes
    as long as a step of the work.
    """
    if not hasattr(estimator, attribute):
        check_is_fitted(estimator, attribute)


def shorten(value, length: int = 60) -> str:
    """Return how a message shows a value: on one line, and not longer than that."""
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"


def check_texts(X, *, name: str = "X", allow_empty: bool = False) -> list[str]:
    """Return the texts of X as a list of str, a list as it is.

    Parameters
    ----------
    X : iterable of str
        A list, tuple, one-dimensional array, pandas or polars series, a table of one column (also
        as a list of rows), or any other ordered iterable.
    name : str
        What the messages call it.
    allow_empty : bool
        Whether there may be no text at all.

    Raises
    ------
    TypeError
        If X is a single str, a mapping, a set, sparse, or holds something that is not a str.
    ValueError
        If X has several columns or, unless ``allow_empty``, no text.
    """
    texts = X if isinstance(X, list) else _as_list(X, name)
    if texts and _is_column(texts):
        texts = [row[0] for row in texts]
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            _refuse_element(texts, position, name)
    if not texts and not allow_empty:
        raise ValueError(f"{name} must hold at least one text; got 0 texts.")
    return texts


def _as_list(X, name: str) -> list:
    """Return the elements of X as a list, if X can hold texts in an order."""
    _refuse_no_sequence(X, name)
    shape = getattr(X, "shape", None)
    if shape is not None and 0 in shape[:1]:
        return []
    if shape == ():
        raise TypeError(f"{name} must be a sequence of texts; got a 0-dimensional array.")
    if shape is not None and len(shape) > 1:
        X = _only_column(X, name)
    if hasattr(X, "to_pylist"):  # an array of Arrow
        return X.to_pylist()
    if hasattr(X, "to_numpy"):  # a pandas or polars series, whatever its dtype and index
        X = X.to_numpy()
    if isinstance(X, np.ma.MaskedArray):
        X = np.where(np.ma.getmaskarray(X), None, X.data.astype(object))
    # ``tolist`` turns numpy's strings into plain str.
    return X.tolist() if isinstance(X, np.ndarray) else list(X)


def _refuse_no_sequence(X, name: str) -> None:
    """Raise TypeError for what cannot hold texts in an order."""
    if isinstance(X, str | bytes):
        got, remedy = f"a single {type(X).__name__}", "Wrap it in a list: [text]."
    elif sparse.issparse(X):
        got = f"a sparse matrix of shape {X.shape}"
        remedy = "Pass the raw texts: drop the TfidfVectorizer or CountVectorizer in front."
    elif isinstance(X, os.PathLike):
        got, remedy = type(X).__name__, "Read the file first."
    elif isinstance(X, Mapping | Set) or not (isinstance(X, Iterable) or hasattr(X, "shape")):
        got, remedy = type(X).__name__, "Pass a list of str."
    else:
        return
    raise TypeError(f"{name} must be a sequence of texts; got {got}. {remedy}")


def _only_column(X, name: str):
    """Return the one column of a table."""
    if getattr(X, "num_columns", None) == 1:  # a table of Arrow
        return X.column(0)
    values = X if isinstance(X, np.ndarray) else X.to_numpy()
    if np.issubdtype(values.dtype, np.number):
        raise TypeError(
            f"{name} must be a sequence of texts; got a numeric array of shape {values.shape}. "
            "Pass the raw texts: drop the TfidfVectorizer or CountVectorizer in front."
        )
    if values.ndim != 2 or values.shape[1] != 1:
        raise ValueError(
            f"{name} must hold one text a row; got shape {values.shape}. Choose one column, or use "
            "a sklearn.compose.ColumnTransformer to give each column its own estimator."
        )
    return values[:, 0]


def _is_column(rows: list) -> bool:
    """Whether each element is a sequence of one, as the rows of a table of one column are."""
    return all(isinstance(row, list | tuple | np.ndarray) and np.shape(row) == (1,) for row in rows)


def _refuse_element(texts: list, position: int, name: str):
    """Raise TypeError for an element that is no text."""
    element = texts[position]
    kind = type(element).__name__
    if isinstance(element, bytes):
        remedy = "Decode it first: text.decode('utf-8')."
    elif is_missing(element):
        shown = "None" if element is None else f"{kind} ({element})"
        raise TypeError(
            f"{name}[{position}] must be a str; got {shown}, and {sum(map(is_missing, texts))} of "
            f'{len(texts)} texts are missing. Replace them by "", in pandas by {name}.fillna(""), '
            "or leave their rows out."
        )
    elif isinstance(element, os.PathLike):
        remedy = "Read the files first: path.read_text()."
    elif isinstance(element, numbers.Number):
        remedy = (
            "Pass the raw texts: drop the TfidfVectorizer or CountVectorizer in front, or turn "
            "numbers into texts with str()."
        )
    elif isinstance(element, tuple) and len(element) == 2:
        remedy = "Pass texts and labels as two lists: fit(texts, labels)."
    elif isinstance(element, list | tuple):
        remedy = "Join the tokens with spaces, or pass a callable analyzer to the vectorizer."
    else:
        remedy = "Pass one str for each text."
    raise TypeError(f"{name}[{position}] must be a str; got {kind} ({element!r:.40}). {remedy}")


def is_missing(value) -> bool:
    """Whether a value is None, not finite or pandas' NA (by name: pandas is not required)."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and not np.isfinite(value)


def check_tokens(tokens, text: str, *, name: str) -> list[str]:
    """Return the tokens that a function of the user's has made of a text, as a list.

    Raises
    ------
    TypeError
        If they are not all str. Other objects would be told from each other by identity, and so
        be unknown in every text but their own.
    """
    if isinstance(tokens, str | bytes) or not isinstance(tokens, Iterable):
        raise TypeError(
            f"{name} must return a list of str; got {type(tokens).__name__} for the text "
            f"{text!r:.40}."
        )
    tokens = list(tokens)
    if not set(map(type, tokens)) <= {str}:
        for token in tokens:
            if not isinstance(token, str):
                raise TypeError(
                    f"{name} must return a list of str; got {type(token).__name__} ({token!r:.40}) "
                    f"for the text {text!r:.40}. Return the words of such objects."
                )
    return tokens


def warn_of_no_pickle(function: Callable, *, name: str) -> None:
    """Warn of a function of the user's that cannot be pickled, and so no model that has it."""
    try:
        pickle.dumps(function)
    except Exception as error:  # whatever an object of the user's raises
        warnings.warn(
            f"{name} cannot be pickled ({str(error).splitlines()[0]:.100}), so the fitted model "
            "cannot be saved with joblib or pickle. Use a function that is defined at the top of a "
            "module.",
            UserWarning,
            stacklevel=level_of_user(),
        )


def check_preprocessed(result, text: str) -> str:
    """Return what the user's preprocessor has made of a text, if that is a str."""
    if not isinstance(result, str):
        raise TypeError(
            f"preprocessor must return a str; got {type(result).__name__} for the text "
            f"{text!r:.40}."
        )
    return result


def check_same_length(texts, y, *, names: tuple[str, str] = ("X", "y")) -> None:
    """Raise ValueError unless there is one label for each text."""
    if len(texts) != len(y):
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same length; "
            f"got {len(texts)} texts and {len(y)} labels."
        )


def check_sample_weight(sample_weight, *, n_texts: int) -> np.ndarray:
    """Return one weight a text: the given ones, or 1.

    Raises
    ------
    ValueError
        If there are too many or too few weights, or they are negative, not finite or all zero.
    """
    if sample_weight is None:
        return np.ones(n_texts)
    if isinstance(sample_weight, numbers.Real):
        sample_weight = np.full(n_texts, sample_weight)
    try:
        weight = np.array(sample_weight, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"sample_weight must hold one number for each text; got {sample_weight!r:.60}. "
            "For weights of whole classes use the parameter class_weight."
        ) from error
    if weight.ndim != 1:
        raise ValueError(
            "Sample weights must be 1D array or scalar: sample_weight must have shape "
            f"({n_texts},); got {weight.shape}."
        )
    if len(weight) != n_texts:
        raise ValueError(
            "sample_weight must hold one weight for each text; "
            f"got {len(weight)} weights and {n_texts} texts."
        )
    _check_weight_values(weight)
    return weight


def _check_weight_values(weight: np.ndarray) -> None:
    for refused, what in ((~np.isfinite(weight), "not finite"), (weight < 0, "negative")):
        if refused.any():
            position = int(np.flatnonzero(refused)[0])
            raise ValueError(
                f"sample_weight[{position}] must be 0 or more; "
                f"got {weight[position]}, which is {what}."
            )
    if not weight.any():
        raise ValueError(
            "sample_weight must hold at least one weight above 0 (sample weights are all zero); "
            f"got {len(weight)} zeros."
        )


def level_of_user() -> int:
    """Return the ``stacklevel`` with which a warning names the line of the user's code."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(("sklstm.", "sklearn.")):
        frame, level = frame.f_back, level + 1
    return level
