import numpy as np
import pytest

from sklstm.training.schedule import Schedule, count_epochs


@pytest.mark.parametrize(
    ("max_epochs", "n_batches", "expected"),
    [(7, 1, 7), ("auto", 1, 50), ("auto", 200, None), ("auto", 10**6, 3)],
)
def test_epochs(max_epochs, n_batches, expected):
    epochs = count_epochs(max_epochs, n_batches=n_batches)
    if expected is None:
        assert 2 < epochs < 20
        assert epochs * n_batches >= 1000
    else:
        assert epochs == expected


def test_the_least_number_of_automatic_epochs():
    assert count_epochs("auto", n_batches=10**6, min_epochs=1) == 1
    assert count_epochs(1, n_batches=10**6, min_epochs=3) == 1


def test_automatic_epochs_leave_room_to_unfreeze():
    assert count_epochs("auto", n_batches=10**6, n_stages=4) == 6
    assert count_epochs("auto", n_batches=200, n_stages=4) == 10
    assert count_epochs("auto", n_batches=1, n_stages=60) == 62
    assert count_epochs(4, n_batches=1, n_stages=4) == 4


def test_the_schedule_rises_then_falls():
    linear = [Schedule("linear", 100)(k) for k in range(101)]
    assert linear[:2] == [0.1, 0.2] and linear[9] == 1.0 == max(linear)
    assert np.diff(linear[10:]).max() < 0 and linear[100] == 0.0
    cosine = [Schedule("cosine", 100)(k) for k in range(101)]
    assert cosine[55] == pytest.approx(0.5) and cosine[100] == pytest.approx(0.0)
    assert {Schedule("constant", 100)(k) for k in range(10, 200)} == {1.0}
