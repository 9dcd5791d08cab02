"""The temperature of the network, and the weights of network and ensemble member."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from sklstm.model.blending import (
    MIN_TEXTS_FOR_TEMPERATURE,
    NETWORK_ONLY,
    PENALTY_AFTER_FOLDS,
    PENALTY_OF_BLEND,
    Blend,
    compare_members,
    expect_weights,
    fit_blend,
    fit_temperature,
    fit_weights,
    pool,
)
from sklstm.ngrams.linear import make_ngram_member
from sklstm.ngrams.member import FittedMembers
from tests.builders import make_task

TWO, THREE = make_task(2), make_task(3)
EQUAL = (0.5, 0.5)


def draw_targets(probabilities, rng):
    """Return a class for each row of probabilities."""
    chosen = rng.random((len(probabilities), 1))
    return (probabilities.cumsum(axis=1) < chosen).sum(axis=1)


def draw_outputs(n_texts, seed=0):
    """Return outputs of an untrained network for two classes."""
    return np.random.default_rng(seed).normal(scale=0.1, size=(n_texts, 2))


def says(targets, surely=0.9):
    """Return the log-probabilities of a member that gives these targets that probability."""
    return np.log(np.where(np.eye(2)[targets], surely, 1 - surely))


def blend_of(outputs, of_member, targets, weights=None):
    weights = np.ones(len(targets)) if weights is None else weights
    of_members = [] if of_member is None else [of_member]
    return fit_blend(TWO, outputs, of_members, targets, weights, expected=EQUAL)


# The temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_temperature_is_found_again(temperature):
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(20_000, 3))
    targets = draw_targets(softmax(honest, axis=1), rng)
    found = fit_temperature(THREE, honest * temperature, targets, np.ones(20_000))
    assert found == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize(
    "targets",
    [np.arange(MIN_TEXTS_FOR_TEMPERATURE - 1) % 2, np.zeros(MIN_TEXTS_FOR_TEMPERATURE, dtype=int)],
    ids=["few texts", "one class"],
)
def test_too_few_texts_for_a_temperature(targets):
    assert blend_of(draw_outputs(len(targets)), None, targets) == (1.0, NETWORK_ONLY)


def test_temperature_lowers_the_loss():
    outputs = draw_outputs(MIN_TEXTS_FOR_TEMPERATURE)
    targets = outputs.argmax(axis=1)
    temperature, weights = blend_of(outputs, None, targets)
    assert temperature < 1.0 and weights == NETWORK_ONLY
    losses = [TWO.losses(scaled, targets).mean() for scaled in (outputs / temperature, outputs)]
    assert losses[0] < losses[1]


# The weights


def test_the_weights_that_made_the_targets_are_found():
    rng = np.random.default_rng(0)
    outputs, other = rng.normal(size=(2, 40_000, 3))
    of_member = log_softmax(other, axis=1)
    targets = draw_targets(softmax(1.5 * outputs + 0.7 * of_member, axis=1), rng)
    found = fit_weights(
        THREE, [outputs, of_member], targets, np.ones(len(targets)), expected=(0.5, 0.5)
    )
    assert found == pytest.approx((1.5, 0.7), abs=0.05)


def test_what_says_nothing_is_left_out_and_weights_of_texts_count():
    rng, n_texts = np.random.default_rng(0), 50_000  # so many that the penalty hardly counts
    targets = rng.integers(2, size=n_texts)
    useful = 2.0 * np.eye(2)[targets] + rng.normal(size=(n_texts, 2))
    misleading = log_softmax(-useful + rng.normal(size=useful.shape), axis=1)
    equal = {"expected": EQUAL}
    assert fit_weights(TWO, [useful, misleading], targets, np.ones(n_texts), **equal)[1] < 0.05
    weights = rng.multinomial(n_texts, np.full(n_texts, 1 / n_texts)).astype(float)
    noise = log_softmax(rng.normal(size=useful.shape), axis=1)
    repeated = np.repeat(np.arange(n_texts), weights.astype(int))
    once = fit_weights(TWO, [useful, noise], targets, weights, **equal)
    again = fit_weights(
        TWO,
        [useful[repeated], noise[repeated]],
        targets[repeated],
        np.ones(len(repeated)),
        **equal,
    )
    assert once == pytest.approx(again, abs=0.05)


def test_with_few_texts_the_weights_stay_near_the_expected_ones():
    sure = np.log([[0.9, 0.1], [0.1, 0.9]])
    found = fit_weights(TWO, [sure, -sure], np.array([0, 1]), np.ones(2), expected=(0.3, 0.7))
    assert found == pytest.approx((0.3, 0.7), abs=0.05)
    assert found[0] > 0.3 and found[1] < 0.7


def test_weights_of_texts_count_in_the_blend():
    targets, half = np.arange(200) % 2, np.arange(200) < 100
    of_member = says(np.where(half, targets, 1 - targets))  # right on one half only
    for counts, is_trusted in ((half, True), (~half, False)):
        weights = np.where(counts, 1.0, 0.01)
        _, (_, weight) = blend_of(draw_outputs(200), of_member, targets, weights)
        assert (weight > 0.6) if is_trusted else (weight < 0.4)


def test_texts_of_weight_0_count_as_absent():
    targets, outputs = np.arange(1000) % 2, draw_outputs(1000)
    expected = blend_of(outputs[:60], says(targets[:60]), targets[:60])
    assert expected[0] == 1.0 and expected[1] != EQUAL
    found = blend_of(outputs, says(targets), targets, (np.arange(1000) < 60).astype(float))
    assert found[0] == 1.0
    assert found[1] == pytest.approx(expected[1], abs=1e-6)


def test_the_scale_of_the_outputs_changes_the_temperature_and_not_the_weights():
    outputs = draw_outputs(MIN_TEXTS_FOR_TEMPERATURE)
    targets = outputs.argmax(axis=1)
    targets[::5] = 1 - targets[::5]
    of_member = says(targets, surely=0.6)
    temperature, weights = blend_of(outputs, of_member, targets)
    hotter, same = blend_of(3.0 * outputs, of_member, targets)
    assert hotter == pytest.approx(3 * temperature, rel=1e-3)
    assert same == pytest.approx(weights, abs=1e-3)


def test_expected_weights():
    ngrams, own = ("ngrams", make_ngram_member("numbers")), ("own", object())
    assert expect_weights([]) == NETWORK_ONLY
    assert expect_weights([ngrams]) == (0.2, 0.8)
    assert expect_weights([own]) == EQUAL
    assert expect_weights([own, ngrams]) == (0.1, 0.5, 0.4)
    assert expect_weights([own, own]) == (1 / 3,) * 3
    assert expect_weights([ngrams, own, ngrams]) == (0.1, 0.2, 0.5, 0.2)


def test_each_weight_may_have_a_penalty_of_its_own():
    targets = np.arange(60) % 2
    parts, expected = [says(targets), says(targets)], (0.2, 0.2)
    held, free = (
        fit_weights(TWO, parts, targets, np.ones(60), expected=expected, penalty=penalty)
        for penalty in ((3.0, 3000.0), 3.0)
    )
    assert held[1] == pytest.approx(0.2, abs=0.01) and free[1] > 0.3
    assert held[0] > free[0] == pytest.approx(free[1])


def test_members_that_are_random_or_copies_do_little_harm():
    """Weights are found on some texts, also out of fold, and measured on others."""
    rng, n_texts = np.random.default_rng(0), 4000
    outputs, of_member = rng.normal(size=(2, n_texts, 2))
    targets = draw_targets(softmax(outputs + 1.5 * of_member, axis=1), rng)
    noise = rng.normal(size=(n_texts, 2))
    n_held_out, n_known = 50, 500  # of the latter all are predicted out of fold
    known = SimpleNamespace(targets=targets[:n_known], weights=np.ones(n_known))

    def find(members):
        named = tuple((str(k), object()) for k in range(len(members)))
        out_of_fold = [part[:n_known] for part in members]
        expected = compare_members(
            TWO, FittedMembers(named, [], out_of_fold, known), expect_weights(named)
        )
        return fit_weights(
            TWO,
            [part[:n_held_out] for part in (outputs, *members)],
            targets[:n_held_out],
            np.ones(n_held_out),
            expected=expected,
            penalty=(PENALTY_OF_BLEND, *[PENALTY_AFTER_FOLDS] * len(members)),
        )

    def loss(members, weights):
        pooled = pool([outputs, *members], weights)[n_known:]
        return TWO.losses(pooled, targets[n_known:]).mean()

    members = [of_member, noise]
    found = find(members)
    assert loss(members, found) < loss(members, (*found[:2], 0.0)) + 0.006
    copies = [of_member] * 3
    losses = [loss(some, find(some)) for some in (copies[:2], copies)]
    assert losses[1] == pytest.approx(losses[0], abs=0.006)


# The prediction


def test_a_blend_pools_the_tempered_network_with_its_member():
    p = np.array([[0.2, 0.8], [0.5, 0.5]])
    member = SimpleNamespace(predict_proba=lambda texts: p, classes_=TWO.classes)
    outputs = draw_outputs(2)
    found = Blend(2.0, (0.3, 0.6), (("own", member),)).apply(outputs, ["x", "y"], TWO)
    np.testing.assert_allclose(found, 0.3 * outputs / 2.0 + 0.6 * np.log(p), rtol=1e-12)


def test_a_member_of_weight_0_is_not_asked():
    outputs = draw_outputs(2)
    found = Blend(2.0, (1.0, 0.0), (("own", object()),)).apply(outputs, ["x", "y"], TWO)
    np.testing.assert_array_equal(found, outputs / 2.0)


def test_by_default_the_outputs_are_left_as_they_are():
    outputs = draw_outputs(2)
    np.testing.assert_array_equal(Blend().apply(outputs, ["x", "y"], TWO), outputs)


def test_predictions_are_pooled_in_a_weighted_geometric_mean():
    rng = np.random.default_rng(0)
    p, q = (softmax(rng.normal(size=(5, 3)), axis=1) for _ in range(2))
    pooled = pool([np.log(p), np.log(q)], (0.3, 0.6))
    expected = p**0.3 * q**0.6
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(pooled, axis=1), expected, rtol=1e-12)
    np.testing.assert_allclose(pool([np.log(p)], (1.0,)), np.log(p))


@pytest.mark.parametrize("member", [None, {"any": "estimator"}])
def test_a_pickle_of_a_blend_of_one_member_is_read(member):
    blend = Blend.__new__(Blend)
    blend.__setstate__({"temperature": 2.0, "weights": (0.3, 0.7), "member": member})
    assert blend.member is member and blend.temperature == 2.0 and blend.report == ()
    assert blend.weights == ((0.3,) if member is None else (0.3, 0.7))
    again = pickle.loads(pickle.dumps(blend))
    assert (again.weights, again.members) == (blend.weights, blend.members)
