"""Training and prediction beside skorch with ``nn.LSTM``, alternating within one run.

The same network for all: embedding 128, bidirectional LSTM of 128, mean pooling over the real
tokens, linear head, Adam, batches of 32, no dropout; a vocabulary of 30,000 and at most 256 tokens
of each text. Ids are made once, outside the clock; tokens are real ones, not padding.

    python benchmarks/end_to_end.py --train ../shared/data/imdb/train.csv.xz
"""

import argparse
import json
import platform
import statistics
import time

import numpy as np
import torch
from skorch import NeuralNet
from skorch.dataset import Dataset
from torch import nn

from sklstm import SequenceVectorizer
from sklstm.batching import RaggedIds, TrainingBatches
from sklstm.datasets import load_docstrings
from sklstm.prediction import compute_logits
from sklstm.training import build_net, train

EMBEDDING, HIDDEN, BATCH = 128, 128, 32


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
    """skorch as it comes: its data set, its loader, no callbacks."""

    def __init__(self, matrix, targets, n_ids, n_classes, packed):
        torch.manual_seed(0)
        self.X, self.y = torch.as_tensor(matrix, dtype=torch.int64), torch.as_tensor(targets)
        self.net = NeuralNet(
            PaddedLSTM(n_ids, n_classes, packed),
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=1e-3,
            batch_size=BATCH,
            max_epochs=1,
            train_split=None,
            callbacks=None,
            callbacks__print_log=None,
            iterator_train__shuffle=True,
            verbose=0,
        ).initialize()

    def fit(self):
        self.net.partial_fit(Dataset(self.X, self.y))

    def predict(self):
        return self.net.forward(Dataset(self.X))


class Ours:
    """The same network through this package."""

    def __init__(self, ids, offsets, targets, n_ids, n_classes, backend):
        self.texts = RaggedIds(ids, offsets)
        network = {
            "n_ids": n_ids,
            "n_classes": n_classes,
            "embedding_dim": EMBEDDING,
            "hidden_size": HIDDEN,
            "num_layers": 1,
            "bidirectional": True,
            "attention": None,
            "segments": None,
            "pooling": ("mean",),
            "dropout": 0.0,
            "embedding_dropout": 0.0,
            "word_dropout": 0.0,
            "input_dropout": 0.0,
            "recurrent_dropout": 0.0,
            "weight_dropout": 0.0,
            "zoneout": 0.0,
            "cell": "lstm",
            "backend": backend,
            "precision": "float32",
            "generator": torch.Generator().manual_seed(0),
        }
        self.batches = TrainingBatches(
            self.texts,
            targets,
            np.ones(len(targets)),
            batch_size=BATCH,
            rng=np.random.default_rng(0),
        )
        self.net = build_net(
            network, lr=1e-3, weight_decay=0.0, label_smoothing=0.0, device="cpu", verbose=0
        )

    def fit(self):
        train(self.net, self.batches, max_epochs=1)

    def predict(self):
        return compute_logits(self.net.module_, self.texts)


def load(path, n_texts):
    """Return texts and targets."""
    if path is None:
        docstrings = load_docstrings()
        texts, labels = docstrings.data, docstrings.target
    else:
        import pandas as pd

        table = pd.read_csv(path, keep_default_na=False)
        texts, labels = table["text"].tolist(), table["label"].to_numpy()
    rows = np.random.default_rng(0).permutation(len(texts))[:n_texts]
    _, targets = np.unique(labels, return_inverse=True)
    return [texts[row] for row in rows], targets[rows]


def measure(systems, n_tokens, repeats):
    """Return seconds by system and phase, the systems alternating."""
    seconds = {name: {"fit": [], "predict": []} for name in systems}
    for repeat in range(repeats):
        for name, system in systems.items():
            for phase in ("fit", "predict"):
                start = time.perf_counter()
                getattr(system, phase)()
                seconds[name][phase].append(time.perf_counter() - start)
                speed = n_tokens / seconds[name][phase][-1]
                print(f"{repeat} {name:<28}{phase:<9}{speed:>12,.0f} tokens/s", flush=True)
    return seconds


def report(seconds, n_tokens, rival):
    """Print medians, spreads and ratios; return the rows."""
    print(f"\n{'median tokens/s (spread)':<28}{'fit':>24}{'predict':>24}   ratio to {rival}")
    rows = []
    for name, phases in seconds.items():
        row, cells, ratios = {"system": name}, "", []
        for phase, times in phases.items():
            median = statistics.median(times)
            spread = (max(times) - min(times)) / median
            row[phase] = {"tokens_per_s": n_tokens / median, "spread": spread}
            row[phase]["ratio"] = statistics.median(
                other / own for own, other in zip(times, seconds[rival][phase], strict=True)
            )
            cells += f"{n_tokens / median:>14,.0f} ({spread:>5.0%})  "
            ratios.append(f"{row[phase]['ratio']:.2f}")
        print(f"{name:<28}{cells}   fit {ratios[0]}, predict {ratios[1]}")
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", help="CSV file with columns text, label; default: docstrings")
    parser.add_argument("--texts", type=int, default=3200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--packed", action="store_true", help="also packed sequences (slow)")
    parser.add_argument("--backends", nargs="*", default=["auto"])
    parser.add_argument("--json", help="keep the results in this file")
    arguments = parser.parse_args()

    texts, targets = load(arguments.train, arguments.texts)
    vectorizer = SequenceVectorizer()
    ids, offsets = vectorizer.fit_ragged(texts)
    matrix = vectorizer.transform(texts)
    n_ids, n_classes = len(vectorizer.get_feature_names_out()), len(np.unique(targets))
    n_tokens = int(offsets[-1])
    print(
        f"{len(texts):,} texts, {n_tokens:,} tokens, {n_ids:,} ids; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"
    )
    rival = "skorch + nn.LSTM, padded"
    systems = {rival: Skorch(matrix, targets, n_ids, n_classes, packed=False)}
    if arguments.packed:
        packed = Skorch(matrix, targets, n_ids, n_classes, packed=True)
        systems["skorch + nn.LSTM, packed"] = packed
    for backend in arguments.backends:
        systems[f"sklstm, {backend}"] = Ours(ids, offsets, targets, n_ids, n_classes, backend)
    rows = report(measure(systems, n_tokens, arguments.repeats), n_tokens, rival)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(
                {"torch": torch.__version__, "tokens": n_tokens, "rows": rows}, file, indent=1
            )


if __name__ == "__main__":
    main()
