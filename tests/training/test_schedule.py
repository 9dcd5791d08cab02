import numpy as np
import pytest

from sklstm.training import schedule
from sklstm.training.schedule import Schedule, TimeLimit, count_epochs
from tests.builders import make_training


@pytest.mark.parametrize(
    ("max_epochs", "n_batches", "expected"),
    [(7, 1, 7), ("auto", 1, 50), ("auto", 200, None), ("auto", 10**6, 3)],
)
def test_epochs(max_epochs, n_batches, expected):
    epochs = count_epochs(make_training(max_epochs=max_epochs), n_batches=n_batches)
    if expected is None:
        assert 2 < epochs < 20
        assert epochs * n_batches >= 1000
    else:
        assert epochs == expected


def test_the_least_number_of_automatic_epochs():
    one = make_training(max_epochs="auto", min_epochs=1)
    assert count_epochs(one, n_batches=10**6) == 1
    assert count_epochs(make_training(max_epochs=1, min_epochs=3), n_batches=10**6) == 1


def test_automatic_epochs_leave_room_to_unfreeze():
    auto = make_training(max_epochs="auto")
    assert count_epochs(auto, n_batches=10**6, n_stages=4) == 6
    assert count_epochs(auto, n_batches=200, n_stages=4) == 10
    assert count_epochs(auto, n_batches=1, n_stages=60) == 62
    assert count_epochs(make_training(max_epochs=4), n_batches=1, n_stages=4) == 4


def test_automatic_epochs_leave_the_end_to_the_minutes():
    assert count_epochs(make_training(max_epochs="auto", max_minutes=9.0), n_batches=10**6) == 50
    assert count_epochs(make_training(max_epochs=4, max_minutes=9.0), n_batches=10**6) == 4


def test_the_schedule_rises_then_falls():
    linear = [Schedule("linear", 100)(k) for k in range(101)]
    assert linear[:2] == [0.1, 0.2] and linear[9] == 1.0 == max(linear)
    assert np.diff(linear[10:]).max() < 0 and linear[100] == 0.0
    cosine = [Schedule("cosine", 100)(k) for k in range(101)]
    assert cosine[55] == pytest.approx(0.5) and cosine[100] == pytest.approx(0.0)
    assert {Schedule("constant", 100)(k) for k in range(10, 200)} == {1.0}


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])
    return now


def test_time_runs_from_the_first_batch_and_ends_an_epoch(clock):
    limit = TimeLimit(2.0)
    clock[0] += 1000.0
    assert limit.used == 0.0
    seen = []
    for batch in limit.cut(range(10)):
        seen.append(batch)
        clock[0] += 50.0
    assert seen == [0, 1, 2] and limit.used >= 1.0
    assert list(limit.cut(range(10))) == [0]  # a training has at least one update


def test_without_a_limit_time_does_not_pass(clock):
    limit = TimeLimit(None)
    assert list(limit.cut(range(3))) == [0, 1, 2]
    clock[0] += 1e9
    assert limit.used == 0.0


def test_the_schedule_follows_the_time_where_that_is_faster(clock):
    limit = TimeLimit(1.0)
    schedule = Schedule("linear", 1000, limit)
    next(limit.cut([0]))
    assert schedule(0) == Schedule("linear", 1000)(0)
    clock[0] += 33.0
    assert schedule(1) == pytest.approx(Schedule("linear", 1000)(550))
    clock[0] += 33.0
    assert schedule(2) == 0.0
    assert schedule(999) == 0.0
