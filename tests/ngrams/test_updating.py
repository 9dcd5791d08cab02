"""The n-grams in partial_fit: what they learn, what stays, and what resuming needs."""

import copy
import os
import pickle
import signal

import numpy as np
import pytest
from sklearn.metrics import log_loss

import sklstm
from sklstm import LSTMTextClassifier, LSTMTextRegressor
from sklstm.model.blending import WITH_NGRAMS
from sklstm.ngrams.linear import make_ngram_member
from sklstm.ngrams.member import fit_member
from sklstm.ngrams.naive_bayes import mark_features
from sklstm.ngrams.updating import (
    OF_VALUES,
    begin_member,
    can_be_updated,
    check_precisions,
    update_member,
)
from sklstm.tasks.multiclass import Multiclass
from sklstm.tasks.multilabel import Multilabel
from sklstm.tasks.regression import Regression
from sklstm.text.examples import Examples
from tests.conftest import LABELS, TEXTS, TINY

# Many, so that few texts do not have them all; of digits, which share no pieces of words.
WORDS = {"neg": [f"{k}3" for k in range(100, 125)], "pos": [f"{k}7" for k in range(100, 125)]}
KINDS = ["two classes", "three classes", "label sets", "numbers"]


def draw(n_texts=200, seed=0, words=WORDS):
    """Return texts of ten words, of which two say in most cases what the label is."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(list(words), size=n_texts)
    says = np.where(rng.random(n_texts) < 0.9, labels, rng.choice(list(words), size=n_texts))
    others = [f"word{k}" for k in range(30)]
    texts = [" ".join([*rng.choice(words[s], 2), *rng.choice(others, 8)]) for s in says]
    return texts, labels


def make(kind, n_texts=200, seed=0):
    """Return a task, and examples with weights."""
    words = WORDS | {"odd": ["blue", "cold", "iron"]} if kind == "three classes" else WORDS
    texts, labels = draw(n_texts, seed, words)
    weights = np.random.default_rng(seed).uniform(0.5, 2.0, size=n_texts)
    if kind == "label sets":
        has = np.array(["word1 " in text for text in texts])
        targets = np.stack([labels == "pos", has], axis=1)
        return Multilabel(np.arange(2)), Examples(texts, targets, weights)
    if kind == "numbers":
        numbers = 10.0 + 4 * (labels == "pos") + np.array(["word1 " in text for text in texts])
        task = Regression(np.array([12.0]), np.array([2.0]))
        return task, Examples(texts, task.encode(numbers), weights)
    task = Multiclass(np.array(sorted(words)))
    return task, Examples(texts, task.encode(labels), weights)


def loss(member, task, examples):
    response = getattr(member, task.response_method)(examples.texts)
    outputs = task.read_response(response, getattr(member, "classes_", None))
    return task.losses(outputs, examples.targets).mean()


def in_portions(task, examples, n_portions=10):
    parts = [examples.take(r) for r in np.array_split(np.arange(len(examples.texts)), n_portions)]
    member, precisions = begin_member(parts[0], task, None)
    for part in parts[1:]:
        member, precisions = update_member(member, precisions, part, task)
    return member, precisions


@pytest.mark.parametrize("kind", KINDS)
def test_ten_portions_are_nearly_as_good_as_a_fit_on_all(kind):
    (task, examples), (_, asked) = make(kind, 600), make(kind, 400, seed=1)
    first = begin_member(examples.take(np.arange(60)), task, None)[0]
    streamed, precisions = in_portions(task, examples)
    losses = [loss(member, task, asked) for member in (first, streamed)]
    at_once = loss(fit_member(make_ngram_member(task.kind), examples, task), task, asked)
    assert losses[1] - at_once < 0.5 * (losses[0] - at_once)
    check_precisions(precisions, streamed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_member_learns_on_and_the_earlier_one_stays(kind):
    (task, examples), (_, asked) = make(kind, 600), make(kind, 400, seed=1)
    before = fit_member(make_ngram_member(task.kind), examples.take(np.arange(60)), task)
    outputs, earlier = loss(before, task, asked), pickle.dumps(before)
    after, precisions = update_member(before, (), examples.take(np.arange(60, 600)), task)
    assert loss(after, task, asked) < 0.9 * outputs
    assert pickle.dumps(before) == earlier and after[0] is before[0]
    assert all((precision > 0).all() for precision in precisions)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_inside_of_a_portion_does_not_matter(kind):
    task, examples = make(kind)
    member, precisions = begin_member(examples, task, None)
    new = make(kind, seed=3)[1]
    order = np.random.default_rng(0).permutation(len(new.texts))
    losses = [
        loss(update_member(member, precisions, part, task)[0], task, new)
        for part in (new, new.take(order))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_sums_that_the_idf_gives_are_those_of_the_texts():
    task, examples = make("two classes")
    member = fit_member(make_ngram_member(task.kind), examples, task)
    features = member[0].transform(examples.texts)
    n_texts, squares, counts = member[0].estimate_sums()
    assert n_texts == pytest.approx(200)
    np.testing.assert_allclose(counts, mark_features(features).sum(axis=0))
    exact = np.asarray(features.power(2).sum(axis=0)).ravel()
    assert np.corrcoef(np.log(squares), np.log(exact))[0, 1] > 0.85
    assert 0.5 < np.median(squares / exact) < 2


def test_the_precisions_after_a_fit_are_near_those_of_its_texts():
    task, examples = make("two classes", 400)
    member = fit_member(make_ngram_member(task.kind), examples, task)
    features = member[0].transform(examples.texts)
    share = member[-1].estimators_[0].predict_proba(features)[:, 1]
    exact = OF_VALUES + 4 * features.power(2).T @ (share * (1 - share))
    new = make("two classes", 20, seed=2)[1]  # too few to add much
    _, precisions = update_member(member, (), new, task)
    assert np.corrcoef(np.log(precisions[0][0, :-1]), np.log(exact))[0, 1] > 0.75


def test_a_class_that_comes_later_is_learnt():
    words = WORDS | {"odd": ["blue", "cold", "iron"]}
    first, labels = draw(200)
    more, their_labels = draw(400, 1, words)
    task = Multiclass(np.array(["neg", "odd", "pos"]))
    # Its words are features from the start, in texts of other classes.
    also = ["blue", "cold", "iron", ""] * 50
    first = [f"{text} {word}" for text, word in zip(first, also, strict=True)]
    examples = Examples(first, task.encode(labels), np.ones(200))
    member, precisions = begin_member(examples, task, None)
    assert (member.predict_proba(first)[:, 1] < 0.1).all()
    new = Examples(more, task.encode(their_labels), np.ones(400))
    member, _ = update_member(member, precisions, new, task)
    asked, expected = draw(300, 2, words)
    assert np.mean(member.predict(asked)[expected == "odd"] == "odd") > 0.8


def test_a_first_portion_may_have_one_class():
    task = Multiclass(np.array(["neg", "pos"]))
    texts = [text for text, label in zip(TEXTS, LABELS, strict=True) if label == "pos"]
    examples = Examples(texts, np.ones(len(texts), dtype=int), np.ones(len(texts)))
    member, precisions = begin_member(examples, task, None)
    assert member.classes_.tolist() == ["neg", "pos"] and can_be_updated(member, task)
    assert (member.predict(texts) == "pos").all()
    both = Examples(TEXTS, task.encode(np.array(LABELS)), np.ones(len(TEXTS)))
    for _ in range(5):
        member, precisions = update_member(member, precisions, both, task)
    assert (member.predict(TEXTS) == LABELS).mean() >= 0.9


def test_a_member_that_lacks_a_class_is_not_updated():
    task = Multiclass(np.array(["neg", "odd", "pos"]))
    of_two = Multiclass(np.array(["neg", "pos"]))
    member = fit_member(make_ngram_member(task.kind), make("two classes")[1], of_two)
    assert can_be_updated(member, of_two) and not can_be_updated(member, task)
    assert not can_be_updated(None, task)


# In the estimators


def build(**settings):
    return LSTMTextClassifier(**TINY | {"blend": "ngrams", "batch_size": 64} | settings)


def test_partial_fit_learns_words_whose_meaning_changes():
    texts, labels = draw(300)
    swapped = {"neg": WORDS["pos"], "pos": WORDS["neg"]}
    new, their_labels = draw(600, 1, swapped)
    asked, expected = draw(300, 2, swapped)
    fitted = build(max_epochs=2).fit(texts, labels)
    losses = {}
    for blend in ("ngrams", None):  # None leaves the n-grams as they are
        clf = copy.deepcopy(fitted).set_params(blend=blend)
        for rows in np.array_split(np.arange(600), 3):
            clf.partial_fit([new[row] for row in rows], their_labels[rows])
        losses[blend] = log_loss(expected, clf.predict_proba(asked))
    assert losses["ngrams"] < 0.9 * losses[None]


def test_the_first_call_begins_with_the_expected_weights(texts, labels):
    clf = build().partial_fit(texts, labels, classes=["neg", "pos"])
    assert clf.blend_weights_ == WITH_NGRAMS and clf.temperature_ == 1.0
    assert clf.member_.predict_proba(texts).shape == (len(texts), 2)


def test_later_calls_move_the_weights_towards_the_better_part():
    texts, labels = draw(400)
    clf = build(lr=1e-6).partial_fit(texts[:100], labels[:100], classes=["neg", "pos"])
    for k in range(1, 4):
        rows = slice(100 * k, 100 * k + 100)
        clf.partial_fit(texts[rows], labels[rows])
    assert clf.blend_weights_[1] > 0.85  # the network has learnt nothing
    before = clf.blend_weights_
    one_class = [text for text, label in zip(texts, labels, strict=True) if label == "pos"]
    clf.partial_fit(one_class, ["pos"] * len(one_class))
    assert clf.blend_weights_ == before
    clf.set_params(calibrate=False).partial_fit(texts, labels)
    assert clf.blend_weights_ == before


@pytest.mark.parametrize("weights", ["sample_weight", "class_weight"])
def test_weights_count(texts, labels, weights):
    heavy = np.where(np.array(labels) == "pos", 9.0, 1.0)
    if weights == "sample_weight":
        clf, passed = build(), {"sample_weight": heavy}
    else:
        clf, passed = build(class_weight={"pos": 9.0, "neg": 1.0}), {}
    plain = build().partial_fit(texts, labels, classes=["neg", "pos"])
    clf.partial_fit(texts, labels, classes=["neg", "pos"], **passed)
    for each, of_each in ((plain, {}), (clf, passed)):
        each.partial_fit(texts, labels, **of_each)
    asked = ["words that nobody knows"]
    assert clf.member_.predict_proba(asked)[0, 1] > plain.member_.predict_proba(asked)[0, 1] + 0.1


def make_estimator(kind):
    if kind == "numbers":
        settings = {name: value for name, value in TINY.items() if name != "calibrate"}
        return LSTMTextRegressor(**settings | {"blend": "ngrams"}), {}
    return build(), {} if kind == "label sets" else {"classes": make(kind)[0].classes}


@pytest.mark.parametrize("begin", ["fit", "partial_fit"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_and_pickles_resume_with_the_same_bits(kind, begin, tmp_path):
    task, examples = make(kind, 60)
    y = task.decode(examples.targets)
    estimator, first = make_estimator(kind)
    if begin == "fit":
        estimator.set_params(max_epochs=1).fit(examples.texts, y)
    else:
        estimator.partial_fit(examples.texts, y, **first)
    estimator.partial_fit(examples.texts, y)
    assert estimator.model_.precisions
    estimator.save(tmp_path / "m")
    others = [sklstm.load(tmp_path / "m"), pickle.loads(pickle.dumps(estimator))]
    for each in (estimator, *others):
        each.partial_fit(examples.texts, y)
    for other in others:
        assert other.blend_weights_ == estimator.blend_weights_
        for one, two in zip(other.model_.precisions, estimator.model_.precisions, strict=True):
            np.testing.assert_array_equal(one, two, strict=True)
        ask = "predict" if kind == "numbers" else "predict_proba"
        expected = getattr(estimator, ask)(examples.texts)
        np.testing.assert_array_equal(getattr(other, ask)(examples.texts), expected)


def test_a_pickle_from_before_there_were_precisions_resumes(texts, labels):
    clf = build().fit(texts, labels)
    state = clf.model_.__getstate__()
    del state["precisions"]
    again = copy.deepcopy(clf)
    again.model_ = type(clf.model_).__new__(type(clf.model_))
    again.model_.__setstate__(state)
    expected = clf.partial_fit(texts, labels).predict_proba(texts)
    np.testing.assert_array_equal(again.partial_fit(texts, labels).predict_proba(texts), expected)


def test_a_model_without_a_member_gets_none(texts, labels):
    clf = build(blend=None).partial_fit(texts, labels, classes=["neg", "pos"])
    clf.set_params(blend="ngrams").partial_fit(texts, labels)
    assert clf.member_ is None and clf.model_.precisions == ()


def test_what_fails_leaves_the_earlier_model(texts, labels, monkeypatch):
    clf = build().partial_fit(texts, labels, classes=["neg", "pos"])
    model, before = clf.model_, pickle.dumps(clf)
    with pytest.raises(ValueError, match="Training diverged"):
        clf.set_params(lr=9e29).partial_fit(texts, labels)
    clf.set_params(lr=TINY["lr"])
    assert clf.model_ is model and pickle.dumps(clf) == before

    def press(*arguments, **others):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("sklstm.ngrams.online.minimize", press)
    with pytest.raises(KeyboardInterrupt):
        clf.partial_fit(texts, labels)
    assert clf.model_ is model and pickle.dumps(clf) == before


def test_the_size_does_not_grow_but_for_the_history(texts, labels):
    clf = build().partial_fit(texts, labels, classes=["neg", "pos"])
    sizes = []
    for k in range(6):
        clf.partial_fit([*texts, f"new words {k}"], [*labels, "pos"])
        model = copy.copy(clf.model_)
        model.history = []
        sizes.append(len(pickle.dumps(model)))
    assert max(sizes[1:]) - min(sizes[1:]) < 100
    rows = clf.history_
    clf.partial_fit(texts, labels)
    # Earlier rows are shared, so that no call copies them; callbacks can write to the last only.
    assert all(a is b for a, b in zip(rows[:-1], clf.history_, strict=False))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p[:1], "of other n-grams"),
        (lambda p: (p[0][:, 1:], p[1]), "of other n-grams"),
        (lambda p: (p[0].astype(float), p[1]), "are no precisions"),
        (lambda p: (p[0] * np.nan, p[1]), "are no precisions"),
        (lambda p: (p[0], -p[1]), "are no precisions"),
    ],
)
def test_damaged_precisions_are_refused(damage, message, texts, labels, tmp_path):
    clf = build().partial_fit(texts, labels, classes=["neg", "pos"])
    clf.model_.precisions = damage(clf.model_.precisions)
    clf.save(tmp_path / "m")
    with pytest.raises(ValueError, match=message):
        sklstm.load(tmp_path / "m")
    with pytest.raises(ValueError, match="of other n-grams"):
        check_precisions((np.ones((1, 3), dtype=np.float32),), None)
