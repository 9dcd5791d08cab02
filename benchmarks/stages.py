"""Where the time of ``LSTMTextClassifier`` goes: the package watched from outside while it runs."""

import time
import types
from contextlib import ExitStack, contextmanager
from functools import wraps
from unittest.mock import patch

import torch

from sklstm import LSTMTextClassifier, SequenceVectorizer
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.text.batching import RaggedIds, TrainingBatches
from sklstm.training.loop import GradientClipping, TextNet
from sklstm.training.optimizer import LazyAdamW

#: In the order of a training step.
STAGES = ("tokenise", "batch", "forward", "backward", "optimiser", "callbacks", "loop", "rest")

#: What is timed under which name. "forward" has the loss, "optimiser" the clipping; "callbacks" the
#: average of the weights and the schedule; "loop" what skorch does in between; "rest" the checks,
#: the first weights and so on.
ENTRIES = [
    ("tokenise", SequenceVectorizer, "fit_ragged"),
    ("tokenise", SequenceVectorizer, "transform_ragged"),
    ("batch", RaggedIds, "pad"),
    ("forward", LSTMTextNetwork, "forward"),
    ("forward", TextNet, "get_loss"),
    ("backward", torch.Tensor, "backward"),
    ("optimiser", GradientClipping, "on_grad_computed"),
    ("optimiser", LazyAdamW, "_before_reading"),  # rows that make up for what they missed
    ("callbacks", TextNet, "notify"),
    ("loop", TextNet, "fit_loop"),
    ("loop", TextNet, "train_step_single"),  # skorch calls it from inside of the optimiser's step
]

#: The network of the comparison in the words of the classifier.
PLAIN = {
    "pooling": "mean",
    "dropout": 0.0,
    "embedding_dropout": 0.0,
    "word_dropout": 0.0,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "ema": None,
    "lr": 1e-3,
    "lr_schedule": None,
}


class StageClock:
    """Adds up the seconds of each stage; a stage inside another one interrupts it."""

    def __init__(self):
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.running = []
        self.since = time.perf_counter()

    def note(self):
        """Give the time since the last note to the stage that was running."""
        now = time.perf_counter()
        if self.running:
            self.seconds[self.running[-1]] += now - self.since
        self.since = now

    @contextmanager
    def stage(self, name):
        self.note()
        self.running.append(name)
        try:
            yield
        finally:
            self.note()
            self.running.pop()

    def timed(self, name, function):
        """Return the function as it is, but for the clock."""

        @wraps(function)
        def wrapper(*args, **kwargs):
            with self.stage(name):
                return function(*args, **kwargs)

        return wrapper

    def timed_iteration(self, function):
        """Return a generator function whose waits for the next batch are timed."""

        @wraps(function)
        def wrapper(*args):
            batches = function(*args)
            while True:
                with self.stage("batch"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

        return wrapper

    @contextmanager
    def watching(self):
        """Time all entries until the end of the block."""
        clock = self
        initialize = TextNet.initialize

        def with_timed_optimiser(net):
            net = initialize(net)
            optimiser = net.optimizer_
            timed = clock.timed("optimiser", type(optimiser).step)
            # Of this object alone, and a method, since torch's schedulers ask for its function.
            optimiser.step = types.MethodType(timed, optimiser)
            return net

        with ExitStack() as stack:
            for name, owner, attribute in ENTRIES:
                timed = self.timed(name, getattr(owner, attribute))
                stack.enter_context(patch.object(owner, attribute, timed))
            timed = self.timed_iteration(TrainingBatches.__iter__)
            stack.enter_context(patch.object(TrainingBatches, "__iter__", timed))
            stack.enter_context(patch.object(TextNet, "initialize", with_timed_optimiser))
            with self.stage("rest"):
                yield


def seconds_by_stage(train, test, *, plain, backend="auto"):
    """Return the seconds of each stage of one epoch and of prediction, from raw texts.

    ``plain`` takes the network of the comparison, otherwise the classifier's own settings hold:
    dropout, average of the weights, schedule.
    """
    settings = PLAIN if plain else {}
    classifier = LSTMTextClassifier(
        baseline=None,  # the network is what is measured
        max_epochs=1,
        early_stopping=False,
        random_state=0,
        backend=backend,
        **settings,
    )
    classifier.fit(train[0][:96], train[1][:96]).predict(test[0][:96])  # caches fill, kernels load
    result = {}
    for phase, call in (
        ("fit", lambda: classifier.fit(*train)),
        ("predict", lambda: classifier.predict(test[0])),
    ):
        clock = StageClock()
        with clock.watching():
            call()
        result[phase] = clock.seconds
    return result
