"""TextModel: all that was learnt."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sklstm.kernels.surroundings import own_surroundings
from sklstm.model.blending import Blend
from sklstm.model.prediction import compute_outputs, compute_pooled, predict_in_chunks
from sklstm.network.encoder import Encoder
from sklstm.network.state import from_state, take_state
from sklstm.tasks.protocol import Task
from sklstm.text.batching import RaggedIds
from sklstm.text.vectorizer import SequenceVectorizer


@dataclass(eq=False)
class TextModel:
    """All that was learnt: what predicts, and what resuming needs.

    Parameters
    ----------
    vectorizer : SequenceVectorizer
        Turns texts into ids.
    network : LSTMTextNetwork or LSTMLanguageNetwork
        The trained network, with its settings and the generator of its dropout.
    task : Task or None
        What y is; None of a language model.
    blend : Blend
        How the outputs of the network become a prediction.
    history : list of dict
        What was recorded of each epoch.
    rng : numpy.random.Generator or None
        The generator of the order of the texts, as the training left it.
    moments : dict of str to dict
        The optimiser's moments of each weight, where a later call needs them.
    given : tuple of str
        Parameters of the network that the start of the first fit determined.
    coverage : tuple of two floats, or None
        Shares of the tokens of the training texts and of the vocabulary that had word vectors.
    callbacks : list of (str, Callback)
        The user's callbacks, as the training left them.
    precisions : tuple of ndarray
        How certain the coefficients of the n-grams are, where ``partial_fit`` has trained them.
    """

    vectorizer: SequenceVectorizer
    network: Encoder
    task: Task | None = None
    blend: Blend = field(default_factory=Blend)
    history: list[dict] = field(default_factory=list)
    rng: np.random.Generator | None = None
    moments: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    coverage: tuple[float, float] | None = None
    callbacks: list[tuple] = field(default_factory=list)
    precisions: tuple[np.ndarray, ...] = ()  # an earlier pickle has none, and takes these

    def encode(self, texts: list[str]) -> RaggedIds:
        """Return the ids of texts."""
        marks = self.network.settings.read_by == "sentence"
        return RaggedIds(*self.vectorizer.transform_ragged(texts, marks=marks))

    def outputs(self, texts: list[str]) -> np.ndarray:
        """Return the outputs of network and ensemble member together, (n_texts, n_outputs)."""

        def predict(chunk):
            outputs = compute_outputs(self.network, self.encode(chunk))
            return self.blend.apply(outputs, chunk, self.task)

        return predict_in_chunks(texts, predict)

    def pooled(self, texts: list[str]) -> np.ndarray:
        """Return the pooled representation of texts, (n_texts, n_pooled)."""
        return predict_in_chunks(texts, lambda t: compute_pooled(self.network, self.encode(t)))

    @property
    def loss_curve(self) -> list[float]:
        """Mean training loss of each epoch."""
        return [float(row["train_loss"]) for row in self.history]

    @property
    def validation_scores(self) -> list[float]:
        """Score of each epoch on the validation texts, higher is better; empty without such."""
        return [
            row.get("valid_score", -row["valid_loss"])
            for row in self.history
            if "valid_loss" in row
        ]

    def __getstate__(self):
        """Return the fields as plain data: a pickle holds arrays, and no objects of torch."""
        return vars(self) | {
            "network": take_state(self.network),
            "moments": _map_moments(self.moments, lambda tensor: tensor.cpu().numpy().copy()),
            "device": str(self.network.embedding.weight.device),
        }

    def __setstate__(self, state):
        """Take the fields; put the network on its device where this machine has it."""
        with own_surroundings():
            self._take(state)

    def _take(self, state):
        state = dict(state)
        device = torch.device(state.pop("device"))
        vars(self).update(state)
        self.network = from_state(state["network"])
        self.moments = _map_moments(state["moments"], lambda array: torch.from_numpy(array.copy()))
        if device.type == "cuda" and torch.cuda.is_available():
            there = device.index is None or device.index < torch.cuda.device_count()
            self.network.to(device if there else "cuda")


def _map_moments(moments: dict, function) -> dict:
    return {
        name: {of: function(moment) for of, moment in own.items()} for name, own in moments.items()
    }
