"""Where the time of ``LSTMTextClassifier`` goes: the package watched from outside while it runs.

The names of the package's functions that are watched stand in ``ENTRIES``, ``ITERATION`` and
``INITIALIZE``, and nowhere else.
"""

import pkgutil
import time
import types
from contextlib import ExitStack, contextmanager
from functools import wraps
from unittest.mock import patch

from sklstm import LSTMTextClassifier

#: In the order of a training step.
STAGES = ("tokenise", "batch", "forward", "backward", "optimiser", "callbacks", "loop", "rest")

#: What is timed under which name. "forward" has the loss, "optimiser" the clipping; "callbacks" the
#: average of the weights and the schedule; "loop" skorch's own code between them; "rest" the
#: checks, the first weights and so on.
ENTRIES = [
    ("tokenise", "sklstm.text.vectorizer.SequenceVectorizer.fit_ragged"),
    ("tokenise", "sklstm.text.vectorizer.SequenceVectorizer.transform_ragged"),
    ("batch", "sklstm.text.batching.RaggedIds.pad"),
    ("forward", "sklstm.network.text_network.LSTMTextNetwork.forward"),
    ("forward", "sklstm.tasks.multiclass.Multiclass.loss"),
    ("backward", "torch.Tensor.backward"),
    ("optimiser", "sklstm.training.callbacks.GradientClipping.on_grad_computed"),
    # The rows of the embedding that catch up before they are read.
    ("optimiser", "sklstm.training.optimizer.LazyAdamW._before_reading"),
    ("callbacks", "sklstm.training.loop.TextNet.notify"),
    ("loop", "sklstm.training.loop.TextNet.fit_loop"),
    # skorch calls it from inside of the optimiser's step.
    ("loop", "sklstm.training.loop.TextNet.train_step_single"),
]
#: The generator of the batches, and what makes a net's optimiser.
ITERATION = "sklstm.text.batching.TrainingBatches.__iter__"
INITIALIZE = "sklstm.training.loop.TextNet.initialize"

#: The parameters of the classifier that make the network of the comparison, trained for one epoch.
PLAIN = {
    "embedding_dim": 128,
    "hidden_size": 128,
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
        """Add the time since the last note to the stage that was running."""
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
        """Return the function, timed as a part of a stage."""

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
        initialize = pkgutil.resolve_name(INITIALIZE)

        def initialize_timed(net):
            net = initialize(net)
            optimiser = net.optimizer_
            timed = self.timed("optimiser", type(optimiser).step)
            # Only of this object, and a method, since torch's schedulers ask for its function.
            optimiser.step = types.MethodType(timed, optimiser)
            return net

        with ExitStack() as stack:
            for stage, name in ENTRIES:
                stack.enter_context(patch(name, self.timed(stage, pkgutil.resolve_name(name))))
            timed = self.timed_iteration(pkgutil.resolve_name(ITERATION))
            stack.enter_context(patch(ITERATION, timed))
            stack.enter_context(patch(INITIALIZE, initialize_timed))
            with self.stage("rest"):
                yield


def make_classifier(backend="auto", **settings):
    """Return a classifier that trains its network for one epoch, without n-grams."""
    defaults = {"blend": None}  # the network is what is measured
    return LSTMTextClassifier(
        max_epochs=1,
        early_stopping=False,
        random_state=0,
        backend=backend,
        **defaults | settings,
    )


def seconds_by_stage(train, test, *, plain, backend="auto"):
    """Return the seconds of each stage of one epoch and of prediction, from raw texts.

    ``plain`` takes the network of the comparison; otherwise the classifier has its defaults, among
    them dropout, average of the weights and schedule.
    """
    classifier = make_classifier(backend, **PLAIN if plain else {})
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
