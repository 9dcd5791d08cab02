"""The member of n-grams learns from new texts, none of which is kept."""

import copy

import numpy as np
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import Pipeline

from sklstm.ngrams.label_sets import LinearLabelSets
from sklstm.ngrams.linear import make_logistic, make_ngram_member
from sklstm.ngrams.member import fit_member
from sklstm.ngrams.naive_bayes import (
    NaiveBayesLogisticRegression,
    count_log_ratios,
    mark_features,
)
from sklstm.ngrams.online import OVERLAP, Linear, cross_entropy, logistic, squared, update
from sklstm.ngrams.ridge import ValidatedRidge
from sklstm.ngrams.state import is_ngram_member, load_linear
from sklstm.ngrams.threads import one_blas_thread
from sklstm.tasks.protocol import Task
from sklstm.text.examples import Examples
from sklstm.text.vectorizer import SequenceVectorizer

#: The precisions of each linear model, (R, F + 1).
Precisions = tuple[np.ndarray, ...]

# The penalties of both logistic regressions, which are precisions before any text.
OF_VALUES = 1 / make_logistic().C
OF_RATIOS = 1 / NaiveBayesLogisticRegression().C
# The fit has no penalty of an intercept, but without one that of a class that no text has yet would
# be minus infinity.
OF_INTERCEPT = 0.01
# The smallest size of a log-count ratio: a feature that says nothing of a class in the first texts
# can still be learnt from later ones.
SMALLEST_RATIO = 0.5


def begin_member(
    examples: Examples, task: Task, vectorizer: SequenceVectorizer | None
) -> tuple[Pipeline, Precisions]:
    """Return a member of n-grams that has learnt from the first texts, and its precisions.

    Unlike a fit, it needs no text of every class. The first texts say which n-grams are features.
    """
    member = make_ngram_member(task.kind, vectorizer)
    ngrams, linear = (step for _, step in member.steps)
    if isinstance(linear, ValidatedRidge):  # numbers have no classes that can be absent
        return fit_member(member, examples, task), ()
    features = ngrams.fit_transform(examples.texts)
    _set_to_zero(linear, task, features.shape[1])
    targets, weights = _read(linear, examples, task)
    precision = np.empty((2, targets.shape[1], features.shape[1] + 1), dtype=np.float32)
    precision[0] = OF_VALUES
    precision[1, :, :-1] = OF_RATIOS / _find_ratios(features, targets, weights) ** 2
    precision[:, :, -1] = OF_INTERCEPT
    return member, _update(linear, tuple(precision), features, targets, weights)


def can_be_updated(member, task: Task) -> bool:
    """Whether a fitted member is one of n-grams that knows all classes."""
    if not isinstance(member, Pipeline) or not is_ngram_member(member):
        return False
    return not isinstance(member[-1], VotingClassifier) or (
        len(member[-1].classes_) == task.n_outputs
    )


def update_member(
    member: Pipeline, precisions: Precisions, examples: Examples, task: Task
) -> tuple[Pipeline, Precisions]:
    """Return a member that has learnt from new texts too, and its precisions.

    The earlier member stays as it is; both have the same features. Without precisions, as after a
    fit, they are estimated.
    """
    ngrams, linear = (step for _, step in member.steps)
    linear = copy.deepcopy(linear)
    features = ngrams.transform(examples.texts)
    targets, weights = _read(linear, examples, task)
    if not precisions:
        precisions = _estimate_precisions(ngrams, linear, features, targets, weights)
    precisions = _update(linear, precisions, features, targets, weights)
    return Pipeline([("ngrams", ngrams), ("linear", linear)]), precisions


def check_precisions(precisions: Precisions, member) -> None:
    """Raise ValueError unless precisions are those of a member of n-grams, or there are none."""
    if len(precisions) == 0:
        return
    models = [] if member is None else list_models(member[-1])
    shapes = [(len(coef), coef.shape[1] + 1) for coef, _ in (model.arrays for model in models)]
    if [precision.shape for precision in precisions] != shapes:
        raise ValueError("the precisions are those of other n-grams")
    for precision in precisions:
        if (
            precision.dtype != np.float32
            or not np.isfinite(precision).all()
            or precision.min() <= 0
        ):
            raise ValueError("the precisions are no precisions")


class _Model:
    """One of the linear models of a member: where its coefficients are, and what they multiply.

    ``prefix`` is that of the attributes' names.
    """

    def __init__(self, holder, loss, *, prefix="", penalty=OF_VALUES, marks=False):
        self.holder, self.loss, self.prefix = holder, loss, prefix
        self.penalty, self.marks = penalty, marks

    @property
    def arrays(self):
        return tuple(getattr(self.holder, self.prefix + name) for name in ("coef_", "intercept_"))

    def store(self, linear: Linear):
        """Give the model new coefficients."""
        setattr(self.holder, self.prefix + "coef_", linear.coef)
        setattr(self.holder, self.prefix + "intercept_", linear.intercept)

    def see(self, features):
        """Return what the coefficients multiply: the features' values, or marks of them."""
        return mark_features(features) if self.marks else features


def list_models(linear) -> list[_Model]:
    """Return the linear models of a member."""
    ratios = {"penalty": OF_RATIOS, "marks": True}
    if isinstance(linear, VotingClassifier):
        of_values, of_marks = linear.estimators_
        loss = logistic if len(linear.classes_) == 2 else cross_entropy
        return [_Model(of_values, loss), _Model(of_marks, logistic, **ratios)]
    if isinstance(linear, LinearLabelSets):
        return [_Model(linear, logistic), _Model(linear, logistic, prefix="ratio_", **ratios)]
    return [_Model(linear, squared, penalty=linear.alpha_)]


@one_blas_thread()
def _update(linear, precisions, features, targets, weights) -> Precisions:
    """Update all models of a member in place; return their precisions."""
    updated = []
    for model, precision in zip(list_models(linear), precisions, strict=True):
        before = Linear(*model.arrays, precision)
        after = update(before, model.see(features), targets, weights, model.loss)
        model.store(after)
        updated.append(after.precision)
    return tuple(updated)


def _set_to_zero(linear, task, n_features) -> None:
    """Make a fitted model of classes or label sets, whose coefficients are 0."""
    is_voting = isinstance(linear, VotingClassifier)
    n_rows = 1 if is_voting and task.n_outputs == 2 else task.n_outputs

    def zeros(prefix=""):
        shapes = {"coef_": (n_rows, n_features), "intercept_": n_rows}
        return {prefix + name: np.zeros(shape) for name, shape in shapes.items()}

    if is_voting:
        of_values = zeros() | {"n_iter_": np.zeros(1, dtype=np.int32)}
        state = {"classes": task.classes, "members": [of_values, zeros()]}
    else:
        state = zeros() | zeros("ratio_")
    load_linear(linear, state, n_features)


def _read(linear, examples, task) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets (n, R) of the models, and the weights (n, R) or (n, 1), of mean 1."""
    weights = task.weigh_for_member(examples.targets, examples.weights)
    weights = weights.reshape(len(weights), -1)
    weights = weights / weights.mean(axis=0)
    if isinstance(linear, VotingClassifier):
        targets = examples.targets[:, None] == np.arange(task.n_outputs)
        targets = targets[:, 1:] if task.n_outputs == 2 else targets
    elif isinstance(linear, LinearLabelSets):
        targets = examples.targets
    else:
        numbers = task.decode(examples.targets).reshape(len(weights), -1)
        targets = (numbers - linear.mean_) / np.where(linear.scale_ > 0, linear.scale_, 1.0)
    return targets.astype(np.float64), weights


def _find_ratios(features, targets, weights) -> np.ndarray:
    """Return the sizes of the log-count ratios (R, F), none below ``SMALLEST_RATIO``.

    A coefficient of the second model is a ratio times what has the penalty.
    """
    weights = np.broadcast_to(weights, targets.shape)
    pairs = zip(targets.T > 0, weights.T, strict=True)
    ratios = [count_log_ratios(features, has, weight, alpha=1.0) for has, weight in pairs]
    return np.maximum(np.abs(ratios), SMALLEST_RATIO)


def _estimate_precisions(ngrams, linear, features, targets, weights) -> Precisions:
    """Return the precisions after a fit, which keeps none.

    In how many texts of the fit each n-gram was is known from the IDF. How much each of these texts
    said is taken from the new texts: the mean curvature of their loss.
    """
    n_texts, squares, counts = ngrams.estimate_sums()
    precisions = []
    for model in list_models(linear):
        coef, intercept = model.arrays
        outputs = model.see(features) @ coef.T + intercept
        curvature = (weights * model.loss(outputs, targets).curvatures).mean(axis=0)
        sums = np.append(counts if model.marks else squares, n_texts)
        precision = OVERLAP * curvature[:, None] * sums
        precision[:, :-1] += model.penalty
        precision[:, -1] += OF_INTERCEPT
        precisions.append(precision.astype(np.float32))
    return tuple(precisions)
