"""What every task has: the same contract for classes, label sets and numbers."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from sklstm.tasks.multiclass import Multiclass
from sklstm.tasks.multilabel import Multilabel
from sklstm.tasks.protocol import Task
from sklstm.tasks.regression import Regression
from tests.builders import draw_outputs, make_label_sets_task, make_numbers_task, make_task

TASKS = {
    "classes": make_task(),
    "two classes": make_task(2),
    "label sets": make_label_sets_task(),
    "weighted label sets": make_label_sets_task(class_weights=np.array([3.0, 0.5, 0.0])),
    "smoothed label sets": make_label_sets_task(
        class_weights=np.array([50.0, 1.0, 1.0]), label_smoothing=0.1
    ),
    "numbers": make_numbers_task(),
    "absolute error": make_numbers_task(2, error="absolute_error"),
}


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]


@pytest.mark.parametrize("kind", [Multiclass, Multilabel, Regression])
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
    assert set(Task.__annotations__) == {"kind", "response_method", "example"}
    assert isinstance(kind.response_method, str) and isinstance(kind.kind, str)


def test_the_loss_in_torch_is_that_in_numpy(task):
    outputs, targets = draw_outputs(task)
    if getattr(task, "label_smoothing", 0):
        task = replace(task, label_smoothing=0.0)
    loss = task.loss(torch.from_numpy(outputs), torch.from_numpy(targets))
    np.testing.assert_allclose(loss.numpy(), task.losses(outputs, targets), rtol=0, atol=1e-12)


def test_the_loss_is_differentiated_rightly(task):
    outputs, targets = draw_outputs(task)
    inputs = torch.from_numpy(outputs).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: task.loss(x, torch.from_numpy(targets)), inputs)


def test_the_loss_has_the_dtype_of_the_outputs(task):
    outputs, targets = map(torch.from_numpy, draw_outputs(task))
    assert task.loss(outputs.float(), targets).dtype == torch.float32


def test_slopes_are_the_derivatives_of_the_losses(task):
    outputs, targets = draw_outputs(task)
    along = np.random.default_rng(1).normal(size=outputs.shape)
    step = 1e-6
    rise = task.losses(outputs + step * along, targets) - task.losses(
        outputs - step * along, targets
    )
    np.testing.assert_allclose(task.slopes(outputs, targets, along), rise / (2 * step), atol=1e-8)


def test_the_divergence_is_0_at_the_outputs_themselves_and_positive_elsewhere(task):
    outputs = torch.from_numpy(draw_outputs(task)[0])
    moved = torch.from_numpy(draw_outputs(task, seed=1)[0])
    assert not task.divergence(outputs, outputs).abs().max() > 1e-12
    assert (task.divergence(outputs, moved) > 0).all()


def test_the_divergence_has_no_gradient_for_the_clean_outputs(task):
    outputs, moved = (
        torch.from_numpy(draw_outputs(task, seed=k)[0]).requires_grad_() for k in (0, 1)
    )
    task.divergence(outputs, moved).sum().backward()
    assert outputs.grad is None and moved.grad.abs().sum() > 0


def test_the_loss_of_validation_texts_is_their_weighted_mean(task):
    outputs, targets = draw_outputs(task)
    weights = np.arange(len(outputs)) + 1.0
    found = task.measure(outputs, targets, weights)
    expected = weights @ task.losses(outputs, targets) / weights.sum()
    assert found["valid_loss"] == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


def test_labels_have_the_length_of_their_targets_and_weights(task):
    _, targets = draw_outputs(task)
    assert len(task.decode(targets)) == len(task.weigh(targets)) == len(targets)
    assert task.weigh(targets).tolist() == [1.0] * len(targets)
    for_member = task.weigh_for_member(targets, np.ones(len(targets)))
    assert for_member.shape in (targets.shape[:1], targets.shape)


def test_an_estimator_of_outputs_predicts_what_the_task_decides(task):
    outputs, _ = draw_outputs(task)
    estimator = task.as_estimator(outputs)
    np.testing.assert_array_equal(estimator.predict(["any"] * 7), task.decide(outputs))
    assert estimator.__sklearn_is_fitted__()
