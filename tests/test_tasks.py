"""What y is: targets, loss, and what is predicted, against numpy and by hand."""

import inspect

import numpy as np
import pytest
import torch
from scipy.special import softmax

from sklstm.tasks import SMALLEST_PROBABILITY, Multiclass, Task
from tests.builders import make_task

TASKS = {"multiclass": make_task(), "two classes": make_task(2)}


def draw(task, n_texts=7, seed=0):
    """Return outputs and targets; every class is a target."""
    rng = np.random.default_rng(seed)
    return 2.0 * rng.normal(size=(n_texts, task.n_outputs)), np.arange(n_texts) % task.n_outputs


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]


# What every task has


@pytest.mark.parametrize("kind", [Multiclass])
def test_every_task_has_all_members_of_the_protocol(kind):
    members = [name for name in vars(Task) if not name.startswith("_")]
    assert {"loss", "losses", "n_outputs"} < set(members)
    for name in members:
        promised, own = inspect.getattr_static(Task, name), inspect.getattr_static(kind, name)
        assert isinstance(own, property) == isinstance(promised, property), name
        if inspect.isfunction(promised):
            theirs = inspect.signature(promised).parameters
            ours = inspect.signature(own).parameters
            assert [(p.name, p.kind, p.default) for p in theirs.values()] == [
                (p.name, p.kind, p.default) for p in ours.values()
            ], name
    assert set(Task.__annotations__) == {"response_method"}
    assert isinstance(kind.response_method, str)


def test_the_loss_in_torch_is_that_in_numpy(task):
    outputs, targets = draw(task)
    loss = task.loss(torch.from_numpy(outputs), torch.from_numpy(targets))
    np.testing.assert_allclose(loss.numpy(), task.losses(outputs, targets), rtol=0, atol=1e-12)


def test_slopes_are_the_derivatives_of_the_losses(task):
    outputs, targets = draw(task)
    along = np.random.default_rng(1).normal(size=outputs.shape)
    step = 1e-6
    rise = task.losses(outputs + step * along, targets) - task.losses(
        outputs - step * along, targets
    )
    np.testing.assert_allclose(task.slopes(outputs, targets, along), rise / (2 * step), atol=1e-8)


def test_the_divergence_is_0_at_the_outputs_themselves_and_positive_elsewhere(task):
    outputs = torch.from_numpy(draw(task)[0])
    moved = torch.from_numpy(draw(task, seed=1)[0])
    assert not task.divergence(outputs, outputs).abs().max() > 1e-12
    assert (task.divergence(outputs, moved) > 0).all()


def test_the_divergence_has_no_gradient_for_the_clean_outputs(task):
    outputs, moved = (torch.from_numpy(draw(task, seed=k)[0]).requires_grad_() for k in (0, 1))
    task.divergence(outputs, moved).sum().backward()
    assert outputs.grad is None and moved.grad.abs().sum() > 0


def test_labels_come_back_from_their_targets(task):
    labels = np.random.default_rng(0).choice(task.classes, size=20)
    targets = task.encode(labels)
    assert targets.shape == (20,)
    assert task.decode(targets).tolist() == labels.tolist()


# One class a text


def test_losses_by_hand():
    outputs = np.log([[0.9, 0.1], [0.5, 0.5]])
    losses = make_task(2).losses(outputs, np.array([0, 1]))
    np.testing.assert_allclose(losses, [-np.log(0.9), -np.log(0.5)], rtol=1e-12)


def test_label_smoothing_gives_all_classes_a_share_of_the_target():
    outputs, targets = draw(make_task())
    smooth = make_task(label_smoothing=0.3).loss(*map(torch.from_numpy, (outputs, targets)))
    shares = 0.7 * np.eye(3)[targets] + 0.1
    expected = -(shares * np.log(softmax(outputs, axis=1))).sum(axis=1)
    np.testing.assert_allclose(smooth.numpy(), expected, rtol=1e-12)


def test_divergence_matches_numpy():
    task = make_task()
    outputs, moved = (torch.from_numpy(draw(task, seed=k)[0]) for k in (0, 1))
    p, q = softmax(outputs.numpy(), axis=1), softmax(moved.numpy(), axis=1)
    expected = (p * np.log(p / q)).sum(axis=1)
    np.testing.assert_allclose(task.divergence(outputs, moved).numpy(), expected, rtol=1e-10)


def test_targets_are_places_among_the_sorted_classes():
    labels = np.array([7, 3, 7])
    task = Multiclass.of(labels, label_smoothing=0.2)
    assert task.classes.tolist() == [3, 7] and task.n_outputs == 2
    assert task.encode(labels).tolist() == [1, 0, 1]
    assert task.strata(task.encode(labels)).tolist() == [1, 0, 1]
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


def test_weights_of_classes():
    task, targets = make_task(), np.array([0, 1, 1])
    assert task.weigh(None, targets).tolist() == [1, 1, 1]
    assert task.weigh({"a": 3, "c": 0.5, "z": 9}, targets).tolist() == [3, 1, 1]
    # As in scikit-learn: n_texts / (n_classes * texts of the class).
    np.testing.assert_allclose(task.weigh("balanced", targets), [1, 0.5, 0.5])


def test_weights_of_other_texts_follow_from_the_texts_of_the_fit():
    task, targets, others = make_task(), np.array([0, 1, 1]), np.array([2, 1, 0, 0])
    assert task.weigh(None, targets, others).tolist() == [1, 1, 1, 1]
    assert task.weigh({"a": 3, "c": 0.5}, targets, others).tolist() == [0.5, 1, 3, 3]
    # A class that is absent from the fit counts as if it came once.
    np.testing.assert_allclose(task.weigh("balanced", targets, others), [1, 0.5, 1, 1])


def test_weights_of_numeric_and_boolean_classes():
    for classes in (np.array([0, 1]), np.array([False, True])):
        weights = Multiclass(classes).weigh({0: 2.0, 1: 0.5}, np.array([0, 1]))
        assert weights.tolist() == [2.0, 0.5]


@pytest.mark.parametrize(
    "class_weight", [{"a": -1}, {"a": "x"}, {"a": [1, 2]}, {"a": np.nan}, {"a": 0, "b": 0}]
)
def test_what_are_not_weights_of_classes(class_weight):
    with pytest.raises(ValueError) as caught:
        make_task(2).weigh(class_weight, np.array([0, 1]))
    assert str(caught.value) == (
        "class_weight must hold numbers of 0 or more, and one above 0 for a class of y; "
        f"got {class_weight}."
    )


def test_absent_classes_are_those_without_a_target():
    task = make_task(4)
    assert task.absent(np.array([1, 1, 3])) == ["a", "c"]
    assert task.absent(np.arange(4)) == []


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


def test_predictions_are_pooled_in_a_weighted_geometric_mean():
    rng = np.random.default_rng(0)
    p, q = (softmax(rng.normal(size=(5, 3)), axis=1) for _ in range(2))
    pooled = make_task().pool([np.log(p), np.log(q)], (0.3, 0.6))
    expected = p**0.3 * q**0.6
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(pooled, axis=1), expected, rtol=1e-12)
    np.testing.assert_allclose(make_task().pool([np.log(p)], (1.0,)), np.log(p))


def test_the_most_probable_class_is_predicted():
    outputs = np.array([[0.0, 2.0, 1.0], [-1.0, -2.0, -3.0]])
    assert make_task().decide(outputs).tolist() == ["b", "a"]


def test_probabilities_and_decisions_agree(task):
    outputs, _ = draw(task)
    p = task.probabilities(outputs)
    np.testing.assert_allclose(p, softmax(outputs, axis=1))
    np.testing.assert_allclose(np.exp(task.log_probabilities(outputs)), p)
    decision = task.decision(outputs)
    if task.n_outputs == 2:
        np.testing.assert_allclose(decision, np.log(p[:, 1] / p[:, 0]))
    else:
        np.testing.assert_array_equal(decision, outputs)
