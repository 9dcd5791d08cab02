"""What users may expect of precision="bfloat16" and precision="auto"."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklstm.lstm import LSTM
from tests.conftest import TEXTS, UNUSUAL, word_order


@pytest.mark.parametrize("changes", [{}, {"cell": "layer_norm", "zoneout": 0.1}], ids=str)
def test_bfloat16_learns_what_float32_learns(tiny, changes):
    texts, labels = word_order(300)
    tiny.set_params(hidden_size=16, batch_size=20, lr=0.04, max_epochs=8, **changes)
    predicted = {}
    for precision in ("float32", "bfloat16"):
        model = clone(tiny).set_params(precision=precision).fit(texts[:200], labels[:200])
        assert model.score(texts[200:], labels[200:]) > 0.95
        predicted[precision] = model.predict_proba(texts)
    assert 0 < np.abs(predicted["float32"] - predicted["bfloat16"]).max() < 0.2
    assert {p.dtype for p in model.model_.network.parameters()} == {torch.float32}


def test_bfloat16_keeps_the_promises_of_float32(tiny, texts, labels):
    model = tiny.set_params(precision="bfloat16", read_by="sentence").fit(texts, labels)
    mixed = [*UNUSUAL, *TEXTS]
    probabilities = model.predict_proba(mixed)
    assert probabilities.dtype == np.float64 and model.transform(mixed).dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    one_by_one = np.vstack([model.predict_proba([text]) for text in mixed])
    np.testing.assert_allclose(one_by_one, probabilities, rtol=0, atol=1e-3)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(mixed), probabilities)
    np.testing.assert_array_equal(
        clone(model).fit(texts, labels).predict_proba(mixed), probabilities
    )
    # The weights are those of float32, so that the fit can be resumed on another device.
    model.set_params(precision="float32", warm_start=True, max_epochs=1).fit(texts, labels)
    assert model.model_.network.settings.precision == "float32"


@pytest.mark.parametrize("has_units", [True, False])
def test_auto_trains_in_bfloat16_where_there_are_units(monkeypatch, tiny, texts, labels, has_units):
    monkeypatch.setattr(LSTM, "gains_from_bfloat16", lambda layer, device: has_units)
    models = {p: clone(tiny).set_params(precision=p) for p in ("auto", "float32", "bfloat16")}
    losses = {p: model.fit(texts, labels).loss_curve_ for p, model in models.items()}
    assert losses["auto"] == losses["bfloat16" if has_units else "float32"]
    assert losses["bfloat16"] != losses["float32"]
    # With the same weights auto predicts the same as float32.
    auto, full = models["auto"].model_, models["float32"].model_
    full.network.load_state_dict(auto.network.state_dict())
    models["float32"].model_ = replace(full, blend=auto.blend)
    predicted = [models[p].predict_proba(texts) for p in ("auto", "float32")]
    np.testing.assert_array_equal(*predicted)
