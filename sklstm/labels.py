"""Checks of y: one class a text, a set of labels, or numbers."""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from scipy import sparse
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.multiclass import type_of_target

from sklstm.checks import is_missing, level_of_user

# Squares of larger numbers are not finite.
LARGEST_NUMBER = 1e150

_REMEDY_FOR_SETS = (
    "Turn lists of labels into such columns with sklearn.preprocessing.MultiLabelBinarizer."
)


@dataclass(frozen=True, eq=False)
class LabelSets:
    """A checked indicator of labels."""

    values: np.ndarray  # (n_texts, n_labels) of bool
    columns: np.ndarray | None  # (n_labels,) the names of the columns, if they have names
    is_sparse: bool

    def __len__(self):
        """Return the number of texts."""
        return len(self.values)


def holds_label_sets(y) -> bool:
    """Whether y has several columns: a label a column, instead of one class a text."""
    shape = find_shape(y)
    return len(shape) == 2 and shape[1] != 1


def find_shape(y) -> tuple:
    """Return the shape of y; of lists of numbers of one length, that of the array they make."""
    if hasattr(y, "shape"):
        return tuple(y.shape)
    rows = y if isinstance(y, list | tuple) else ()
    if all(isinstance(row, list | tuple | np.ndarray) for row in rows):
        widths = set(map(len, rows))
        plain = all(isinstance(item, Real | np.bool_) for row in rows for item in row)
        return (len(rows), *widths) if len(widths) == 1 and plain else ()
    return ()


def check_label_sets(y, *, name: str = "y") -> LabelSets:
    """Return label sets, given as an indicator of 0 and 1.

    Parameters
    ----------
    y : array, sparse matrix, data frame or list of lists of shape (n_texts, n_labels)
        1 where a text has a label, 0 where it does not.
    name : str
        What the messages call it.

    Raises
    ------
    ValueError
        If something else than 0 and 1 is in it, two columns have one name, or there is no text.
    """
    is_sparse = sparse.issparse(y)
    columns = getattr(y, "columns", None)
    values = y.toarray() if is_sparse else np.asarray(_unwrap(y, name))
    if 0 in values.shape:
        raise ValueError(f"{name} must hold a text and a label; got shape {values.shape}.")
    if values.dtype.kind not in "biuf":
        values = _plain_numbers(values, name)
    wrong = ~((values == 0) | (values == 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise ValueError(
            f"{name} must hold 0 and 1 only where it has several columns; got "
            f"{values[row, column].item()!r} in row {row}, column {column}. For numbers use "
            f"LSTMTextRegressor. {_REMEDY_FOR_SETS}"
        )
    if columns is not None:
        columns = np.array(_plain_names(list(columns)))
        if len(set(columns.tolist())) < len(columns):
            raise ValueError(
                f"{name} must have columns of different names; got {columns.tolist()}."
            )
    return LabelSets(values == 1, columns, is_sparse)


def _plain_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """Return an array of objects, such as nullable numbers, as one of numbers."""
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        if is_missing(value) or not isinstance(value, Real | np.bool_):
            shown = value.item() if isinstance(value, np.generic) else value
            raise ValueError(
                f"{name} must hold 0 and 1 only where it has several columns; got {shown!r:.40} in "
                f"row {row}, column {column}. {_REMEDY_FOR_SETS}"
            )
    return values.astype(float)


def _plain_names(names: list) -> list:
    """Return the names of columns as whole numbers, where all of them are, else as strings."""
    if all(isinstance(name, Integral) for name in names):
        return list(map(int, names))
    return list(map(str, names))


def check_numbers(y, *, name: str = "y") -> np.ndarray:
    """Return the numbers of y as float64, in its shape (n_texts,) or (n_texts, n_numbers).

    Raises
    ------
    TypeError
        If y is a single str or number.
    ValueError
        If y is None, has no or more than two dimensions, or holds something that is no finite
        number.
    """
    if y is None:  # the second sentence is what scikit-learn's checks look for
        raise ValueError(
            f"{name} must hold a number for each text; got None. This estimator requires y to be "
            "passed, but the target y is None."
        )
    _refuse_no_sequence(y, name, "numbers")
    if sparse.issparse(y):
        raise ValueError(
            f"{name} must be an array of numbers; got a sparse matrix. Use its toarray()."
        )
    numbers = _read_numbers(y, name)
    if numbers.ndim not in (1, 2) or 0 in numbers.shape:
        raise ValueError(
            f"{name} must have shape (n_texts,) or (n_texts, n_numbers); got {numbers.shape}."
        )
    usable = np.isfinite(numbers) & (np.abs(np.nan_to_num(numbers)) < LARGEST_NUMBER)
    if not usable.all():
        place = np.argwhere(~usable)[0].tolist()
        is_finite = np.isfinite(numbers).all()
        what = "numbers that are too large" if is_finite else "NaN or infinity"
        raise ValueError(
            f"{name}{place} must be a finite number; got {numbers[tuple(place)]}, and {what} in "
            f"{int((~usable).sum())} of {numbers.size} places. "
            f"{'Divide y by a number' if is_finite else 'Drop these rows'}."
        )
    return numbers


def _read_numbers(y, name: str) -> np.ndarray:
    """Return y as an array of float64, of any shape."""
    y = _unwrap(y, name)
    try:
        values = np.asarray(y)
    except ValueError as error:  # numpy's, of lists of different lengths
        raise ValueError(
            f"{name} must have as many numbers for each text; got lists of different lengths."
        ) from error
    if values.dtype.kind == "c":
        raise ValueError(f"{name} must hold real numbers; got complex data (not supported).")
    if values.dtype == object:
        flat = [np.nan if is_missing(value) else value for value in values.ravel().tolist()]
        other = [value for value in flat if not isinstance(value, Real)]
        values = np.array(flat, dtype=object if other else float).reshape(values.shape)
    if values.dtype.kind not in "biuf":
        other = values.ravel()[:1].tolist() if values.dtype != object else other
        raise ValueError(
            f"{name} must hold numbers; got {values.dtype}, such as {other[:1]!r:.40}. For classes "
            "use LSTMTextClassifier."
        )
    return values.astype(np.float64)


def _unwrap(y, name: str):
    """Return the array behind a series, a frame or a masked array; what an iterator yields.

    Raises
    ------
    ValueError
        If values are masked.
    """
    if hasattr(y, "to_numpy"):
        return y.to_numpy()
    if isinstance(y, np.ma.MaskedArray):
        if np.ma.is_masked(y):
            raise ValueError(
                f"{name} must have no masked values; got {int(np.ma.count_masked(y))} of {y.size}. "
                "Drop these rows."
            )
        return y.data
    return list(y) if isinstance(y, Iterator) else y


def _refuse_no_sequence(y, name: str, of: str) -> None:
    """Raise TypeError unless y holds many things in an order."""
    holds_many = isinstance(y, Iterable) or hasattr(y, "__array__")
    if isinstance(y, str | bytes | Mapping | Set) or not holds_many:
        raise TypeError(
            f"{name} must be a sequence of {of}; got {type(y).__name__}. Pass a list or an array."
        )


def check_labels(y, *, name: str = "y") -> np.ndarray:
    """Return the labels as a one-dimensional array without missing values.

    Raises
    ------
    TypeError
        If y is a single str or missing.
    ValueError
        If y has another shape, holds missing values or continuous numbers.
    """
    if y is None:  # the second sentence is what scikit-learn's checks look for
        raise ValueError(
            f"{name} must hold one label for each text; got None. This estimator requires y to be "
            "passed, but the target y is None."
        )
    _refuse_no_sequence(y, name, "labels")
    labels = _plain_labels(_label_array(y, name), name)
    with warnings.catch_warnings():
        # Many classes in few texts are no sign of a regression when texts are classified.
        warnings.filterwarnings("ignore", message="The number of unique classes")
        kind = type_of_target(labels, input_name=name)
    if kind.startswith("continuous"):
        raise ValueError(
            f"{name} must hold classes; got continuous numbers (Unknown label type: continuous), "
            f"such as {labels.tolist()[0]!r}. Cut them into classes first, or use "
            "LSTMTextRegressor."
        )
    if kind not in ("binary", "multiclass"):
        raise ValueError(
            f"{name} must hold labels that are str, bool or numbers; got {labels.dtype} "
            f"(Unknown label type: {kind}), such as {labels.tolist()[0]!r:.40}."
        )
    return labels


def _plain_labels(labels: np.ndarray, name: str) -> np.ndarray:
    """Return labels that are all there and of one type, as an array of that type."""
    if labels.size == 0:
        raise ValueError(f"{name} must hold at least two classes; got 0 labels.")
    missing = [k for k, label in enumerate(labels.tolist()) if is_missing(label)]
    if missing:
        raise ValueError(
            f"{name}[{missing[0]}] must be a label; got {labels.tolist()[missing[0]]}, and so in "
            f"{len(missing)} of {len(labels)} places. Drop the rows without a label."
        )
    if labels.dtype == object:  # nullable and Categorical labels get their plain dtype
        are_str = [isinstance(label, str) for label in labels.tolist()]
        if any(are_str) and not all(are_str):
            raise TypeError(
                f"{name} must hold labels of one type; got str and other types mixed. "
                "Turn all of them into str."
            )
        if any(isinstance(label, Collection) and not isinstance(label, str) for label in labels):
            raise ValueError(
                f"{name} must hold one label for each text, or 0 and 1 in a column for each label; "
                f"got several for some. {_REMEDY_FOR_SETS}"
            )
        labels = np.asarray(labels.tolist())
    return labels


def _refuse_type(labels: np.ndarray, name: str) -> None:
    """Raise for labels of types that numpy or scikit-learn would change or do not know."""
    first = labels.ravel()[:1].tolist()
    if labels.dtype.kind == "c":  # the words in brackets are what scikit-learn's checks look for
        raise ValueError(
            f"{name} must hold labels that are str, bool or real numbers; got complex numbers "
            f"(Complex data not supported), such as {first[0]!r:.40}."
        )
    is_bytes = labels.dtype.kind == "S" or isinstance(next(iter(first), None), bytes)
    if is_bytes:
        raise TypeError(
            f"{name} must hold labels that are str, bool or numbers; got bytes, such as "
            f"{first[0]!r:.40}. Decode them: label.decode('utf-8')."
        )
    if labels.dtype == object:
        for position, label in enumerate(labels.ravel().tolist()):
            if isinstance(label, str) and label.endswith("\0"):
                raise ValueError(
                    f"{name}[{position}] must not end in a null character, which arrays of numpy "
                    f"drop; got {label!r:.40}. Give the label another name."
                )


def _label_array(y, name: str) -> np.ndarray:
    """Return y as a one-dimensional array."""
    if sparse.issparse(y):
        y = y.toarray()
    # Nullable dtypes become arrays of objects here, so that no missing value turns into a number.
    y = _unwrap(y, name)
    # Lists as objects, since numpy would turn [1, "a"] into ["1", "a"].
    labels = np.asarray(y) if hasattr(y, "__array__") else np.array(list(y), dtype=object)
    if labels.dtype.kind == "T":  # numpy's strings of any length, which scikit-learn does not know
        labels = labels.astype(object)
    _refuse_type(labels, name)
    if labels.shape[1:] == (1,):
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape "
            "of y to (n_samples,), for example using ravel().",
            DataConversionWarning,
            stacklevel=level_of_user(),
        )
        return labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"{name} must have shape (n_texts,), or (n_texts, n_labels) with 0 and 1 in a column "
            f"for each label; got {labels.shape}. {_REMEDY_FOR_SETS}"
        )
    return labels


def warn_of_swapped(texts: list[str], labels) -> None:
    """Warn where X has fewer different values than y, and these are strings as well."""
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "OU":
        return
    n_labels, n_texts = len(set(labels.tolist())), len(set(texts))
    if n_texts < n_labels and n_labels > len(labels) / 2:
        warnings.warn(
            f"y has {n_labels} different labels for {len(labels)} texts, of which {n_texts} are "
            "different. Are X and y swapped?",
            UserWarning,
            stacklevel=level_of_user(),
        )
