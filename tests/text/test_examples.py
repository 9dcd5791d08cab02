"""Texts with targets and weights."""

import numpy as np

from sklstm.text.examples import Examples


def test_rows_are_taken_together():
    examples = Examples(["a", "b", "c"], np.array([2, 0, 1]), np.array([1.0, 0.5, 2.0]))
    texts, targets, weights, rows = examples.take(np.array([2, 0]))
    assert rows.tolist() == [2, 0] and examples.rows is None
    assert texts == ["c", "a"]
    assert targets.tolist() == [1, 2] and weights.tolist() == [2.0, 1.0]


def test_factors_multiply_the_weights():
    examples = Examples(["a", "b"], np.array([0, 1]), np.array([1.0, 0.5]))
    weighed = examples.weigh(np.array([3.0, 4.0]))
    assert weighed.weights.tolist() == [3.0, 2.0]
    assert weighed.texts == examples.texts and weighed.targets is examples.targets
    assert examples.weights.tolist() == [1.0, 0.5]
