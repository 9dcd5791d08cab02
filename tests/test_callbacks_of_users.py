"""Callbacks of skorch as users see them, and what is printed."""

import pytest
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, LRScheduler

from tests.conftest import distinct


class CountEpochs(Callback):
    def __init__(self):
        self.n_epochs = 0

    def on_epoch_end(self, net, **kwargs):
        self.n_epochs += 1


def test_callbacks_run_on_copies(tiny, texts, labels):
    callback = CountEpochs()
    model = tiny.set_params(callbacks=[("count", callback)], max_epochs=3).fit(texts, labels)
    assert callback.n_epochs == 0
    assert dict(model.net_.callbacks_)["count"].n_epochs == 3


def test_skorchs_checkpoint_finds_the_best(tiny, tmp_path):
    tiny.set_params(callbacks=[Checkpoint(dirname=str(tmp_path))], max_epochs=2).fit(*distinct(60))
    assert (tmp_path / "params.pt").exists()


def test_the_learning_rate_can_be_left_to_a_callback(tiny, texts, labels):
    seen = []

    class Watch(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(net.optimizer_.param_groups[0]["lr"])

    steps = LRScheduler("StepLR", step_size=1, gamma=0.1)
    tiny.set_params(lr_schedule=None, callbacks=[steps, Watch()], max_epochs=2, lr=0.5)
    # A deep copy of the watch still writes to the list it closes over.
    tiny.fit(texts, labels)
    assert seen == pytest.approx([0.5] * 5 + [0.05] * 5)


def test_skorchs_early_stopping_is_no_interruption(tiny, texts, labels):
    stopping = EarlyStopping(monitor="train_loss", patience=2, threshold=10.0, threshold_mode="abs")
    model = tiny.set_params(callbacks=[stopping]).fit(texts, labels)
    assert model.n_iter_ < 10
