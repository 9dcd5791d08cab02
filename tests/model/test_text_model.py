"""All that was learnt, in one object."""

import pickle

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from sklstm import SequenceVectorizer
from sklstm.model import prediction
from sklstm.model.blending import Blend
from sklstm.model.prediction import compute_outputs, compute_pooled
from sklstm.model.text_model import TextModel
from tests.builders import build_network, make_task
from tests.conftest import TEXTS


def build_model(**parts):
    vectorizer = SequenceVectorizer().fit(TEXTS)
    n_ids = len(vectorizer.tokens_)
    return TextModel(vectorizer, build_network(n_ids=n_ids).eval(), task=make_task(), **parts)


class Member:
    classes_ = make_task().classes

    def predict_proba(self, texts):
        return np.array([[len(text), 1.0, 2.0] for text in texts]) / 100


@pytest.mark.parametrize("chunk", [3, 1000])
def test_outputs_are_those_of_network_and_member_together(monkeypatch, chunk):
    model = build_model(blend=Blend(2.0, (0.3, 0.7), (("own", Member()),)))
    outputs = compute_outputs(model.network, model.encode(TEXTS))
    expected = 0.3 * outputs / 2.0 + 0.7 * np.log(Member().predict_proba(TEXTS))
    monkeypatch.setattr(prediction, "TEXTS_PER_CHUNK", chunk)
    np.testing.assert_allclose(model.outputs(TEXTS), expected, atol=1e-6)


def test_pooled_representations_are_those_of_the_network():
    model = build_model()
    expected = compute_pooled(model.network, model.encode(TEXTS))
    np.testing.assert_array_equal(model.pooled(TEXTS), expected)


def test_scores_are_higher_where_the_model_is_better():
    by_loss = build_model(history=[{"train_loss": 2, "valid_loss": 3.0}])
    assert by_loss.loss_curve == [2.0] and by_loss.validation_scores == [-3.0]
    row = {"train_loss": 2.0, "valid_loss": 3.0, "valid_score": 0.5}
    assert build_model(history=[row]).validation_scores == [0.5]
    assert build_model(history=[{"train_loss": 2.0}]).validation_scores == []


def test_a_pickled_model_predicts_the_same_and_draws_the_same_masks():
    model = build_model(rng=np.random.default_rng(3), coverage=(0.5, 0.4))
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied.outputs(TEXTS), model.outputs(TEXTS))
    assert vars(copied).keys() == vars(model).keys()
    assert copied.coverage == (0.5, 0.4) and copied.rng.random() == model.rng.random()
    states = [m.network.generator.get_state() for m in (copied, model)]
    assert torch.equal(*states)


def test_where_only_the_member_counts_its_probabilities_are_predicted():
    model = build_model(blend=Blend(1.0, (0.0, 1.0), (("own", Member()),)))
    p = Member().predict_proba(TEXTS)
    expected = np.log(p / p.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_softmax(model.outputs(TEXTS), axis=1), expected, atol=1e-9)
