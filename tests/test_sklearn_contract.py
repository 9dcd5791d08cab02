"""What scikit-learn asks of an estimator, asked with texts.

``check_estimator`` feeds numbers, so of an estimator for texts it only checks that it can be
cloned. Here the checks that need no input are called by name, the whole suite runs through an
adapter that renders numeric rows as texts, and the rest is done by use.
"""

import ast
import copy
import inspect
import pickle
import re
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  it adds the name below
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.fixes import parse_version
from sklearn.utils.validation import check_is_fitted, validate_data

from sklstm import LSTMLanguageModel, LSTMTextClassifier, LSTMTextRegressor, SequenceVectorizer
from tests.conftest import TINY

INPUT_FREE_CHECKS = [
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_param_validation",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]


ESTIMATORS = (LSTMTextClassifier, LSTMTextRegressor, LSTMLanguageModel)

PAIRS = [
    (estimator, check)
    for estimator in (*[kind() for kind in ESTIMATORS], SequenceVectorizer())
    for check in INPUT_FREE_CHECKS
]


@pytest.mark.parametrize(("estimator", "check"), PAIRS)
def test_check_that_needs_no_input(estimator, check):
    with warnings.catch_warnings():
        getattr(estimator_checks, check)(type(estimator).__name__, estimator)


#: What the classifier and the regressor do not share on purpose, by parameter, and why.
DIFFERENT_IN_REGRESSOR = {
    "blend": ({"words", "constraint"}, "another linear model, and a member that predicts numbers"),
    "pretrained": ({"words"}, "each says what starts from it"),
    "read_by": ({"words"}, "predictions are averaged, and no sentences are returned"),
    "virtual_adversarial": ({"words"}, "there are no probabilities"),
    "early_stopping": ({"words"}, "no class can be too small"),
    "validation_fraction": ({"words"}, "tenths of y in the place of classes"),
    "scoring": ({"words"}, "another loss"),
    "callbacks": ({"words"}, "other numbers are recorded"),
}

#: What the classifier and the language model do not share on purpose, by parameter, and why.
DIFFERENT = {
    "vectorizer": ({"words"}, "the language model reads all of each text"),
    "embedding_dim": ({"default", "type", "words", "constraint"}, "only one takes word vectors"),
    "hidden_size": ({"default"}, "predicting every word needs more than a label"),
    "num_layers": ({"words"}, "a language model of two directions has one layer"),
    "bidirectional": ({"words"}, "the language model predicts in each direction separately"),
    "dropout": ({"default", "words"}, "many texts that are read a few times need none"),
    "lr": ({"default"}, "another loss, and a network of another size"),
    "batch_size": ({"words"}, "windows are no texts"),
    "max_epochs": ({"words"}, "one epoch of many texts is enough for a language model"),
    "validation_fraction": (
        {"default", "words", "constraint"},
        "a language model has many texts and no early stopping, and may do without",
    ),
    "callbacks": ({"words"}, "other numbers are recorded"),
}


def describe_parameters(estimator):
    """Return by parameter its default, its constraint, and type and words in the docstring."""
    section = inspect.getdoc(estimator).split("\nParameters\n")[1].split("\nAttributes\n")[0]
    parts = re.split(r"^(\w+) : (.*)$", section, flags=re.MULTILINE)
    documented = dict(zip(parts[1::3], zip(parts[2::3], parts[3::3], strict=True), strict=True))
    return {
        name: {
            "default": parameter.default,
            "constraint": list(map(str, estimator._parameter_constraints[name])),
            "type": documented[name][0].partition(", default=")[0],
            "words": documented[name][1].split(),
        }
        for name, parameter in inspect.signature(estimator).parameters.items()
    }


@pytest.mark.parametrize(
    ("estimator", "different"),
    [(LSTMLanguageModel, DIFFERENT), (LSTMTextRegressor, DIFFERENT_IN_REGRESSOR)],
)
def test_estimators_agree_on_the_parameters_that_they_share(estimator, different):
    one, other = map(describe_parameters, (LSTMTextClassifier, estimator))
    shared = [name for name in one if name in other]
    assert len(shared) > 15 and different.keys() <= set(shared)
    assert shared == [name for name in other if name in one]  # in the same order
    found = {
        name: {aspect for aspect, value in one[name].items() if value != other[name][aspect]}
        for name in shared
    }
    expected = dict.fromkeys(shared, set()) | {name: different[name][0] for name in different}
    assert found == expected


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_documented_defaults_are_those_of_the_signature(estimator):
    doc = inspect.getdoc(estimator)
    for name, parameter in inspect.signature(estimator).parameters.items():
        (written,) = re.findall(rf"^{name} : .*, default=(.*)$", doc, flags=re.MULTILINE)
        assert ast.literal_eval(written) == parameter.default, name


class NumbersAsTexts(TransformerMixin, BaseEstimator):
    """Passes each row of numbers to an estimator as a text: column and rounded value."""

    def __init__(self, max_epochs=4):
        self.max_epochs = max_epochs

    def _texts(self, X):
        return [" ".join(f"f{j}b{round(2 * x)}" for j, x in enumerate(row)) for row in X]

    def _make(self, kind, **settings):
        return kind(
            vectorizer=SequenceVectorizer(token_pattern=r"f\d+b-?\d+"),
            early_stopping=False,
            **(TINY | {"max_epochs": self.max_epochs, "batch_size": 16, "lr": 0.05} | settings),
        )

    def fit(self, X, y, sample_weight=None):
        X = validate_data(self, X)
        self.estimator_ = self._estimator().fit(self._texts(X), y, sample_weight=sample_weight)
        # The checks compare results to 1e-7, below the rounding of float32. The promise for
        # float32 is tested in test_classifier.py.
        self.estimator_.model_.network.double()
        return self

    def _fit_further(self, X, y, *arguments):
        first = not hasattr(self, "estimator_")
        X = validate_data(self, X, reset=first)
        if first:
            self.estimator_ = self._estimator()
        self.estimator_.partial_fit(self._texts(X), y, *arguments)
        return self

    def _ask(self, method, X):
        check_is_fitted(self)
        return getattr(self.estimator_, method)(self._texts(validate_data(self, X, reset=False)))

    def predict(self, X):
        return self._ask("predict", X)

    def transform(self, X):
        return self._ask("transform", X)

    def get_feature_names_out(self, input_features=None):
        return self.estimator_.get_feature_names_out()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class ClassesOfNumbers(ClassifierMixin, NumbersAsTexts):
    def __init__(self, class_weight=None, max_epochs=4):
        super().__init__(max_epochs)
        self.class_weight = class_weight

    classes_ = property(lambda self: self.estimator_.classes_)

    def _estimator(self):
        return self._make(LSTMTextClassifier, class_weight=self.class_weight)

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        return self._fit_further(X, y, classes, sample_weight)

    def predict_proba(self, X):
        return self._ask("predict_proba", X)

    def predict_log_proba(self, X):
        return self._ask("predict_log_proba", X)

    def decision_function(self, X):
        return self._ask("decision_function", X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class NumbersOfNumbers(RegressorMixin, NumbersAsTexts):
    def __init__(self, max_epochs=4):
        super().__init__(max_epochs)

    def _estimator(self):
        return self._make(LSTMTextRegressor)

    def partial_fit(self, X, y, sample_weight=None):
        return self._fit_further(X, y, sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": (
        "a text of weight 2 in one batch is not the same text in two batches"
    ),
}


@parametrize_with_checks(
    [ClassesOfNumbers(), NumbersOfNumbers()], expected_failed_checks=lambda _: EXPECTED_FAILURES
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_check_through_the_adapter(estimator, check):
    check(estimator)


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_pipeline_and_grid_search_over_flat_and_nested_parameters(tiny, texts, labels, n_jobs):
    pipeline = sklearn.pipeline.Pipeline([("clf", tiny)])
    grid = {"clf__hidden_size": [4, 8], "clf__vectorizer__min_df": [1, 2]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs).fit(texts, labels)
    assert search.best_score_ >= 0.8
    best = search.best_estimator_["clf"]
    assert best.hidden_size == search.best_params_["clf__hidden_size"]
    assert best.vectorizer_.min_df == search.best_params_["clf__vectorizer__min_df"]
    assert tiny.vectorizer is None


def test_halving_search_over_epochs(tiny, texts, labels):
    search = HalvingGridSearchCV(
        tiny,
        {"hidden_size": [2, 8]},
        resource="max_epochs",
        max_resources=10,
        min_resources=5,
        factor=2,
        cv=2,
        random_state=0,
    ).fit(texts, labels)
    assert search.best_estimator_.max_epochs == 10
    assert search.n_resources_ == [5, 10]


def test_cross_val_score_with_string_labels(tiny, texts, labels):
    assert cross_val_score(tiny, texts, labels, cv=2, scoring="neg_log_loss").mean() > -0.5


def naive_bayes():
    return make_pipeline(CountVectorizer(), MultinomialNB())


@pytest.mark.parametrize("voting", ["soft", "hard"])
def test_voting_with_naive_bayes(tiny, texts, labels, voting):
    ensemble = VotingClassifier([("lstm", tiny), ("nb", naive_bayes())], voting=voting)
    assert ensemble.fit(texts, labels).score(texts, labels) >= 0.8


def test_an_ensemble_over_seeds_is_made_of_plain_parameters(tiny, texts, labels):
    """The recipe of the user guide: raw texts, weights, clones, a grid over all members."""
    members = [(f"seed_{k}", clone(tiny).set_params(random_state=k)) for k in range(3)]
    ensemble = VotingClassifier(members, voting="soft")
    weights = np.linspace(0.5, 1.5, len(texts))
    fitted = clone(ensemble).fit(texts, labels, sample_weight=weights)
    each = [clone(member).fit(texts, labels, sample_weight=weights) for _, member in members]
    probabilities = fitted.predict_proba(texts)
    np.testing.assert_array_equal(
        probabilities, np.mean([member.predict_proba(texts) for member in each], axis=0)
    )
    assert (fitted.predict(texts) == fitted.classes_[probabilities.argmax(axis=1)]).all()
    assert fitted.score(texts, labels) >= 0.8
    names = [f"{name}__adversarial" for name, _ in members]
    ensemble.set_params(**dict.fromkeys(names, 0.05))
    ensemble.set_params(**{f"{name}__max_epochs": 2 for name, _ in members})
    assert all(member.adversarial == 0.05 for _, member in ensemble.estimators)
    grid = [{name: [share] for name in names} for share in (0.0, 0.05)]
    search = GridSearchCV(ensemble, grid, cv=2, scoring="neg_log_loss", refit=False)
    search.fit(texts, labels)
    assert len(set(search.cv_results_["mean_test_score"])) == 2


def test_stacking_with_naive_bayes(tiny, texts, labels):
    ensemble = StackingClassifier([("lstm", tiny), ("nb", naive_bayes())], cv=2)
    assert ensemble.fit(texts, labels).score(texts, labels) >= 0.8


needs_1_8 = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.8"), reason="needs scikit-learn 1.8"
)


@pytest.mark.parametrize("method", ["sigmoid", pytest.param("temperature", marks=needs_1_8)])
def test_calibration_of_an_unfitted_and_of_a_frozen_classifier(tiny, fitted, texts, labels, method):
    for estimator, cv in ((tiny, 2), (FrozenEstimator(fitted), None)):
        calibrated = CalibratedClassifierCV(estimator, method=method, cv=cv).fit(texts, labels)
        probabilities = calibrated.predict_proba(texts)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert calibrated.score(texts, labels) >= 0.8


def test_self_training_uses_unlabelled_texts(tiny, texts, labels):
    """scikit-learn's SelfTrainingClassifier takes matrices of numbers only: give it row numbers."""
    partly = np.where(np.arange(len(labels)) >= 30, "none", labels)
    targets = np.select([partly == "pos", partly == "neg"], [1, 0], -1)
    rows = np.arange(len(texts)).reshape(-1, 1)
    look_up = FunctionTransformer(lambda rows: [texts[row] for row in rows[:, 0]])
    tiny.set_params(max_epochs=40)
    model = SelfTrainingClassifier(make_pipeline(look_up, tiny), threshold=0.6, max_iter=2)
    model.fit(rows, targets)
    assert (model.transduction_ != -1).sum() > (targets != -1).sum()
    assert (model.predict(rows) == (labels == "pos")).mean() >= 0.9


def test_one_vs_rest_and_multi_output(tiny, texts, labels):
    several = np.column_stack([labels == "pos", ["film" in text for text in texts]]).astype(int)
    for wrapper in (OneVsRestClassifier(tiny), MultiOutputClassifier(tiny)):
        predicted = wrapper.fit(texts, several).predict(texts)
        assert (predicted == several).mean() >= 0.8


def test_features_for_another_estimator(tiny, texts, labels):
    model = make_pipeline(tiny, LogisticRegression())
    model.set_output(transform="pandas")
    assert model.fit(texts, labels).score(texts, labels) >= 0.8
    features = model[0].transform(texts)
    assert list(features.columns) == list(model[0].get_feature_names_out())
    assert features.columns[[0, -1]].tolist() == ["max_0", "embedding_mean_7"]
    assert features.shape == (len(texts), 2 * 16 + 8)
    twice = LSTMTextClassifier(**TINY | {"pooling": ("mean", "last", "mean")}).fit(texts, labels)
    assert len(set(twice.get_feature_names_out())) == 3 * 16 == twice.transform(texts).shape[1]


def test_column_transformer_gives_the_text_column_to_the_classifier(tiny, texts, labels):
    frame = pd.DataFrame({"text": texts, "stars": np.arange(len(texts))})
    columns = ColumnTransformer([("text", tiny, "text"), ("stars", "passthrough", ["stars"])])
    assert columns.fit_transform(frame, labels).shape == (len(texts), 2 * 16 + 8 + 1)


def test_clone_keeps_parameters_and_drops_what_was_learnt(fitted):
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params()
    assert not hasattr(copied, "net_")


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_copies_predict_the_same_bits(fitted, texts, tmp_path, how):
    if how == "pickle":
        copied = pickle.loads(pickle.dumps(fitted))
    elif how == "joblib":
        joblib.dump(fitted, tmp_path / "model.joblib")
        copied = joblib.load(tmp_path / "model.joblib")
    else:
        copied = copy.deepcopy(fitted)
    np.testing.assert_array_equal(copied.predict_proba(texts), fitted.predict_proba(texts))


def test_pickle_carries_no_texts_and_can_be_trained_further(fitted, texts, labels):
    pickled = pickle.dumps(fitted)
    assert b"truly good" not in pickled
    pickle.loads(pickled).partial_fit(texts, labels)


def test_unfitted_pickle_is_small(tiny):
    assert len(pickle.dumps(tiny)) < 5_000


def test_metadata_routing_of_sample_weight(tiny, texts, labels):
    weights = np.where(labels == "pos", 1.0, 0.0)
    weights[labels == "neg"] = 1e-6
    with sklearn.config_context(enable_metadata_routing=True):
        model = clone(tiny).set_fit_request(sample_weight=True)
        model = model.set_score_request(sample_weight=False)
        search = GridSearchCV(model, {"hidden_size": [8]}, cv=2)
        search.fit(texts, labels, sample_weight=weights)
    assert set(search.predict(texts)) == {"pos"}


def test_html_representation_names_the_estimator(tiny, fitted):
    assert "LSTMTextClassifier" in tiny._repr_html_()
    assert "Fitted" in fitted._repr_html_()


INPUTS = {
    "tuple": tuple,
    "numpy <U": np.array,
    "numpy object": lambda texts: np.array(texts, dtype=object),
    "numpy column": lambda texts: np.array(texts, dtype=object)[:, None],
    "series of objects": lambda texts: pd.Series(texts, dtype=object),
    "series of string": lambda texts: pd.Series(texts, dtype="string"),
    "series of str": lambda texts: pd.Series(texts, dtype="str"),
    "series of arrow strings": lambda texts: pd.Series(texts, dtype="string[pyarrow]"),
    "series with a gappy index": lambda texts: pd.Series(texts, index=range(7, 7 + 3 * 40, 3)),
    "one-column frame": lambda texts: pd.DataFrame({"text": texts}),
    "polars series": pl.Series,
    "polars one-column frame": lambda texts: pl.DataFrame({"text": texts}),
    "generator": iter,
    "arrow array": pa.array,
    "arrow chunked array": lambda texts: pa.chunked_array([texts[:3], texts[3:]]),
    "arrow table": lambda texts: pa.table({"text": texts}),
    "lists of one text": lambda texts: [[text] for text in texts],
    "tuples of one text": lambda texts: [(text,) for text in texts],
    "masked array": lambda texts: np.ma.array(texts, mask=[False] * len(texts)),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_texts_in_any_container_give_the_same_bits(tiny, fitted, texts, labels, kind):
    model = clone(tiny).fit(INPUTS[kind](texts), labels)
    expected = fitted.predict_proba(texts)
    np.testing.assert_array_equal(model.predict_proba(INPUTS[kind](texts)), expected)


TARGETS = {
    "list of str": list,
    "object": lambda labels: labels.astype(object),
    "categorical": lambda labels: pd.Series(pd.Categorical(labels)),
    "string": lambda labels: pd.Series(labels, dtype="string"),
    "polars": lambda labels: pl.Series(labels),
    "bool": lambda labels: labels == "pos",
    "nullable boolean": lambda labels: pd.Series(labels == "pos", dtype="boolean"),
    "int that starts at 3": lambda labels: np.where(labels == "pos", 7, 3),
    "nullable int": lambda labels: pd.Series(np.where(labels == "pos", 7, 3), dtype="Int64"),
    "whole floats": lambda labels: np.where(labels == "pos", 1.0, -1.0),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_labels_of_any_kind_come_back_as_they_are(tiny, texts, labels, kind):
    given = TARGETS[kind](labels)
    model = clone(tiny).fit(texts, given)
    predicted = model.predict(texts)
    assert set(predicted.tolist()) == set(list(given))
    assert (predicted == np.asarray(list(given))).mean() >= 0.8
    assert model.score(texts, given) >= 0.8
