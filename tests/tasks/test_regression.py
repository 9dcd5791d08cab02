"""Numbers, against numpy and by hand."""

import numpy as np
import pytest
import torch

from sklstm.tasks.regression import Regression
from tests.builders import draw_outputs, make_numbers_task

STARS = np.array([1.0, 2.0, 5.0, 4.0])


def make(numbers, weights=None, **settings):
    weights = np.ones(len(numbers)) if weights is None else weights
    return Regression.of(numbers, weights, **settings)


def test_numbers_are_standardised():
    task = make(STARS)
    targets = task.encode(STARS)
    assert targets.shape == (4, 1) and task.n_outputs == 1
    assert targets.mean() == pytest.approx(0) and targets.std() == pytest.approx(1)
    np.testing.assert_allclose(task.decode(targets), STARS)


def test_each_column_is_standardised_by_itself():
    numbers = np.column_stack([STARS, 100 * STARS - 7])
    task = make(numbers)
    targets = task.encode(numbers)
    np.testing.assert_allclose(targets[:, 0], targets[:, 1])
    np.testing.assert_allclose(task.decode(targets), numbers)
    assert not task.is_flat and task.n_outputs == 2


def test_one_column_stays_a_column():
    task = make(STARS[:, None])
    assert task.decode(task.encode(STARS[:, None])).shape == (4, 1)


def test_weights_count_in_mean_and_scale():
    twice = make(np.append(STARS, STARS[:1]))
    weighted = make(STARS, np.array([2.0, 1, 1, 1]))
    np.testing.assert_allclose(weighted.mean, twice.mean)
    np.testing.assert_allclose(weighted.scale, twice.scale)


@pytest.mark.parametrize("number", [0.0, 0.1, -7.3, 1e12, 1e-12])
def test_a_constant_is_decoded_exactly(number):
    task = make(np.full(10, number))
    assert task.scale.tolist() == [0.0]
    assert task.encode(np.full(10, number)).tolist() == [[0.0]] * 10
    np.testing.assert_allclose(task.decode(np.array([[0.0], [0.3]])), [number] * 2, rtol=1e-15)


def test_a_constant_that_is_none_later_is_refused():
    with pytest.raises(ValueError) as caught:
        make(np.full(10, 7.5)).encode(STARS)
    assert str(caught.value) == (
        "y must be constant in column 0, as in the first fit, which found 7.5 only; got other "
        "numbers. Start anew: fit with warm_start=False."
    )


def test_numbers_so_small_that_their_squares_are_0():
    task = make(STARS * 1e-200)
    np.testing.assert_allclose(task.scale, STARS.std() * 1e-200)
    np.testing.assert_allclose(task.decode(task.encode(STARS * 1e-200)), STARS * 1e-200)


def test_small_differences_of_large_numbers_are_no_constant():
    numbers = 1e6 + np.arange(4) / 100
    np.testing.assert_allclose(make(numbers).scale, numbers.std())


def test_losses_by_hand():
    outputs, targets = np.array([[0.0, 2.0]]), np.array([[1.0, -1.0]])
    squared, absolute = (
        make_numbers_task(2, error=f"{error}_error") for error in ("squared", "absolute")
    )
    assert squared.losses(outputs, targets).tolist() == [5.0]
    assert absolute.losses(outputs, targets).tolist() == [2.0]
    assert squared.slopes(outputs, targets, np.ones((1, 2))).tolist() == [2.0]
    assert absolute.slopes(outputs, targets, np.ones((1, 2))).tolist() == [0.0]


def test_the_divergence_is_the_mean_squared_distance():
    task = make_numbers_task(2)
    outputs, moved = (torch.from_numpy(draw_outputs(task, seed=k)[0]) for k in (0, 1))
    expected = ((moved - outputs) ** 2).mean(dim=1)
    torch.testing.assert_close(task.divergence(outputs, moved), expected)


def test_another_number_of_columns_is_refused():
    with pytest.raises(ValueError) as caught:
        make_numbers_task(2).encode(STARS, name="y_val")
    assert str(caught.value) == (
        "y_val must have as many numbers for each text as y of the first fit, 2; got 1."
    )


def test_strata_are_tenths():
    task, targets = make_numbers_task(), np.random.default_rng(0).normal(size=(1000, 1))
    strata = task.strata(targets, 0.1)
    assert np.bincount(strata).tolist() == [100] * 10
    largest = [targets[strata == stratum].max() for stratum in range(10)]
    assert (np.diff(largest) > 0).all()


def test_of_few_texts_the_strata_are_fewer_and_equal_numbers_stay_together():
    task = make_numbers_task()
    assert np.bincount(task.strata(np.arange(30.0)[:, None], 0.1)).tolist() == [10, 10, 10]
    assert np.bincount(task.strata(np.arange(5.0)[:, None], 0.1)).tolist() == [5]
    stars = np.repeat([1.0, 2.0, 3.0], 50)[:, None]
    strata = task.strata(stars, 0.1)
    assert [len(set(strata[stars[:, 0] == s])) for s in (1, 2, 3)] == [1, 1, 1]
    assert len(set(strata)) == 3


def test_several_columns_have_an_indicator_of_their_parts():
    targets = np.random.default_rng(0).normal(size=(200, 2))
    strata = make_numbers_task(2).strata(targets, 0.1)
    assert strata.shape == (200, 20) and (strata.sum(axis=1) == 2).all()


def test_there_is_no_temperature_and_nothing_is_absent():
    task = make_numbers_task()
    targets = task.encode(STARS)
    assert task.absent(targets) == [] and not task.can_scale(targets)


def test_a_member_predicts_in_the_units_of_y():
    task = make(STARS)
    np.testing.assert_allclose(task.read_response(STARS.tolist(), None), task.encode(STARS))
    with pytest.raises(ValueError, match="blend must predict as many numbers for each text"):
        task.read_response(np.ones((4, 2)), None)
