"""Texts sampled from a language model, token by token."""

import numbers

import numpy as np
import torch
from torch import Tensor

from sklstm.lstm import LSTM
from sklstm.model.prediction import predicting
from sklstm.network.language_network import LSTMLanguageNetwork
from sklstm.text.special_tokens import BOUNDARY, UNKNOWN


def check_arguments(n_texts, prompt, max_tokens, temperature):
    """Raise TypeError or ValueError for an argument of ``generate`` that is not what it must be."""
    if not isinstance(prompt, str):
        raise TypeError(f"prompt must be a str; got {type(prompt).__name__} ({prompt!r:.40}).")
    for name, number in (("n_texts", n_texts), ("max_tokens", max_tokens)):
        if not isinstance(number, numbers.Integral) or number < 1:
            remedy = f" A prompt is given as prompt={number!r:.40}." * isinstance(number, str)
            raise ValueError(f"{name} must be a whole number of 1 or more; got {number!r}.{remedy}")
    is_number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
    if not is_number or not 0 <= temperature < np.inf:
        raise ValueError(f"temperature must be a number of 0 or more; got {temperature!r}.")


def sample(
    network: LSTMLanguageNetwork,
    prompt: np.ndarray,  # (n,) ids, the boundary first
    *,
    n_texts: int,
    max_tokens: int,
    temperature: float,
    rng: np.random.RandomState,
) -> list[np.ndarray]:
    """Return the ids that follow the prompt in each of the texts, up to the next boundary."""
    with predicting(network):
        return _sample(network, prompt, n_texts, max_tokens, temperature, rng)


def _sample(network, prompt, n_texts, max_tokens, temperature, rng):
    reader = forward_reader(network.lstm)
    device = network.bias.device
    ids = torch.from_numpy(prompt.astype(np.int64)).to(device).unsqueeze(1).expand(-1, n_texts)
    state, drawn = None, []
    while len(drawn) < max_tokens:
        states, state = reader(network.embedding(ids), state)
        logits = network.logits(network.projections[0](states[-1]))
        # Neither is a word, and no text is empty.
        logits[:, UNKNOWN] = -torch.inf
        if not drawn and len(prompt) == 1:
            logits[:, BOUNDARY] = -torch.inf
        drawn.append(_draw(logits, temperature, rng))
        ids = torch.from_numpy(drawn[-1]).to(device).unsqueeze(0)
        if (np.stack(drawn) == BOUNDARY).any(axis=0).all():
            break
    texts = np.stack(drawn, axis=1)
    return [text[: np.argmax(np.append(text, BOUNDARY) == BOUNDARY)] for text in texts]


def _draw(logits: Tensor, temperature: float, rng) -> np.ndarray:
    """Return one id for each row of logits (B, V); a temperature of 0 takes the most probable."""
    logits = logits.cpu().double().numpy()
    if temperature > 0:  # the largest of logits with Gumbel noise is a sample of their softmax
        logits = logits / temperature + rng.gumbel(size=logits.shape)
    return logits.argmax(axis=1)


def forward_reader(lstm: LSTM) -> LSTM:
    """Return an LSTM with the weights of the forward direction, for reading token by token."""
    reader = LSTM(
        lstm.input_size, lstm.hidden_size, lstm.num_layers, cell=lstm.cell, backend=lstm.backend,
        generator=torch.Generator(),
    )  # fmt: skip
    weights = {name: w for name, w in lstm.state_dict().items() if not name.endswith("_reverse")}
    reader.load_state_dict(weights)
    return reader.to(next(lstm.parameters()).device).eval()
