"""The training loop: what skorch offers, arranged for whole batches of weighted texts."""

import copy
import math
from collections.abc import Callable

import torch
from skorch import NeuralNet
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochTimer,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
)
from skorch.history import History
from torch import Tensor

from sklstm.kernels.memory import reused_memory
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.text.batching import Batch, TrainingBatches
from sklstm.text.windows import TrainingWindows, WindowBatch
from sklstm.training.adversarial import Adversary
from sklstm.training.fine_tuning import list_rates, measure_depth
from sklstm.training.optimizer import LazyAdamW

# Gradients of recurrent networks explode now and then (Pascanu et al. 2013); this norm is the
# one of Miyato et al. (2017).
MAX_GRADIENT_NORM = 1.0
WARM_UP_SHARE = 0.1
# What ``max_epochs="auto"`` aims at, and the epochs it keeps to.
AUTO_UPDATES = 2_000
AUTO_EPOCHS = (3, 50)


def count_epochs(
    max_epochs: int | str, *, n_batches: int, fewest: int = AUTO_EPOCHS[0], n_stages: int = 1
) -> int:
    """Return the number of epochs, ``"auto"`` resolved.

    A network that thaws in ``n_stages`` epochs gets the fewest once all of it is trained.
    """
    if max_epochs != "auto":
        return max_epochs
    most = AUTO_EPOCHS[1]
    return max(min(math.ceil(AUTO_UPDATES / n_batches), most), fewest + n_stages - 1)


def resolve_device(device: str) -> str:
    """Return the device to train on, ``"auto"`` resolved.

    Raises
    ------
    ValueError
        If the device is unknown or this machine does not have it.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(
            f"device must be 'auto' or a device of torch such as 'cpu' or 'cuda'; got {device!r}."
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r} needs a CUDA device, and torch finds none here. "
            "Use device='auto' or device='cpu'."
        )
    try:
        torch.ones(1, device=device).cpu()
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # torch is of many minds
        raise ValueError(
            f"device={device!r} must be a device that torch can compute on here; got the error "
            f"{str(error).splitlines()[0]!r}. Use device='auto' or device='cpu'."
        ) from error
    return device


def check_precision(precision: str, device: str) -> None:
    """Raise ValueError where bfloat16 is asked for on a device that torch cannot cast on."""
    if precision != "bfloat16":
        return
    try:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            pass
    except RuntimeError as error:
        raise ValueError(
            f"precision='bfloat16' needs a device that computes in it; got device={device!r}. "
            "Use precision='auto' or precision='float32'."
        ) from error


class TrainingStopped(Exception):
    """A callback has seen enough epochs."""


class TextNet(NeuralNet):
    """A skorch net whose data set is a :class:`~sklstm.text.batching.TrainingBatches`.

    skorch's own data sets fetch text by text and know no weights; here an epoch iterates over
    whole batches. Everything else, callbacks, history, parameters, is skorch's.

    Parameters
    ----------
    adversary : Adversary or None
        What moves the texts for the losses that are added to that of the texts as they are.
    """

    def __init__(self, module, *, adversary: Adversary | None, **kwargs):
        super().__init__(module, **kwargs)
        self.adversary = adversary

    @property
    def _default_callbacks(self):
        """Keep those of skorch's that apply: printing and validation are arranged below."""
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring("train_loss", lower_is_better=None, on_train=True)),
        ]

    def get_split_datasets(self, X, y=None, **fit_params):
        """Take the batches as they are; validation is a callback's."""
        return X, None

    def get_iterator(self, dataset, training=False):
        """Iterate over the batches themselves."""
        return dataset

    def train_step_single(self, batch: Batch, **fit_params) -> dict[str, Tensor]:
        """Compute loss and gradients of one batch."""
        self._set_training(True)
        if self.adversary:
            loss, logits = self.adversary.accumulate_gradients(
                self.module_, batch, lambda logits: self.get_loss(logits, batch)
            )
            return {"loss": loss, "y_pred": logits}
        logits = self.module_(batch.ids.to(self.device), batch.lengths)
        loss = self.get_loss(logits, batch)
        loss.backward()
        return {"loss": loss, "y_pred": logits}

    def get_loss(self, y_pred, y_true: Batch, X=None, training=False) -> Tensor:
        """Return the mean of weight times loss; the weights have mean 1 over all texts."""
        losses = self.criterion_(y_pred, y_true.targets.to(self.device))
        return (losses * y_true.weights.to(self.device)).mean()

    def notify(self, method_name, **cb_kwargs):
        """Call every callback, and only then stop if one of them asked for it.

        skorch's callbacks ask by raising KeyboardInterrupt at the end of an epoch, which must not
        be taken for the user's Ctrl-C, nor keep the callbacks behind from seeing that epoch.
        """
        getattr(self, method_name)(self, **cb_kwargs)
        stop = None
        for _, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **cb_kwargs)
            except KeyboardInterrupt as request:
                if method_name != "on_epoch_end" or not _raised_in_skorch(request):
                    raise
                stop = request
        if method_name == "on_epoch_end":
            self.history.record("complete", True)
        if stop is not None:
            raise TrainingStopped from stop


class LanguageNet(TextNet):
    """The net of a language model, whose targets are the texts themselves."""

    def train_step_single(self, batch: WindowBatch, **fit_params) -> dict[str, Tensor]:
        """Compute loss and gradients of one batch."""
        self._set_training(True)
        loss = self.module_(*(tensor.to(self.device) for tensor in batch[1:]))
        loss.backward()
        return {"loss": loss, "y_pred": None}


def _raised_in_skorch(error: BaseException) -> bool:
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get("__name__", "").startswith("skorch.callbacks")


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


class Weights(Callback):
    """Shows between the epochs what weights there are, or a moving average of them.

    During an epoch the rows of the embedding stand where they were read last (``optimizer.py``); at
    its end all make up. The average is exponential with bias correction: after n updates the newest
    weights count (1 - decay) / (1 - decay ** n), so that the first ones do not linger.

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
        # A card moves all rows in no time; and callbacks that ask for gradients, such as skorch's
        # GradientNormClipping, know dense ones alone.
        if embedding.weight.device.type == "cpu" and not _gradients_are_looked_at(net):
            net.optimizer_.begin(embedding, self.decay)
        # The optimiser averages the rows it lets stay behind.
        self.averaged_ = [p for p in net.module_.parameters() if not self._stays_behind(net, p)]
        self.average_ = [p.detach().clone() for p in self.averaged_] if self.decay else []

    @staticmethod
    def _stays_behind(net, parameter):
        return net.optimizer_.embedding is not None and (
            parameter is net.optimizer_.embedding.weight
        )

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Put the weights in training back."""
        if self.training_weights_ is not None:
            _copy_weights(self.training_weights_, net.module_)
            self.training_weights_ = None

    @torch.no_grad()
    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Move the average towards the newest weights."""
        self.n_updates_ += 1
        if self.decay:
            share = (1 - self.decay) / (1 - self.decay**self.n_updates_)
            torch._foreach_lerp_(self.average_, self.averaged_, share)

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Let the rows make up; show the average to the callbacks that follow."""
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


def _gradients_are_looked_at(net: NeuralNet) -> bool:
    return any(
        type(callback).on_grad_computed is not Callback.on_grad_computed
        for _, callback in net.callbacks_
        if not isinstance(callback, GradientClipping)
    )


@torch.no_grad()
def _copy_weights(source: list[Tensor], module: torch.nn.Module) -> None:
    for weight, parameter in zip(source, module.parameters(), strict=True):
        parameter.copy_(weight)


class Judge(Callback):
    """Records at the end of each epoch what a judge says of the network, and keeps the best.

    skorch's EarlyStopping could keep weights too, but only those that beat the best by ``tol``.

    Parameters
    ----------
    judge : callable
        From the network to a dict of numbers.
    monitor : str
        Which of the numbers tells the best: "valid_loss" (low) or "valid_score" (high).
    keep_best : bool
        Whether training ends with the best weights instead of the last.
    """

    def __init__(
        self,
        judge: Callable[[LSTMTextNetwork], dict[str, float]],
        *,
        monitor: str,
        keep_best: bool,
    ):
        self.judge = judge
        self.monitor = monitor
        self.keep_best = keep_best

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Forget earlier weights."""
        self.best_ = -math.inf
        self.best_weights_ = None

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Ask, record and keep."""
        judgement = self.judge(net.module_)
        for name, value in judgement.items():
            net.history.record(name, value)
        value = judgement[self.monitor] * (-1 if self.monitor == "valid_loss" else 1)
        is_best = value > self.best_
        net.history.record(f"{self.monitor}_best", is_best)  # skorch's Checkpoint asks for it
        if is_best:
            self.best_ = value
        if is_best and self.keep_best:
            self.best_weights_ = [p.detach().clone() for p in net.module_.parameters()]

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Put the best back; let go of weights and texts, which a pickle need not carry."""
        if self.best_weights_ is not None:
            _copy_weights(self.best_weights_, net.module_)
        self.judge = self.best_weights_ = None


class Unfreezing(Callback):
    """Trains pools and head alone at first; at each epoch that follows thaws what is next below.

    A weight that does not ask for a gradient when training begins is left as it is.
    """

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Note what is to thaw, and how deep it lies."""
        n_layers = net.module_.lstm.num_layers
        named = net.module_.named_parameters()
        self.thawing_ = [(measure_depth(name, n_layers), p) for name, p in named if p.requires_grad]
        self.deepest_ = 0

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Freeze all that lies deeper than this epoch goes."""
        for depth, parameter in self.thawing_:
            parameter.requires_grad_(depth <= self.deepest_)
        self.deepest_ += 1

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Thaw what an early end has left frozen."""
        for _, parameter in self.thawing_:
            parameter.requires_grad_(True)
        self.thawing_ = None


class StoppingOnceThawed(EarlyStopping):
    """skorch's EarlyStopping, which looks at no epoch before all of the network is trained.

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
        )
        self.n_stages = n_stages

    def on_epoch_end(self, net, **kwargs):
        """Ask for an end after ``patience`` epochs that were no better."""
        if len(net.history) >= self.n_stages:
            super().on_epoch_end(net, **kwargs)


class Diverged(Callback):
    """Ends a training whose loss is no number any more; nothing after it could help."""

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Raise ValueError unless the training loss is finite."""
        loss = net.history[-1, "train_loss"]
        if not math.isfinite(loss):
            raise ValueError(
                f"Training diverged: the loss of epoch {len(net.history)} is {loss}. "
                f"Lower lr, which is {net.lr}."
            )


class Schedule:
    """The factor of the learning rate at each update: a linear rise, then the chosen way down.

    Parameters
    ----------
    kind : {'linear', 'cosine', 'constant'}
        The way down; it ends at 0 except for "constant".
    n_updates : int
        Updates in all; the first tenth rises.
    """

    def __init__(self, kind: str, n_updates: int):
        self.kind = kind
        self.n_updates = n_updates

    def __call__(self, update: int) -> float:
        """Return the factor, from 0 to 1."""
        n_warm_up = max(1, round(WARM_UP_SHARE * self.n_updates))
        if update < n_warm_up:
            return (update + 1) / n_warm_up
        progress = min(1.0, (update - n_warm_up) / max(1, self.n_updates - n_warm_up))
        return SCHEDULES[self.kind](progress)


#: The way down of the learning rate as a function of the progress from 0 to 1.
SCHEDULES = {
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}


def build_net(
    network: dict,
    *,
    net_class: type[TextNet] = TextNet,
    module: type[torch.nn.Module] = LSTMTextNetwork,
    lr: float,
    weight_decay: float,
    device: str,
    verbose: int,
    label_smoothing: float = 0.0,
    adversary: Adversary | None = None,
    schedule: Schedule | None = None,
    ema: float | None = None,
    judge: Callable[[LSTMTextNetwork], dict[str, float]] | None = None,
    monitor: str = "valid_loss",
    patience: int | None = None,
    tol: float = 0.0,
    user_callbacks: list | None = None,
    n_batches: int | None = None,
    layer_lr_decay: float = 1.0,
    n_stages: int = 1,
) -> TextNet:
    """Return an initialised net around a new network of these settings.

    The learning rate of a weight is ``lr`` times ``layer_lr_decay`` to the power of its depth below
    the head; with ``n_stages`` above 1 the network thaws from there on in so many epochs
    (``fine_tuning.py``).

    The order of the callbacks is the order in which an epoch ends: the average of the weights
    is shown, judged, kept if it is the best, and printed.
    """
    callbacks = [
        ("sklstm_clip", GradientClipping(MAX_GRADIENT_NORM)),
        ("sklstm_diverged", Diverged()),
    ]
    if schedule is not None:
        callbacks.append(
            ("sklstm_schedule", LRScheduler("LambdaLR", lr_lambda=schedule, step_every="batch"))
        )
    callbacks.append(("sklstm_weights", Weights(ema)))
    if n_stages > 1:
        callbacks.append(("sklstm_unfreezing", Unfreezing()))
    if judge is not None:
        keep_best = patience is not None
        callbacks.append(("sklstm_judge", Judge(judge, monitor=monitor, keep_best=keep_best)))
    if patience is not None:
        stopping = _early_stopping(monitor, patience, tol, n_stages)
        callbacks.append(("sklstm_early_stopping", stopping))
    callbacks += _check_callbacks(user_callbacks or [])
    if verbose >= 2:
        callbacks.append(("sklstm_progress", ProgressBar(batches_per_epoch=n_batches)))
    if verbose >= 1:
        callbacks.append(("sklstm_print_log", PrintLog(keys_ignored="event_lr")))
    net = net_class(
        module,
        adversary=adversary,
        **{f"module__{name}": value for name, value in network.items()},
        criterion=torch.nn.CrossEntropyLoss,
        criterion__reduction="none",
        criterion__label_smoothing=label_smoothing,
        optimizer=LazyAdamW,
        optimizer__fused=True,
        optimizer__weight_decay=weight_decay,
        optimizer__param_groups=_group_parameters(network, lr, layer_lr_decay),
        lr=lr,
        train_split=None,
        callbacks=callbacks,
        verbose=int(verbose > 0),
        device=device,
    )
    return net.initialize()


def _group_parameters(network: dict, lr: float, layer_lr_decay: float) -> list[tuple[str, dict]]:
    """Return patterns of names, the first that fits counts, and the settings of the optimiser."""
    plain = {"weight_decay": 0.0}  # biases are not decayed, as is usual for AdamW
    groups = [("*bias*", plain)]
    if layer_lr_decay == 1.0:
        return groups
    below = []
    for biases, weights, rate in list_rates(lr, layer_lr_decay, network["num_layers"]):
        below += [(biases, plain | {"lr": rate}), (weights, {"lr": rate})]
    return below + groups


def _check_callbacks(callbacks: list) -> list:
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


def _early_stopping(monitor: str, patience: int, tol: float, n_stages: int) -> EarlyStopping:
    return StoppingOnceThawed(
        n_stages=n_stages,
        monitor=monitor,
        lower_is_better=monitor == "valid_loss",
        patience=patience,
        threshold=tol,
        threshold_mode="abs",
    )


def go_on(net: TextNet, earlier: TextNet) -> None:
    """Give a new net the weights, the random state and the moments of an earlier one."""
    net.module_.load_state_dict(earlier.module_.state_dict())
    net.module_.generator.set_state(earlier.module_.generator.get_state())
    # A copy, since torch shares the moments with the optimiser that loads them; and without the
    # learning rate, which the earlier schedule may have brought to 0.
    moments = copy.deepcopy(earlier.optimizer_.state_dict()["state"])
    # They are numbered group by group, and the groups follow from the learning rates.
    names, place = _list_names(earlier), {name: k for k, name in enumerate(_list_names(net))}
    moments = {place[names[k]]: moment for k, moment in moments.items()}
    net.optimizer_.load_state_dict(net.optimizer_.state_dict() | {"state": moments})


def _list_names(net: TextNet) -> list[str]:
    """Return the names of the weights in the order in which the optimiser numbers them."""
    names = {parameter: name for name, parameter in net.module_.named_parameters()}
    return [names[p] for group in net.optimizer_.param_groups for p in group["params"]]


def train(net: TextNet, batches: TrainingBatches | TrainingWindows, *, max_epochs: int) -> bool:
    """Train a net in place; return whether the user interrupted it.

    However training ends, the net holds the best weights it has seen, or the newest (their
    average, with ``ema``) where it was not built to keep the best.
    """
    interrupted = False
    net.notify("on_train_begin", X=batches, y=None)
    try:
        with reused_memory():
            net.fit_loop(batches, epochs=max_epochs)
    except TrainingStopped:
        pass
    except KeyboardInterrupt:
        interrupted = True
    net.notify("on_train_end", X=batches, y=None)
    _tidy(net, interrupted)
    return interrupted


def _tidy(net: TextNet, interrupted: bool) -> None:
    """Drop what only the running training needed, and the row of an epoch that never ended."""
    for _, callback in net.callbacks_:
        if isinstance(callback, LRScheduler):
            callback.lr_scheduler_ = None
    net.module_.zero_grad(set_to_none=True)
    net.module_.eval()
    rows = list(net.history)
    if interrupted and not rows[-1].get("complete", False):
        rows.pop()
    net.history = History(rows)
    for row in net.history:
        row.pop("batches", None)
        row.pop("complete", None)
