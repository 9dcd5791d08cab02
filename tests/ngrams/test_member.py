"""The ensemble member: what it is fitted to, and how much it weighs in the prediction."""

import sys
import types
from contextlib import contextmanager

import numpy as np
import pytest
import sklearn
import torch
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from sklstm import LSTMTextClassifier
from sklstm.model.blending import NETWORK_ONLY
from sklstm.model.prediction import compute_outputs
from sklstm.ngrams.member import ask_member, choose_members, fit_member, fit_members
from sklstm.ngrams.state import is_ngram_member
from sklstm.tasks.multiclass import Multiclass
from sklstm.text.examples import Examples
from tests.conftest import LABELS, TEXTS, TINY

#: How members are fitted without a report, and without being compared out of fold.
PLAINLY = {"tell": lambda *_: None, "compares": False}
NAIVE_BAYES = make_pipeline(CountVectorizer(), MultinomialNB())

MEMBERS = [("bayes", MultinomialNB()), ("linear", LogisticRegression()), ("none", "drop")]
VOTES = make_pipeline(CountVectorizer(), VotingClassifier(MEMBERS, voting="soft"))
STACK = make_pipeline(
    CountVectorizer(), StackingClassifier(MEMBERS, final_estimator=LogisticRegression(), cv=2)
)


def build(**params):
    return LSTMTextClassifier(
        **TINY | {"max_epochs": 2, "batch_size": 32, "blend": "ngrams"} | params
    )


def distinct(n_texts=1200):
    """Return texts that all differ, of which the words tell the label in most cases."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n_texts)
    word = np.where(rng.random(n_texts) < 0.85, y, 1 - y)
    texts = [f"{'good' if w else 'bad'} film number {k}" for k, w in enumerate(word)]
    return texts, np.where(y, "pos", "neg")


class Recorder(ClassifierMixin, BaseEstimator):
    """Remembers what it was fitted to; predicts the same for every text."""

    fits = []

    def __init__(self, share=0.5):
        self.share = share

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        Recorder.fits.append((list(X), list(y)))
        return self

    def predict_proba(self, X):
        return np.tile([1 - self.share, self.share], (len(X), 1))


def test_the_prediction_is_the_weighted_geometric_mean():
    texts, labels = distinct()
    clf = build().fit(texts, labels)
    of_network, of_member = clf.blend_weights_
    assert of_member > 0
    logits = compute_outputs(clf.model_.network, clf.model_.encode(texts)) / clf.temperature_
    logits = of_network * logits + of_member * np.log(clf.member_.predict_proba(texts))
    np.testing.assert_allclose(clf.predict_proba(texts), softmax(logits, axis=1), atol=1e-9)
    np.testing.assert_allclose(clf.predict_log_proba(texts), log_softmax(logits, axis=1), atol=1e-9)
    np.testing.assert_allclose(clf.decision_function(texts), logits[:, 1] - logits[:, 0], atol=1e-9)
    assert (clf.predict(texts) == clf.classes_[logits.argmax(axis=1)]).all()


def test_none_is_the_network_by_itself(texts, labels):
    clf = build(blend=None).fit(texts, labels)
    assert clf.member_ is None and clf.blend_weights_ == NETWORK_ONLY
    logits = compute_outputs(clf.model_.network, clf.model_.encode(texts)) / clf.temperature_
    np.testing.assert_array_equal(clf.predict_proba(texts), softmax(logits, axis=1))


def test_the_network_is_the_same_with_and_without(texts, labels):
    with_it, without = (build(blend=b).fit(texts, labels) for b in ("ngrams", None))
    for one, other in zip(
        with_it.net_.module_.parameters(), without.net_.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_it_is_evaluated_on_texts_it_has_not_seen_and_then_fitted_to_all(monkeypatch):
    monkeypatch.setattr(Recorder, "fits", [])
    texts, labels = distinct()
    build(blend=Recorder()).fit(texts, labels)
    (first, _), (second, second_labels) = Recorder.fits  # and of no folds: there are many texts
    assert len(first) == 1080 and set(first) < set(texts)
    assert sorted(second) == sorted(texts)
    assert dict(zip(second, second_labels, strict=True)) == dict(zip(texts, labels, strict=True))


def test_it_is_never_fitted_to_given_validation_texts(monkeypatch):
    monkeypatch.setattr(Recorder, "fits", [])
    texts, labels = distinct(400)
    build(blend=Recorder()).fit(texts[:200], labels[:200], X_val=texts[200:], y_val=labels[200:])
    first, *folds = (fit[0] for fit in Recorder.fits)
    assert first == texts[:200] and len(folds) == 5
    assert all(set(fold) < set(first) for fold in folds)


@pytest.mark.parametrize("params", [{"early_stopping": False}, {"calibrate": False}])
def test_the_expected_weights_hold_without_validation_texts(params, monkeypatch):
    monkeypatch.setattr(Recorder, "fits", [])
    if "calibrate" not in params:
        monkeypatch.setattr("sklstm.ngrams.member.MOST_TEXTS_OF_ONE", 599)
    for blend, expected in (("ngrams", (0.2, 0.8)), (Recorder(), (0.5, 0.5))):
        clf = build(blend=blend, **params).fit(*distinct(600))
        assert clf.temperature_ == 1.0 and clf.blend_weights_ == expected
    assert len(Recorder.fits) == 1  # no weights are fitted, so that no text is withheld from it


def test_few_texts_without_validation_texts_decide_the_weight_of_the_member():
    clf = build(early_stopping=False).fit(*distinct(600))
    of_network, of_ngrams = clf.blend_weights_
    assert of_network == 0.2 and abs(of_ngrams - 0.8) > 0.02


def test_few_texts_decide_the_weights_and_not_the_temperature():
    clf = build(validation_fraction=0.05, lr=1e-9).fit(*distinct(600))
    assert clf.temperature_ == 1.0
    without = build(validation_fraction=0.05, lr=1e-9, blend=None).fit(*distinct(600))
    assert without.temperature_ == 1.0
    assert clf.blend_weights_ != (0.2, 0.8)
    assert clf.blend_weights_ == pytest.approx((0.2, 0.8), abs=0.05)


def test_a_useless_member_changes_no_label_and_a_good_one_does():
    texts, labels = distinct()
    changes = {"max_epochs": 4, "batch_size": 64}
    useless = build(blend=Recorder(), **changes).fit(texts, labels)
    without = build(blend=None, **changes).fit(texts, labels)
    np.testing.assert_array_equal(useless.predict(texts), without.predict(texts))
    untrained = build(lr=1e-9).fit(texts, labels)
    assert untrained.score(texts, labels) > 0.8


def test_any_classifier_of_texts_will_do(texts, labels):
    clf = build(blend=NAIVE_BAYES, validation_fraction=0.3).fit(texts, labels)
    assert isinstance(clf.member_[-1], MultinomialNB)
    assert not hasattr(NAIVE_BAYES[-1], "classes_")  # a clone was fitted
    assert clf.member_.score(texts, labels) > 0.7
    search = GridSearchCV(clone(clf), {"blend__multinomialnb__alpha": [0.1, 1.0]}, cv=2)
    assert search.fit(texts, labels).best_estimator_.member_[-1].alpha in (0.1, 1.0)


def test_a_class_it_has_not_seen_and_a_probability_of_0():
    task = Multiclass(np.array(["a", "b", "c"]))
    fitted = fit_member(
        Recorder(share=1.0), Examples(["x", "y"], np.array([0, 2]), np.ones(2)), task
    )
    result = ask_member(fitted, ["z"], task)
    np.testing.assert_allclose(result, np.log([[1e-6, 1e-6, 1.0]]))


def test_classes_of_another_fit_are_refused(texts, labels):
    other = clone(NAIVE_BAYES).fit(["good", "bad", "so so"], ["pos", "neg", "neutral"])
    clf = build(blend=FrozenEstimator(other), validation_fraction=0.3)
    sentence = (
        r"blend must know the classes \['neg', 'pos'\] only; got an estimator that also "
        r"knows \['neutral'\]\. Fit it to the same labels, or give another one\."
    )
    with pytest.raises(ValueError, match=sentence):
        clf.fit(texts, labels)
    same = FrozenEstimator(clone(NAIVE_BAYES).fit(texts, labels))
    assert clf.set_params(blend=same).fit(texts, labels).score(texts, labels) > 0.7


def test_what_reads_no_texts_is_refused_in_a_sentence(texts, labels):
    sentence = (
        r"blend must be an estimator that can be fitted to these raw texts, such as "
        r"make_pipeline\(CountVectorizer\(\), MultinomialNB\(\)\); got the error 'Expected 2D "
        r"array, .*' from MultinomialNB\. Give another one, or blend=None\."
    )
    with pytest.raises(ValueError, match=sentence):
        build(blend=MultinomialNB()).fit(texts, labels)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("blend", ["ngrams", NAIVE_BAYES, VOTES, STACK])
def test_weights_reach_it(texts, labels, blend, routing):
    weights = np.where(labels == "pos", 10.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=routing):
        weighted = build(blend=blend, lr=1e-9, early_stopping=False)
        weighted.fit(texts, labels, sample_weight=weights)
        by_class = clone(weighted).set_params(class_weight={"pos": 10.0, "neg": 1.0})
        by_class.fit(texts, labels)
        plain = clone(weighted).fit(texts, labels)
    neutral = ["film"]
    assert (
        weighted.member_.predict_proba(neutral)[0, 1]
        > plain.member_.predict_proba(neutral)[0, 1] + 0.1
    )
    np.testing.assert_allclose(
        weighted.member_.predict_proba(neutral), by_class.member_.predict_proba(neutral)
    )


def test_a_plain_estimator_takes_weights_by_their_name():
    class Weighted(Recorder):
        def fit(self, X, y, sample_weight=None):
            self.weights_ = sample_weight
            return super().fit(X, y)

    examples = Examples(["x", "y"], np.array([0, 1]), np.array([1.0, 2.0]))
    fitted = fit_member(Weighted(), examples, Multiclass(np.array(["a", "b"])))
    np.testing.assert_allclose(fitted.weights_, [2 / 3, 4 / 3])


@pytest.mark.parametrize("blend", ["ngrams", NAIVE_BAYES])
def test_the_scale_of_the_weights_does_not_matter(texts, labels, blend):
    weights = np.where(labels == "pos", 2.0, 1.0)
    large, small = (
        build(blend=blend).fit(texts, labels, sample_weight=weights * scale)
        for scale in (1.0, 1e-6)
    )
    probabilities = large.member_.predict_proba(texts)
    assert np.ptp(probabilities[:, 0]) > 0.5
    np.testing.assert_allclose(small.member_.predict_proba(texts), probabilities, rtol=1e-6)


@pytest.mark.parametrize(
    "blend",
    [
        make_pipeline(TfidfVectorizer(), KNeighborsClassifier()),
        Recorder(),
        VotingClassifier([("bayes", NAIVE_BAYES)], voting="soft"),
        make_pipeline(
            TfidfVectorizer(),
            StackingClassifier(MEMBERS, final_estimator=KNeighborsClassifier(), cv=2),
        ),
    ],
)
def test_weights_it_cannot_take_are_refused(texts, labels, blend):
    clf = build(blend=blend)
    with pytest.raises(ValueError, match="blend must be an estimator whose fit takes sample_w"):
        clf.fit(texts, labels, sample_weight=np.arange(len(texts)) + 1.0)
    clf.fit(
        texts, labels, sample_weight=np.full(len(texts), 3.0)
    )  # equal weights are not passed on


@pytest.mark.parametrize("blend", [None, NAIVE_BAYES])
def test_partial_fit_refuses_an_estimator_and_leaves_what_it_does_not_train(texts, labels, blend):
    clf = build(blend=NAIVE_BAYES if blend is not None else "ngrams").fit(texts, labels)
    before = clf.member_, clf.temperature_, clf.blend_weights_
    clf.set_params(blend=None if blend is None else "ngrams").partial_fit(texts[:10], labels[:10])
    assert (clf.member_, clf.temperature_, clf.blend_weights_) == before
    with pytest.raises(ValueError, match="blend must be None or 'ngrams' for partial_fit"):
        clf.set_params(blend=NAIVE_BAYES).partial_fit(texts, labels)
    assert clf.member_ is before[0]


def test_warm_start_fits_it_anew(texts, labels):
    clf = build(warm_start=True).fit(texts, labels)
    before = clf.member_
    clf.fit(texts, labels)
    assert clf.member_ is not before


def test_where_all_weight_is_on_one_class_there_is_no_member():
    weights = np.where(np.array(LABELS) == "pos", 1.0, 0.0)
    clf = build().fit(TEXTS, LABELS, sample_weight=weights)
    assert clf.member_ is None and clf.blend_weights_ == NETWORK_ONLY
    assert set(clf.predict(TEXTS)) == {"pos"}


def test_a_class_is_no_estimator():
    with pytest.raises(TypeError, match=r"must be an estimator; got the class .* Make one: "):
        build(blend=LogisticRegression).fit(TEXTS, LABELS)


@pytest.mark.parametrize("blend", ["tfidf", CountVectorizer(), 3])
def test_what_is_no_classifier_is_refused(blend):
    with pytest.raises(ValueError, match="The 'blend' parameter of LSTMTextClassifier must be"):
        build(blend=blend).fit(TEXTS, LABELS)


def test_a_failing_member_leaves_the_fit_before(texts, labels):
    clf = build().fit(texts, labels)
    before = clf.predict_proba(texts)
    # Nothing is left of the texts.
    clf.set_params(blend=make_pipeline(CountVectorizer(min_df=99), MultinomialNB()))
    with pytest.raises(ValueError, match="min_df"):
        clf.fit(texts, labels)
    np.testing.assert_array_equal(clf.predict_proba(texts), before)


@pytest.mark.parametrize("blend", ["ngrams", None])
def test_parameters_of_a_blend_that_is_no_estimator_are_refused(blend):
    clf = build(blend=blend)
    with pytest.raises(ValueError, match="blend__alpha needs an estimator as blend; got ble"):
        clf.set_params(blend__alpha=0.1, lr=1.0)
    assert clf.lr == TINY["lr"]
    clf.set_params(blend=MultinomialNB(), blend__alpha=0.1)
    assert clf.blend.alpha == 0.1


@pytest.mark.parametrize("weighted", [False, True])
def test_texts_counted_once_give_the_fits_of_both_parts(weighted):
    texts, labels = distinct(90)
    task = Multiclass.of(labels)
    weights = np.linspace(0.5, 2.0, 90) if weighted else np.ones(90)
    everything = Examples(list(texts), task.encode(labels), weights)
    rows = np.random.default_rng(0).permutation(90)
    train, held_out = everything.take(rows[20:]), everything.take(rows[:20])
    [(name, unfitted)] = choose_members("ngrams", None, task)
    fitted = fit_members([(name, unfitted)], everything, train, held_out, task, **PLAINLY)
    [(_, member)], [outputs] = fitted.named, fitted.outputs
    of_all, of_train = (fit_member(unfitted, examples, task) for examples in (everything, train))
    np.testing.assert_array_equal(member.predict_proba(texts), of_all.predict_proba(texts))
    # The order of the features is another one, and so that of the sums.
    expected = ask_member(of_train, held_out.texts, task)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-6)
    assert not hasattr(unfitted[0], "token_places_")
    assert is_ngram_member(member)


def test_texts_of_an_estimator_of_the_users_are_read_twice():
    texts, labels = distinct(60)
    task = Multiclass.of(labels)
    everything = Examples(list(texts), task.encode(labels), np.ones(60))
    train, held_out = everything.take(np.arange(40)), everything.take(np.arange(40, 60))
    unfitted = make_pipeline(CountVectorizer(), MultinomialNB())
    fitted = fit_members([("own", unfitted)], everything, train, held_out, task, **PLAINLY)
    [(_, member)], [outputs] = fitted.named, fitted.outputs
    expected = fit_member(unfitted, train, task).predict_log_proba(held_out.texts)
    np.testing.assert_allclose(outputs, expected)
    assert member[-1].class_count_.sum() == 60


class Tracked(DummyClassifier):
    """Notes at each fit whether MLflow would log it."""

    def fit(self, X, y, sample_weight=None):
        sys.modules["mlflow.utils.autologging_utils"].seen.append(
            sys.modules["mlflow.utils.autologging_utils"].is_on
        )
        return super().fit(X, y, sample_weight)


def test_mlflow_does_not_take_a_member_for_the_model(monkeypatch):
    mlflow = types.ModuleType("mlflow.utils.autologging_utils")
    mlflow.is_on, mlflow.seen = True, []

    @contextmanager
    def disable_autologging():
        mlflow.is_on = False
        yield
        mlflow.is_on = True

    mlflow.disable_autologging = disable_autologging
    monkeypatch.setitem(sys.modules, mlflow.__name__, mlflow)
    LSTMTextClassifier(**TINY | {"blend": Tracked(), "max_epochs": 1}).fit(TEXTS, LABELS)
    assert mlflow.seen and not any(mlflow.seen) and mlflow.is_on


def compare(members, everything, task):
    train, held_out = everything.take(np.arange(40)), everything.take(np.arange(40, 60))
    return fit_members(members, everything, train, held_out, task, **PLAINLY | {"compares": True})


@pytest.mark.parametrize("several", [True, False])
def test_members_predict_few_texts_out_of_fold(several, monkeypatch):
    monkeypatch.setattr(Recorder, "fits", [])
    texts, labels = distinct(60)
    texts[::7] = [texts[0]] * len(texts[::7])  # equal ones must be in one fold
    task = Multiclass.of(labels)
    everything = Examples(list(texts), task.encode(labels), np.ones(60))
    ngrams, own = choose_members("ngrams", None, task), [("own", Recorder())]
    members = ngrams + own if several else own
    fitted = compare(members, everything, task)
    assert fitted.examples.texts == everything.texts
    assert [outputs.shape for outputs in fitted.out_of_fold] == [(60, 2)] * len(members)
    rests = [fit[0] for fit in Recorder.fits[2:]]  # after the training part and all texts
    assert len(rests) == 5
    for text in set(texts):
        assert sum(text not in rest for rest in rests) == 1
    if not several:
        return
    # The rows of n-grams that were counted once are those of fits of their own.
    rest = everything.take([k for k, text in enumerate(texts) if text in rests[0]])
    others = [k for k, text in enumerate(texts) if text not in rests[0]]
    fold = ask_member(fit_member(members[0][1], rest, task), [texts[k] for k in others], task)
    np.testing.assert_allclose(fitted.out_of_fold[0][others], fold, atol=1e-6)


def test_several_members_of_classes_with_fewer_texts_than_folds():
    texts, _ = distinct(60)
    labels = np.arange(60) // 3  # 20 classes of three texts
    members = ["ngrams", ("bayes", NAIVE_BAYES)]
    model = LSTMTextClassifier(**TINY | {"blend": members}).fit(list(texts), labels)
    assert model.predict_proba(texts).shape == (60, 20)
    task = Multiclass.of(labels)
    everything = Examples(list(texts), task.encode(labels), np.ones(60))
    fitted = compare([("one", NAIVE_BAYES), ("two", NAIVE_BAYES)], everything, task)
    assert [len(outputs) for outputs in fitted.out_of_fold] == [len(fitted.examples.texts)] * 2


@pytest.mark.parametrize("n_alone", [0, 20, 55])
def test_texts_whose_class_no_fold_knows_compare_nothing(n_alone):
    """Every member is wrong about them, so that all weights would become 0."""
    texts, _ = distinct(60)
    labels = np.where(np.arange(60) < n_alone, np.arange(60), 100 + np.arange(60) % 2)
    task = Multiclass.of(labels)
    everything = Examples(list(texts), task.encode(labels), np.ones(60))
    fitted = compare([("one", NAIVE_BAYES), ("two", NAIVE_BAYES)], everything, task)
    if n_alone == 55:  # five texts say nothing
        assert fitted.out_of_fold == [] and fitted.examples is None
        return
    assert fitted.examples.texts == list(texts[n_alone:])
    assert [len(outputs) for outputs in fitted.out_of_fold] == [60 - n_alone] * 2


@pytest.mark.parametrize("reason", ["many texts", "one target", "three texts", "nineteen texts"])
def test_no_comparison_out_of_fold(reason, monkeypatch):
    texts, labels = distinct(60)
    task = Multiclass.of(labels)
    members = [("own", Recorder()), ("bayes", NAIVE_BAYES)]
    if reason == "many texts":
        monkeypatch.setattr("sklstm.ngrams.member.MOST_TEXTS_OF_SEVERAL", 59)
    targets = task.encode(labels)
    if reason == "one target":
        targets = (np.arange(60) == 7).astype(int)  # the rest of its fold has none of it
    if reason == "three texts":  # fewer than folds
        texts = ["good film", "bad film", "so so"] * 20
    if reason == "nineteen texts":
        texts = [texts[k % 19] for k in range(60)]
    fitted = compare(members, Examples(list(texts), targets, np.ones(60)), task)
    assert fitted.out_of_fold == [] and fitted.examples is None
