"""What each parameter may be: every constraint once, for all estimators."""

from inspect import signature
from numbers import Integral, Real

from sklstm.checks import HasMethods, Interval, ScorerNames, StrOptions
from sklstm.kernels.cells import CELLS
from sklstm.kernels.dispatch import BACKENDS
from sklstm.network.pooling import POOLINGS
from sklstm.tasks.regression import ERRORS
from sklstm.text.vectorizer import SequenceVectorizer
from sklstm.training.schedule import SCHEDULES

#: Updates in float32 overflow beyond it.
LARGEST_LR = 1e30

AT_LEAST_1 = Interval(Integral, 1, None, closed="left")
SHARE = Interval(Real, 0, 1, closed="left")
NOT_NEGATIVE = Interval(Real, 0, None, closed="left")

TEXT = {
    "vectorizer": [SequenceVectorizer, None],
    "blend": [StrOptions({"ngrams"}), HasMethods(["fit", "predict_proba"]), list, tuple, None],
}

NETWORK = {
    "embedding_dim": [AT_LEAST_1, StrOptions({"auto"})],
    "hidden_size": [AT_LEAST_1],
    "num_layers": [AT_LEAST_1],
    "bidirectional": ["boolean"],
    "cell": [StrOptions(set(CELLS))],
    "attention": [StrOptions({"dot"}), None],
    "pretrained": "no_validation",  # by training.start, which knows language models
    "read_by": [StrOptions({"sentence"}), None],
    "pooling": [StrOptions(set(POOLINGS)), tuple, list],
    "embeddings": "no_validation",  # by text.word_vectors
    "freeze_embeddings": ["boolean"],
}

REGULARISATION = {
    "dropout": [SHARE],
    "embedding_dropout": [SHARE],
    "word_dropout": [SHARE],
    "input_dropout": [SHARE],
    "recurrent_dropout": [SHARE],
    "weight_dropout": [SHARE],
    "zoneout": [SHARE],
    "weight_decay": [NOT_NEGATIVE],
    "label_smoothing": [SHARE],
    "loss": [StrOptions(set(ERRORS))],
    "adversarial": [SHARE],
    "virtual_adversarial": [SHARE],
    "ema": [Interval(Real, 0, 1, closed="neither"), None],
}

TRAINING = {
    "n_negatives": [AT_LEAST_1],
    "window": [Interval(Integral, 2, None, closed="left")],
    "lr": [Interval(Real, 0, LARGEST_LR, closed="neither")],
    "lr_schedule": [StrOptions(set(SCHEDULES)), None],
    "layer_lr_decay": [Interval(Real, 0, 1, closed="right")],
    "gradual_unfreezing": ["boolean"],
    "batch_size": [AT_LEAST_1],
    "max_epochs": [AT_LEAST_1, StrOptions({"auto"})],
    "max_minutes": [Interval(Real, 0, None, closed="neither"), None],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [AT_LEAST_1],
    "tol": [NOT_NEGATIVE],
    "scoring": [ScorerNames(), callable, None],
    "class_weight": [StrOptions({"balanced"}), dict, None],
    "warm_start": ["boolean"],
    "calibrate": ["boolean"],
    "callbacks": [list, None],
}

MACHINE = {
    "device": [str],
    "precision": [StrOptions({"auto", "float32", "bfloat16"})],
    "backend": [StrOptions({"auto", *BACKENDS})],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}

#: What to do about a wrong value, where the constraint does not say it.
REMEDIES = {
    "blend": "Wrap a classifier without probabilities in CalibratedClassifierCV.",
    "callbacks": "Put callbacks into a list.",
    "class_weight": "A dict has the weight of each label: {label: weight}.",
    "early_stopping": "n_iter_no_change is the number of epochs without improvement.",
    "hidden_size": "num_layers is the number of layers.",
    "vectorizer": "Parameters of it are given as SequenceVectorizer(name=value).",
}

CONSTRAINTS = TEXT | NETWORK | REGULARISATION | TRAINING | MACHINE


def constrain(init, **own) -> dict:
    """Return the constraints of an estimator's parameters; ``own`` ones replace the common ones.

    Parameters
    ----------
    init : function
        The ``__init__`` of the estimator.
    **own : list
        Constraints that hold for this estimator only.
    """
    names = [name for name in signature(init).parameters if name != "self"]
    return {name: own[name] if name in own else CONSTRAINTS[name] for name in names}
