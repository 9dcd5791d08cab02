"""Small networks, batches and nets that the tests of several files build."""

import numpy as np
import torch

from sklstm.network.language_network import LSTMLanguageNetwork
from sklstm.network.settings import NetworkSettings
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.tasks.multiclass import Multiclass
from sklstm.tasks.multilabel import Multilabel
from sklstm.tasks.regression import Regression
from sklstm.text.batching import RaggedIds, TrainingBatches
from sklstm.text.sentences import CLOSES, ENDS, ID_BITS
from sklstm.training.callbacks import build_callbacks
from sklstm.training.loop import build_net
from sklstm.training.settings import TrainingSettings
from sklstm.training.steps import Supervised

#: The dropouts of a text network, by name.
DROPOUTS = (
    "dropout",
    "embedding_dropout",
    "word_dropout",
    "input_dropout",
    "recurrent_dropout",
    "weight_dropout",
)

# Three short texts, and five of which one is longer than a group of sentences holds.
IDS = torch.tensor([[3, 4, 5, 6, 0], [7, 8, 9, 0, 0], [10, 0, 0, 0, 0]], dtype=torch.int32).T
LENGTHS = torch.tensor([4, 3, 1])
LONG_IDS = torch.zeros(17, 5, dtype=torch.int32)
LONG_LENGTHS = torch.tensor([17, 13, 12, 3, 1])
for _text, _length in enumerate(LONG_LENGTHS.tolist()):
    LONG_IDS[:_length, _text] = torch.arange(3, 20)[torch.arange(_length) * (_text + 2) % 17]

# Some ids end their sentence, and one closes it: of the long ones eleven sentences in all.
_MARKS = torch.zeros(20, dtype=torch.int32)
_MARKS[[4, 9, 13]], _MARKS[10] = ENDS | CLOSES, CLOSES
SENTENCES = {"read_by": "sentence"}


def mark(ids):
    """Return ids as a network reads them that reads by sentence."""
    return ids | _MARKS[ids.long()] << ID_BITS


def build_network(seed=0, *, n_ids=20, n_outputs=3, **settings) -> LSTMTextNetwork:
    """Return a small text network in float32."""
    defaults = {
        "embedding_dim": 5,
        "hidden_size": 4,
        "pooling": ("max", "mean"),
        "precision": "float32",
    }
    return LSTMTextNetwork(
        NetworkSettings(**defaults | settings),
        n_ids=n_ids,
        n_outputs=n_outputs,
        generator=torch.Generator().manual_seed(seed),
    )


def build_language_network(*, n_ids=13, log_frequency=None, **settings) -> LSTMLanguageNetwork:
    """Return a small language network in float32; its biases are random unless they are given."""
    defaults = {"embedding_dim": 5, "hidden_size": 7, "precision": "float32"}
    network = LSTMLanguageNetwork(
        NetworkSettings(**defaults | settings),
        n_ids=n_ids,
        generator=torch.Generator().manual_seed(0),
        log_frequency=log_frequency,
    )
    if log_frequency is None:
        with torch.no_grad():
            network.bias.normal_(generator=torch.Generator().manual_seed(1))
    return network


def make_ragged(n_texts=700, seed=0) -> RaggedIds:
    """Return texts of 1 to 59 ids."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 60, size=n_texts)
    ids = rng.integers(1, 20, size=lengths.sum()).astype(np.int32)
    return RaggedIds(ids, np.concatenate([[0], np.cumsum(lengths)]))


def make_batches(n_texts=24, batch_size=8) -> TrainingBatches:
    """Return batches of texts of four ids; the first id decides which of three classes."""
    ids = np.random.default_rng(0).integers(3, 20, size=4 * n_texts).astype(np.int32)
    return TrainingBatches(
        RaggedIds(ids, np.arange(0, 4 * n_texts + 1, 4)),
        (ids[::4] % 3).astype(np.int64),
        np.ones(n_texts),
        batch_size=batch_size,
        rng=np.random.default_rng(0),
    )


def make_task(n_classes=3, *, label_smoothing=0.0) -> Multiclass:
    """Return the task of the classes "a", "b", and so on."""
    return Multiclass(np.array(list("abcdefgh"[:n_classes])), label_smoothing)


def make_label_sets_task(**settings) -> Multilabel:
    """Return the task of sets of the labels "a", "b" and "c"."""
    return Multilabel(np.array(["a", "b", "c"]), **settings)


def make_numbers_task(n_numbers=1, *, error="squared_error") -> Regression:
    """Return the task of numbers with a mean of 3 and a scale of 2."""
    return Regression(np.full(n_numbers, 3.0), np.full(n_numbers, 2.0), error, n_numbers == 1)


def draw_outputs(task, n_texts=7, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs and targets of a task; of classes, each is a target."""
    rng = np.random.default_rng(seed)
    outputs = 2.0 * rng.normal(size=(n_texts, task.n_outputs))
    if isinstance(task, Multiclass):
        return outputs, np.arange(n_texts) % task.n_outputs
    targets = rng.normal(size=outputs.shape)
    return outputs, targets > 0 if isinstance(task, Multilabel) else targets


def make_training(**settings) -> TrainingSettings:
    """Return settings of a training without weight decay, schedule or average."""
    defaults = {
        "lr": 0.01,
        "weight_decay": 0.0,
        "batch_size": 8,
        "max_epochs": 2,
        "validation_fraction": 0.1,
    }
    return TrainingSettings(**defaults | settings)


def build_small_net(
    network=None,
    *,
    step=None,
    n_epochs=2,
    n_stages=1,
    validation=None,
    history=(),
    moments=None,
    **settings,
):
    """Return a net ready for ``n_epochs`` of ``make_batches()``, with all callbacks in place."""
    settings = make_training(**settings)
    return build_net(
        build_network() if network is None else network,
        step or Supervised(make_task()),
        settings,
        device="cpu",
        callbacks=build_callbacks(
            settings, n_batches=3, n_epochs=n_epochs, n_stages=n_stages, validation=validation
        ),
        history=history,
        moments=moments,
    )
