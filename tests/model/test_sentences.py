"""The sentences of texts, and what the network says of each."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from sklstm import SequenceVectorizer
from sklstm.model.blending import Blend
from sklstm.model.prediction import compute_outputs
from sklstm.model.sentences import check_reads_sentences, predict_sentences
from sklstm.model.text_model import TextModel
from tests.builders import build_network, make_task

TEXTS = ["good film . bad actors !", "dull", "what ? no ) so"]


def build_model(read_by="sentence"):
    vectorizer = SequenceVectorizer().fit(TEXTS)
    n_ids = len(vectorizer.tokens_)
    network = build_network(n_ids=n_ids, read_by=read_by).eval()
    if read_by is not None:
        with torch.no_grad():
            network.merge.weight.copy_(torch.linspace(-9, 9, network.n_pooled))
    return TextModel(vectorizer, network, task=make_task(), blend=Blend(temperature=0.1))


def test_tokens_weights_and_probabilities_of_each_sentence():
    model = build_model()
    found = predict_sentences(model, TEXTS)
    assert [[" ".join(sentence.tokens) for sentence in text] for text in found] == [
        ["good film .", "bad actors !"],
        ["dull"],
        ["what ?", "no ) so"],
    ]
    outputs = compute_outputs(model.network, model.encode(TEXTS)) / 0.1
    for text, of_text in zip(found, outputs, strict=True):
        weights = [sentence.weight for sentence in text]
        assert sum(weights) == pytest.approx(1.0)
        # The weighted mean of their outputs is the text's.
        mean = weights @ np.log([sentence.probabilities for sentence in text])
        np.testing.assert_allclose(softmax(mean), softmax(of_text), atol=1e-6)
    assert found[0][0].weight != pytest.approx(0.5, abs=1e-3)


def test_a_model_that_reads_no_sentences_has_none_to_show():
    check_reads_sentences(build_model())
    with pytest.raises(ValueError) as caught:
        check_reads_sentences(build_model(read_by=None))
    assert str(caught.value) == (
        "predict_sentences needs a classifier fitted with read_by='sentence'; got one fitted with "
        "read_by=None. Set it and fit again."
    )
