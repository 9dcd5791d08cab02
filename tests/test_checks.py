"""The sentences users read, word for word."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

from sklstm.checks import check_same_length, check_sample_weight, check_texts

REPLACE = 'Replace them by "", in pandas by X.fillna(""), or leave their rows out.'
NO_VECTORIZER = "Pass the raw texts: drop the TfidfVectorizer or CountVectorizer in front"


@pytest.mark.parametrize(
    ("X", "error", "sentence"),
    [
        (
            "one text",
            TypeError,
            "X must be a sequence of texts; got a single str. Wrap it in a list: [text].",
        ),
        (
            b"one text",
            TypeError,
            "X must be a sequence of texts; got a single bytes. Wrap it in a list: [text].",
        ),
        (
            ["a", float("nan")],
            TypeError,
            "X[1] must be a str; got float (nan), and 1 of 2 texts are missing. " + REPLACE,
        ),
        (
            ["a", "b", None],
            TypeError,
            "X[2] must be a str; got None, and 1 of 3 texts are missing. " + REPLACE,
        ),
        (
            pd.Series(["a", None], dtype="string"),
            TypeError,
            "X[1] must be a str; got NAType (<NA>), and 1 of 2 texts are missing. " + REPLACE,
        ),
        (
            pd.Series(["a", float("nan")], dtype="str", index=[5, 9]),
            TypeError,
            "X[1] must be a str; got float (nan), and 1 of 2 texts are missing. " + REPLACE,
        ),
        (
            pl.Series(["a", None]),
            TypeError,
            "X[1] must be a str; got None, and 1 of 2 texts are missing. " + REPLACE,
        ),
        (
            np.ma.array(["a", "b", "c"], mask=[False, True, True]),
            TypeError,
            "X[1] must be a str; got None, and 2 of 3 texts are missing. " + REPLACE,
        ),
        (
            pa.array(["a", None]),
            TypeError,
            "X[1] must be a str; got None, and 1 of 2 texts are missing. " + REPLACE,
        ),
        (
            [["a"], ["b", "c"]],
            TypeError,
            "X[0] must be a str; got list (['a']). Join the tokens with spaces, or pass a callable "
            "analyzer to the vectorizer.",
        ),
        (
            [("a", "pos")],
            TypeError,
            "X[0] must be a str; got tuple (('a', 'pos')). Pass texts and labels as two lists: "
            "fit(texts, labels).",
        ),
        (
            ["a", b"b"],
            TypeError,
            "X[1] must be a str; got bytes (b'b'). Decode it first: text.decode('utf-8').",
        ),
        (
            [1, 2],
            TypeError,
            f"X[0] must be a str; got int (1). {NO_VECTORIZER}, or turn numbers into texts with "
            "str().",
        ),
        (
            ["a", ["b", "c"]],
            TypeError,
            "X[1] must be a str; got list (['b', 'c']). Join the tokens with spaces, or pass a "
            "callable analyzer to the vectorizer.",
        ),
        (
            [["a"], [None]],
            TypeError,
            "X[1] must be a str; got None, and 1 of 2 texts are missing. " + REPLACE,
        ),
        (
            ["a", object],
            TypeError,
            "X[1] must be a str; got type (<class 'object'>). Pass one str for each text.",
        ),
        (
            sparse.csr_matrix((3, 4)),
            TypeError,
            f"X must be a sequence of texts; got a sparse matrix of shape (3, 4). {NO_VECTORIZER}.",
        ),
        (
            np.zeros((3, 4)),
            TypeError,
            f"X must be a sequence of texts; got a numeric array of shape (3, 4). {NO_VECTORIZER}.",
        ),
        (
            pd.DataFrame({"title": ["a"], "text": ["b"]}),
            ValueError,
            "X must hold one text a row; got shape (1, 2). Choose one column, or use a "
            "sklearn.compose.ColumnTransformer to give each column its own estimator.",
        ),
        (
            {"a": 1},
            TypeError,
            "X must be a sequence of texts; got dict. Pass a list of str.",
        ),
        ({"a"}, TypeError, "X must be a sequence of texts; got set. Pass a list of str."),
        (7, TypeError, "X must be a sequence of texts; got int. Pass a list of str."),
        (None, TypeError, "X must be a sequence of texts; got NoneType. Pass a list of str."),
        (
            np.array("text"),
            TypeError,
            "X must be a sequence of texts; got a 0-dimensional array.",
        ),
        ([], ValueError, "X must hold at least one text; got 0 texts."),
        (pd.Series([], dtype="str"), ValueError, "X must hold at least one text; got 0 texts."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_are_not_texts(X, error, sentence):
    with pytest.raises(error) as caught:
        check_texts(X)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("table", [[["a"], ["b"]], [("a",), ("b",)], (["a"], ["b"])], ids=str)
def test_rows_of_one_column_are_texts(table):
    """River gives such lists, as scikit-learn's own estimators take lists of rows."""
    assert check_texts(table) == ["a", "b"]


def test_texts_of_any_kind_are_data():
    texts = ["", " ", "😀", "x", "\x00", "a\nb"]
    assert check_texts(np.array(texts, dtype=object)) == texts
    assert check_texts(np.array(["a", "b"]))[0].__class__ is str
    assert check_texts([], allow_empty=True) == []


def test_lengths_of_texts_and_labels():
    with pytest.raises(ValueError) as caught:
        check_same_length(["a"] * 120, np.arange(119))
    assert str(caught.value) == ("X and y must have the same length; got 120 texts and 119 labels.")


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        ([1, -2, 1], "sample_weight[1] must be 0 or more; got -2.0, which is negative."),
        ([1, 1, np.nan], "sample_weight[2] must be 0 or more; got nan, which is not finite."),
        (
            [0, 0, 0],
            "sample_weight must hold at least one weight above 0 (sample weights are all zero); "
            "got 3 zeros.",
        ),
        (
            [1, 1],
            "sample_weight must hold one weight for each text; got 2 weights and 3 texts.",
        ),
        (
            ["a", "b", "c"],
            "sample_weight must hold one number for each text; got ['a', 'b', 'c']. "
            "For weights of whole classes use the parameter class_weight.",
        ),
        (
            [[1], [1], [1]],
            "Sample weights must be 1D array or scalar: sample_weight must have shape (3,); "
            "got (3, 1).",
        ),
    ],
)
def test_what_are_not_weights(weight, sentence):
    with pytest.raises(ValueError) as caught:
        check_sample_weight(weight, n_texts=3)
    assert str(caught.value) == sentence


def test_weights():
    np.testing.assert_array_equal(check_sample_weight(None, n_texts=3), [1, 1, 1])
    np.testing.assert_array_equal(check_sample_weight(2, n_texts=3), [2, 2, 2])
    np.testing.assert_array_equal(check_sample_weight([1, 0, 3], n_texts=3), [1, 0, 3])
