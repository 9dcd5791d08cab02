"""What a training leaves."""

from typing import NamedTuple


class TrainingStopped(Exception):
    """A callback has ended the training."""


class LastEpoch(TrainingStopped):
    """A callback wants no more epochs; the present one counts, and other callbacks see its end."""


class Trained(NamedTuple):
    """What a training leaves, apart from the weights."""

    history: list[dict]  # what was recorded of each epoch, of earlier trainings too
    callbacks: list[tuple]  # the user's, as (name, callback)
    interrupted: bool  # whether the user ended it by Ctrl-C
    n_new: int  # epochs of this training
