"""Numbers, as users of scikit-learn's regressors know them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import is_regressor
from sklearn.ensemble import StackingRegressor, VotingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sklstm import LSTMTextClassifier, LSTMTextRegressor
from sklstm.model.prediction import compute_outputs
from tests.conftest import LABELS, TEXTS, TINY

ALL_TEXTS = TEXTS * 4
STARS = np.where(np.array(LABELS * 4) == "pos", 4.0, 1.0)
FAST = TINY | {"lr": 0.05, "ema": None, "max_epochs": 15, "early_stopping": False}


def distinct_stars(n_texts=400):
    """Return distinct texts whose number of a word is what y says, with noise."""
    rng = np.random.default_rng(0)
    n_good = rng.integers(0, 5, size=n_texts)
    texts = [f"film number {k} " + "good " * n + "bad " * (4 - n) for k, n in enumerate(n_good)]
    return texts, 100.0 + n_good + rng.normal(scale=0.2, size=n_texts)


def test_it_is_a_regressor():
    model = LSTMTextRegressor(**FAST).fit(ALL_TEXTS, STARS)
    assert is_regressor(model)
    assert model.score(ALL_TEXTS, STARS) == r2_score(STARS, model.predict(ALL_TEXTS))
    assert not hasattr(model, "classes_") and not hasattr(model, "predict_proba")
    assert model.predict(TEXTS).dtype == np.float64


def test_units_and_origin_of_y_do_not_matter():
    plain = LSTMTextRegressor(**FAST).fit(ALL_TEXTS, STARS).predict(TEXTS)
    moved = LSTMTextRegressor(**FAST).fit(ALL_TEXTS, 1e6 + 1e3 * STARS).predict(TEXTS)
    np.testing.assert_allclose((moved - 1e6) / 1e3, plain, atol=1e-3)


@pytest.mark.parametrize("blend", [None, "ngrams"])
def test_a_constant_is_learnt(blend):
    model = LSTMTextRegressor(**FAST | {"blend": blend}).fit(ALL_TEXTS, np.full(40, 7.5))
    assert model.predict(TEXTS).tolist() == [7.5] * 10
    assert model.score(ALL_TEXTS, np.full(40, 7.5)) == 1.0


def test_a_constant_column_does_not_change_the_others():
    both = np.column_stack([STARS, np.full(40, 0.1)])
    model = LSTMTextRegressor(**FAST | {"blend": "ngrams"}).fit(ALL_TEXTS, both)
    alone = LSTMTextRegressor(**FAST | {"blend": "ngrams"}).fit(ALL_TEXTS, STARS)
    assert model.member_[-1].alpha_ == pytest.approx(alone.member_[-1].alpha_, rel=0.02)
    np.testing.assert_allclose(model.predict(TEXTS)[:, 1], 0.1, rtol=1e-14)


def test_the_first_call_of_partial_fit_needs_different_numbers():
    with pytest.raises(ValueError, match="y must hold different numbers at the first call to part"):
        LSTMTextRegressor(**FAST).partial_fit(ALL_TEXTS[:1], STARS[:1])


@pytest.mark.parametrize("scale", [1e-100, 1e15, 1e18, 1e100])
def test_large_and_small_numbers_are_saved(scale, tmp_path):
    model = LSTMTextRegressor(**FAST | {"blend": "ngrams"}).fit(ALL_TEXTS, STARS * scale)
    model.save(tmp_path / "m")
    loaded = LSTMTextRegressor.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict(TEXTS), model.predict(TEXTS))
    assert model.score(ALL_TEXTS, STARS * scale) > 0.8


def test_the_prediction_is_the_weighted_sum_of_network_and_member():
    texts, y = distinct_stars()
    settings = FAST | {"blend": "ngrams", "max_epochs": 3, "early_stopping": True}
    model = LSTMTextRegressor(**settings).fit(texts, y)
    task, (of_network, of_member) = model.model_.task, model.blend_weights_
    assert of_member > 0 and model.temperature_ == 1.0
    network = compute_outputs(model.model_.network, model.model_.encode(texts))
    member = task.encode(model.member_.predict(texts))
    expected = task.decide(of_network * network + of_member * member)
    np.testing.assert_allclose(model.predict(texts), expected, atol=1e-9)
    assert model.score(texts, y) > 0.9


def test_the_weights_minimise_the_loss_on_held_out_texts():
    texts, y = distinct_stars()
    held_out = {"X_val": texts[300:], "y_val": y[300:]}
    settings = FAST | {"blend": "ngrams", "max_epochs": 6}
    model = LSTMTextRegressor(**settings).fit(texts[:300], y[:300], **held_out)
    task = model.model_.task
    network = compute_outputs(model.model_.network, model.model_.encode(texts[300:]))
    member, targets = task.encode(model.member_.predict(texts[300:])), task.encode(y[300:])

    def loss(weights):
        return task.losses(weights[0] * network + weights[1] * member, targets).mean()

    grid = [(a, b) for a in np.linspace(0, 1, 11) for b in np.linspace(0, 1, 11)]
    # The penalty towards (0.2, 0.8) costs a little.
    assert loss(model.blend_weights_) < min(map(loss, grid)) + 0.02


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error"])
def test_each_loss_learns_its_own_centre(loss):
    """The mean of skewed numbers for one loss, their median for the other."""
    y = np.tile([0.0, 0.0, 0.0, 0.0, 10.0], 8)
    settings = FAST | {"loss": loss, "max_epochs": 150}
    model = LSTMTextRegressor(**settings).fit(["the same text"] * 40, y)
    expected = {"squared_error": 2.0, "absolute_error": 0.0}[loss]
    assert model.predict(["the same text"])[0] == pytest.approx(expected, abs=0.4)


def test_a_member_of_the_users():
    texts, y = distinct_stars()
    member = make_pipeline(TfidfVectorizer(), Ridge())
    settings = FAST | {"blend": member, "max_epochs": 2, "early_stopping": True}
    model = LSTMTextRegressor(**settings).fit(texts, y, sample_weight=np.arange(400) + 1.0)
    assert model.member_ is not member and model.score(texts, y) > 0.8
    model.set_params(blend__ridge__alpha=5.0)
    assert model.blend[-1].alpha == 5.0


@pytest.mark.parametrize(
    ("response", "match"),
    [
        (
            np.ones((1, 2)),
            "blend must predict as many numbers for each text as y has, 1; got",
        ),
        (np.array([np.nan]), "blend must predict finite numbers; got NaN or infinity from Words"),
    ],
)
def test_a_member_is_refused_in_fit_by_what_it_predicts(response, match):
    class Words:
        def get_params(self, deep=True):
            return {}

        def fit(self, X, y):
            return self

        def predict(self, X):
            return np.resize(response, (len(X), *response.shape[1:]))

    model = LSTMTextRegressor(**FAST | {"blend": Words()})
    with pytest.raises(ValueError, match=match):
        model.fit(ALL_TEXTS, STARS)
    assert not hasattr(model, "model_")


@pytest.mark.parametrize(
    "member",
    [
        StackingRegressor([("a", Ridge()), ("b", Ridge())], cv=2),
        VotingRegressor([("a", Ridge()), ("b", Ridge())]),
    ],
    ids=["stacking", "voting"],
)
def test_ensembles_as_members_take_weights(member):
    texts, y = distinct_stars(100)
    model = LSTMTextRegressor(**FAST | {"blend": make_pipeline(TfidfVectorizer(), member)})
    assert model.fit(texts, y, sample_weight=np.arange(100) + 1.0).score(texts, y) > 0.5


def test_scorers_stop_early_and_choose_in_a_search():
    texts, y = distinct_stars(200)
    for scoring in ("r2", "neg_mean_absolute_error", "neg_root_mean_squared_error"):
        model = LSTMTextRegressor(
            **FAST | {"max_epochs": 2, "early_stopping": True, "scoring": scoring}
        )
        assert len(model.fit(texts, y).validation_scores_) == 2
        assert np.isfinite(cross_val_score(model, texts, y, cv=2, scoring=scoring)).all()


def test_later_calls_keep_mean_and_scale():
    model = LSTMTextRegressor(**FAST).partial_fit(ALL_TEXTS, STARS)
    mean, scale = model.model_.task.mean, model.model_.task.scale
    model.partial_fit(ALL_TEXTS, STARS + 100)
    assert model.model_.task.mean is mean and model.model_.task.scale is scale
    model.set_params(warm_start=True).fit(ALL_TEXTS, STARS + 100)
    assert model.model_.task.mean is mean
    assert model.set_params(warm_start=False).fit(ALL_TEXTS, STARS + 100).model_.task.mean > 100


def test_another_number_of_columns_later_is_refused():
    model = LSTMTextRegressor(**FAST).partial_fit(ALL_TEXTS, STARS)
    before = model.predict(TEXTS)
    with pytest.raises(ValueError, match="y must have as many numbers for each text as y of the f"):
        model.partial_fit(ALL_TEXTS, np.column_stack([STARS, STARS]))
    np.testing.assert_array_equal(model.predict(TEXTS), before)


@pytest.mark.parametrize("name", ["class_weight", "label_smoothing", "calibrate"])
def test_what_only_a_classifier_has(name):
    with pytest.raises(TypeError, match=name):
        LSTMTextRegressor(**{name: None})


def test_a_frame_and_a_series_of_numbers():
    texts = pd.Series(ALL_TEXTS, index=range(100, 140))
    one = LSTMTextRegressor(**FAST).fit(texts, pd.Series(STARS, index=range(40)))
    assert one.predict(TEXTS).shape == (10,)
    two = LSTMTextRegressor(**FAST).fit(texts, pd.DataFrame({"a": STARS, "b": -STARS}))
    assert two.predict(TEXTS).shape == (10, 2)


def test_the_file_of_a_regressor_is_no_classifier(tmp_path):
    LSTMTextRegressor(**FAST).fit(ALL_TEXTS, STARS).save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="holds an LSTMTextRegressor: use LSTMTextRegressor.load"):
        LSTMTextClassifier.load(tmp_path / "m.safetensors")
