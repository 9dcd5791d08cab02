"""Network and ensemble members in one prediction: the temperature and the weights of all."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from sklstm.composition import NGRAMS
from sklstm.ngrams.member import FittedMembers, ask_member, counts_ngrams
from sklstm.tasks.protocol import Task

# Fewer texts say too little about a temperature (Guo et al. 2017 use thousands).
MIN_TEXTS_FOR_TEMPERATURE = 100
# The weight of the network where there is no member.
NETWORK_ONLY = (1.0,)
# The parts of network and n-grams in what both of them weigh, before any validation text is seen.
# With few texts the network has learnt far less than the n-grams; with thousands, the fitted
# weights come out close to these.
WITH_NGRAMS = (0.2, 0.8)
# Log loss, summed over all texts, that a weight costs when it is 1 away from the expected one; and
# the same for members whose expected weight comes from all texts, out of fold, which are ten times
# as many as those held out.
PENALTY_OF_BLEND = 30.0
PENALTY_AFTER_FOLDS = 100.0


@dataclass(frozen=True, eq=False)
class Blend:
    """How the outputs of a network become a prediction.

    Parameters
    ----------
    temperature : float
        The outputs of the network are divided by it.
    weights : tuple of floats
        Of the network and of each member in the pool of all.
    members : tuple of (str, estimator)
        The fitted ensemble members and their names.
    report : tuple of dict
        How good each part and the pool are on the texts held out; empty without such texts.
    """

    temperature: float = 1.0
    weights: tuple[float, ...] = NETWORK_ONLY
    members: tuple[tuple[str, object], ...] = ()
    report: tuple[dict, ...] = ()

    def __setstate__(self, state):
        """Read the pickle of a blend, also of one that could have one member only."""
        state = dict(state)
        if "member" in state:
            member = state.pop("member")
            name = NGRAMS if counts_ngrams(member) else type(member).__name__
            state["members"] = () if member is None else ((name, member),)
            state["weights"] = state["weights"][: 1 + len(state["members"])]
        vars(self).update(state)

    @property
    def member(self):
        """The only member; None without one.

        Raises
        ------
        AttributeError
            If there are several.
        """
        if len(self.members) > 1:
            names = ", ".join(name for name, _ in self.members)
            raise AttributeError(f"there are several members, {names}; use members_ instead")
        return self.members[0][1] if self.members else None

    @property
    def weighted_members(self) -> list[tuple[str, object, float]]:
        """Name, estimator and weight of each member whose weight is not 0."""
        named = zip(self.members, self.weights[1:], strict=True)
        return [(name, member, weight) for (name, member), weight in named if weight > 0]

    def apply(self, outputs: np.ndarray, texts: list[str], task: Task) -> np.ndarray:
        """Return the pooled outputs (n_texts, n_outputs) from those of the network."""
        members = self.weighted_members
        parts = [outputs / self.temperature]
        parts += [ask_member(member, texts, task, name) for name, member, _ in members]
        return pool(parts, (self.weights[0], *(weight for *_, weight in members)))


def pool(parts: list[np.ndarray], weights: tuple[float, ...]) -> np.ndarray:
    """Return the weighted sum of outputs (n_texts, n_outputs), those of network and members.

    Of logits and log-odds it is a weighted geometric mean of the probabilities, up to a constant
    (Genest & Zidek 1986); of numbers, with weights that add up to 1, their mean.
    """
    return sum(weight * part for weight, part in zip(weights, parts, strict=True))


def expect_weights(members) -> tuple[float, ...]:
    """Return the weights that hold where no validation text says more.

    Each estimator of which nothing is known weighs as much as network and n-grams together.

    Parameters
    ----------
    members : sequence of (str, estimator)
        Names and members.
    """
    counting = [counts_ngrams(member) for _, member in members]
    if not any(counting):
        return (1.0 / (1 + len(members)),) * (1 + len(members))
    share = 1.0 / (1 + counting.count(False))
    of_network, of_ngrams = (part * share for part in WITH_NGRAMS)
    of_each = of_ngrams / counting.count(True)
    return of_network, *(of_each if counts else share for counts in counting)


def blend_by_validation(
    task: Task,
    network,
    members: FittedMembers,
    validation,  # None: no text says how good each of them is
) -> Blend:
    """Return a network and the members as a blend, with a report on the held-out texts."""
    expected, of_members = expect_weights(members.named), PENALTY_OF_BLEND
    if members.out_of_fold:
        expected, of_members = compare_members(task, members, expected), PENALTY_AFTER_FOLDS
    penalty = (PENALTY_OF_BLEND, *[of_members] * len(members.named))
    if validation is None:
        return Blend(1.0, expected, members.named)
    outputs, examples = validation.outputs(network), validation.examples
    targets, weights = examples.targets, examples.weights
    found = fit_blend(
        task, outputs, members.outputs, targets, weights, expected=expected, penalty=penalty
    )
    blend = Blend(*found, members.named)
    return replace(blend, report=report_parts(task, blend, outputs, members.outputs, examples))


def compare_members(
    task: Task, members: FittedMembers, expected: tuple[float, ...]
) -> tuple[float, ...]:
    """Return the expected weights where members have predicted all texts out of fold.

    Only the members have done so. The network keeps its expected weight.
    """
    of_network, *of_members = expected
    total = sum(of_members)
    examples = members.examples
    found = fit_weights(
        task,
        members.out_of_fold,
        examples.targets,
        examples.weights,
        expected=tuple(weight / total for weight in of_members),
    )
    return of_network, *(total * weight for weight in found)


def report_parts(
    task: Task, blend: Blend, outputs: np.ndarray, of_members: list[np.ndarray], examples
) -> tuple[dict, ...]:
    """Return what is measured of the network, of each member and of their pool, on some texts."""
    names = ["network", *(name for name, _ in blend.members), "blend"]
    parts = [outputs / blend.temperature, *of_members]
    parts.append(pool(parts, blend.weights))
    rows = []
    for name, part, weight in zip(names, parts, (*blend.weights, None), strict=True):
        measured = task.measure(part, examples.targets, examples.weights)
        measured = {key.removeprefix("valid_"): value for key, value in measured.items()}
        rows.append({"model": name, "weight": weight} | measured)
    return tuple(rows)


def fit_blend(
    task: Task,
    outputs: np.ndarray,  # (n_texts, n_outputs) of the network
    of_members: list[np.ndarray],  # each (n_texts, n_outputs)
    targets: np.ndarray,
    weights: np.ndarray,  # (n_texts,) of the texts
    *,
    expected: tuple[float, ...],
    penalty: float | tuple[float, ...] = PENALTY_OF_BLEND,
) -> tuple[float, tuple[float, ...]]:
    """Return the network's temperature, and the weights of network and members.

    The temperature is 1 where the texts are too few or lack a class, and for numbers. A penalty
    pulls the weights towards the ``expected`` ones; they need no smallest number of texts.
    """
    seen = targets[weights > 0]
    temperature = 1.0
    if len(seen) >= MIN_TEXTS_FOR_TEMPERATURE and task.can_scale(seen):
        temperature = fit_temperature(task, outputs, targets, weights)
    if not of_members:
        return temperature, NETWORK_ONLY
    parts = [outputs / temperature, *of_members]
    found = fit_weights(task, parts, targets, weights, expected=expected, penalty=penalty)
    return temperature, found


def update_weights(
    blend: Blend,
    task: Task,
    outputs: np.ndarray,  # (n_texts, n_outputs) of the network
    of_member: np.ndarray,  # (n_texts, n_outputs)
    targets: np.ndarray,
    weights: np.ndarray,  # (n_texts,) of the texts
) -> tuple[float, ...]:
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
    penalty: float | tuple[float, ...] = PENALTY_OF_BLEND,
) -> tuple[float, ...]:
    """Return the weights of the pool with the lowest loss.

    The loss is convex in the weights. A small penalty, one number or one for each weight, pulls
    them towards the ``expected`` ones, which matters where there are few texts. Texts of unequal
    weight count as the number of equal ones that would say as much (Kish's effective number).
    """
    shares = weights / weights.sum()

    def loss_and_gradient(scales):
        pooled = pool(parts, scales)
        gradient = [shares @ task.slopes(pooled, targets, part) for part in parts]
        loss = _mean_loss(task, pooled, targets, weights)
        loss += (penalties * (scales - middle) ** 2).sum()
        return loss, np.array(gradient) + 2 * penalties * (scales - middle)

    n_effective = weights.sum() ** 2 / (weights**2).sum()
    middle, penalties = np.array(expected), np.array(penalty) / n_effective
    best = minimize(loss_and_gradient, x0=middle, jac=True, bounds=[(0.0, 1e2)] * len(parts))
    return tuple(best.x.tolist())


def _mean_loss(task, outputs, targets, weights):
    return float(np.average(task.losses(outputs, targets), weights=weights))
