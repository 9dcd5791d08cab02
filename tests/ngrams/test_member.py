"""The classifier beside the network: fitted on what it may see, heard as much as it deserves."""

import numpy as np
import pytest
import sklearn
import torch
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from sklstm import LSTMTextClassifier
from sklstm.model.prediction import compute_logits
from sklstm.model.validation import ALONE
from sklstm.ngrams.member import compute_log_probabilities, fit_baseline
from tests.conftest import LABELS, TEXTS, TINY

NAIVE_BAYES = make_pipeline(CountVectorizer(), MultinomialNB())

MEMBERS = [("bayes", MultinomialNB()), ("linear", LogisticRegression()), ("none", "drop")]
VOTES = make_pipeline(CountVectorizer(), VotingClassifier(MEMBERS, voting="soft"))
STACK = make_pipeline(
    CountVectorizer(), StackingClassifier(MEMBERS, final_estimator=LogisticRegression(), cv=2)
)


def build(**params):
    return LSTMTextClassifier(**TINY | {"max_epochs": 2, "baseline": "auto"} | params)


def distinct(n_texts=1200):
    """Return texts that all differ, of which the words tell the label in most cases."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n_texts)
    word = np.where(rng.random(n_texts) < 0.85, y, 1 - y)
    texts = [f"{'good' if w else 'bad'} film number {k}" for k, w in enumerate(word)]
    return texts, np.where(y, "pos", "neg")


class Recorder(ClassifierMixin, BaseEstimator):
    """Remembers what it was fitted on; says the same of every text."""

    fits = []

    def __init__(self, share=0.5):
        self.share = share

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        Recorder.fits.append((list(X), list(y)))
        return self

    def predict_proba(self, X):
        return np.tile([1 - self.share, self.share], (len(X), 1))


def test_the_answer_is_the_weighted_geometric_mean():
    texts, labels = distinct()
    clf = build().fit(texts, labels)
    of_network, of_baseline = clf.blend_weights_
    assert of_baseline > 0
    logits = compute_logits(clf.net_.module_, clf._encode(texts)) / clf.temperature_
    logits = of_network * logits + of_baseline * np.log(clf.baseline_.predict_proba(texts))
    np.testing.assert_allclose(clf.predict_proba(texts), softmax(logits, axis=1), atol=1e-9)
    np.testing.assert_allclose(clf.predict_log_proba(texts), log_softmax(logits, axis=1), atol=1e-9)
    np.testing.assert_allclose(clf.decision_function(texts), logits[:, 1] - logits[:, 0], atol=1e-9)
    assert (clf.predict(texts) == clf.classes_[logits.argmax(axis=1)]).all()


def test_none_is_the_network_alone(texts, labels):
    clf = build(baseline=None).fit(texts, labels)
    assert clf.baseline_ is None and clf.blend_weights_ == ALONE
    logits = compute_logits(clf.net_.module_, clf._encode(texts)) / clf.temperature_
    np.testing.assert_array_equal(clf.predict_proba(texts), softmax(logits, axis=1))


def test_the_network_is_the_same_with_and_without(texts, labels):
    with_it, without = (build(baseline=b).fit(texts, labels) for b in ("auto", None))
    for one, other in zip(
        with_it.net_.module_.parameters(), without.net_.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_it_judges_texts_it_has_not_seen_and_then_learns_from_all(monkeypatch):
    monkeypatch.setattr(Recorder, "fits", [])
    texts, labels = distinct()
    build(baseline=Recorder()).fit(texts, labels)
    (first, _), (second, second_labels) = Recorder.fits
    assert len(first) == 1080 and set(first) < set(texts)
    assert sorted(second) == sorted(texts)
    assert dict(zip(second, second_labels, strict=True)) == dict(zip(texts, labels, strict=True))


def test_given_validation_texts_are_never_learnt_from(monkeypatch):
    monkeypatch.setattr(Recorder, "fits", [])
    texts, labels = distinct(400)
    build(baseline=Recorder()).fit(texts[:200], labels[:200], X_val=texts[200:], y_val=labels[200:])
    assert [fit[0] for fit in Recorder.fits] == [texts[:200]]


@pytest.mark.parametrize("params", [{"early_stopping": False}, {"calibrate": False}])
def test_the_expected_weights_where_nothing_tells_them(params, monkeypatch):
    monkeypatch.setattr(Recorder, "fits", [])
    for baseline, expected in (("auto", (0.2, 0.8)), (Recorder(), (0.5, 0.5))):
        clf = build(baseline=baseline, **params).fit(*distinct(600))
        assert clf.temperature_ == 1.0 and clf.blend_weights_ == expected
    assert len(Recorder.fits) == 1  # no weights are found, so that no text is held from it


def test_few_texts_tell_the_weights_but_no_temperature():
    clf = build(validation_fraction=0.05, lr=1e-9).fit(*distinct(600))
    assert clf.temperature_ == 1.0
    alone = build(validation_fraction=0.05, lr=1e-9, baseline=None).fit(*distinct(600))
    assert alone.temperature_ == 1.0
    assert clf.blend_weights_ != (0.2, 0.8)
    assert clf.blend_weights_ == pytest.approx((0.2, 0.8), abs=0.05)


def test_a_baseline_that_tells_nothing_changes_no_label_and_a_good_one_does():
    texts, labels = distinct()
    useless = build(baseline=Recorder(), max_epochs=6).fit(texts, labels)
    alone = build(baseline=None, max_epochs=6).fit(texts, labels)
    np.testing.assert_array_equal(useless.predict(texts), alone.predict(texts))
    untrained = build(lr=1e-9).fit(texts, labels)
    assert untrained.score(texts, labels) > 0.8


def test_any_classifier_of_texts_will_do(texts, labels):
    clf = build(baseline=NAIVE_BAYES, validation_fraction=0.3).fit(texts, labels)
    assert isinstance(clf.baseline_[-1], MultinomialNB)
    assert not hasattr(NAIVE_BAYES[-1], "classes_")  # a clone was fitted
    assert clf.baseline_.score(texts, labels) > 0.7
    search = GridSearchCV(clone(clf), {"baseline__multinomialnb__alpha": [0.1, 1.0]}, cv=2)
    assert search.fit(texts, labels).best_estimator_.baseline_[-1].alpha in (0.1, 1.0)


def test_a_class_it_has_not_seen_and_a_probability_of_0():
    fitted = fit_baseline(Recorder(share=1.0), ["x", "y"], np.array(["a", "c"]), np.ones(2))
    result = compute_log_probabilities(fitted, ["z"], np.array(["a", "b", "c"]))
    np.testing.assert_allclose(result, np.log([[1e-6, 1e-6, 1.0]]))


def test_classes_of_another_fit_are_refused(texts, labels):
    other = clone(NAIVE_BAYES).fit(["good", "bad", "so so"], ["pos", "neg", "neutral"])
    clf = build(baseline=FrozenEstimator(other), validation_fraction=0.3)
    sentence = (
        r"baseline must know the classes \['neg', 'pos'\] only; got one that also knows "
        r"\['neutral'\]\. Fit it to the same labels, or give another one\."
    )
    with pytest.raises(ValueError, match=sentence):
        clf.fit(texts, labels)
    same = FrozenEstimator(clone(NAIVE_BAYES).fit(texts, labels))
    assert clf.set_params(baseline=same).fit(texts, labels).score(texts, labels) > 0.7


def test_what_reads_no_texts_is_refused_in_a_sentence(texts, labels):
    sentence = (
        r"baseline must be an estimator that can be fitted to these raw texts, such as "
        r"make_pipeline\(CountVectorizer\(\), MultinomialNB\(\)\); got the error 'Expected 2D "
        r"array, .*' from MultinomialNB\. Give another one, or baseline=None\."
    )
    with pytest.raises(ValueError, match=sentence):
        build(baseline=MultinomialNB()).fit(texts, labels)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("baseline", ["auto", NAIVE_BAYES, VOTES, STACK])
def test_weights_reach_it(texts, labels, baseline, routing):
    weights = np.where(labels == "pos", 10.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=routing):
        weighted = build(baseline=baseline, lr=1e-9, early_stopping=False)
        weighted.fit(texts, labels, sample_weight=weights)
        by_class = clone(weighted).set_params(class_weight={"pos": 10.0, "neg": 1.0})
        by_class.fit(texts, labels)
        plain = clone(weighted).fit(texts, labels)
    neutral = ["film"]
    assert (
        weighted.baseline_.predict_proba(neutral)[0, 1]
        > plain.baseline_.predict_proba(neutral)[0, 1] + 0.1
    )
    np.testing.assert_allclose(
        weighted.baseline_.predict_proba(neutral), by_class.baseline_.predict_proba(neutral)
    )


def test_a_plain_estimator_takes_weights_by_their_name():
    class Weighted(Recorder):
        def fit(self, X, y, sample_weight=None):
            self.weights_ = sample_weight
            return super().fit(X, y)

    fitted = fit_baseline(Weighted(), ["x", "y"], np.array(["a", "b"]), np.array([1.0, 2.0]))
    np.testing.assert_allclose(fitted.weights_, [2 / 3, 4 / 3])


@pytest.mark.parametrize("baseline", ["auto", NAIVE_BAYES])
def test_the_scale_of_the_weights_does_not_matter(texts, labels, baseline):
    weights = np.where(labels == "pos", 2.0, 1.0)
    large, small = (
        build(baseline=baseline).fit(texts, labels, sample_weight=weights * scale)
        for scale in (1.0, 1e-6)
    )
    probabilities = large.baseline_.predict_proba(texts)
    assert np.ptp(probabilities[:, 0]) > 0.5
    np.testing.assert_allclose(small.baseline_.predict_proba(texts), probabilities, rtol=1e-6)


@pytest.mark.parametrize(
    "baseline",
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
def test_weights_it_cannot_take_are_refused(texts, labels, baseline):
    clf = build(baseline=baseline)
    with pytest.raises(ValueError, match="baseline must be an estimator whose fit takes sample_w"):
        clf.fit(texts, labels, sample_weight=np.arange(len(texts)) + 1.0)
    clf.fit(texts, labels, sample_weight=np.full(len(texts), 3.0))  # all alike: nothing to tell


def test_partial_fit_trains_the_network_alone(texts, labels):
    clf = build().partial_fit(texts, labels, classes=["neg", "pos"])
    assert clf.baseline_ is None
    clf = build().fit(texts, labels)
    before = clf.baseline_, clf.temperature_, clf.blend_weights_
    clf.partial_fit(texts[:10], labels[:10])
    assert (clf.baseline_, clf.temperature_, clf.blend_weights_) == before
    with pytest.raises(ValueError, match="baseline must be None or 'auto' for partial_fit"):
        clf.set_params(baseline=NAIVE_BAYES).partial_fit(texts, labels)
    assert clf.baseline_ is before[0]


def test_warm_start_fits_it_anew(texts, labels):
    clf = build(warm_start=True).fit(texts, labels)
    before = clf.baseline_
    clf.fit(texts, labels)
    assert clf.baseline_ is not before


def test_where_all_weight_is_on_one_class_there_is_nothing_to_tell():
    weights = np.where(np.array(LABELS) == "pos", 1.0, 0.0)
    clf = build().fit(TEXTS, LABELS, sample_weight=weights)
    assert clf.baseline_ is None and clf.blend_weights_ == ALONE
    assert set(clf.predict(TEXTS)) == {"pos"}


def test_a_class_is_no_estimator():
    with pytest.raises(TypeError, match="instance of scikit-learn estimator instead of a class"):
        build(baseline=LogisticRegression).fit(TEXTS, LABELS)


@pytest.mark.parametrize("baseline", ["tfidf", CountVectorizer(), 3])
def test_what_is_no_classifier_is_refused(baseline):
    with pytest.raises(ValueError, match="The 'baseline' parameter of LSTMTextClassifier must be"):
        build(baseline=baseline).fit(TEXTS, LABELS)


def test_a_failing_baseline_leaves_the_fit_before(texts, labels):
    clf = build().fit(texts, labels)
    before = clf.predict_proba(texts)
    # Nothing is left of the texts.
    clf.set_params(baseline=make_pipeline(CountVectorizer(min_df=99), MultinomialNB()))
    with pytest.raises(ValueError, match="min_df"):
        clf.fit(texts, labels)
    np.testing.assert_array_equal(clf.predict_proba(texts), before)


@pytest.mark.parametrize("baseline", ["auto", None])
def test_parameters_of_a_baseline_that_is_no_estimator_are_refused(baseline):
    clf = build(baseline=baseline)
    with pytest.raises(ValueError, match="baseline__alpha needs an estimator as baseline; got bas"):
        clf.set_params(baseline__alpha=0.1, lr=1.0)
    assert clf.lr == TINY["lr"]
    clf.set_params(baseline=MultinomialNB(), baseline__alpha=0.1)
    assert clf.baseline.alpha == 0.1
