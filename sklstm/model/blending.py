"""Network and ensemble member in one prediction: the temperature and the weights of both."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from sklstm.ngrams.member import ask_member
from sklstm.tasks.protocol import Task

# Fewer texts say too little about a temperature (Guo et al. 2017 use thousands).
MIN_TEXTS_FOR_TEMPERATURE = 100
# The weights of network and member: without a member; with an estimator of which nothing is known;
# and with n-grams, before any validation text is seen. With few texts the network has learnt far
# less than the n-grams; with thousands, the fitted weights come out close to these.
NETWORK_ONLY = (1.0, 0.0)
EQUAL = (0.5, 0.5)
WITH_NGRAMS = (0.2, 0.8)
# Log loss, summed over all texts, that a weight costs when it is 1 away from the expected one.
PENALTY_OF_BLEND = 30.0


@dataclass(frozen=True, eq=False)
class Blend:
    """How the outputs of a network become a prediction.

    Parameters
    ----------
    temperature : float
        The outputs of the network are divided by it.
    weights : tuple of two floats
        Of network and member in the pool of both.
    member : estimator or None
        The fitted ensemble member.
    """

    temperature: float = 1.0
    weights: tuple[float, float] = NETWORK_ONLY
    member: object = None

    def apply(self, outputs: np.ndarray, texts: list[str], task: Task) -> np.ndarray:
        """Return the pooled outputs (n_texts, n_outputs) from those of the network."""
        outputs = outputs / self.temperature
        of_network, of_member = self.weights
        if of_member <= 0:
            return pool([outputs], (of_network,))
        parts = [outputs, ask_member(self.member, texts, task)]
        return pool(parts, (of_network, of_member))


def pool(parts: list[np.ndarray], weights: tuple[float, ...]) -> np.ndarray:
    """Return the weighted sum of outputs (n_texts, n_outputs), those of network and members.

    Of logits and log-odds it is a weighted geometric mean of the probabilities, up to a constant
    (Genest & Zidek 1986); of numbers, with weights that add up to 1, their mean.
    """
    return sum(weight * part for weight, part in zip(weights, parts, strict=True))


def expect_weights(blend, member) -> tuple[float, float]:
    """Return the weights that hold where no validation text says more."""
    if member is None:
        return NETWORK_ONLY
    return WITH_NGRAMS if isinstance(blend, str) else EQUAL


def blend_by_validation(
    task: Task,
    network,
    fitted: tuple[object, np.ndarray | None],  # the member and its outputs, as it was fitted
    validation,  # None: no text says how good each of them is
    *,
    expected: tuple[float, float],
) -> tuple[Blend, np.ndarray | None]:
    """Return a network and a member as a blend, and the network's outputs for the held-out texts.

    These outputs are None without such texts.
    """
    member, of_member = fitted
    if validation is None:
        return Blend(1.0, expected, member), None
    outputs, examples = validation.outputs(network), validation.examples
    targets, weights = examples.targets, examples.weights
    found = fit_blend(task, outputs, of_member, targets, weights, expected=expected)
    return Blend(*found, member), outputs


def fit_blend(
    task: Task,
    outputs: np.ndarray,  # (n_texts, n_outputs) of the network
    of_member: np.ndarray | None,  # (n_texts, n_outputs) None without a member
    targets: np.ndarray,
    weights: np.ndarray,  # (n_texts,) of the texts
    *,
    expected: tuple[float, float],
) -> tuple[float, tuple[float, float]]:
    """Return the network's temperature, and the weights of network and member.

    The temperature is 1 where the texts are too few or lack a class, and for numbers. A penalty
    pulls the weights towards the ``expected`` ones; they need no smallest number of texts.
    """
    seen = targets[weights > 0]
    temperature = 1.0
    if len(seen) >= MIN_TEXTS_FOR_TEMPERATURE and task.can_scale(seen):
        temperature = fit_temperature(task, outputs, targets, weights)
    if of_member is None:
        return temperature, NETWORK_ONLY
    parts = [outputs / temperature, of_member]
    return temperature, fit_weights(task, parts, targets, weights, expected=expected)


def update_weights(
    blend: Blend,
    task: Task,
    outputs: np.ndarray,  # (n_texts, n_outputs) of the network
    of_member: np.ndarray,  # (n_texts, n_outputs)
    targets: np.ndarray,
    weights: np.ndarray,  # (n_texts,) of the texts
) -> tuple[float, float]:
    """Return the weights of network and member after texts that neither has learnt from yet.

    They are pulled towards those of the blend. Equal targets leave these as they are, since the
    larger the weights, the surer the right predictions.
    """
    if len(np.unique(targets, axis=0)) < 2:
        return blend.weights
    parts = [outputs / blend.temperature, of_member]
    return fit_weights(task, parts, targets, weights, expected=blend.weights)


def fit_temperature(
    task: Task, outputs: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> float:
    """Return the number that, dividing the outputs, minimises their loss (Guo et al. 2017)."""
    best = minimize_scalar(
        lambda log_t: _mean_loss(task, outputs / np.exp(log_t), targets, weights),
        bounds=(-5.0, 5.0),
        method="bounded",
    )
    return float(np.exp(best.x))


def fit_weights(
    task: Task,
    parts: list[np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray,
    *,
    expected: tuple[float, ...],
) -> tuple[float, ...]:
    """Return the weights of the pool with the lowest loss.

    The loss is convex in the weights. A small penalty pulls them towards the ``expected`` ones,
    which matters where there are few texts. Texts of unequal weight count as the number of equal
    ones that would say as much (Kish's effective number).
    """
    shares = weights / weights.sum()

    def loss_and_gradient(scales):
        pooled = pool(parts, scales)
        gradient = [shares @ task.slopes(pooled, targets, part) for part in parts]
        loss = _mean_loss(task, pooled, targets, weights)
        loss += penalty * ((scales - middle) ** 2).sum()
        return loss, np.array(gradient) + 2 * penalty * (scales - middle)

    n_effective = weights.sum() ** 2 / (weights**2).sum()
    middle, penalty = np.array(expected), PENALTY_OF_BLEND / n_effective
    best = minimize(loss_and_gradient, x0=middle, jac=True, bounds=[(0.0, 1e2)] * len(parts))
    return tuple(best.x.tolist())


def _mean_loss(task, outputs, targets, weights):
    return float(np.average(task.losses(outputs, targets), weights=weights))
