"""The data sets of the accuracy benchmark: found in a folder, split so that nothing leaks.

A data set is a folder with ``train.csv`` and ``test.csv`` (also .gz, .xz), columns ``text`` and
``label``, in the folder that the environment variable ``SKLSTM_DATA`` names or in ../shared/data.
"""

import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from corpus import read_table
from sklearn.model_selection import StratifiedGroupKFold

#: Of the training rows, one in so many is set aside for validation.
FOLDS = 5
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Task:
    """Texts to train on, and others to judge by."""

    data: str
    folder: Path
    part: str
    texts: list[str]
    labels: np.ndarray  # (n_train,) of str
    judged_texts: list[str]
    judged_labels: np.ndarray  # (n_judged,) of str

    @property
    def classes(self):
        return np.unique(np.concatenate([self.labels, self.judged_labels]))

    @property
    def seen(self):
        """Which of the texts to judge by also stand among those to train on."""
        train = set(self.texts)
        return np.array([text in train for text in self.judged_texts])

    @property
    def rows_hash(self):
        """A short name of these very rows, in this very order."""
        check = 0
        for texts, labels in (
            (self.texts, self.labels),
            (self.judged_texts, self.judged_labels),
        ):
            for value in (*texts, "\0", *labels, "\0"):
                check = zlib.crc32(value.encode() + b"\n", check)
        return f"{check:08x}"

    def draw(self, n_texts, seed):
        """Return the task with so many texts to train on; a larger draw holds the smaller ones."""
        rows = np.random.default_rng(seed).permutation(len(self.texts))[:n_texts]
        texts = [self.texts[row] for row in rows]
        return replace(self, texts=texts, labels=self.labels[rows])

    def judge_by(self, n_texts):
        """Return the task with at most so many texts to judge by, always the same ones."""
        rows = np.sort(np.random.default_rng(0).permutation(len(self.judged_texts))[:n_texts])
        texts = [self.judged_texts[row] for row in rows]
        return replace(self, judged_texts=texts, judged_labels=self.judged_labels[rows])


def data_folder():
    """Return the folder of the data sets."""
    beside = Path(__file__).parent.parent.parent / "shared" / "data"
    return Path(os.environ.get("SKLSTM_DATA", beside))


def find_data(names):
    """Return the names of data sets that are there; all of them if none is named."""
    folder = data_folder()
    there = sorted({path.parent.name for path in folder.glob("*/train.csv*")})
    missing = [name for name in names if name not in there]
    if missing or not there:
        raise SystemExit(
            f"The data must be folders of {folder} with a train.csv; "
            f"got {missing or 'none'}, there are {there}. Set SKLSTM_DATA to another folder."
        )
    return list(names) or there


def load_task(data, split):
    """Return the task of a data set; the test file is not opened for validation."""
    folder = data_folder() / data
    texts, labels = read_rows(folder, "train")
    if split == "test":
        judged_texts, judged_labels = read_rows(folder, "test")
        return Task(data, folder, split, texts, labels, judged_texts, judged_labels)
    train, judged = split_rows(texts, labels)
    return Task(
        data,
        folder,
        split,
        [texts[row] for row in train],
        labels[train],
        [texts[row] for row in judged],
        labels[judged],
    )


def read_rows(folder, name):
    """Return the texts and the labels, as strings, of one file."""
    paths = sorted(folder.glob(f"{name}.csv*"))
    if len(paths) != 1:
        raise SystemExit(f"{folder} must hold one {name}.csv, plain or compressed; got {paths}.")
    texts, labels = read_table(paths[0])
    return texts, labels.astype(str)


def split_rows(texts, labels):
    """Return the rows to train on and those set aside: stratified, equal texts on one side."""
    _, groups = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    folds = StratifiedGroupKFold(n_splits=FOLDS, shuffle=True, random_state=0)
    return next(folds.split(groups, labels, groups))
