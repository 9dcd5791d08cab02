"""What Ctrl-C means: keep what was learnt, or end a search."""

import sys
import warnings

from sklstm.checks import level_of_user
from sklstm.model.text_model import TextModel

# The modules of scikit-learn through which a single fit passes.
_ONE_FIT = {"sklearn.base", "sklearn.pipeline", "sklearn.utils._set_output"}


def report_interruption(model: TextModel) -> None:
    """Warn of an interrupted fit; inside a search or another estimator, end that as well.

    An interrupted fit keeps what it has learnt. But where scikit-learn fits many estimators in a
    row, the user who presses Ctrl-C means all of them.

    Raises
    ------
    KeyboardInterrupt
        If an estimator or a search of scikit-learn called the fit.
    """
    if _called_by_meta_estimator():
        raise KeyboardInterrupt
    best = "best" if model.validation_scores else "newest"
    warnings.warn(
        f"Training was interrupted after {len(model.history)} epochs; the {best} weights so far "
        "are kept.",
        UserWarning,
        stacklevel=level_of_user(),
    )


def _called_by_meta_estimator() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("sklearn.") and module not in _ONE_FIT:
            return True
        frame = frame.f_back
    return False
