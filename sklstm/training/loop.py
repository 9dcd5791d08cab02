"""The training loop: skorch's, arranged for whole batches and for steps that are handed in."""

import copy
import dis
from collections.abc import Callable

import torch
from skorch import NeuralNet
from skorch.callbacks import EpochTimer, LRScheduler, PassthroughScoring
from skorch.history import History
from torch import Tensor, nn

from sklstm.kernels.memory import lacks_memory, reused_memory
from sklstm.network.state import has_usable_weights
from sklstm.text.batching import Batch, TrainingBatches
from sklstm.text.windows import TrainingWindows, WindowBatch
from sklstm.training.callbacks import PREFIX
from sklstm.training.fine_tuning import list_rates
from sklstm.training.optimizer import LazyAdamW
from sklstm.training.schedule import TimeLimit
from sklstm.training.settings import TrainingSettings
from sklstm.training.trained import LastEpoch, Trained, TrainingStopped

#: The optimiser's moments, by the name of the weight they belong to.
Moments = dict[str, dict[str, Tensor]]


class TextNet(NeuralNet):
    """A skorch net whose data set is an iterable of whole batches.

    skorch's own data sets fetch text by text and know no weights. Everything else, callbacks,
    history, parameters, is skorch's.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    step : callable or None
        Computes the loss of a batch and its gradients (``steps.py``).
    limit : TimeLimit or None
        Ends an epoch where the time is over; None never does.
    **kwargs
        Of :class:`skorch.NeuralNet`.
    """

    def __init__(self, module, *, step: Callable | None, limit: TimeLimit | None = None, **kwargs):
        super().__init__(module, criterion=nn.Identity, **kwargs)  # skorch demands a criterion
        self.step = step
        self.limit = limit

    @property
    def _default_callbacks(self):
        """Keep those of skorch's that apply: printing and validation are callbacks of ours."""
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

    def run_single_epoch(self, iterator, **kwargs):
        """Train on all batches, or on those for which there is time."""
        if self.limit is not None and iterator is not None:  # None are the held-out texts'
            iterator = self.limit.cut(iterator)
        super().run_single_epoch(iterator, **kwargs)

    def train_step_single(self, batch: Batch | WindowBatch, **fit_params) -> dict[str, Tensor]:
        """Compute loss and gradients of one batch."""
        self._set_training(True)
        loss, outputs = self.step(self.module_, batch)
        return {"loss": loss, "y_pred": outputs}

    def notify(self, method_name, **cb_kwargs):
        """Call every callback, and only then stop if one of them asked for it.

        skorch's callbacks ask by raising KeyboardInterrupt at the end of an epoch, which must not
        be taken for the user's Ctrl-C, nor keep the callbacks after it from seeing that epoch.
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
            except LastEpoch as request:
                stop = request
        if method_name == "on_epoch_end":
            self.history.record("complete", True)
        if stop is not None:
            raise TrainingStopped from stop


def _raised_in_skorch(error: BaseException) -> bool:
    """Whether a callback of skorch raised it; a signal that comes while one runs did not."""
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code, module = traceback.tb_frame.f_code, traceback.tb_frame.f_globals.get("__name__", "")
    by_raise = code.co_code[traceback.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return by_raise and module.startswith("skorch.callbacks")


def build_net(
    network: nn.Module,
    step: Callable,
    settings: TrainingSettings,
    *,
    device: str,
    callbacks: list,
    history: list[dict] = (),
    moments: Moments | None = None,
    limit: TimeLimit | None = None,
) -> TextNet:
    """Return an initialised net around a network, with what earlier calls recorded.

    The learning rate of a weight is ``lr`` times ``layer_lr_decay`` to the power of its depth below
    the head (``fine_tuning.py``).
    """
    net = TextNet(
        network,
        step=step,
        limit=limit,
        optimizer=LazyAdamW,
        optimizer__fused=True,
        optimizer__weight_decay=settings.weight_decay,
        optimizer__param_groups=_group_parameters(network.lstm.num_layers, settings),
        lr=settings.lr,
        train_split=None,
        callbacks=callbacks,
        verbose=int(settings.verbose > 0),
        device=device,
    )
    net.initialize()
    # Earlier rows are shared with the earlier model, since copies would take longer at each
    # partial_fit. Only the last one can be written to, by a callback before the first epoch.
    _continue(net, [*history[:-1], *map(dict, history[-1:])], moments)
    # After the optimiser was built, which takes frozen weights too: a later call may train them.
    network.embedding.weight.requires_grad_(not settings.freeze_embeddings)
    return net


def wrap_net(network: nn.Module, *, callbacks: list, history: list[dict], moments: Moments):
    """Return a net around a trained network, as it was when training ended."""
    device = str(network.embedding.weight.device)
    net = TextNet(
        network,
        step=None,
        optimizer=LazyAdamW,
        train_split=None,
        callbacks="disable",
        verbose=0,
        device=device,
    )
    net.initialize()
    net.callbacks_ = list(callbacks)
    _continue(net, map(dict, history), moments)
    return net


def _continue(net, history, moments):
    net.history = History(history)
    if moments:
        load_moments(net, moments)


def _group_parameters(num_layers: int, settings: TrainingSettings) -> list[tuple[str, dict]]:
    """Return patterns of names, the first that fits counts, and the settings of the optimiser."""
    plain = {"weight_decay": 0.0}  # biases are not decayed, as is usual for AdamW
    groups = [("*bias*", plain)]
    if settings.layer_lr_decay == 1.0:
        return groups
    below = []
    for biases, weights, rate in list_rates(settings.lr, settings.layer_lr_decay, num_layers):
        below += [(biases, plain | {"lr": rate}), (weights, {"lr": rate})]
    return below + groups


def read_moments(net: TextNet) -> Moments:
    """Return copies of the optimiser's moments by the name of the weight they belong to."""
    names = _list_names(net)
    state = copy.deepcopy(net.optimizer_.state_dict()["state"])
    return {names[k]: moments for k, moments in state.items()}


def load_moments(net: TextNet, moments: Moments) -> None:
    """Give the optimiser of a net moments that ``read_moments`` returned."""
    # torch numbers the weights group by group, and the groups follow from the learning rates.
    place = {name: k for k, name in enumerate(_list_names(net))}
    # A copy, since torch shares the moments with the optimiser that loads them.
    state = {place[name]: copy.deepcopy(own) for name, own in moments.items()}
    net.optimizer_.load_state_dict(net.optimizer_.state_dict() | {"state": state})


def _list_names(net: TextNet) -> list[str]:
    """Return the names of the weights in the order in which the optimiser numbers them."""
    names = {parameter: name for name, parameter in net.module_.named_parameters()}
    return [names[p] for group in net.optimizer_.param_groups for p in group["params"]]


def train(net: TextNet, batches: TrainingBatches | TrainingWindows, *, n_epochs: int) -> Trained:
    """Train a net in place.

    However training ends, the net holds the best weights it has seen, or the newest (their
    average, with ``ema``) where it was not built to keep the best.
    """
    interrupted, n_earlier = False, len(net.history)
    net.notify("on_train_begin", X=batches, y=None)
    try:
        with reused_memory():
            net.fit_loop(batches, epochs=n_epochs)
    except TrainingStopped:
        pass
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        lack = _explain_lack_of_memory(batches, net.device)
        kind = torch.OutOfMemoryError if isinstance(error, torch.OutOfMemoryError) else MemoryError
        # Without the traceback, whose frames would keep what has no room.
        raise kind(lack) from error.with_traceback(None)
    except KeyboardInterrupt:
        interrupted = True
    net.notify("on_train_end", X=batches, y=None)
    _tidy(net, n_earlier)
    if not has_usable_weights(net.module_):
        raise ValueError(
            "Training diverged: weights are not finite, or too large to use. "
            f"Lower lr, which is {net.lr}."
        )
    history = list(net.history)
    return Trained(history, _users_callbacks(net), interrupted, len(history) - n_earlier)


def _explain_lack_of_memory(batches: TrainingBatches | TrainingWindows, device: str) -> str:
    size = batches.batch_size
    remedies = [f"batch_size={size // 2}" if size > 1 else "a smaller hidden_size"]
    remedies.append("a vectorizer with a smaller max_length")
    if torch.device(device).type != "cpu":
        remedies.append("device='cpu'")
    return (
        f"The device has too little memory for a batch of {size} texts of up to "
        f"{batches.most_steps:,} tokens. Use {', '.join(remedies[:-1])} or {remedies[-1]}."
    )


def _users_callbacks(net: TextNet) -> list[tuple]:
    defaults = {name for name, _ in net._default_callbacks}
    return [
        (name, callback)
        for name, callback in net.callbacks_
        if name not in defaults and not name.startswith(PREFIX)
    ]


def _tidy(net: TextNet, n_earlier: int) -> None:
    """Drop what only the running training needed, and the row of an epoch that never ended.

    The first ``n_earlier`` rows of the history are those of earlier trainings.
    """
    for _, callback in net.callbacks_:
        if isinstance(callback, LRScheduler):
            callback.lr_scheduler_ = None
    net.module_.zero_grad(set_to_none=True)
    net.module_.eval()
    rows = list(net.history)
    if len(rows) > n_earlier and not rows[-1].get("complete", False):
        rows.pop()
    net.history = History(rows)
    for row in rows[n_earlier:]:
        row.pop("batches", None)
        row.pop("complete", None)
