"""How long a training takes, in epochs or minutes, and the learning rate at each update."""

import math
import time
from collections.abc import Iterable, Iterator

from sklstm.training.settings import TrainingSettings

WARM_UP_SHARE = 0.1
# What ``max_epochs="auto"`` aims at.
AUTO_UPDATES = 2_000


def count_epochs(settings: TrainingSettings, *, n_batches: int, n_stages: int = 1) -> int:
    """Return the most epochs, ``"auto"`` resolved.

    A network that unfreezes in ``n_stages`` epochs gets ``min_epochs`` once all of it is trained.
    Where the minutes are limited, ``"auto"`` leaves the number to them.
    """
    if settings.max_epochs != "auto":
        return settings.max_epochs
    if settings.max_minutes is not None:
        return settings.most_epochs
    epochs = min(math.ceil(AUTO_UPDATES / n_batches), settings.most_epochs)
    return max(epochs, settings.min_epochs + n_stages - 1)


class TimeLimit:
    """The time that a training may take; it runs from the first batch on.

    Parameters
    ----------
    minutes : float or None
        None is no limit.
    """

    def __init__(self, minutes: float | None):
        self.seconds = math.inf if minutes is None else 60.0 * minutes
        self.begin = None

    @property
    def used(self) -> float:
        """Return the share of the time that has passed; 1 and more is over."""
        return 0.0 if self.begin is None else (time.monotonic() - self.begin) / self.seconds

    def cut(self, batches: Iterable) -> Iterator:
        """Yield the batches of an epoch until the time is over, at least one."""
        if self.begin is None:
            self.begin = time.monotonic()
        for batch in batches:
            yield batch
            if self.used >= 1.0:
                return


class Schedule:
    """The factor of the learning rate at each update: a linear rise, then the chosen way down.

    Parameters
    ----------
    kind : {'linear', 'cosine', 'constant'}
        The way down; it ends at 0 except for "constant".
    n_updates : int
        Number of all updates; the first tenth rises.
    limit : TimeLimit or None
        Where its time passes faster than the updates, the factor follows the time.
    """

    def __init__(self, kind: str, n_updates: int, limit: TimeLimit | None = None):
        self.kind = kind
        self.n_updates = n_updates
        self.limit = limit or TimeLimit(None)

    def __call__(self, update: int) -> float:
        """Return the factor, from 0 to 1."""
        update = max(update, self.limit.used * self.n_updates)
        n_warm_up = max(1, round(WARM_UP_SHARE * self.n_updates))
        if update < n_warm_up:
            return min(1.0, (update + 1) / n_warm_up)
        progress = min(1.0, (update - n_warm_up) / max(1, self.n_updates - n_warm_up))
        return SCHEDULES[self.kind](progress)


#: The way down of the learning rate as a function of the progress from 0 to 1.
SCHEDULES = {
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}
