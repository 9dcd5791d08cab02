"""The update against scipy's optimiser on the same sum, and against one fit on all texts."""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, Ridge

from sklstm.ngrams import online
from sklstm.ngrams.online import Linear, cross_entropy, logistic, squared, update

LOSSES = {"cross entropy": cross_entropy, "logistic": logistic, "squared": squared}
N_TEXTS, N_ROWS, N_FEATURES = 40, 3, 11


def draw(seed=0, n_texts=N_TEXTS, loss=cross_entropy, n_rows=N_ROWS):
    """Return features, of which the last is in no text, targets, and weights of texts."""
    rng = np.random.default_rng(seed)
    features = sparse.random_array((n_texts, N_FEATURES - 1), density=0.4, rng=rng, format="csr")
    features = sparse.hstack([features, sparse.csr_array((n_texts, 1))], format="csr")
    if loss is cross_entropy:
        targets = np.eye(n_rows)[rng.integers(n_rows, size=n_texts)]
    else:
        targets = rng.integers(2, size=(n_texts, n_rows)).astype(float)
    return features, targets, rng.uniform(0.2, 3, size=(n_texts, 1))


def start(seed=1, n_rows=N_ROWS):
    rng = np.random.default_rng(seed)
    precision = rng.uniform(0.05, 9, size=(n_rows, N_FEATURES + 1)).astype(np.float32)
    return Linear(rng.normal(size=(n_rows, N_FEATURES)), rng.normal(size=n_rows), precision)


def flat(n_rows=N_ROWS, precision=0.1, of_intercept=1e-6):
    """Return coefficients of 0, with the penalty of a fit."""
    precisions = np.full((n_rows, N_FEATURES + 1), precision, dtype=np.float32)
    precisions[:, -1] = of_intercept
    return Linear(np.zeros((n_rows, N_FEATURES)), np.zeros(n_rows), precisions)


def total(name, linear, moved, features, targets, weights):
    """Return what an update minimises, written out anew."""
    coef, intercept = moved[:, :-1], moved[:, -1]
    outputs = features.toarray() @ coef.T + intercept
    if name == "cross entropy":
        losses = -np.log((softmax(outputs, axis=1) * targets).sum(axis=1, keepdims=True))
    elif name == "logistic":
        losses = -np.log(np.where(targets > 0, expit(outputs), expit(-outputs)))
    else:
        losses = (outputs - targets) ** 2 / 2
    before = np.column_stack([linear.coef, linear.intercept])
    distance = linear.precision.astype(np.float64) * (moved - before) ** 2 / 2
    return (weights * losses).sum() + distance.sum()


@pytest.mark.parametrize("name", LOSSES)
def test_the_update_minimises_loss_and_distance(name):
    loss, before = LOSSES[name], start()
    features, targets, weights = draw(loss=loss)
    after = update(before, features, targets, weights, loss)
    shape = (N_ROWS, N_FEATURES + 1)
    best = minimize(
        lambda w: total(name, before, w.reshape(shape), features, targets, weights),
        x0=np.column_stack([before.coef, before.intercept]).ravel(),
        options={"gtol": 1e-6},
    ).x.reshape(shape)
    np.testing.assert_allclose(after.coef, best[:, :-1], atol=2e-4)
    np.testing.assert_allclose(after.intercept, best[:, -1], atol=2e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_and_curvatures_are_derivatives(name):
    loss, step = LOSSES[name], 1e-5
    _, targets, _ = draw(n_texts=5, loss=loss)
    outputs = np.random.default_rng(2).normal(size=targets.shape)
    for k in range(N_ROWS):
        moved = [loss(outputs + sign * step * np.eye(N_ROWS)[k], targets) for sign in (1, -1)]
        sums = [one.values.sum(axis=1) for one in moved]
        slopes = [one.slopes[:, k] for one in moved]
        now = loss(outputs, targets)
        np.testing.assert_allclose((sums[0] - sums[1]) / (2 * step), now.slopes[:, k], atol=1e-8)
        np.testing.assert_allclose(
            (slopes[0] - slopes[1]) / (2 * step), now.curvatures[:, k], atol=1e-8
        )


@pytest.mark.parametrize("name", LOSSES)
def test_precisions_grow_by_what_the_texts_say(name):
    loss, before = LOSSES[name], start()
    features, targets, weights = draw(loss=loss)
    after = update(before, features, targets, weights, loss)
    curvatures = weights * loss(after.predict(features), targets).curvatures
    inputs = np.column_stack([features.toarray(), np.ones(N_TEXTS)])
    grown = online.OVERLAP * np.einsum("nr,nf->rf", curvatures, inputs**2)
    np.testing.assert_allclose(after.precision - before.precision, grown, rtol=1e-4, atol=1e-5)
    assert after.precision.dtype == np.float32


def test_a_feature_of_no_new_text_stays_and_so_do_the_earlier_arrays():
    before = start()
    kept = [array.copy() for array in before]
    after = update(before, *draw(), cross_entropy)
    assert (after.coef[:, -1] == before.coef[:, -1]).all()
    assert (after.precision[:, -2] == before.precision[:, -2]).all()
    assert (after.coef[:, :-1] != before.coef[:, :-1]).all()
    for array, copy in zip(before, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_texts_without_features_move_the_intercept_only():
    before = flat()
    nothing = sparse.csr_array((4, N_FEATURES))
    after = update(before, nothing, np.eye(3)[[0, 0, 0, 1]], np.ones((4, 1)), cross_entropy)
    assert (after.coef == 0).all()
    np.testing.assert_allclose(softmax(after.intercept)[:2], [0.75, 0.25], atol=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_first_update_is_the_fit_of_scikit_learn(n_classes):
    n_rows = 1 if n_classes == 2 else n_classes
    loss = logistic if n_classes == 2 else cross_entropy
    features, targets, weights = draw(loss=loss, n_rows=n_rows, n_texts=200)
    labels = targets[:, 0] if n_classes == 2 else targets.argmax(axis=1)
    after = update(flat(n_rows), features, targets, weights, loss)
    fitted = LogisticRegression(C=10.0, tol=1e-8, max_iter=5000)
    fitted.fit(features, labels, sample_weight=weights[:, 0])
    np.testing.assert_allclose(after.coef, fitted.coef_, atol=2e-3)
    apart = after.intercept - after.intercept.mean() if n_rows > 1 else after.intercept
    np.testing.assert_allclose(apart, fitted.intercept_, atol=2e-3)


def test_the_first_update_of_numbers_is_ridge_regression():
    features, _, weights = draw()
    numbers = np.random.default_rng(3).normal(size=(N_TEXTS, N_ROWS))
    after = update(flat(precision=0.7), features, numbers, weights, squared)
    fitted = Ridge(alpha=0.7, tol=1e-8).fit(features, numbers, sample_weight=weights[:, 0])
    np.testing.assert_allclose(after.coef, fitted.coef_, atol=1e-3)
    np.testing.assert_allclose(after.intercept, fitted.intercept_, atol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_inside_of_a_portion_does_not_matter(name):
    loss = LOSSES[name]
    features, targets, weights = draw(loss=loss)
    order = np.random.default_rng(4).permutation(N_TEXTS)
    one = update(start(), features, targets, weights, loss)
    other = update(start(), features[order], targets[order], weights[order], loss)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_weight_of_two_is_the_text_twice():
    features, targets, _ = draw()
    weights = np.where(np.arange(N_TEXTS) < 7, 2.0, 1.0)[:, None]
    rows = np.concatenate([np.arange(N_TEXTS), np.arange(7)])
    once = update(start(), features, targets, weights, cross_entropy)
    twice = update(start(), features[rows], targets[rows], np.ones((47, 1)), cross_entropy)
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_ten_portions_end_near_one_fit(monkeypatch):
    """With features that do not overlap, a precision for each says nearly all."""
    monkeypatch.setattr(online, "OVERLAP", 1.0)
    rng = np.random.default_rng(5)
    columns = rng.integers(N_FEATURES, size=3000)
    features = sparse.csr_array((np.ones(3000), (np.arange(3000), columns)))
    odds = rng.normal(size=N_FEATURES)
    targets = (rng.random(3000) < expit(odds[columns])).astype(float)[:, None]
    in_portions, ones = flat(1, of_intercept=1e6), np.ones((3000, 1))
    first = update(in_portions, features[:300], targets[:300], ones[:300], logistic)
    for rows in np.array_split(np.arange(3000), 10):
        in_portions = update(in_portions, features[rows], targets[rows], ones[rows], logistic)
    at_once = update(flat(1, of_intercept=1e6), features, targets, ones, logistic)
    np.testing.assert_allclose(in_portions.coef, at_once.coef, atol=0.1)
    assert np.abs(first.coef - at_once.coef).max() > 0.3
    np.testing.assert_allclose(in_portions.precision, at_once.precision, rtol=0.35)
