"""The systems that ``end_to_end.py`` compares: ours and others.

The neural ones are the same network: embedding 128, bidirectional LSTM of 128, mean over the real
tokens, linear head, Adam with a learning rate of 1e-3, batches of 32, no dropout. They begin with
ids; the others, and ours once more, begin with raw texts. Each has the same few methods::

    prepare(ids or texts, targets)   what the system takes in; not timed
    reset()                          restores the first weights; not timed
    fit(prepared)                    one epoch; returns its mean training loss, or None
    predict(prepared)                scores, (n_texts, n_classes)
"""

import importlib
import os
import tempfile
from pathlib import Path

import joblib
import numpy as np
import torch
from fresh import PeakMemory
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skorch import NeuralNet
from skorch.dataset import Dataset
from stages import PLAIN, make_classifier
from torch import nn

# What ``Ours`` takes from the inside of the package; the other classes use public names only.
from sklstm.model.prediction import compute_outputs
from sklstm.network.settings import NetworkSettings
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.tasks.multiclass import Multiclass
from sklstm.text.batching import TrainingBatches
from sklstm.training.callbacks import build_callbacks
from sklstm.training.loop import build_net, train
from sklstm.training.settings import TrainingSettings
from sklstm.training.steps import Supervised

EMBEDDING, HIDDEN, BATCH, WIDTH, LEARNING_RATE = 128, 128, 32, 256, 1e-3


def measure_memory(owner, settings, path):
    """Return the peak of a fit and of a prediction in bytes; to be called in a fresh process."""
    train, test = joblib.load(path)
    owner = globals()[owner]
    for library in owner.libraries:
        importlib.import_module(library)
    peak = PeakMemory()
    system = owner(**settings)
    system.reset()
    system.fit(system.prepare(*train))
    fitted = peak.rise()
    # Memory that is held from the fit to the prediction counts in both.
    peak = PeakMemory(begin=peak.begin)
    system.predict(system.prepare(*test))
    return {"fit": fitted, "predict": peak.rise()}


def pad(texts):
    """Return the ids as a matrix with one row a text, padded at the end with 0."""
    matrix = np.zeros((len(texts), WIDTH), dtype=np.int32)
    matrix[np.arange(WIDTH) < texts.lengths[:, None]] = texts.ids
    return matrix


class Ours:
    """This package, from ids."""

    libraries = ()

    def __init__(self, n_ids, n_classes, backend="auto"):
        self.n_ids, self.n_classes, self.backend = n_ids, n_classes, backend

    def prepare(self, texts, targets):
        return texts, targets

    def reset(self):
        classifier = make_classifier(self.backend, **PLAIN)
        network = LSTMTextNetwork(
            NetworkSettings.of(classifier),
            n_ids=self.n_ids,
            n_outputs=self.n_classes,
            generator=torch.Generator().manual_seed(0),
        )
        step = Supervised(Multiclass(np.arange(self.n_classes)))
        settings = TrainingSettings.of(classifier)
        callbacks = build_callbacks(settings, n_batches=1, n_epochs=1)  # there is no schedule
        self.net = build_net(network, step, settings, device="cpu", callbacks=callbacks)

    def fit(self, prepared):
        texts, targets = prepared
        weights, rng = np.ones(len(targets)), np.random.default_rng(0)
        batches = TrainingBatches(texts, targets, weights, batch_size=BATCH, rng=rng)
        train(self.net, batches, n_epochs=1)
        return self.net.history[-1, "train_loss"]

    def predict(self, prepared):
        return compute_outputs(self.net.module_, prepared[0])


class OursFromTexts(Ours):
    """This package, from raw texts: tokens, vocabulary and a new network are part of the fit."""

    settings = PLAIN

    def __init__(self, n_classes, backend="auto"):
        super().__init__(None, n_classes, backend)

    def reset(self):
        self.classifier = make_classifier(self.backend, **self.settings)

    def fit(self, prepared):
        self.classifier.fit(*prepared)
        return self.classifier.history_[-1]["train_loss"]

    def predict(self, prepared):
        return self.classifier.predict_proba(prepared[0])


class RecipeFromTexts(OursFromTexts):
    """The same with the classifier's defaults: dropouts, average of the weights, schedule."""

    settings = {}


class DefaultFromTexts(OursFromTexts):
    """The same with the n-grams of the default as well."""

    settings = {"blend": "ngrams"}


class PaddedLSTM(nn.Module):
    """What a skorch user writes: every text padded to the same width, mean under a mask."""

    def __init__(self, n_ids, n_classes, packed):
        super().__init__()
        self.packed = packed
        self.embedding = nn.Embedding(n_ids, EMBEDDING, padding_idx=0)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, n_classes)

    def forward(self, X):
        mask = (X != 0).unsqueeze(2)
        embedded = self.embedding(X)
        if self.packed:
            lengths = mask.sum(dim=(1, 2)).cpu()
            packed = nn.utils.rnn.pack_padded_sequence(
                embedded, lengths, batch_first=True, enforce_sorted=False
            )
            states, _ = nn.utils.rnn.pad_packed_sequence(
                self.lstm(packed)[0], batch_first=True, total_length=X.shape[1]
            )
        else:
            states, _ = self.lstm(embedded)
        return self.head((states * mask).sum(dim=1) / mask.sum(dim=1))


class Skorch:
    """skorch with its own data set and loader, and without the callback that prints."""

    libraries = ()

    def __init__(self, n_ids, n_classes, packed=False):
        self.network = PaddedLSTM, n_ids, n_classes, packed

    def prepare(self, texts, targets):
        return Dataset(torch.as_tensor(pad(texts), dtype=torch.int64), torch.as_tensor(targets))

    def reset(self):
        torch.manual_seed(0)
        module, *sizes = self.network
        self.net = NeuralNet(
            module(*sizes),
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=LEARNING_RATE,
            batch_size=BATCH,
            max_epochs=1,
            train_split=None,
            callbacks__print_log=None,
            iterator_train__shuffle=True,
            verbose=0,
        ).initialize()

    def fit(self, prepared):
        self.net.partial_fit(prepared)
        return self.net.history[-1, "train_loss"]

    def predict(self, prepared):
        return self.net.forward(prepared).numpy()


class Keras:
    """Keras on TensorFlow: its own fit and predict, the mean under a mask as in ``PaddedLSTM``.

    ``mask_zero=True`` in the embedding would hand the mask to the LSTM as well, which makes Keras
    slower by a third.
    """

    libraries = ("keras", "tensorflow")

    def __init__(self, n_ids, n_classes):
        keras = import_keras()
        keras.utils.set_random_seed(0)
        layers = keras.layers
        ids = keras.Input((WIDTH,), dtype="int32")
        embedded = layers.Embedding(n_ids, EMBEDDING)(ids)
        states = layers.Bidirectional(layers.LSTM(HIDDEN, return_sequences=True))(embedded)
        pooled = layers.GlobalAveragePooling1D()(states, mask=keras.ops.not_equal(ids, 0))
        self.model = keras.Model(ids, layers.Dense(n_classes, activation="softmax")(pooled))
        optimizer = keras.optimizers.Adam(LEARNING_RATE)
        self.model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
        optimizer.build(self.model.trainable_variables)
        # One model for all repeats, since a new one would be traced again.
        self.variables = [*self.model.variables, *optimizer.variables]
        self.first_values = [variable.numpy() for variable in self.variables]

    def prepare(self, texts, targets):
        return pad(texts), targets

    def reset(self):
        for variable, value in zip(self.variables, self.first_values, strict=True):
            variable.assign(value)

    def fit(self, prepared):
        history = self.model.fit(*prepared, batch_size=BATCH, epochs=1, verbose=0)
        return history.history["loss"][-1]

    def predict(self, prepared):
        # Batches of 128 or 256 were slower.
        return self.model.predict(prepared[0], batch_size=BATCH, verbose=0)


def import_keras():
    """Return Keras on a TensorFlow that is quiet and uses as many threads as torch."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    threads = tensorflow.config.threading
    if threads.get_intra_op_parallelism_threads() != torch.get_num_threads():
        threads.set_intra_op_parallelism_threads(torch.get_num_threads())
        threads.set_inter_op_parallelism_threads(torch.get_num_threads())
    import keras

    return keras


class TfidfLogistic:
    """TF-IDF of words and pairs with logistic regression, as in the benchmark of accuracy."""

    libraries = ("sklearn.linear_model",)

    def __init__(self, n_classes):
        pass

    def prepare(self, texts, targets):
        return texts, targets

    def reset(self):
        settings = {"ngram_range": (1, 2), "sublinear_tf": True, "min_df": 2}
        vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b|[!?]", **settings)
        self.model = make_pipeline(vectorizer, LogisticRegression(C=10, max_iter=1000))

    def fit(self, prepared):
        self.model.fit(*prepared)

    def predict(self, prepared):
        return self.model.predict_proba(prepared[0])


class FastText:
    """fastText: one epoch with vectors of 128; the file that it reads is written as part of fit."""

    libraries = ("fasttext",)

    def __init__(self, n_classes):
        self.n_classes = n_classes

    def prepare(self, texts, targets):
        return [" ".join(text.split()) for text in texts], targets

    def reset(self):
        self.model = None

    def fit(self, prepared):
        import fasttext

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.txt"
            rows = (f"__label__{target} {text}\n" for text, target in zip(*prepared, strict=True))
            path.write_text("".join(rows), encoding="utf-8")
            self.model = fasttext.train_supervised(
                str(path), epoch=1, dim=EMBEDDING, thread=torch.get_num_threads(), verbose=0
            )

    def predict(self, prepared):
        scores = np.zeros((len(prepared[0]), self.n_classes))
        labels, probabilities = self.model.predict(prepared[0], k=-1)
        for row, names, values in zip(scores, labels, probabilities, strict=True):
            row[[int(name.removeprefix("__label__")) for name in names]] = values
        return scores
