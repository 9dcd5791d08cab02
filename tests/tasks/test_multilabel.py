"""Label sets, against numpy, scikit-learn and by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.special import expit
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier

from sklstm.labels import check_label_sets
from sklstm.tasks.multilabel import Multilabel
from tests.builders import draw_outputs, make_label_sets_task

SETS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]])


def encode(task, y, **arguments):
    return task.encode(check_label_sets(y), **arguments)


def test_the_loss_is_the_sum_of_the_labels_log_losses():
    task = make_label_sets_task()
    outputs, targets = draw_outputs(task)
    expected = [
        np.sum([log_loss([t], [p], labels=[0, 1]) for t, p in zip(row, expit(o), strict=True)])
        for row, o in zip(targets, outputs, strict=True)
    ]
    np.testing.assert_allclose(task.losses(outputs, targets), expected, rtol=1e-12)


def test_weights_of_labels_multiply_the_loss_where_a_text_has_them():
    outputs, targets = draw_outputs(make_label_sets_task())
    weights = np.array([3.0, 0.5, 1.0])
    weighted = make_label_sets_task(class_weights=weights).losses(outputs, targets)
    p = expit(outputs)
    expected = -np.where(targets, weights * np.log(p), np.log(1 - p)).sum(axis=1)
    np.testing.assert_allclose(weighted, expected, rtol=1e-12)


def test_weights_of_a_label_count_only_in_texts_that_have_it():
    """Also with smoothing, which gives the other texts a little of the label."""
    smooth = make_label_sets_task(label_smoothing=0.2)
    weighted = make_label_sets_task(label_smoothing=0.2, class_weights=np.array([99.0, 1, 1]))
    outputs, targets = map(torch.from_numpy, draw_outputs(smooth))
    has = targets[:, 0]
    assert has.any() and not has.all()
    plain, heavy = smooth.loss(outputs, targets), weighted.loss(outputs, targets)
    torch.testing.assert_close(heavy[~has], plain[~has])
    assert (heavy[has] > 2 * plain[has]).any()


def test_label_smoothing_moves_targets_towards_each_other():
    task = make_label_sets_task(label_smoothing=0.2)
    outputs, targets = draw_outputs(task)
    loss = task.loss(torch.from_numpy(outputs), torch.from_numpy(targets)).numpy()
    soft, p = np.where(targets, 0.9, 0.1), expit(outputs)
    expected = -(soft * np.log(p) + (1 - soft) * np.log(1 - p)).sum(axis=1)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    # What validation texts are measured by has none.
    plain = make_label_sets_task().losses(outputs, targets)
    np.testing.assert_array_equal(task.losses(outputs, targets), plain)


def test_the_divergence_matches_numpy():
    task = make_label_sets_task()
    outputs, moved = (draw_outputs(task, seed=k)[0] for k in (0, 1))
    p, q = expit(outputs), expit(moved)
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=1)
    found = task.divergence(torch.from_numpy(outputs), torch.from_numpy(moved)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_columns_are_numbered_or_have_the_names_of_a_frame():
    task = Multilabel.of(check_label_sets(SETS), label_smoothing=0.1)
    assert task.classes.tolist() == [0, 1, 2] and task.n_outputs == 3
    assert task.label_smoothing == 0.1 and not task.is_sparse
    frame = pd.DataFrame(SETS, columns=list("xyz"))
    assert Multilabel.of(check_label_sets(frame)).classes.tolist() == ["x", "y", "z"]
    assert Multilabel.of(check_label_sets(sparse.csr_array(SETS))).is_sparse


def test_label_sets_come_back_as_they_were():
    targets = encode(make_label_sets_task(), SETS)
    assert targets.dtype == bool
    found = make_label_sets_task().decode(targets)
    assert found.dtype == np.int64 and found.tolist() == SETS.tolist()
    task, outputs = make_label_sets_task(is_sparse=True), np.where(targets, 1.0, -1.0)
    found = task.decide(outputs)
    assert sparse.issparse(found) and found.format == "csr"
    assert found.dtype == np.int64 and found.toarray().tolist() == SETS.tolist()
    # Members and scorers are given dense labels, since few of them take others.
    assert isinstance(task.decode(targets), np.ndarray)
    assert isinstance(task.as_estimator(outputs).predict(["x"] * 4), np.ndarray)


def test_other_columns_are_refused():
    task = make_label_sets_task()
    with pytest.raises(ValueError) as caught:
        encode(task, SETS[:, :2], name="y_val")
    assert str(caught.value) == (
        "y_val must have 3 columns, one for each label that is known; got 2. Give the same "
        "columns, or fit anew."
    )
    with pytest.raises(ValueError) as caught:
        encode(task, pd.DataFrame(SETS, columns=["b", "a", "c"]))
    assert str(caught.value) == (
        "y must have the columns ['a', 'b', 'c'], in this order; got ['b', 'a', 'c']. Reorder "
        "them, or give an array without names."
    )
    with pytest.raises(ValueError, match="must hold label sets, as in the first fit; got one clas"):
        task.encode(np.array(["a", "b"]))


def test_weights_of_labels():
    task, targets = make_label_sets_task(), SETS.astype(bool)
    assert task.weighted(None, targets) is task
    assert task.weighted({"b": 3}, targets).class_weights.tolist() == [1, 3, 1]
    # Texts without the label to texts with it; nothing for one that no text has.
    assert task.weighted("balanced", targets[:2]).class_weights.tolist() == [1, 1, 1]
    assert task.weighted("balanced", targets[:3]).class_weights.tolist() == [0.5, 2, 1]


@pytest.mark.parametrize("class_weight", [{"a": -1}, {"a": "x"}, {"z": 1}, {0: 1}])
def test_what_are_not_weights_of_labels(class_weight):
    with pytest.raises(ValueError) as caught:
        make_label_sets_task().weighted(class_weight, SETS.astype(bool))
    assert str(caught.value) == (
        "class_weight must hold numbers of 0 or more for some of the labels ['a', 'b', 'c']; "
        f"got {class_weight}."
    )


def test_absent_labels_and_when_there_is_a_temperature():
    task, targets = make_label_sets_task(), SETS.astype(bool)
    assert task.absent(targets) == ["c"]
    assert task.can_scale(targets)  # one label that is never there does not matter
    assert not task.can_scale(targets & False) and not task.can_scale(targets | True)


def test_measures():
    task, targets = make_label_sets_task(), SETS.astype(bool)
    outputs = np.where(SETS, 1.0, -1.0)
    outputs[1, 0] = -2.0
    found = task.measure(outputs, targets, np.array([1.0, 3.0, 1.0, 1.0]))
    assert found["valid_accuracy"] == pytest.approx(0.5)
    assert accuracy_score(SETS, task.decide(outputs)) == 0.75


def test_probabilities_logarithms_and_decisions_agree():
    task = make_label_sets_task()
    outputs, _ = draw_outputs(task)
    np.testing.assert_allclose(task.probabilities(outputs), expit(outputs))
    np.testing.assert_allclose(np.exp(task.log_probabilities(outputs)), expit(outputs))
    np.testing.assert_array_equal(task.decision(outputs), outputs)
    np.testing.assert_array_equal(task.decide(outputs), (outputs > 0).astype(int))


@pytest.mark.parametrize(
    "member",
    [
        OneVsRestClassifier(LogisticRegression()),
        MultiOutputClassifier(LogisticRegression()),
        RandomForestClassifier(5, random_state=0),
    ],
    ids=lambda member: type(member).__name__,
)
def test_members_of_scikit_learn_give_log_odds(member):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(60, 4)), rng.integers(2, size=(60, 3))
    member.fit(X, Y)
    found = make_label_sets_task().read_response(member.predict_proba(X), member.classes_)
    p = member.predict_proba(X)
    p = np.stack([one[:, 1] for one in p], axis=1) if isinstance(p, list) else p
    np.testing.assert_allclose(expit(found), np.clip(p, 1e-6, 1 - 1e-6), atol=1e-9)


def test_a_label_that_a_member_has_always_or_never_seen():
    X, Y = np.zeros((4, 1)), np.array([[1, 0, 0], [1, 0, 1]] * 2)
    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    found = make_label_sets_task().read_response(forest.predict_proba(X), forest.classes_)
    np.testing.assert_allclose(expit(found[:, :2]), [[1 - 1e-6, 1e-6]] * 4, rtol=1e-6)


def test_a_member_of_other_labels_is_refused():
    with pytest.raises(ValueError) as caught:
        make_label_sets_task().read_response(np.ones((4, 2)) / 2, np.arange(2))
    assert str(caught.value) == (
        "blend must predict the probabilities of 3 labels; got an array of shape (4, 2). Fit it to "
        "the same labels, or give another one."
    )
