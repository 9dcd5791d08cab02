"""One contract for all that y can be: classes, label sets, numbers, several numbers."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

import sklstm
from sklstm import LSTMLanguageModel, LSTMTextClassifier, LSTMTextRegressor
from tests.conftest import LABELS, TEXTS, TINY, UNUSUAL

ALL_TEXTS = TEXTS * 4
POSITIVE = np.array(LABELS * 4) == "pos"
FILM = np.array(["film" in text for text in ALL_TEXTS])
SETS = np.column_stack([POSITIVE, FILM, POSITIVE & FILM]).astype(int)
STARS = np.where(POSITIVE, 4.0, 1.0) + FILM

TASKS = {
    "classes": (LSTMTextClassifier, np.array(LABELS * 4)),
    "label sets": (LSTMTextClassifier, SETS),
    "sparse label sets": (LSTMTextClassifier, sparse.csr_array(SETS)),
    "named label sets": (LSTMTextClassifier, pd.DataFrame(SETS, columns=["good", "film", "both"])),
    "numbers": (LSTMTextRegressor, STARS),
    "absolute error": (LSTMTextRegressor, STARS),
    "a column": (LSTMTextRegressor, STARS[:, None]),
    "several numbers": (LSTMTextRegressor, np.column_stack([STARS, -10 * STARS, POSITIVE])),
}


class Case:
    """A kind of y with an estimator for it."""

    def __init__(self, name):
        self.name = name
        self.kind, self.y = TASKS[name]
        self.is_regressor = self.kind is LSTMTextRegressor
        self.settings = {"loss": "absolute_error"} if name == "absolute error" else {}

    def make(self, **settings):
        defaults = TINY | {"lr": 0.05, "ema": None, "max_epochs": 15, "early_stopping": False}
        return self.kind(**defaults | self.settings | settings)

    def fit(self, **settings):
        return self.make(**settings).fit(ALL_TEXTS, self.y)

    def take(self, rows):
        """Return some rows of y."""
        return self.y.iloc[rows] if isinstance(self.y, pd.DataFrame) else self.y[rows]

    def outputs(self, estimator, texts=None):
        """Return the numbers behind the predictions."""
        method = "predict" if self.is_regressor else "predict_proba"
        return getattr(estimator, method)(ALL_TEXTS if texts is None else texts)

    def first_classes(self):
        return {"classes": np.unique(self.y)} if self.name == "classes" else {}


@pytest.fixture(params=TASKS)
def case(request):
    return Case(request.param)


@pytest.fixture(params=["classes", "label sets", "several numbers"])
def one_of_each(request):
    """Return a case of each task, for what does not depend on the container of y."""
    return Case(request.param)


_fitted = {}


@pytest.fixture
def fitted(case):
    """Return a fitted estimator; a copy, so that a test may change it."""
    if case.name not in _fitted:
        _fitted[case.name] = case.fit()
    return copy.deepcopy(_fitted[case.name])


def dense(y):
    return y.toarray() if sparse.issparse(y) else np.asarray(y)


def test_it_learns_and_predicts_what_y_was(case, fitted):
    predicted = fitted.predict(ALL_TEXTS)
    assert fitted.score(ALL_TEXTS, case.y) > 0.8
    assert predicted.shape == case.y.shape
    assert sparse.issparse(predicted) == sparse.issparse(case.y)
    assert not isinstance(predicted, pd.DataFrame)
    assert len(fitted.predict(UNUSUAL).shape) == len(case.y.shape)


def test_the_blend_with_n_grams_learns_too(case):
    model = case.fit(blend="ngrams", max_epochs=2)
    assert model.score(ALL_TEXTS, case.y) > 0.8
    assert model.member_ is not None and model.blend_weights_[1] > 0
    of_network = copy.deepcopy(model)
    of_network.model_.blend = type(model.model_.blend)()
    assert not np.allclose(case.outputs(model), case.outputs(of_network))


def test_two_fits_are_one(case, fitted):
    twice = case.make().fit(ALL_TEXTS[:20], case.take(slice(20))).fit(ALL_TEXTS, case.y)
    np.testing.assert_array_equal(case.outputs(twice), case.outputs(fitted))


def test_equal_weights_are_no_weights(case, fitted):
    weighted = case.make().fit(ALL_TEXTS, case.y, sample_weight=np.full(40, 3.0))
    np.testing.assert_array_equal(case.outputs(weighted), case.outputs(fitted))


def test_texts_of_weight_0_are_not_there(one_of_each):
    case = one_of_each
    weights, rows = np.ones(40), np.arange(30)
    weights[30:] = 0
    weighted = case.make().fit(ALL_TEXTS, case.y, sample_weight=weights)
    without = case.make().fit(ALL_TEXTS[:30], case.take(rows))
    np.testing.assert_array_equal(case.outputs(weighted), case.outputs(without))


def test_weights_count(case, fitted):
    weights = np.where(POSITIVE, 5.0, 1.0)
    for blend in (None, "ngrams"):
        plain = fitted if blend is None else case.fit(blend=blend)
        weighted = case.make(blend=blend).fit(ALL_TEXTS, case.y, sample_weight=weights)
        assert not np.allclose(case.outputs(weighted), case.outputs(plain))
        if blend == "ngrams":
            predict = "predict" if case.is_regressor else "predict_proba"
            members = [getattr(m.member_, predict)(TEXTS) for m in (plain, weighted)]
            assert not np.allclose(*members)


def test_a_clone_learns_the_same(case, fitted):
    again = clone(fitted).fit(ALL_TEXTS, case.y)
    np.testing.assert_array_equal(case.outputs(again), case.outputs(fitted))


def test_the_seed_decides(case, fitted):
    assert not np.allclose(case.outputs(case.fit(random_state=1)), case.outputs(fitted))


def test_a_text_is_predicted_alike_in_every_batch(case, fitted):
    together = case.outputs(fitted, TEXTS)
    for k, text in enumerate(TEXTS):
        own = case.outputs(fitted, [text])[0]  # of numbers as large as ten, in float32
        np.testing.assert_allclose(own, together[k], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("blend", [None, "ngrams"])
def test_files_and_pickles_give_the_same_bits(case, blend, tmp_path):
    model = case.fit(blend=blend, max_epochs=2)
    model.save(tmp_path / "m.safetensors")
    for again in (sklstm.load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(model))):
        assert type(again) is type(model) and again.get_params() == model.get_params()
        np.testing.assert_array_equal(case.outputs(again), case.outputs(model))
        np.testing.assert_array_equal(
            dense(again.predict(UNUSUAL)), dense(model.predict(UNUSUAL)), strict=True
        )
        learnt = copy.deepcopy(model).partial_fit(ALL_TEXTS, case.y)
        again.partial_fit(ALL_TEXTS, case.y)
        np.testing.assert_array_equal(case.outputs(again), case.outputs(learnt))


def test_partial_fit_learns_in_pieces(case):
    model = case.make()
    for epoch in range(8):
        first = case.first_classes() if epoch == 0 else {}
        model.partial_fit(ALL_TEXTS[:20], case.take(slice(20)), **first)
        model.partial_fit(ALL_TEXTS[20:], case.take(slice(20, 40)))
    assert model.score(ALL_TEXTS, case.y) > 0.8 and model.n_iter_ == 16


def test_warm_start_resumes(case, fitted):
    resumed = fitted.set_params(warm_start=True, max_epochs=1)
    before = case.outputs(fitted)
    resumed.fit(ALL_TEXTS, case.y)
    fresh = case.fit(max_epochs=1)
    moved, anew = (np.abs(case.outputs(model) - before).mean() for model in (resumed, fresh))
    assert 0 < moved < 0.85 * anew


class Interrupt(Callback):
    """Presses Ctrl-C in the third epoch."""

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        if len(net.history) == 3:
            raise KeyboardInterrupt


def test_an_interrupted_fit_keeps_what_it_has(case):
    with pytest.warns(UserWarning, match="Training was interrupted"):
        model = case.fit(callbacks=[Interrupt()])
    assert model.n_iter_ == 2
    assert case.outputs(model).shape[0] == 40


@pytest.mark.parametrize(
    ("X", "y", "match"),
    [
        (ALL_TEXTS[:39], None, "39 texts and 40 labels"),
        ([*ALL_TEXTS[:39], None], None, r"X\[39\] must be a str"),
        (ALL_TEXTS, "none", "got None"),
        (ALL_TEXTS, "text", "must be a sequence of"),
        (ALL_TEXTS, "missing", "got nan|got None|<NA>"),
        (ALL_TEXTS, "cube", "must have shape"),
    ],
    ids=["length", "missing text", "no y", "a str", "missing", "three dimensions"],
)
def test_bad_input_keeps_what_was_learnt(case, fitted, X, y, match):
    before = case.outputs(fitted)
    missing = dense(case.y).astype(object)
    missing[3] = np.nan
    bad = {"none": None, "text": "pos", "missing": missing, "cube": np.zeros((40, 2, 2))}
    for method in ("fit", "partial_fit"):
        with pytest.raises((TypeError, ValueError), match=match):
            getattr(fitted, method)(X, case.y if y is None else bad[y])
    np.testing.assert_array_equal(case.outputs(fitted), before)


@pytest.mark.parametrize(
    "settings",
    [
        {"adversarial": 0.05, "virtual_adversarial": 0.05},
        {"read_by": "sentence"},
        {"attention": "dot", "pooling": ["attention"], "cell": "peephole"},
        {"ema": 0.9, "lr_schedule": None, "num_layers": 2, "lr": 0.02},
        {"batch_size": 3, "bidirectional": False},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_settings_of_network_and_training(one_of_each, settings):
    case = one_of_each
    model = case.fit(**settings)
    assert model.score(ALL_TEXTS, case.y) > 0.5


def test_a_language_model_to_start_from(one_of_each):
    case = one_of_each
    language_model = LSTMLanguageModel(
        embedding_dim=8, hidden_size=8, max_epochs=1, random_state=0
    ).fit(ALL_TEXTS)
    settings = {"pretrained": language_model, "embedding_dim": "auto", "hidden_size": 128}
    model = case.fit(**settings, layer_lr_decay=0.5)
    assert model.vectorizer_.vocabulary_ == language_model.vectorizer_.vocabulary_
    assert model.score(ALL_TEXTS, case.y) > 0.5


def test_features_for_other_estimators(case, fitted):
    features = fitted.transform(TEXTS)
    assert features.shape == (10, len(fitted.get_feature_names_out()))


def test_early_stopping_with_held_out_texts(case):
    texts = [f"{text} {k}" for k in range(5) for text in ALL_TEXTS]
    y = dense(case.y)
    y = np.concatenate([y] * 5)
    model = case.make(early_stopping=True, max_epochs=6).fit(texts, y)
    assert len(model.validation_scores_) == model.n_iter_
    assert model.validation_scores_ == [-row["valid_loss"] for row in model.history_]
    held_out = {"X_val": ALL_TEXTS[:10], "y_val": case.take(slice(10))}
    given = case.make(max_epochs=3).fit(ALL_TEXTS, case.y, **held_out)
    assert len(given.validation_scores_) == 3


def test_a_grid_search_over_a_pipeline(case):
    pipeline = make_pipeline(case.make(max_epochs=2))
    name = case.kind.__name__.lower()
    search = GridSearchCV(pipeline, {f"{name}__hidden_size": [2, 4]}, cv=2)
    search.fit(ALL_TEXTS, case.y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    predicted = cross_val_predict(search.best_estimator_, ALL_TEXTS, case.y, cv=2)
    assert predicted.shape == case.y.shape


def test_nothing_warns(case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case.fit(blend="ngrams", max_epochs=1).predict(TEXTS)
