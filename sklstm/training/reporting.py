"""What ``verbose`` shows of a fit: each epoch of the network, why it ended, and the blend.

From ``verbose=1`` on, each line goes to the standard output and to the logger ``sklstm``.
"""

import contextlib
import logging
import math
import sys
import warnings

from sklstm.checks import level_of_user
from sklstm.model.blending import Blend
from sklstm.training.trained import Trained

#: What writing raises: a program without a console has no stream, others a closed one. Neither must
#: end a training.
NOT_WRITABLE = (AttributeError, OSError, ValueError)
LOGGER = logging.getLogger("sklstm")
# What skorch and our own callbacks record for themselves.
_INTERNAL = ("epoch", "dur", "lr", "batches", "train_batch_count", "valid_batch_count", "complete")
_WIDTH = 10


class Report:
    """Shows the lines of one fit.

    Parameters
    ----------
    verbose : int
        0 shows nothing.
    """

    def __init__(self, verbose: int):
        self.verbose = verbose
        self._columns = None

    def line(self, text: str) -> None:
        """Show a line."""
        if self.verbose < 1:
            return
        LOGGER.info(text)
        with contextlib.suppress(*NOT_WRITABLE):
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def nothing_held_out(self, n_texts: int, scoring) -> None:
        """Show that no texts are held out; warn where ``scoring`` is without effect by that."""
        message = (
            f"No texts could be held out of {n_texts}: they are too few, or too few of them "
            "differ. Training has no early stopping, and the probabilities are not calibrated"
        )
        if scoring is not None:
            warnings.warn(
                f"{message}; scoring is without effect. Give X_val and y_val to fit.",
                UserWarning,
                stacklevel=level_of_user(),
            )
        self.line(f"{message}.")

    def member(self, name: str, n_texts: int) -> None:
        """Show that an ensemble member is about to be fitted."""
        self.line(f"Fitting {_title(name)} to {n_texts:,} texts.")

    def begin(self, n_batches: int, n_epochs: int, validation, minutes=None) -> None:
        """Show how long the network will be trained, and what it is validated on."""
        epochs = f"{n_epochs} epoch{'s' if n_epochs > 1 else ''}"
        limit = "" if minutes is None else f" or {minutes:g} minutes"
        line = f"Training the network for at most {epochs} of {n_batches:,} batches{limit}."
        if validation is not None:
            line += f" Columns valid_* are its scores on {validation.n_texts:,} held-out texts."
        self.line(line)

    def epoch(self, number: int, row: dict) -> None:
        """Show what was recorded of an epoch, with a header where the columns have changed."""
        names = [name for name in row if _is_shown(name, row[name])]
        if names != self._columns:
            self._columns = names
            self.line(" ".join(["epoch", *map(_right, names), _right("seconds")]))
        cells = [_right(_show(row[name]), name) for name in names]
        self.line(" ".join([f"{number:5}", *cells, _right(f"{row['dur']:.1f}", "seconds")]))

    def end(self, trained: Trained, n_epochs: int, validation, *, keeps_best: bool) -> None:
        """Show why the training ended, and which weights are kept."""
        last = len(trained.history)
        rows = trained.history[last - trained.n_new :]
        if not rows:
            return
        reason = f"The training ended after epoch {last}."
        if trained.interrupted:
            reason = f"Interrupted after epoch {last}."
        elif len(rows) < n_epochs:
            reason = f"Stopped early after epoch {last}."
        if validation is not None and keeps_best:
            first = last - len(rows) + 1
            best = max(k for k, row in enumerate(rows, first) if row[f"{validation.monitor}_best"])
            reason += f" The weights of epoch {best} are kept, the best on the held-out texts."
        self.line(reason)

    def blend(self, blend: Blend) -> None:
        """Show how good network, members and all together are on the texts held out.

        The members that are measured have not seen these texts.
        """
        if len(blend.report) < 3 or self.verbose < 1:  # without a member
            return
        line = "On the held-out texts"
        if blend.temperature != 1.0:
            line += f", with a temperature of {blend.temperature:.2f} for the network"
        self.line(f"{line}:")
        columns = [name for name in blend.report[0] if name not in ("model", "weight")]
        names = [_title(row["model"]) for row in blend.report]
        width = max(8, *map(len, names))
        titles = [_right(f"valid_{name}") for name in columns]
        self.line(" ".join(["part".ljust(width), "weight".rjust(_WIDTH), *titles]))
        for name, row in zip(names, blend.report, strict=True):
            weight = "" if row["weight"] is None else f"{row['weight']:.2f}"
            cells = [_right(_show(row[column]), f"valid_{column}") for column in columns]
            self.line(" ".join([name.ljust(width), weight.rjust(_WIDTH), *cells]))


def _title(name: str) -> str:
    """Return how a part of a blend is called in a line."""
    return {"ngrams": "n-grams", "blend": "together"}.get(name, name)


def _is_shown(name: str, value) -> bool:
    internal = name in _INTERNAL or name.startswith("event_") or name.endswith("_best")
    return not internal and isinstance(value, int | float)


def _show(number) -> str:
    return f"{number:.4f}" if math.isfinite(number) else str(number)


def _right(text: str, name: str | None = None) -> str:
    """Return a text at the right of the column of this name (None: the text itself)."""
    return text.rjust(max(_WIDTH, len(name or text)))
