"""Misspelt parameters and values: what was meant."""

import copy
import inspect
import pickle

import joblib
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklstm import LSTMLanguageModel, LSTMTextClassifier, LSTMTextRegressor, SequenceVectorizer
from sklstm.names import OTHER_NAMES, nearest
from tests.conftest import TINY

KINDS = [LSTMTextClassifier, LSTMTextRegressor, LSTMLanguageModel, SequenceVectorizer]


class WithOneMore(LSTMTextClassifier):
    """What a user may write: a subclass with a parameter of its own and some of ours."""

    def __init__(self, prefix, *, hidden_size=8, lr=0.1):
        super().__init__(hidden_size=hidden_size, lr=lr)
        self.prefix = prefix


class WithAll(LSTMTextClassifier):
    """Another way: all parameters of ours, unnamed, which scikit-learn does not see."""

    def __init__(self, **parameters):
        super().__init__(**parameters)


@pytest.mark.parametrize(
    ("name", "names", "meant"),
    [
        ("f1-macro", ["f1_macro", "f1_micro"], "f1_macro"),
        ("LSTM", ["lstm", "coupled"], "lstm"),
        ("acc", ["jaccard", "accuracy"], "accuracy"),
        ("mse", ["max_error", "neg_mean_squared_error"], "neg_mean_squared_error"),
        ("mse", ["max_error"], None),
        ("gru", ["lstm", "coupled"], None),
    ],
)
def test_nearest(name, names, meant):
    assert nearest(name, names) == meant


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"hiden_size": 4}, "'hiden_size'. Did you mean 'hidden_size'?"),
        ({"units": 4}, "'units'. Did you mean 'hidden_size'?"),
        (
            {"vectorizer__max_length": 400},
            "'vectorizer__max_length'. Write vectorizer=SequenceVectorizer(max_length=400), or use "
            "set_params(vectorizer__max_length=400).",
        ),
        ({"max_df": 0.5}, "'max_df'. Write vectorizer=SequenceVectorizer(max_df=0.5)."),
        ({"maxlen": 9}, "'maxlen'. Write vectorizer=SequenceVectorizer(max_length=9)."),
        (
            {"blend__alpha": 1.0},
            "'blend__alpha'. It belongs to the estimator that is given as blend; "
            "set_params(blend__alpha=1.0) sets it later.",
        ),
        ({"xyz": 4}, "'xyz'."),
    ],
)
def test_a_wrong_argument_of_the_constructor(arguments, hint):
    with pytest.raises(TypeError) as caught:
        LSTMTextClassifier(**arguments)
    assert str(caught.value) == f"LSTMTextClassifier() got an unexpected keyword argument {hint}"


def test_a_parameter_of_another_estimator():
    with pytest.raises(TypeError, match="'class_weight'. It is a parameter of LSTMTextClassifier."):
        LSTMTextRegressor(class_weight="balanced")
    with pytest.raises(TypeError, match="'pooling'. .* of LSTMTextClassifier and LSTMTextReg"):
        LSTMLanguageModel(pooling="max")


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_have_names(kind):
    with pytest.raises(TypeError, match="takes its parameters by name .*; got 5 as a positional"):
        kind(5)


def test_names_from_elsewhere_name_parameters():
    names = {name for kind in KINDS for name in inspect.signature(kind).parameters}
    assert set(OTHER_NAMES.values()) <= names and not set(OTHER_NAMES) & names


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"hiddensize": 4}, "Invalid parameter 'hiddensize' .* Did you mean 'hidden_size'"),
        ({"max_df": 4}, "Invalid parameter 'max_df' .* Did you mean 'vectorizer__max_df'"),
        ({"epochs": 4}, "Did you mean 'max_epochs'"),
        ({"vectoriser__max_df": 4}, "'vectoriser' .* Did you mean 'vectorizer'"),
        ({"vectorizer__maxlength": 4}, "'maxlength' for estimator SequenceV.* 'max_length'"),
        ({"blend__alpha": 4}, "needs an estimator as blend"),
        ({"xyz": 4}, "Invalid parameter 'xyz' .* get_params.. shows all"),
    ],
)
@pytest.mark.parametrize("vectorizer", [None, SequenceVectorizer()])
def test_a_wrong_name_in_set_params_changes_nothing(arguments, hint, vectorizer):
    model = LSTMTextClassifier(vectorizer=vectorizer)
    with pytest.raises(ValueError, match=hint):
        model.set_params(hidden_size=3, **arguments)
    assert model.hidden_size == 128


@pytest.mark.parametrize("vectorizer", [None, SequenceVectorizer()])
def test_right_names_in_set_params(vectorizer):
    model = LSTMTextClassifier(vectorizer=vectorizer, blend=MultinomialNB())
    model.set_params(vectorizer__max_df=4, vectorizer__lowercase=False, blend__alpha=3, lr=1e-3)
    assert (model.vectorizer.max_df, model.vectorizer.lowercase) == (4, False)
    assert (model.blend.alpha, model.lr) == (3, 1e-3)


def test_a_misspelt_name_in_a_grid(texts, labels):
    pipeline = make_pipeline(FunctionTransformer(), LSTMTextClassifier(**TINY))
    grid = {"lstmtextclassifier__dropuot": [0.1]}
    with pytest.raises(ValueError, match="Invalid parameter 'dropuot' .* Did you mean 'dropout'"):
        GridSearchCV(pipeline, grid, cv=2).fit(texts, labels)


@pytest.mark.parametrize(
    ("parameters", "hint"),
    [
        ({"cell": "LSTM"}, "Got 'LSTM' instead. Did you mean 'lstm'"),
        ({"scoring": "f1-macro"}, "the name of a scorer .* Did you mean 'f1_macro'"),
        ({"backend": "native"}, "Did you mean 'compiled'"),
        ({"pooling": ("max", "avg")}, "Did you mean 'mean'"),
        ({"blend": MultinomialNB}, "the class MultinomialNB. Make one: MultinomialNB"),
        ({"blend": make_pipeline(FunctionTransformer())}, "in CalibratedClassifierCV"),
        ({"vectorizer": {"max_length": 9}}, r"SequenceVectorizer\(name=value\)"),
    ],
)
def test_a_wrong_value(parameters, hint, texts, labels):
    with pytest.raises((TypeError, ValueError), match=hint) as caught:
        LSTMTextClassifier(**TINY | parameters).fit(texts, labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("copied", [clone, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
@pytest.mark.parametrize("model", [kind() for kind in KINDS] + [WithOneMore("a"), WithAll(lr=0.1)])
def test_the_check_of_names_leaves_introspection_as_it_is(model, copied, tmp_path):
    assert copied(model).get_params() == model.get_params()
    joblib.dump(model, tmp_path / "model")
    assert joblib.load(tmp_path / "model").get_params() == model.get_params()
    assert "hidden_size" in str(inspect.signature(LSTMTextClassifier))


def test_subclasses_have_their_own_names(texts, labels):
    assert WithOneMore("a").get_params() == {"prefix": "a", "hidden_size": 8, "lr": 0.1}
    with pytest.raises(
        TypeError, match="WithOneMore.. got .* 'hidden'. Did you mean 'hidden_size'"
    ):
        WithOneMore("a", hidden=4)
    with pytest.raises(TypeError, match="unexpected keyword argument 'hidden'"):
        WithAll(hidden=4)
    for model in (WithAll(**TINY), WithOneMore("a", lr=0.02)):
        assert model.set_params().fit(texts, labels).score(texts, labels) > 0.5
    with pytest.raises(ValueError, match="The 'dropout' parameter of WithAll"):
        WithAll(dropout=50).fit(texts, labels)
