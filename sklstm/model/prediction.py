"""Whole data sets through a trained network, batch by batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from sklstm.kernels.memory import lacks_memory, reused_memory
from sklstm.kernels.surroundings import own_surroundings
from sklstm.kernels.transfer import send
from sklstm.network.language_network import LSTMLanguageNetwork
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.text.batching import RaggedIds, prediction_batches

# This number of texts are ids at a time: enough that texts of like length meet in a batch.
TEXTS_PER_CHUNK = 2**13


def predict_in_chunks(texts: list[str], predict: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """Return one row for each text; the further memory is that of one chunk."""
    result = None
    for begin in range(0, len(texts), TEXTS_PER_CHUNK):
        chunk = texts[begin : begin + TEXTS_PER_CHUNK]
        rows = _within_memory(predict, chunk)
        if result is None:
            result = np.empty((len(texts), *rows.shape[1:]), dtype=rows.dtype)
        result[begin : begin + len(chunk)] = rows
    return result


def _within_memory(predict, texts):
    """Return what a function predicts, or say what to do where the memory does not suffice."""
    try:
        return predict(texts)
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        kind = torch.OutOfMemoryError if isinstance(error, torch.OutOfMemoryError) else MemoryError
        raise kind(
            f"There is too little memory to predict texts of up to {max(map(len, texts)):,} "
            "characters. Set max_length of the vectorizer, which bounds what the network reads, or "
            "cut very long texts."
        ) from error.with_traceback(None)


def compute_outputs(network: LSTMTextNetwork, texts: RaggedIds) -> np.ndarray:
    """Return the outputs of the head for all texts, (n_texts, n_outputs) in float64."""
    return _stream(network, network.forward, texts, network.head.out_features).astype(np.float64)


def compute_pooled(network: LSTMTextNetwork, texts: RaggedIds) -> np.ndarray:
    """Return the pooled representation of all texts, (n_texts, n_pooled), in the weights' dtype."""
    return _stream(network, network.pool, texts, network.n_pooled)


def compute_sentences(
    network: LSTMTextNetwork, texts: RaggedIds
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return outputs (S, n_outputs), weights (S,) and lengths (S,) of each text's S sentences."""
    result = [None] * len(texts)
    device = network.head.weight.device
    with predicting(network):
        prepared = network.prepare(torch.from_numpy(texts.ids))
        for rows, ids, lengths in prediction_batches(texts):
            batch = network.classify_sentences(send(ids, device), lengths, prepared)
            outputs, weights, widths = (part.cpu().numpy() for part in batch)
            for column, row in enumerate(rows):
                n = np.count_nonzero(widths[:, column])
                result[row] = tuple(part[:n, column] for part in (outputs, weights, widths))
    return result


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Switch a network to evaluation, as between two epochs; a fitted one is left as it is."""
    was_training = network.training
    if was_training:
        network.eval()
    try:
        yield
    finally:
        if was_training:
            network.train()


@contextmanager
def predicting(network: nn.Module) -> Iterator[None]:
    """Evaluate a network without gradients, whatever the process has set in torch."""
    with own_surroundings(), evaluating(network), torch.inference_mode(), reused_memory():
        yield


def _stream(
    network: LSTMTextNetwork,
    function: Callable[..., Tensor],
    texts: RaggedIds,
    n_columns: int,
) -> np.ndarray:
    """Return one row a text; the further memory is that of one batch, on a card of all rows."""
    weight = network.head.weight
    order, outputs = [], []
    with predicting(network):
        result = torch.empty(len(texts), n_columns, dtype=weight.dtype)
        prepared = None  # what is prepared for one text would be used once
        if len(texts) > 1:
            prepared = network.prepare(torch.from_numpy(texts.ids))
        for rows, ids, lengths in prediction_batches(texts):
            output = function(send(ids, weight.device), lengths, prepared)
            if weight.device.type == "cpu":
                result[rows] = output
            else:  # fetched all at once, so that a card is waited for once
                order.append(rows)
                outputs.append(output)
        if order:
            result[np.concatenate(order)] = torch.cat(outputs).cpu()
    return result.numpy()


def sum_log_likelihoods(network: LSTMLanguageNetwork, texts: RaggedIds) -> np.ndarray:
    """Return the sum of the log-probabilities of all tokens, (directions,) in float64.

    In each direction a text's first token, or its last, is given and not predicted.
    """
    device, total = network.bias.device, 0.0
    with predicting(network):
        for _, ids, lengths in prediction_batches(texts):
            total += network.log_probabilities(send(ids, device), lengths).double().sum(dim=(1, 2))
    return total.cpu().numpy()
