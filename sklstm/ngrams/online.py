"""Linear models that learn from new texts only: the earlier ones are kept as precisions.

What the texts so far say of the coefficients is a normal distribution. Its means are the
coefficients, and each has a precision, the inverse of its variance. Sizes: ``n`` texts, ``R``
regressions (classes, labels or numbers), ``F`` features.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

# N-grams overlap: where a word occurs, its pairs and pieces do too. Texts determine the sum of
# their coefficients far better than one precision for each of them can say.
OVERLAP = 4.0
# Of the gradient, in standard deviations of the coefficients.
TOLERANCE = 1e-4


class Loss(NamedTuple):
    """What a loss is at some outputs, summed over nothing."""

    values: np.ndarray  # (n, R), or (n, 1) of all regressions together
    slopes: np.ndarray  # (n, R) derivatives by the outputs
    curvatures: np.ndarray  # (n, R) second derivatives by the outputs


class Linear(NamedTuple):
    """The coefficients of linear models on the same features, and how certain they are."""

    coef: np.ndarray  # (R, F)
    intercept: np.ndarray  # (R,)
    precision: np.ndarray  # (R, F + 1) float32, those of the intercepts last

    def predict(self, features) -> np.ndarray:
        """Return the outputs (n, R)."""
        return features @ self.coef.T + self.intercept


def cross_entropy(outputs: np.ndarray, targets: np.ndarray) -> Loss:
    """Return the log loss of logits, for an indicator of one class a text."""
    logs = log_softmax(outputs, axis=1)
    shares = np.exp(logs)
    values = -(targets * logs).sum(axis=1, keepdims=True)
    return Loss(values, shares - targets, shares * (1 - shares))


def logistic(outputs: np.ndarray, targets: np.ndarray) -> Loss:
    """Return the log loss of log-odds, for targets of 0 and 1."""
    shares = expit(outputs)
    values = np.logaddexp(0, outputs) - targets * outputs
    return Loss(values, shares - targets, shares * (1 - shares))


def squared(outputs: np.ndarray, targets: np.ndarray) -> Loss:
    """Return half the squared error."""
    errors = outputs - targets
    return Loss(errors**2 / 2, errors, np.ones_like(errors))


def update(
    linear: Linear,
    features: sparse.csr_array,  # (n, F)
    targets: np.ndarray,  # (n, R)
    weights: np.ndarray,  # (n, R), or (n, 1)
    loss,
) -> Linear:
    """Return what linear models are after new texts; the earlier ones stay as they are.

    The coefficients w minimise the weighted loss of the new texts plus
    ``sum(precision * (w - coef) ** 2) / 2``. Then each precision grows by what the texts say of its
    coefficient: the sum of weight, squared feature and curvature.

    References
    ----------
    Chapelle & Li (2011), An Empirical Evaluation of Thompson Sampling, Algorithm 3; the factor
    ``OVERLAP`` is ours.
    """
    there = np.unique(features.indices)
    columns = np.append(there, features.shape[1])  # the intercept is the last one
    # With a column of ones; the coefficients of other columns stay, as nothing pulls at them.
    ones = np.ones((features.shape[0], 1))
    inputs = sparse.hstack([features[:, there], ones], format="csr")
    before = np.column_stack([linear.coef[:, there], linear.intercept])
    after = _find_best(before, linear.precision[:, columns], inputs, targets, weights, loss)
    coef, precision = linear.coef.copy(), linear.precision.copy()
    coef[:, there] = after[:, :-1]
    curvatures = weights * loss(inputs @ after.T, targets).curvatures
    precision[:, columns] += OVERLAP * (inputs.power(2).T @ curvatures).T
    return Linear(coef, after[:, -1].copy(), precision)


def _find_best(before, precision, inputs, targets, weights, loss):
    """Return the coefficients (R, A) of the inputs (n, A) that minimise loss and distance."""
    outputs, transposed = inputs @ before.T, inputs.T.tocsr()
    # In standard deviations, all coefficients have one scale, and the search needs few steps.
    precision = precision.astype(np.float64)
    said = (inputs.power(2).T @ (weights * loss(outputs, targets).curvatures)).T
    scale = 1 / np.sqrt(precision + said)
    pull = precision * scale**2

    def value_and_gradient(moves):
        moves = moves.reshape(before.shape)
        now = loss(outputs + inputs @ (moves * scale).T, targets)
        value = (weights * now.values).sum() + (pull * moves**2).sum() / 2
        gradient = (transposed @ (weights * now.slopes)).T * scale + pull * moves
        return value, gradient.ravel()

    best = minimize(
        value_and_gradient,
        x0=np.zeros(before.size),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": TOLERANCE, "ftol": 1e-12, "maxiter": 1000},
    )
    return before + best.x.reshape(before.shape) * scale
