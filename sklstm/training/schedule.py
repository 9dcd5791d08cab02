"""How many epochs there are, and the learning rate at each update."""

import math

WARM_UP_SHARE = 0.1
# What ``max_epochs="auto"`` aims at, and the most epochs it allows.
AUTO_UPDATES = 2_000
MOST_AUTO_EPOCHS = 50


def count_epochs(
    max_epochs: int | str, *, n_batches: int, min_epochs: int = 3, n_stages: int = 1
) -> int:
    """Return the number of epochs, ``"auto"`` resolved.

    A network that unfreezes in ``n_stages`` epochs gets ``min_epochs`` once all of it is trained.
    """
    if max_epochs != "auto":
        return max_epochs
    epochs = min(math.ceil(AUTO_UPDATES / n_batches), MOST_AUTO_EPOCHS)
    return max(epochs, min_epochs + n_stages - 1)


class Schedule:
    """The factor of the learning rate at each update: a linear rise, then the chosen way down.

    Parameters
    ----------
    kind : {'linear', 'cosine', 'constant'}
        The way down; it ends at 0 except for "constant".
    n_updates : int
        Number of all updates; the first tenth rises.
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
