"""Checks of y, for each of the three things it can hold."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.exceptions import DataConversionWarning

from sklstm.labels import check_label_sets, check_labels, check_numbers, holds_label_sets
from tests.conftest import LABELS, TEXTS

BINARIZER = "Turn lists of labels into such columns with sklearn.preprocessing.MultiLabelBinarizer."
SETS = np.array([[1, 0], [0, 0], [1, 1]])

# One class a text


@pytest.mark.parametrize(
    ("y", "error", "sentence"),
    [
        (
            None,
            ValueError,
            "y must hold one label for each text; got None. This estimator requires y to be "
            "passed, but the target y is None.",
        ),
        (
            "pos",
            TypeError,
            "y must be a sequence of labels; got str. Pass a list or an array.",
        ),
        (3, TypeError, "y must be a sequence of labels; got int. Pass a list or an array."),
        (
            {"a": 1},
            TypeError,
            "y must be a sequence of labels; got dict. Pass a list or an array.",
        ),
        (
            ["a", 1],
            TypeError,
            "y must hold labels of one type; got str and other types mixed. Turn all of them into "
            "str.",
        ),
        ([], ValueError, "y must hold at least two classes; got 0 labels."),
        (
            ["a", None, "b", None],
            ValueError,
            "y[1] must be a label; got None, and so in 2 of 4 places. "
            "Drop the rows without a label.",
        ),
        (
            [1.0, 0.0, np.nan],
            ValueError,
            "y[2] must be a label; got nan, and so in 1 of 3 places. "
            "Drop the rows without a label.",
        ),
        (
            pd.Series([1, None], dtype="Int64"),
            ValueError,
            "y[1] must be a label; got nan, and so in 1 of 2 places. "
            "Drop the rows without a label.",
        ),
        (
            [0.5, 1.5, 0.25],
            ValueError,
            "y must hold classes; got continuous numbers (Unknown label type: continuous), such "
            "as 0.5. Cut them into classes first, or use LSTMTextRegressor.",
        ),
        (
            [["a", "b"], ["c"]],
            ValueError,
            "y must hold one label for each text, or 0 and 1 in a column for each label; got "
            f"several for some. {BINARIZER}",
        ),
        (
            [["a", "b"], ["c", "d"]],
            ValueError,
            "y must have shape (n_texts,), or (n_texts, n_labels) with 0 and 1 in a column for "
            f"each label; got (2, 2). {BINARIZER}",
        ),
        (
            np.zeros((2, 2, 2)),
            ValueError,
            "y must have shape (n_texts,), or (n_texts, n_labels) with 0 and 1 in a column for "
            f"each label; got (2, 2, 2). {BINARIZER}",
        ),
        (
            np.ma.array([0, 1, 1], mask=[0, 1, 0]),
            ValueError,
            "y must have no masked values; got 1 of 3. Drop these rows.",
        ),
        (
            np.array([1 + 1j, 2]),
            ValueError,
            "y must hold labels that are str, bool or real numbers; got complex numbers (Complex "
            "data not supported), such as (1+1j).",
        ),
        (
            np.array([b"a", b"b"]),
            TypeError,
            "y must hold labels that are str, bool or numbers; got bytes, such as b'a'. Decode "
            "them: label.decode('utf-8').",
        ),
        (
            [b"a", b"b"],
            TypeError,
            "y must hold labels that are str, bool or numbers; got bytes, such as b'a'. Decode "
            "them: label.decode('utf-8').",
        ),
        (
            ["a", "a\0"],
            ValueError,
            "y[1] must not end in a null character, which arrays of numpy drop; got 'a\\x00'. Give "
            "the label another name.",
        ),
        (
            np.array(3),
            ValueError,
            "y must have shape (n_texts,), or (n_texts, n_labels) with 0 and 1 in a column for "
            f"each label; got (). {BINARIZER}",
        ),
        (
            np.array([object, object]),
            ValueError,
            "y must hold labels that are str, bool or numbers; got object (Unknown label type: "
            "unknown), such as <class 'object'>.",
        ),
    ],
    ids=str,
)
def test_what_are_not_labels(y, error, sentence):
    with pytest.raises(error) as caught:
        check_labels(y)
    assert str(caught.value) == sentence


def test_labels_in_unusual_arrays():
    assert check_labels(np.ma.array([0, 1, 1])).tolist() == [0, 1, 1]
    assert check_labels(iter(["a", "b"])).tolist() == ["a", "b"]
    if hasattr(np.dtypes, "StringDType"):
        found = check_labels(np.array(["a", "bc"], dtype=np.dtypes.StringDType()))
        assert found.tolist() == ["a", "bc"] and found.dtype.kind == "U"


def test_a_column_of_labels_warns_of_the_users_line(tiny):
    column = np.array(LABELS)[:, None]
    match = "A column-vector y was passed when a 1d array was expected"
    with pytest.warns(DataConversionWarning, match=match) as caught:
        assert check_labels(column).tolist() == LABELS
        tiny.set_params(max_epochs=1).fit(TEXTS, column)
    assert [warning.filename for warning in caught] == [__file__] * 2


# Label sets


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (SETS, True),
        (SETS.tolist(), True),
        (list(SETS), True),
        (sparse.csr_array(SETS), True),
        (pd.DataFrame(SETS), True),
        (np.zeros((3, 0)), True),
        (SETS[:, :1], False),
        (sparse.csr_array(SETS[:, :1]), False),
        ([0, 1], False),
        (["ab", "cd"], False),
        ([["a", "b"], ["c", "d"]], False),
        ([[0, 1], [1]], False),
        ([], False),
        (None, False),
    ],
    ids=str,
)
def test_what_holds_label_sets(y, expected):
    assert holds_label_sets(y) is expected


@pytest.mark.parametrize(
    "y",
    [
        SETS,
        SETS.astype(bool),
        SETS.astype(float),
        SETS.tolist(),
        list(SETS),
        sparse.csr_array(SETS),
        sparse.csc_matrix(SETS),
        pd.DataFrame(SETS, columns=["a", "b"]),
        pd.DataFrame(SETS, columns=["a", "b"]).astype("Int64"),
        pd.DataFrame(SETS, columns=["a", "b"]).astype("boolean"),
        pd.DataFrame(SETS, columns=["a", "b"]).astype("Sparse[int]"),
        pl.DataFrame(SETS, schema=["a", "b"]),
    ],
    ids=lambda y: type(y).__name__,
)
def test_label_sets_of_any_kind(y):
    found = check_label_sets(y)
    assert found.values.dtype == bool and found.values.tolist() == SETS.astype(bool).tolist()
    assert found.is_sparse == sparse.issparse(y)
    names = None if found.columns is None else found.columns.tolist()
    assert names == (["a", "b"] if hasattr(y, "columns") else None)
    assert len(found) == 3


def test_names_of_columns_are_whole_numbers_or_strings():
    assert check_label_sets(pd.DataFrame(SETS)).columns.tolist() == [0, 1]
    assert check_label_sets(pd.DataFrame(SETS, columns=[1, "a"])).columns.tolist() == ["1", "a"]
    pairs = pd.DataFrame(SETS, columns=[("a", 1), ("a", 2)])
    assert check_label_sets(pairs).columns.tolist() == ["('a', 1)", "('a', 2)"]


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        (
            np.array([[0, 1], [2, 0]]),
            "y must hold 0 and 1 only where it has several columns; got 2 in row 1, column 0. For "
            f"numbers use LSTMTextRegressor. {BINARIZER}",
        ),
        (
            np.array([[0.0, np.nan]]),
            "y must hold 0 and 1 only where it has several columns; got nan in row 0, column 1. "
            f"For numbers use LSTMTextRegressor. {BINARIZER}",
        ),
        (
            pd.DataFrame({"a": [1, 0], "b": [1, None]}, dtype="Int64"),
            "y must hold 0 and 1 only where it has several columns; got <NA> in row 1, column 1. "
            + BINARIZER,
        ),
        (
            pd.DataFrame({"a": ["x", "y"], "b": ["x", "z"]}),
            "y must hold 0 and 1 only where it has several columns; got 'x' in row 0, column 0. "
            + BINARIZER,
        ),
        (
            pd.DataFrame(SETS, columns=["a", "a"]),
            "y must have columns of different names; got ['a', 'a'].",
        ),
        (
            SETS.astype(complex),
            "y must hold 0 and 1 only where it has several columns; got (1+0j) in row 0, column 0. "
            + BINARIZER,
        ),
        (
            SETS.astype(bytes),
            "y must hold 0 and 1 only where it has several columns; got b'1' in row 0, column 0. "
            + BINARIZER,
        ),
        (
            np.ma.array(SETS, mask=SETS == 1),
            "y must have no masked values; got 3 of 6. Drop these rows.",
        ),
        (np.zeros((0, 2)), "y must hold a text and a label; got shape (0, 2)."),
        (np.zeros((2, 0)), "y must hold a text and a label; got shape (2, 0)."),
    ],
    ids=str,
)
def test_what_are_not_label_sets(y, sentence):
    with pytest.raises(ValueError) as caught:
        check_label_sets(y)
    assert str(caught.value) == sentence


# Numbers


@pytest.mark.parametrize(
    "y",
    [
        [1, 2.5, True],
        (1, 2.5, 1),
        np.array([1, 2.5, 1], dtype=np.float32),
        np.array([1, 2.5, 1], dtype=object),
        pd.Series([1, 2.5, 1], dtype="Float64", index=[7, 8, 9]),
        pl.Series([1.0, 2.5, 1.0]),
        iter([1, 2.5, 1]),
    ],
    ids=lambda y: type(y).__name__,
)
def test_numbers_of_any_kind(y):
    found = check_numbers(y)
    assert found.dtype == np.float64 and found.tolist() == [1.0, 2.5, 1.0]


def test_tables_of_numbers_keep_their_shape():
    for y in (SETS, SETS.tolist(), pd.DataFrame(SETS), SETS[:, :1]):
        assert check_numbers(y).shape == np.shape(y)


@pytest.mark.parametrize(
    ("y", "error", "sentence"),
    [
        (
            None,
            ValueError,
            "y must hold a number for each text; got None. This estimator requires y to be passed, "
            "but the target y is None.",
        ),
        (3.5, TypeError, "y must be a sequence of numbers; got float. Pass a list or an array."),
        ("12", TypeError, "y must be a sequence of numbers; got str. Pass a list or an array."),
        (
            ["1.5", "2"],
            ValueError,
            "y must hold numbers; got <U3, such as ['1.5']. For classes use LSTMTextClassifier.",
        ),
        (
            np.array([1.0, "a"], dtype=object),
            ValueError,
            "y must hold numbers; got object, such as ['a']. For classes use LSTMTextClassifier.",
        ),
        (
            np.array(["2020-01-01"], dtype="datetime64[D]"),
            ValueError,
            "y must hold numbers; got datetime64[D], such as [datetime.date(2020, 1, 1)]. For "
            "classes use LSTMTextClassifier.",
        ),
        (
            np.array([1j]),
            ValueError,
            "y must hold real numbers; got complex data (not supported).",
        ),
        (
            np.ma.array([1.0, 2.0], mask=[0, 1]),
            ValueError,
            "y must have no masked values; got 1 of 2. Drop these rows.",
        ),
        (
            [1.0, np.nan, np.nan],
            ValueError,
            "y[1] must be a finite number; got nan, and NaN or infinity in 2 of 3 places. Drop "
            "these rows.",
        ),
        (
            pd.Series([1, None], dtype="Int64"),
            ValueError,
            "y[1] must be a finite number; got nan, and NaN or infinity in 1 of 2 places. Drop "
            "these rows.",
        ),
        (
            [[1.0, np.inf]],
            ValueError,
            "y[0, 1] must be a finite number; got inf, and NaN or infinity in 1 of 2 places. Drop "
            "these rows.",
        ),
        (
            [1e200, 1.0],
            ValueError,
            "y[0] must be a finite number; got 1e+200, and numbers that are too large in 1 of 2 "
            "places. Divide y by a number.",
        ),
        (
            [[1, 2], [1]],
            ValueError,
            "y must have as many numbers for each text; got lists of different lengths.",
        ),
        (
            sparse.csr_array(SETS),
            ValueError,
            "y must be an array of numbers; got a sparse matrix. Use its toarray().",
        ),
        (
            [],
            ValueError,
            "y must have shape (n_texts,) or (n_texts, n_numbers); got (0,).",
        ),
        (
            np.zeros((1, 1, 1)),
            ValueError,
            "y must have shape (n_texts,) or (n_texts, n_numbers); got (1, 1, 1).",
        ),
    ],
    ids=str,
)
def test_what_are_not_numbers(y, error, sentence):
    with pytest.raises(error) as caught:
        check_numbers(y)
    assert str(caught.value) == sentence
