"""Callbacks that show a training while it runs."""

from contextlib import suppress

from skorch.callbacks import Callback, ProgressBar

from sklstm.training.reporting import NOT_WRITABLE, Report

#: What the names of our own callbacks begin with.
PREFIX = "sklstm_"


def build_printing(verbose: int, n_batches: int) -> list[tuple[str, Callback]]:
    """Return named callbacks that show a line an epoch, and from ``verbose=2`` on a bar too."""
    callbacks = []
    if verbose >= 2:
        # As text in notebooks too, where tqdm's own widget needs one more package.
        bar = HarmlessProgressBar(batches_per_epoch=n_batches, detect_notebook=False)
        callbacks.append((PREFIX + "progress", bar))
    if verbose >= 1:
        callbacks.append((PREFIX + "epoch_log", EpochLog(Report(verbose))))
    return callbacks


class HarmlessProgressBar(ProgressBar):
    """skorch's bar, which does not end a training where it cannot be shown."""

    def on_epoch_begin(self, net, **kwargs):
        """Show an empty bar."""
        with suppress(*NOT_WRITABLE):
            super().on_epoch_begin(net, **kwargs)

    def on_batch_end(self, net, **kwargs):
        """Show one batch more."""
        with suppress(*NOT_WRITABLE):
            super().on_batch_end(net, **kwargs)

    def on_epoch_end(self, net, **kwargs):
        """Remove the bar."""
        with suppress(*NOT_WRITABLE):
            super().on_epoch_end(net, **kwargs)


class EpochLog(Callback):
    """Shows a line for each epoch; skorch's PrintLog colours its numbers, also in files.

    Parameters
    ----------
    report : Report
        Where the lines go.
    """

    def __init__(self, report: Report):
        self.report = report

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Show the newest row of the history."""
        self.report.epoch(len(net.history), net.history[-1])
