"""scikit-learn's callbacks, which it has from version 1.9 on: what they see of a fit."""

import copy
from collections.abc import Callable

from skorch.callbacks import Callback

from sklstm.model.text_model import TextModel
from sklstm.training.trained import LastEpoch, Trained

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:
        """Nothing: this scikit-learn has no callbacks, so estimators have no set_callbacks."""


class SklearnCallbacks:
    """Calls scikit-learn's callbacks of an estimator in one of its fits.

    The fit is a task, and each epoch is a subtask of it. The method that makes this object must be
    decorated by ``fit_context``, which calls the callbacks' ``teardown`` however the method ends.

    Parameters
    ----------
    estimator : TextEstimator
        Its callbacks are called, where this scikit-learn has any.
    n_epochs : int
        The most epochs there will be.
    X, y, sample_weight : list of str, array-like or None
        What the callbacks get as the training data.
    """

    def __init__(self, estimator, n_epochs: int, X: list[str], y=None, sample_weight=None):
        weights = None if sample_weight is None else {"sample_weight": sample_weight}
        self.told = {"estimator": estimator, "X": X, "y": y, "metadata": weights}
        self.context = None
        if hasattr(estimator, "set_callbacks"):
            self.context = estimator._init_callback_context(max_subtasks=n_epochs)
            self.context.call_on_fit_task_begin(**self.told)

    def watch_epochs(self, model_of: Callable[[Trained], TextModel]) -> list[tuple[str, Callback]]:
        """Return what must be the last callback of the training, in a list that may be empty.

        Parameters
        ----------
        model_of : callable
            Returns the model that the estimator would have if training ended now.
        """
        return [] if self.context is None else [("epochs", _Epochs(self, model_of))]

    def end(self) -> None:
        """Say that the estimator is fitted."""
        if self.context is not None:
            self.context.call_on_fit_task_end(**self.told, reconstruction_attributes={})


class _Epochs(Callback):
    """Tells scikit-learn's callbacks of each epoch; ends the training where one of them asks."""

    def __init__(self, callbacks: SklearnCallbacks, model_of: Callable[[Trained], TextModel]):
        self.callbacks, self.model_of = callbacks, model_of

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Begin a subtask."""
        self.epoch_ = self.callbacks.context.subcontext(task_name="epoch")
        self.epoch_.call_on_fit_task_begin(**self.callbacks.told)

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """End it; raise LastEpoch where a callback returns True."""

        def reconstruct():  # called only if a callback wants the fitted estimator
            rows = [{k: row[k] for k in row if k != "batches"} for row in net.history]
            # A deep copy, since training changes the weights and moves the generators.
            model = self.model_of(Trained(rows, callbacks=[], interrupted=False, n_new=len(rows)))
            return {"model_": copy.deepcopy(model)}

        told = self.callbacks.told
        if self.epoch_.call_on_fit_task_end(**told, reconstruction_attributes=reconstruct):
            raise LastEpoch
