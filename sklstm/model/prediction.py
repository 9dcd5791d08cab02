"""Whole data sets through a trained network, batch by batch."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from sklstm.kernels.memory import reused_memory
from sklstm.network.language_network import LSTMLanguageNetwork
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.text.batching import RaggedIds, prediction_batches

# So many texts are ids at a time: enough that texts of like length meet in a batch.
TEXTS_PER_CHUNK = 2**13
# Log loss, summed over all texts, that a weight of a blend costs when it is 1 off the expected one.
PENALTY_OF_BLEND = 30.0


def answer_in_chunks(texts: list[str], answer: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """Return the answers to all texts, one row each; the memory beside it is that of a chunk."""
    result = None
    for begin in range(0, len(texts), TEXTS_PER_CHUNK):
        chunk = texts[begin : begin + TEXTS_PER_CHUNK]
        rows = answer(chunk)
        if result is None:
            result = np.empty((len(texts), *rows.shape[1:]), dtype=rows.dtype)
        result[begin : begin + len(chunk)] = rows
    return result


def compute_logits(network: LSTMTextNetwork, texts: RaggedIds) -> np.ndarray:
    """Return the logits of all texts, (n_texts, C) in float64."""
    return _stream(network, network.forward, texts, network.head.out_features).astype(np.float64)


def compute_pooled(network: LSTMTextNetwork, texts: RaggedIds) -> np.ndarray:
    """Return the pooled representation of all texts, (n_texts, n_pooled), in the weights' dtype."""
    return _stream(network, network.pool, texts, network.n_pooled)


def compute_sentences(
    network: LSTMTextNetwork, texts: RaggedIds
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return for each text the logits (S, C), weights (S,) and lengths (S,) of its sentences."""
    result = [None] * len(texts)
    device = network.head.weight.device
    with torch.inference_mode(), reused_memory():
        prepared = network.prepare(torch.from_numpy(texts.ids).to(device))
        for rows, ids, lengths in prediction_batches(texts):
            batch = network.classify_sentences(ids.to(device), lengths, prepared)
            logits, weights, widths = (part.cpu().numpy() for part in batch)
            for column, row in enumerate(rows):
                n = np.count_nonzero(widths[:, column])
                result[row] = tuple(part[:n, column] for part in (logits, weights, widths))
    return result


def _stream(network, function, texts, n_columns):
    """Fill one result row a text; the memory beside it is that of one batch."""
    weight = network.head.weight
    result = torch.empty(len(texts), n_columns, dtype=weight.dtype)
    if network.training:  # as between two epochs; a fitted network stays as it is
        network.eval()
        try:
            return _stream(network, function, texts, n_columns)
        finally:
            network.train()
    with torch.inference_mode(), reused_memory():
        prepared = network.prepare(torch.from_numpy(texts.ids).to(weight.device))
        for rows, ids, lengths in prediction_batches(texts):
            result[rows] = function(ids.to(weight.device), lengths, prepared).cpu()
    return result.numpy()


def sum_log_likelihoods(network: LSTMLanguageNetwork, texts: RaggedIds) -> np.ndarray:
    """Return the sum of the log-probabilities of all tokens, (directions,) in float64.

    In each direction a text's first token, or its last, is given and not predicted.
    """
    if network.training:  # as between two epochs
        network.eval()
        try:
            return sum_log_likelihoods(network, texts)
        finally:
            network.train()
    device, total = network.bias.device, 0.0
    with torch.inference_mode(), reused_memory():
        for _, ids, lengths in prediction_batches(texts):
            total += network.log_probabilities(ids.to(device), lengths).double().sum(dim=(1, 2))
    return total.cpu().numpy()


def mean_log_loss(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean of the negative log-probability of the targets."""
    log_probabilities = log_softmax(logits, axis=1)[np.arange(len(targets)), targets]
    return float(-np.average(log_probabilities, weights=weights))


def fit_temperature(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """Return the number that, dividing the logits, minimises their log loss (Guo et al. 2017)."""
    best = minimize_scalar(
        lambda log_t: mean_log_loss(logits / np.exp(log_t), targets, weights),
        bounds=(-5.0, 5.0),
        method="bounded",
    )
    return float(np.exp(best.x))


def fit_blend(
    parts: list[np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray,
    *,
    expected: tuple[float, ...],
) -> tuple[float, ...]:
    """Return the weights of the logarithmic opinion pool with the lowest log loss.

    The pool is softmax(sum of weight * logits over the parts), a weighted geometric mean of
    several predictions (Genest & Zidek 1986). Its log loss is convex in the weights. A small
    penalty holds them to the ``expected`` ones, which matters where there are few texts. Texts of
    unequal weight are as many as equal ones that would tell as much (Kish's effective number).
    """
    rows, shares = np.arange(len(targets)), weights / weights.sum()

    def loss_and_gradient(scales):
        pooled = sum(scale * part for scale, part in zip(scales, parts, strict=True))
        probabilities = softmax(pooled, axis=1)
        gradient = [
            shares @ ((probabilities * part).sum(axis=1) - part[rows, targets]) for part in parts
        ]
        loss = mean_log_loss(pooled, targets, weights) + penalty * ((scales - middle) ** 2).sum()
        return loss, np.array(gradient) + 2 * penalty * (scales - middle)

    n_effective = weights.sum() ** 2 / (weights**2).sum()
    middle, penalty = np.array(expected), PENALTY_OF_BLEND / n_effective
    best = minimize(loss_and_gradient, x0=middle, jac=True, bounds=[(0.0, 1e2)] * len(parts))
    return tuple(best.x.tolist())
