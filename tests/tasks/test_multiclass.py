"""One class a text, against numpy and by hand."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from sklstm.labels import LabelSets
from sklstm.tasks.multiclass import Multiclass
from sklstm.tasks.protocol import SMALLEST_PROBABILITY
from tests.builders import draw_outputs, make_task


def test_losses_by_hand():
    outputs = np.log([[0.9, 0.1], [0.5, 0.5]])
    losses = make_task(2).losses(outputs, np.array([0, 1]))
    np.testing.assert_allclose(losses, [-np.log(0.9), -np.log(0.5)], rtol=1e-12)


def test_label_smoothing_gives_all_classes_a_share_of_the_target():
    outputs, targets = draw_outputs(make_task())
    smooth = make_task(label_smoothing=0.3).loss(*map(torch.from_numpy, (outputs, targets)))
    shares = 0.7 * np.eye(3)[targets] + 0.1
    expected = -(shares * np.log(softmax(outputs, axis=1))).sum(axis=1)
    np.testing.assert_allclose(smooth.numpy(), expected, rtol=1e-12)


def test_divergence_matches_numpy():
    task = make_task()
    outputs, moved = (torch.from_numpy(draw_outputs(task, seed=k)[0]) for k in (0, 1))
    p, q = softmax(outputs.numpy(), axis=1), softmax(moved.numpy(), axis=1)
    expected = (p * np.log(p / q)).sum(axis=1)
    np.testing.assert_allclose(task.divergence(outputs, moved).numpy(), expected, rtol=1e-10)


def test_targets_are_places_among_the_sorted_classes():
    labels = np.array([7, 3, 7])
    task = Multiclass.of(labels, label_smoothing=0.2)
    assert task.classes.tolist() == [3, 7] and task.n_outputs == 2
    assert task.encode(labels).tolist() == [1, 0, 1]
    assert task.strata(task.encode(labels), 0.1).tolist() == [1, 0, 1]
    assert task.label_smoothing == 0.2


@pytest.mark.parametrize("name", ["y", "classes"])
def test_one_class_is_refused(name):
    with pytest.raises(ValueError) as caught:
        Multiclass.of(np.array(["spam", "spam"]), name=name)
    assert str(caught.value) == f"{name} must hold at least two classes; got one class: 'spam'."


@pytest.mark.parametrize("name", ["y", "y_val"])
def test_labels_outside_the_known_classes_are_refused(name):
    with pytest.raises(ValueError) as caught:
        make_task(2).encode(np.array(["a", "z"]), name=name)
    assert str(caught.value) == (
        f"{name} must hold the known classes ['a', 'b'] only; got ['z'] as well. "
        "Drop these rows, or fit anew with all classes."
    )


def weigh(task, class_weight, targets):
    """Return the weights of the texts of a fit."""
    return task.weighted(class_weight, targets).weigh(targets).tolist()


def test_weights_of_classes():
    task, targets = make_task(), np.array([0, 1, 1])
    assert task.weighted(None, targets) is task
    assert weigh(task, None, targets) == [1, 1, 1]
    assert weigh(task, {"a": 3, "c": 0.5}, targets) == [3, 1, 1]
    assert weigh(task, {"a": 3, "b": 2, "c": 0.5, "z": 9}, targets) == [3, 2, 2]
    # As in scikit-learn: n_texts / (n_classes * texts of the class).
    np.testing.assert_allclose(weigh(task, "balanced", targets), [1, 0.5, 0.5])


def test_weights_of_other_texts_follow_from_the_texts_of_the_fit():
    task, targets, others = make_task(), np.array([0, 1, 1]), np.array([2, 1, 0, 0])
    given = task.weighted({"a": 3, "c": 0.5}, targets)
    assert given.weigh(others).tolist() == [0.5, 1, 3, 3]
    # A class that is absent from the fit counts as if it came once.
    np.testing.assert_allclose(task.weighted("balanced", targets).weigh(others), [1, 0.5, 1, 1])


def test_weights_of_numeric_and_boolean_classes():
    for classes in (np.array([0, 1]), np.array([False, True])):
        assert weigh(Multiclass(classes), {0: 2.0, 1: 0.5}, np.array([0, 1])) == [2.0, 0.5]


@pytest.mark.parametrize(
    "class_weight", [{"a": -1}, {"a": "x"}, {"a": [1, 2]}, {"a": np.nan}, {"a": 0, "b": 0}]
)
def test_what_are_not_weights_of_classes(class_weight):
    with pytest.raises(ValueError) as caught:
        make_task(2).weighted(class_weight, np.array([0, 1]))
    assert str(caught.value) == (
        "class_weight must hold numbers of 0 or more, and one above 0 for a class of y; "
        f"got {class_weight}."
    )


@pytest.mark.parametrize(
    ("classes", "class_weight", "unknown", "left_out"),
    [
        (["neg", "pos"], {"pos": 1, "Neg": 5}, ["Neg"], ["neg"]),
        (["neg", "pos"], {0: 1, 1: 5}, [0, 1], ["neg", "pos"]),
        ([0, 1], {"0": 1, "1": 5}, ["0", "1"], [0, 1]),
    ],
)
def test_keys_that_name_no_class(classes, class_weight, unknown, left_out):
    """As in scikit-learn, whose LogisticRegression refuses these too."""
    task, targets = Multiclass(np.array(classes)), np.array([0, 1])
    with pytest.raises(ValueError) as caught:
        task.weighted(class_weight, targets)
    assert str(caught.value) == (
        f"class_weight must have classes of y as keys, some of {classes}; got {unknown}. The "
        f"classes, {left_out}, are not in class_weight."
    )
    with pytest.raises(ValueError, match="are not in class_weight"):
        LogisticRegression(class_weight=class_weight).fit([[0], [1]], classes)


def test_label_sets_are_refused_once_classes_are_known():
    sets = LabelSets(np.eye(2, dtype=bool), None, False)
    with pytest.raises(ValueError) as caught:
        make_task(2).encode(sets, name="y_val")
    assert str(caught.value) == ("y_val must hold one class a text, as y does; got label sets.")
    with pytest.raises(ValueError, match="as in the first fit; got label sets. Start anew: fit wi"):
        make_task(2).encode(sets)


def test_absent_classes_are_those_without_a_target():
    task = make_task(4)
    assert task.absent(np.array([1, 1, 3])) == ["a", "c"]
    assert task.absent(np.arange(4)) == []
    assert task.can_scale(np.arange(4)) and not task.can_scale(np.array([1, 1, 3]))


def test_measures_are_weighted_means():
    outputs = np.log([[0.9, 0.1], [0.6, 0.4]])
    found = make_task(2).measure(outputs, np.array([0, 1]), np.array([3.0, 1.0]))
    assert found == pytest.approx(
        {"valid_loss": -(3 * np.log(0.9) + np.log(0.4)) / 4, "valid_accuracy": 0.75}
    )


def test_the_response_of_a_member_becomes_log_probabilities():
    response = np.array([[0.25, 0.75], [0.5, 0.5]])
    found = make_task(2).read_response(response, np.array(["a", "b"]))
    np.testing.assert_allclose(found, np.log(response))


def test_a_class_that_a_member_has_not_seen_or_rules_out_gets_one_in_a_million():
    found = make_task().read_response(np.array([[0.0, 1.0]]), np.array(["a", "c"]))
    np.testing.assert_allclose(found, np.log([[1e-6, 1e-6, 1.0]]))
    assert SMALLEST_PROBABILITY == 1e-6


def test_a_member_that_knows_other_classes_is_refused():
    with pytest.raises(ValueError) as caught:
        make_task(2).read_response(np.ones((1, 3)) / 3, np.array(["a", "b", "z"]))
    assert str(caught.value) == (
        "blend must know the classes ['a', 'b'] only; got an estimator that also knows ['z']. "
        "Fit it to the same labels, or give another one."
    )


def test_the_most_probable_class_is_predicted():
    outputs = np.array([[0.0, 2.0, 1.0], [-1.0, -2.0, -3.0]])
    assert make_task().decide(outputs).tolist() == ["b", "a"]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_and_decisions_agree(n_classes):
    task = make_task(n_classes)
    outputs, _ = draw_outputs(task)
    p = task.probabilities(outputs)
    np.testing.assert_allclose(p, softmax(outputs, axis=1))
    np.testing.assert_allclose(np.exp(task.log_probabilities(outputs)), p)
    decision = task.decision(outputs)
    if task.n_outputs == 2:
        np.testing.assert_allclose(decision, np.log(p[:, 1] / p[:, 0]))
    else:
        np.testing.assert_array_equal(decision, outputs)
