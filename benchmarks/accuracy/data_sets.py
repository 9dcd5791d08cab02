"""The data sets of the accuracy benchmark: found in a folder, split without leaks.

A data set is a folder with ``train.csv`` and ``test.csv`` (also .gz, .xz), columns ``text`` and
``label``, in the folder that the environment variable ``SKLSTM_DATA`` names or in ../shared/data.
"""

import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

#: One in so many of the training rows is held out for validation.
FOLDS = 5
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class DataSet:
    """Texts to train on, and held-out texts to evaluate on."""

    name: str
    part: str
    texts: list[str]
    labels: np.ndarray  # (n_train,) of str
    held_out_texts: list[str]
    held_out_labels: np.ndarray  # (n_held_out,) of str

    @property
    def classes(self):
        return np.unique(np.concatenate([self.labels, self.held_out_labels]))

    @property
    def seen(self):
        """Which of the held-out texts also occur in the texts to train on."""
        train = set(self.texts)
        return np.array([text in train for text in self.held_out_texts])

    @property
    def rows_hash(self):
        """A short name of exactly these rows in this order."""
        check = 0
        for texts, labels in (
            (self.texts, self.labels),
            (self.held_out_texts, self.held_out_labels),
        ):
            for value in (*texts, "\0", *labels, "\0"):
                check = zlib.crc32(value.encode() + b"\n", check)
        return f"{check:08x}"

    def draw(self, n_texts, seed):
        """Return so many of the texts to train on; a larger draw contains the smaller ones."""
        rows = np.random.default_rng(seed).permutation(len(self.texts))[:n_texts]
        texts = [self.texts[row] for row in rows]
        return replace(self, texts=texts, labels=self.labels[rows])

    def hold_out(self, n_texts):
        """Return at most so many of the held-out texts, always the same ones."""
        rows = np.sort(np.random.default_rng(0).permutation(len(self.held_out_texts))[:n_texts])
        texts = [self.held_out_texts[row] for row in rows]
        return replace(self, held_out_texts=texts, held_out_labels=self.held_out_labels[rows])


def data_folder():
    """Return the folder of the data sets."""
    repository = Path(__file__).parents[2]
    return Path(os.environ.get("SKLSTM_DATA", repository.parent / "shared" / "data"))


def find_data(names):
    """Return the names of data sets, checked; all that there are if none is named."""
    folder = data_folder()
    there = sorted({path.parent.name for path in folder.glob("*/train.csv*")})
    missing = [name for name in names if name not in there]
    if missing or not there:
        raise SystemExit(
            f"The data must be folders of {folder} with a train.csv; "
            f"got {missing or 'none'}, there are {there}. Set SKLSTM_DATA to another folder."
        )
    return list(names) or there


def load_data_set(name, split):
    """Return a data set; the test file is not opened for validation."""
    folder = data_folder() / name
    texts, labels = read_rows(folder, "train")
    if split == "test":
        return DataSet(name, split, texts, labels, *read_rows(folder, "test"))
    train, held_out = (
        ([texts[k] for k in rows], labels[rows]) for rows in split_rows(texts, labels)
    )
    return DataSet(name, split, *train, *held_out)


def read_rows(folder, name):
    """Return the texts and the labels, as strings, of one file."""
    paths = sorted(folder.glob(f"{name}.csv*"))
    if len(paths) != 1:
        raise SystemExit(f"{folder} must hold one {name}.csv, plain or compressed; got {paths}.")
    table = pd.read_csv(paths[0], keep_default_na=False)
    return table["text"].tolist(), table["label"].to_numpy().astype(str)


def split_rows(texts, labels):
    """Return the rows to train on and the held-out ones: stratified, equal texts on one side."""
    _, groups = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    folds = StratifiedGroupKFold(n_splits=FOLDS, shuffle=True, random_state=0)
    return next(folds.split(groups, labels, groups))
