"""Several members in one blend: their names, parameters, fits, weights and errors."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from sklstm import LSTMTextClassifier, LSTMTextRegressor
from sklstm.model.prediction import compute_outputs
from tests.conftest import LABELS, TEXTS, TINY

BAYES = make_pipeline(CountVectorizer(), MultinomialNB())
LINEAR = make_pipeline(TfidfVectorizer(), LogisticRegression())
SETTINGS = TINY | {"max_epochs": 2, "validation_fraction": 0.3}


def build(blend, **params):
    return LSTMTextClassifier(**SETTINGS | {"blend": blend} | params)


@pytest.fixture
def many(texts, labels):
    return [f"{text} {k}" for k in range(4) for text in texts], np.tile(labels, 4)


def test_the_prediction_is_the_pool_of_all(many):
    clf = build(["ngrams", ("bayes", BAYES), ("linear", LINEAR)]).fit(*many)
    texts = many[0]
    assert list(clf.members_) == ["ngrams", "bayes", "linear"]
    assert isinstance(clf.members_.bayes[-1], MultinomialNB)
    outputs = compute_outputs(clf.model_.network, clf.model_.encode(texts)) / clf.temperature_
    parts = [outputs, *(np.log(m.predict_proba(texts)) for m in clf.members_.values())]
    pooled = sum(w * part for w, part in zip(clf.blend_weights_, parts, strict=True))
    expected = pooled[:, 1] - pooled[:, 0]
    np.testing.assert_allclose(clf.decision_function(texts), expected, atol=1e-9)


def test_the_report_says_how_good_each_part_is(many):
    clf = build(["ngrams", ("bayes", BAYES)]).fit(*many)
    report = pd.DataFrame(clf.blend_report_).set_index("model")
    assert report.index.tolist() == ["network", "ngrams", "bayes", "blend"]
    assert report["weight"].tolist()[:3] == list(clf.blend_weights_)
    # With so few held-out texts, the penalty keeps the weights of worse parts up.
    assert report["loss"]["ngrams"] < report["loss"]["blend"] < report["loss"]["bayes"]
    assert report["accuracy"].between(0, 1).all() and report["loss"].gt(0).all()
    clf.blend_report_[0]["loss"] = 0.0  # a copy
    assert clf.blend_report_[0]["loss"] > 0
    assert build("ngrams", early_stopping=False).fit(*many).blend_report_ == []
    assert build(None).fit(*many).blend_report_[1]["model"] == "blend"


def test_the_report_is_of_fits_without_the_held_out_texts(many):
    texts, labels = many
    clf = build([("bayes", BAYES)])
    clf.fit(texts[:90], labels[:90], X_val=texts[90:], y_val=labels[90:])
    fitted = clone(BAYES).fit(texts[:90], labels[:90])
    assert clf.blend_report_[1]["accuracy"] == fitted.score(texts[90:], labels[90:])


def test_names_are_parameters(many):
    clf = build(["ngrams", ("bayes", clone(BAYES)), ["linear", clone(LINEAR)]])
    params = clf.get_params()
    assert params["bayes__multinomialnb__alpha"] == 1.0
    assert params["linear"] is clf.blend[2][1]
    assert "bayes" not in clf.get_params(deep=False)
    before = clf.blend
    clf.set_params(bayes__multinomialnb__alpha=0.5, linear="drop", lr=0.01)
    assert (clf.blend[1][1][-1].alpha, clf.blend[2], clf.lr) == (0.5, ("linear", "drop"), 0.01)
    assert before[2][1] != "drop" and clf.blend is not before  # the user's list stays
    assert list(clone(clf).fit(*many).members_) == ["ngrams", "bayes"]
    clf.set_params(blend=[("other", clone(BAYES))], other__multinomialnb__alpha=3.0)
    assert clf.blend[0][1][-1].alpha == 3.0
    clf.set_params(other=clone(BAYES), other__multinomialnb__alpha=4.0)
    assert clf.blend[0][1][-1].alpha == 4.0


def test_a_search_over_members(many):
    clf = build(["ngrams", ("bayes", BAYES)], max_epochs=1)
    grid = [{"bayes": ["drop"]}, {"bayes": [BAYES], "bayes__multinomialnb__alpha": [0.1, 9.0]}]
    search = GridSearchCV(clf, grid, cv=2, refit=False, scoring="neg_log_loss").fit(*many)
    scores = search.cv_results_["mean_test_score"]
    assert len(set(scores)) == 3 and np.isfinite(scores).all()
    with pytest.raises(ValueError, match="xyz"):
        clf.set_params(bayes__xyz=3)


@pytest.mark.parametrize("name", ["bayess", "bayess__alpha", "blend__bayes", "blend__alpha"])
def test_a_wrong_name_changes_nothing(name):
    clf = build(["ngrams", ("bayes", BAYES)])
    with pytest.raises(ValueError, match="Invalid parameter 'bayess'|name the member instead"):
        clf.set_params(**{name: 1, "bayes": LINEAR})
    assert clf.blend[1][1] is BAYES


@pytest.mark.parametrize(
    ("blend", "error", "message"),
    [
        ([], ValueError, "must have a member in its list; got none. Give blend=None"),
        ([BAYES], TypeError, r"a list of 'ngrams' and pairs \(name, estimator\); got the entry P"),
        (["bayes"], TypeError, "got the entry 'bayes'"),
        ([("bayes", BAYES, 1)], TypeError, "got the entry"),
        ([(1, BAYES)], TypeError, "got the entry"),
        (["ngrams", "ngrams"], ValueError, "got 'ngrams', a name that two of them have"),
        ([("a", BAYES), ("a", LINEAR)], ValueError, "got 'a', a name that two of them have"),
        ([("a__b", BAYES)], ValueError, "a name with two underscores"),
        ([("", BAYES)], ValueError, "a name without a letter"),
        ([("lr", BAYES)], ValueError, "got 'lr', a name that this estimator uses"),
        ([("network", BAYES)], ValueError, "got 'network', a name that this estimator uses"),
        ([("a", "nbsvm")], ValueError, "must hold 'ngrams', 'drop' or estimators; got 'nbsvm'"),
        ([("a", MultinomialNB)], ValueError, r"the class MultinomialNB as 'a'. Make one: Mult"),
        (
            [("a", make_pipeline(TfidfVectorizer(), LinearSVC()))],
            ValueError,
            "got Pipeline as 'a', which has no predict_proba. Wrap .* in CalibratedClassifierCV",
        ),
        ([("a", 3)], ValueError, "got int as 'a', which has no fit"),
    ],
)
def test_a_list_that_is_none(blend, error, message):
    with pytest.raises(error, match=message):
        build(blend).fit(TEXTS, LABELS)


class Failing(ClassifierMixin, BaseEstimator):
    """Fails, as a member of the users' may."""

    def fit(self, X, y):
        raise ValueError("no memory left")

    def predict_proba(self, X):
        raise AssertionError


def test_a_member_that_fails_is_named_and_the_earlier_fit_stays(many):
    clf = build("ngrams").fit(*many)
    before = clf.predict_proba(TEXTS)
    clf.set_params(blend=["ngrams", ("encoder", Failing())])
    with pytest.raises(ValueError, match=r"'no memory left' from .* the member 'encoder'\.$"):
        clf.fit(*many)
    np.testing.assert_array_equal(clf.predict_proba(TEXTS), before)


def test_other_classes_of_a_frozen_member_are_refused_by_its_name(many):
    other = clone(BAYES).fit(["good", "bad", "so so"], ["pos", "neg", "neutral"])
    with pytest.raises(ValueError, match=r"also knows \['neutral'\].* the member 'frozen'"):
        build(["ngrams", ("frozen", FrozenEstimator(other))]).fit(*many)


def test_a_frozen_member_is_used_as_it_is_also_with_weights(many):
    frozen = FrozenEstimator(clone(BAYES).fit(TEXTS, LABELS))
    weights = np.linspace(0.5, 2.0, len(many[0]))
    clf = build(["ngrams", ("frozen", frozen)]).fit(*many, sample_weight=weights)
    assert clf.members_.frozen is frozen


def test_a_list_of_one_is_that_one(many):
    alone, listed = (build(blend).fit(*many) for blend in ("ngrams", ["ngrams"]))
    np.testing.assert_array_equal(alone.predict_proba(TEXTS), listed.predict_proba(TEXTS))
    dropped = build([("bayes", "drop")]).fit(*many)
    assert dropped.member_ is None and dropped.blend_weights_ == (1.0,)


def test_what_needs_one_member_says_so(many):
    clf = build(["ngrams", ("bayes", BAYES)]).fit(*many)
    with pytest.raises(AttributeError, match="several members, ngrams, bayes; use members_"):
        clf.member_  # noqa: B018
    with pytest.raises(ValueError, match="explain needs blend='ngrams' or blend=None"):
        clf.explain(TEXTS[:1])
    with pytest.raises(ValueError, match="blend must be None or 'ngrams' for partial_fit"):
        clf.partial_fit(*many)
    assert "pos" in clf.top_features(2)  # those of the n-grams


def test_n_grams_are_explained_where_no_other_member_counts(many):
    clf = build(["ngrams", ("random", DummyClassifier(strategy="prior"))]).fit(*many)
    weights = clf.blend_weights_
    object.__setattr__(clf.model_.blend, "weights", (*weights[:2], 0.0))
    (found,) = clf.explain(TEXTS[:1])
    p = clf.predict_proba(TEXTS[:1]).max()
    assert found.base + found.attributions.sum() == pytest.approx(np.log(p / (1 - p)), abs=0.01)


def test_a_listed_member_of_n_grams_is_saved(many, tmp_path):
    clf = build(["ngrams"]).fit(*many)
    clf.save(tmp_path / "m")
    loaded = LSTMTextClassifier.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    assert loaded.blend == ["ngrams"] and loaded.blend_report_ == clf.blend_report_
    clf = build(["ngrams", ("bayes", BAYES)]).fit(*many)
    with pytest.raises(ValueError, match=r"cannot write parameters.blend.1.1: a Pipeline"):
        clf.save(tmp_path / "m")


def test_numbers_and_label_sets(many):
    texts, labels = many
    y = np.where(labels == "pos", 4.0, 1.0) + np.arange(len(texts)) % 2
    ridge = make_pipeline(TfidfVectorizer(), Ridge())
    model = LSTMTextRegressor(**SETTINGS | {"blend": ["ngrams", ("ridge", ridge)]}).fit(texts, y)
    assert len(model.blend_weights_) == 3 and model.score(texts, y) > 0.3
    assert {"model", "weight", "loss"} == set(model.blend_report_[0])
    with pytest.raises(ValueError, match="with fit and predict; got CountVectorizer as 'x'"):
        model.set_params(blend=[("x", CountVectorizer())]).fit(texts, y)
    sets = np.stack([labels == "pos", np.arange(len(texts)) % 3 == 0], axis=1).astype(int)
    own = make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression()))
    clf = build(["ngrams", ("own", own)]).fit(texts, sets)
    assert clf.predict_proba(texts).shape == (len(texts), 2) and len(clf.blend_weights_) == 3


def test_verbose_shows_each_member(many, capsys):
    build(["ngrams", ("bayes", BAYES)], verbose=1).fit(*many)
    lines, names = capsys.readouterr().out.splitlines(), ("n-grams", "bayes")
    assert lines[:2] == [f"Fitting {name} to {len(many[0])} texts." for name in names]
    assert [line.split()[0] for line in lines[-4:]] == ["network", "n-grams", "bayes", "together"]
