"""Numbers: squared or absolute error of what is standardised."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from sklstm.tasks.predicted import PredictedNumbers

# Most strata that a split keeps in proportion: tenths of the texts, by their numbers.
MOST_STRATA = 10
# Relative size of what is no difference between numbers.
ROUNDING = 10 * np.finfo(float).eps
#: The losses of a number.
ERRORS = ("squared_error", "absolute_error")


@dataclass(frozen=True, eq=False)
class Regression:
    """One number or several for each text. Outputs and targets are standardised numbers.

    Parameters
    ----------
    mean, scale : ndarray of shape (n_outputs,)
        Mean and standard deviation of each column of y. The scale of a constant column is 0, so
        that it is predicted exactly.
    error : {'squared_error', 'absolute_error'}
        The loss of a number.
    is_flat : bool
        Whether predictions have one dimension, as y had.
    """

    mean: np.ndarray
    scale: np.ndarray
    error: str = "squared_error"
    is_flat: bool = True
    kind = "numbers"
    response_method = "predict"
    example = "make_pipeline(TfidfVectorizer(), Ridge())"

    @classmethod
    def of(cls, numbers: np.ndarray, weights: np.ndarray, *, error: str = "squared_error"):
        """Return the task of checked numbers (n,) or (n, k) whose texts have these weights."""
        return cls(*mean_and_scale(as_columns(numbers), weights), error, numbers.ndim == 1)

    @property
    def n_outputs(self) -> int:
        """How many numbers a text has."""
        return len(self.mean)

    def encode(self, labels, *, name="y"):
        """Return the standardised numbers (n, n_outputs).

        Raises
        ------
        ValueError
            If there are more or fewer columns than are known, or a column that was constant in the
            first fit is not.
        """
        columns = as_columns(labels)
        if columns.shape[1] != self.n_outputs:
            raise ValueError(
                f"{name} must have as many numbers for each text as y of the first fit, "
                f"{self.n_outputs}; got {columns.shape[1]}."
            )
        targets = self._standardise(columns)
        moved = (self.scale == 0) & (targets != 0).any(axis=0)
        if moved.any():
            column = int(np.flatnonzero(moved)[0])
            raise ValueError(
                f"{name} must be constant in column {column}, as in the first fit, which found "
                f"{self.mean[column]} only; got other numbers. Start anew: fit with "
                "warm_start=False."
            )
        return targets

    def _standardise(self, columns):
        """Return numbers less the mean, divided by the scale; of constants, 0 if they are equal."""
        distance = columns - self.mean
        close = np.abs(distance) <= ROUNDING * np.abs(self.mean)
        distance[(self.scale == 0) & close] = 0.0
        return distance / np.where(self.scale > 0, self.scale, 1.0)

    def decode(self, targets):
        """Return the numbers (n,) or (n, n_outputs)."""
        numbers = targets * self.scale + self.mean
        return numbers[:, 0] if self.is_flat else numbers

    def weigh(self, targets):
        """Return 1 for each text."""
        return np.ones(len(targets))

    def weigh_for_member(self, targets, weights):
        """Return the weights."""
        return weights

    def strata(self, targets, fraction):
        """Return which tenth of the texts each is in, or which of fewer and larger parts.

        Each part is so large that its share is one text at least. With several columns, it is an
        indicator of the parts by each column.
        """
        n_parts = max(1, min(MOST_STRATA, int(fraction * len(targets))))
        shares = np.arange(1, n_parts) / n_parts
        parts = [np.searchsorted(np.quantile(column, shares), column) for column in targets.T]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([part[:, None] == np.arange(n_parts) for part in parts], axis=1)

    def absent(self, targets):
        """Return no labels: any number can be a target."""
        return []

    def can_scale(self, targets):
        """Whether outputs are to be divided: never, since numbers have a scale of their own."""
        return False

    def loss(self, outputs, targets):
        """Return the mean error of the numbers of each text, (B,)."""
        return self._errors(outputs - targets.to(outputs.dtype)).mean(dim=1)

    def losses(self, outputs, targets):
        """Return the mean error of the numbers of each text, (n,)."""
        return self._errors(outputs - targets).mean(axis=1)

    def _errors(self, difference):
        return difference**2 if self.error == "squared_error" else abs(difference)

    def slopes(self, outputs, targets, along):
        """Return the derivatives (n,) of the losses."""
        difference = outputs - targets
        squared = self.error == "squared_error"
        return ((2 * difference if squared else np.sign(difference)) * along).mean(axis=1)

    def divergence(self, outputs, moved):
        """Return the mean squared distance (B,)."""
        return ((moved - outputs.detach()) ** 2).mean(dim=1)

    def measure(self, outputs, targets, weights):
        """Return the weighted mean of the loss, of standardised numbers."""
        return {"valid_loss": float(np.average(self.losses(outputs, targets), weights=weights))}

    def read_response(self, response, classes):
        """Return the standardised predictions of a member.

        Raises
        ------
        ValueError
            If it predicts more or fewer numbers.
        """
        columns = as_columns(np.asarray(response, dtype=float))
        if columns.shape[1:] != (self.n_outputs,):
            raise ValueError(
                f"blend must predict as many numbers for each text as y has, {self.n_outputs}; got "
                f"an array of shape {np.shape(response)}. Give an estimator such as {self.example}."
            )
        return self._standardise(columns)

    def decide(self, outputs):
        """Return the numbers (n,) or (n, n_outputs)."""
        return self.decode(outputs)

    def as_estimator(self, outputs):
        """Return a fitted regressor that predicts these outputs, for scorers."""
        return PredictedNumbers(self, outputs)

    def choose_columns(self, outputs, target=None):
        """Return the column (n,) of y that is meant, 0 where there is one only."""
        if target is None and self.n_outputs == 1:
            target = 0
        is_whole = isinstance(target, Integral) and not isinstance(target, bool)
        if not (is_whole and 0 <= target < self.n_outputs):
            raise ValueError(
                "target must be the number of a column of y, from 0 to "
                f"{self.n_outputs - 1}; got {target!r:.60}."
            )
        return np.full(len(outputs), int(target))

    def explained(self, outputs, columns):
        """Return the predicted number (B,) of one column of each text."""
        numbers = outputs * outputs.new_tensor(self.scale) + outputs.new_tensor(self.mean)
        return numbers.gather(1, columns.unsqueeze(1))[:, 0]

    def name_column(self, column):
        """Return the column."""
        return int(column)

    def probability_of(self, number):
        """Return None: numbers have no probability."""
        return None


def as_columns(numbers: np.ndarray) -> np.ndarray:
    """Return numbers as a table."""
    return numbers[:, None] if numbers.ndim == 1 else numbers


def mean_and_scale(columns: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column; exactly 0 where it is constant."""
    weights = weights / weights.max()  # equal ones give the same bits as none
    mean = np.average(columns, axis=0, weights=weights)
    distance = columns - mean
    largest = np.abs(distance).max(axis=0)
    # Of equal numbers the mean is rounded. The largest is taken out, since squares underflow.
    is_constant = largest <= ROUNDING * np.abs(mean)
    unit = np.where(is_constant, 1.0, largest)
    scale = unit * np.sqrt(np.average((distance / unit) ** 2, axis=0, weights=weights))
    return mean, np.where(is_constant, 0.0, scale)
