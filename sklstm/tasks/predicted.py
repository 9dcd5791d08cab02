"""Outputs that are known as fitted estimators, for the scorers of scikit-learn."""

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin


class _Predicted(BaseEstimator):
    """What all have: the task and the outputs for the only texts that are asked for."""

    def __init__(self, task, outputs):
        self.task = task
        self.outputs = outputs

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, X):
        return self.task.decide(self.outputs)


class PredictedClasses(ClassifierMixin, _Predicted):
    """A classifier of classes or label sets.

    Parameters
    ----------
    task : Multiclass or Multilabel
        Makes predictions of the outputs.
    outputs : ndarray of shape (n, n_outputs)
        The outputs.
    """

    @property
    def classes_(self):
        """The labels."""
        return self.task.classes

    def decision_function(self, X):
        """Return the task's decisions."""
        return self.task.decision(self.outputs)

    def predict_proba(self, X):
        """Return the task's probabilities."""
        return self.task.probabilities(self.outputs)


class PredictedNumbers(RegressorMixin, _Predicted):
    """A regressor.

    Parameters
    ----------
    task : Regression
        Makes predictions of the outputs.
    outputs : ndarray of shape (n, n_outputs)
        The outputs.
    """
