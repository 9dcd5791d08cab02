"""The verbs of one fit."""

import numpy as np
import pytest
import torch

from sklstm import LSTMTextClassifier
from sklstm.model.blending import Blend
from sklstm.ngrams.member import FittedMembers
from sklstm.text.examples import Examples
from sklstm.training.fitting import Fitting
from sklstm.training.settings import TrainingSettings
from sklstm.training.start import find_start
from sklstm.training.steps import Supervised
from tests.builders import make_task
from tests.conftest import LABELS, TEXTS, TINY

TASK = make_task(2)


def begin(settings=None, **params):
    estimator = LSTMTextClassifier(**TINY | {"max_epochs": 2} | params)
    return Fitting(estimator, find_start(estimator, resume=True), TASK, settings)


def make_examples(texts=TEXTS, n_repeats=4):
    targets = np.array([0, 1]).repeat(len(texts) // 2)
    texts = [f"{text} {k}" for k in range(n_repeats) for text in texts]
    return Examples(texts, np.tile(targets, n_repeats), np.ones(len(texts)))


def test_examples_are_split():
    everything, train, held_out = begin().split(make_examples())
    assert sorted([*train.texts, *held_out.texts]) == sorted(everything.texts)
    assert len(held_out.texts) == 4


def test_given_validation_texts_leave_all_others_for_training():
    given = Examples(["x", "y"], np.array([0, 1]), np.ones(2))
    everything, train, held_out = begin().split(make_examples(), given)
    assert train is everything and len(train.texts) == 40 and held_out is given


def test_without_early_stopping_all_texts_are_trained_on():
    everything, train, held_out = begin(early_stopping=False).split(make_examples())
    assert train is everything and held_out is None


def test_the_weights_of_the_loss_have_a_mean_of_1():
    examples = make_examples().weigh(np.arange(40) + 1.0)
    vectorizer, batches = begin().vectorize(examples)
    np.testing.assert_allclose(batches.weights, (np.arange(40) + 1.0) / 20.5, rtol=1e-6)
    assert "wonderful" in vectorizer.vocabulary_


@pytest.mark.parametrize("continues", [True, False])
def test_moments_are_kept_for_a_call_that_follows_and_only_then(continues):
    settings = TrainingSettings.of(LSTMTextClassifier(**TINY)).for_one_pass()
    fitting = begin(settings if continues else None)
    _, train, _ = fitting.split(make_examples())
    vectorizer, batches = fitting.vectorize(train)
    network = fitting.build_network(vectorizer)
    before = network.head.weight.detach().clone()
    trained = fitting.train(network, Supervised(TASK), batches)
    assert len(trained.history) == (1 if continues else 2)
    assert not torch.equal(network.head.weight, before)
    model = fitting.model(vectorizer, network, trained, blend=Blend())
    names = {name for name, _ in network.named_parameters()}
    assert model.moments.keys() == (names if continues else set())
    assert model.network is network and model.rng is fitting.rng


@pytest.mark.parametrize("calibrate", [True, False])
def test_the_blend_is_fitted_to_validation_texts_or_expected(calibrate, monkeypatch):
    monkeypatch.setattr(
        "sklstm.model.blending.fit_blend", lambda *_, expected, penalty: (3.0, expected[::-1])
    )
    monkeypatch.setattr("sklstm.ngrams.member.MOST_TEXTS_OF_ONE", 0)
    fitting = begin(blend="ngrams", calibrate=calibrate)
    everything, train, held_out = fitting.split(make_examples())
    vectorizer, _ = fitting.vectorize(train)
    validation = fitting.validate_by(held_out, vectorizer)
    members = fitting.fit_members(everything, train, validation, vectorizer)
    blend = fitting.blend(fitting.build_network(vectorizer), members, validation)
    assert blend.members is members.named and len(blend.members) == 1
    assert len(members.outputs) == calibrate  # those for the validation texts
    assert [row["model"] for row in blend.report] == ["network", "ngrams", "blend"] * calibrate
    found = (3.0, (0.8, 0.2)) if calibrate else (1.0, (0.2, 0.8))
    assert (blend.temperature, blend.weights) == found


def test_a_blend_that_is_interrupted_is_the_expected_one(monkeypatch):
    def press(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sklstm.model.blending.fit_blend", press)
    fitting = begin()
    everything, train, held_out = fitting.split(make_examples())
    vectorizer, _ = fitting.vectorize(train)
    validation = fitting.validate_by(held_out, vectorizer)
    blend = fitting.blend(fitting.build_network(vectorizer), FittedMembers(), validation)
    assert fitting.interrupted
    assert (blend.temperature, blend.weights, blend.member) == (1.0, (1.0,), None)


def test_an_error_is_not_hidden_by_the_report_of_an_interruption():
    with pytest.raises(RuntimeError, match="broken"), begin() as fitting:
        fitting.interrupted = True
        raise RuntimeError("broken")


def test_an_interruption_is_reported_once_the_model_is_stored():
    estimator = LSTMTextClassifier(**TINY).fit(TEXTS, LABELS)
    with pytest.warns(UserWarning, match="Training was interrupted after"):
        with Fitting(estimator, find_start(estimator, resume=False), TASK) as fitting:
            fitting.interrupted = True
