import numpy as np
import pytest
import torch

from sklstm.lstm import LSTM
from sklstm.model.generation import forward_reader, sample
from sklstm.text.special_tokens import BOUNDARY, PADDING, UNKNOWN
from tests.builders import build_language_network as build


def draw(network=None, prompt=(BOUNDARY,), seed=0, **settings):
    defaults = {"n_texts": 4, "max_tokens": 12, "temperature": 1.0}
    rng = np.random.RandomState(seed)
    return sample(network or build(), np.array(prompt), **defaults | settings, rng=rng)


def test_same_seed_gives_the_same_texts():
    network = build()
    assert [t.tolist() for t in draw(network)] == [t.tolist() for t in draw(network)]
    assert [t.tolist() for t in draw(network)] != [t.tolist() for t in draw(network, seed=1)]


def test_texts_hold_words_only_and_end_in_time():
    for text in draw(n_texts=200):
        assert 1 <= len(text) <= 12
        assert not {PADDING, UNKNOWN, BOUNDARY} & set(text.tolist())


def test_a_text_stops_at_its_boundary():
    network = build()
    with torch.no_grad():
        network.bias[BOUNDARY] = 100.0
    assert [len(text) for text in draw(network)] == [1, 1, 1, 1]  # none is empty
    assert [len(text) for text in draw(network, prompt=(BOUNDARY, 5))] == [0, 0, 0, 0]


def test_temperature_0_takes_the_most_probable_word():
    network = build()
    texts = draw(network, temperature=0, max_tokens=3)
    assert len({tuple(text.tolist()) for text in texts}) == 1
    ids = torch.tensor([[BOUNDARY]] + [[i] for i in texts[0].tolist()], dtype=torch.int32)
    for t in range(len(texts[0])):
        states = network.lstm.states(network.embedding(ids[: t + 1, 0]).unsqueeze(1))
        logits = network.logits(network.projections[0](states[-1, :, :7]))
        logits[:, [UNKNOWN] + [BOUNDARY] * (t == 0)] = -torch.inf
        assert logits.argmax() == ids[t + 1, 0]


def test_words_are_drawn_as_often_as_they_are_probable():
    network = build()
    first = [int(text[0]) for text in draw(network, n_texts=20_000, max_tokens=1, temperature=0.7)]
    reader = forward_reader(network.lstm)
    states, _ = reader(network.embedding(torch.tensor([[BOUNDARY]])))
    logits = network.logits(network.projections[0](states[-1]))[0].detach()
    logits[[UNKNOWN, BOUNDARY]] = -torch.inf
    expected = (logits / 0.7).softmax(dim=0).numpy()
    assert np.bincount(first, minlength=13) / 20_000 == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("settings", [{"bidirectional": True}, {"num_layers": 2}], ids=str)
def test_the_reader_is_the_forward_direction(settings):
    lstm = LSTM(3, 4, generator=torch.Generator().manual_seed(0), **settings)
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(forward_reader(lstm)(x)[0], lstm(x)[0][:, :, :4])
