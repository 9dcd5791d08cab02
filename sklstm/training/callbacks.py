"""What happens between updates and between epochs: callbacks of skorch, ours and the user's."""

import copy
import math
import warnings
from collections.abc import Callable

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import Tensor, nn

from sklstm.checks import level_of_user
from sklstm.network.state import has_usable_weights
from sklstm.training.fine_tuning import measure_depth
from sklstm.training.printing import PREFIX, build_printing
from sklstm.training.schedule import Schedule, TimeLimit
from sklstm.training.settings import TrainingSettings
from sklstm.training.trained import LastEpoch, TrainingStopped

# Gradients of recurrent networks explode now and then (Pascanu et al. 2013); this norm is the
# one of Miyato et al. (2017).
MAX_GRADIENT_NORM = 1.0


def build_callbacks(
    settings: TrainingSettings,
    *,
    n_batches: int,
    n_epochs: int,
    n_stages: int = 1,
    limit: TimeLimit | None = None,
    validation=None,
    last: list[tuple[str, Callback]] = (),
) -> list[tuple[str, Callback]]:
    """Return the callbacks of a training.

    Their order is the order in which an epoch ends: the average of the weights is put in place,
    validated, kept if it is the best, and printed.

    Parameters
    ----------
    settings : TrainingSettings
        How to train.
    n_batches, n_epochs : int
        Batches of an epoch, and the most epochs.
    n_stages : int
        In how many epochs the network unfreezes; 1 is all at once.
    limit : TimeLimit or None
        The training ends with the epoch in which its time is over.
    validation : Validation, LanguageValidation or None
        Evaluates the network after each epoch.
    last : list of (str, Callback)
        What is called after all others, by its name.

    Raises
    ------
    TypeError
        If one of the user's callbacks is none.
    """
    scoring = None
    if validation is not None:
        scoring = ValidationScoring(
            validation.evaluate,
            monitor=validation.monitor,
            keep_best=settings.keeps_best,
        )
    callbacks = {"clip": GradientClipping(MAX_GRADIENT_NORM), "diverged": Diverged(scoring)}
    if settings.lr_schedule is not None:
        schedule = Schedule(settings.lr_schedule, n_epochs * n_batches, limit)
        callbacks["schedule"] = LRScheduler("LambdaLR", lr_lambda=schedule, step_every="batch")
    callbacks |= {"rate": LearningRate(), "weights": WeightAveraging(settings.ema)}
    if n_stages > 1:
        callbacks["unfreezing"] = Unfreezing()
    if scoring is not None:
        callbacks["validation"] = scoring
        if settings.early_stopping:
            callbacks["early_stopping"] = EarlyStoppingAfterUnfreezing(
                n_stages=n_stages,
                monitor=validation.monitor,
                lower_is_better=validation.monitor == "valid_loss",
                patience=settings.n_iter_no_change,
                threshold=settings.tol,
                threshold_mode="abs",
            )
    if limit is not None:
        callbacks["time"] = EndInTime(limit)
    ours = [(PREFIX + name, callback) for name, callback in callbacks.items()]
    last = [(PREFIX + name, callback) for name, callback in last]
    shown = build_printing(settings.verbose, n_batches)
    return [*ours, *_copy_users(settings.callbacks or []), *shown, *last]


def _copy_users(callbacks: list) -> list:
    """Return copies of the user's callbacks, or say which one is none."""
    for position, item in enumerate(callbacks):
        named = isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], str)
        callback = item[1] if named else item
        is_class = isinstance(callback, type) and issubclass(callback, Callback)
        if not (is_class or isinstance(callback, Callback)):
            raise TypeError(
                f"callbacks[{position}] must be a callback of skorch, or a pair of a name and one; "
                f"got {item!r}."
            )
    return copy.deepcopy(callbacks)


class GradientClipping(Callback):
    """Scales the gradients so that all together have a norm of at most ``max_norm``.

    skorch's GradientNormClipping does not know the embedding's gradient, which is sparse.
    """

    def __init__(self, max_norm: float):
        self.max_norm = max_norm

    @torch.no_grad()
    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Scale the gradients in place."""
        grads = [parameter.grad for _, parameter in named_parameters if parameter.grad is not None]
        grads = [grad._values() if grad.is_sparse else grad for grad in grads]
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        torch._foreach_mul_(grads, (self.max_norm / (norm + 1e-6)).clamp(max=1.0))


class LearningRate(Callback):
    """Records the learning rate that an epoch ends with, the highest of all weights."""

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Record it as ``lr``."""
        rates = [float(group["lr"]) for group in net.optimizer_.param_groups]
        net.history.record("lr", max(rates))


class WeightAveraging(Callback):
    """Puts the weights between the epochs in place, or a moving average of them.

    During an epoch some rows of the embedding lag (``optimizer.py``); at its end all catch up. The
    average is exponential with bias correction: after n updates the newest weights count
    (1 - decay) / (1 - decay ** n), so that the influence of the first ones fades.

    Parameters
    ----------
    decay : float or None
        Weight of the past in the average at each update; None averages nothing.
    """

    def __init__(self, decay: float | None):
        self.decay = decay

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Forget earlier averages."""
        self.n_updates_ = 0
        self.training_weights_ = None
        embedding = net.module_.embedding
        # On a GPU updating all rows is cheap. And callbacks that ask for gradients, such as
        # skorch's GradientNormClipping, know dense ones only.
        if embedding.weight.device.type == "cpu" and not _gradients_are_read(net):
            net.optimizer_.begin(embedding, self.decay)
        # The optimiser averages the rows that lag.
        self.averaged_ = [p for p in net.module_.parameters() if not self._lags(net, p)]
        self.average_ = [p.detach().clone() for p in self.averaged_] if self.decay else []

    @staticmethod
    def _lags(net, parameter):
        return net.optimizer_.embedding is not None and (
            parameter is net.optimizer_.embedding.weight
        )

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Put the weights in training back."""
        if self.training_weights_ is not None:
            copy_weights(self.training_weights_, net.module_)
            self.training_weights_ = None

    @torch.no_grad()
    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Move the average towards the newest weights."""
        self.n_updates_ += 1
        if self.decay:
            share = (1 - self.decay) / (1 - self.decay**self.n_updates_)
            torch._foreach_lerp_(self.average_, self.averaged_, share)

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Let all rows catch up; show the average to the callbacks that follow."""
        if net.optimizer_.embedding is not None:
            net.optimizer_.rows.catch_up_all()
        if self.decay:
            self.training_weights_ = [p.detach().clone() for p in net.module_.parameters()]
            self._show_average(net)

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Leave the average in the network, also where training ended inside an epoch."""
        if net.optimizer_.embedding is not None:
            net.optimizer_.rows.catch_up_all()
        if self.decay and self.training_weights_ is None and self.n_updates_ > 0:
            self._show_average(net)
        net.optimizer_.finish()
        self.averaged_ = self.average_ = self.training_weights_ = None

    @torch.no_grad()
    def _show_average(self, net):
        for parameter, average in zip(self.averaged_, self.average_, strict=True):
            parameter.copy_(average)
        if net.optimizer_.embedding is not None:
            net.module_.embedding.weight.copy_(net.optimizer_.rows.average)


def _gradients_are_read(net: NeuralNet) -> bool:
    return any(
        type(callback).on_grad_computed is not Callback.on_grad_computed
        for _, callback in net.callbacks_
        if not isinstance(callback, GradientClipping)
    )


@torch.no_grad()
def copy_weights(source: list[Tensor], module: nn.Module) -> None:
    """Copy weights into those of a module, in the order of its parameters."""
    for weight, parameter in zip(source, module.parameters(), strict=True):
        parameter.copy_(weight)


class EndInTime(Callback):
    """Ends the training where its time is over.

    Parameters
    ----------
    limit : TimeLimit
        The time.
    """

    def __init__(self, limit: TimeLimit):
        self.limit = limit

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """End it."""
        if self.limit.used >= 1.0:
            raise LastEpoch


class ValidationScoring(Callback):
    """Evaluates the network at the end of each epoch, records the result, and keeps the best.

    skorch's EarlyStopping could keep weights too, but only those that beat the best by ``tol``.

    Parameters
    ----------
    evaluate : callable
        From the network to a dict of numbers.
    monitor : str
        Which of the numbers decides: "valid_loss" (lower is better) or "valid_score" (higher).
    keep_best : bool
        Whether training ends with the best weights instead of the last.
    """

    def __init__(
        self, evaluate: Callable[[nn.Module], dict[str, float]], *, monitor: str, keep_best: bool
    ):
        self.evaluate = evaluate
        self.monitor = monitor
        self.keep_best = keep_best

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Forget earlier weights."""
        self.best_ = -math.inf
        self.best_weights_ = None

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Evaluate, record and keep."""
        result = self.evaluate(net.module_)
        for name, value in result.items():
            net.history.record(name, value)
        value = result[self.monitor] * (-1 if self.monitor == "valid_loss" else 1)
        is_best = value > self.best_
        net.history.record(f"{self.monitor}_best", is_best)  # skorch's Checkpoint asks for it
        if is_best:
            self.best_ = value
        if is_best and self.keep_best:
            self.best_weights_ = [p.detach().clone() for p in net.module_.parameters()]

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Put the best back; drop weights and texts, which nobody needs any more."""
        if self.best_weights_ is not None:
            copy_weights(self.best_weights_, net.module_)
        self.evaluate = self.best_weights_ = None


class Unfreezing(Callback):
    """Trains pools and head only at first, and one layer more in each epoch that follows.

    A weight that does not require a gradient when training begins stays frozen.
    """

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Note which weights to unfreeze, and their depth."""
        n_layers = net.module_.lstm.num_layers
        named = net.module_.named_parameters()
        self.weights_ = [(measure_depth(name, n_layers), p) for name, p in named if p.requires_grad]
        self.deepest_ = 0

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Freeze all layers that are deeper than this epoch reaches."""
        for depth, parameter in self.weights_:
            parameter.requires_grad_(depth <= self.deepest_)
        self.deepest_ += 1

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Unfreeze what an early end has left frozen."""
        for _, parameter in self.weights_:
            parameter.requires_grad_(True)
        self.weights_ = None


def _say_nothing(text: str) -> None:
    """Print nothing, where skorch would print."""


class EarlyStoppingAfterUnfreezing(EarlyStopping):
    """skorch's EarlyStopping, which ignores epochs before all of the network is trained.

    Parameters
    ----------
    n_stages : int
        The first epoch that counts, from 1.
    monitor, lower_is_better, patience, threshold, threshold_mode
        Of :class:`skorch.callbacks.EarlyStopping`.
    """

    def __init__(self, n_stages, monitor, lower_is_better, patience, threshold, threshold_mode):
        super().__init__(
            monitor=monitor,
            lower_is_better=lower_is_better,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            sink=_say_nothing,  # the report of the fit says why it ended
        )
        self.n_stages = n_stages

    def on_epoch_end(self, net, **kwargs):
        """Ask for an end after ``patience`` epochs that were no better."""
        if len(net.history) >= self.n_stages:
            super().on_epoch_end(net, **kwargs)


class Diverged(Callback):
    """Ends a training whose loss or weights are not finite any more; nothing after it could help.

    Parameters
    ----------
    validation : ValidationScoring or None
        Where it has kept the weights of an earlier epoch, training ends with these and a warning.
    """

    def __init__(self, validation: "ValidationScoring | None"):
        self.validation = validation

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Raise ValueError, or end the training, unless loss and weights are finite."""
        loss = net.history[-1, "train_loss"]
        if math.isfinite(loss) and has_usable_weights(net.module_):
            return
        what = f"the loss of epoch {len(net.history)} is {loss}"
        if math.isfinite(loss):
            what = f"the weights after epoch {len(net.history)} are not finite, or too large to use"
        advice = f"Lower lr, which is {net.lr}."
        if self.validation is None or self.validation.best_weights_ is None:
            raise ValueError(f"Training diverged: {what}. {advice}")
        warnings.warn(
            f"Training diverged: {what}. The best weights of the epochs before are kept. {advice}",
            ConvergenceWarning,
            stacklevel=level_of_user(),
        )
        raise TrainingStopped
