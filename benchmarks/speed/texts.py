"""Texts to measure with: real ones from a file or from docstrings, or drawn ones of any size."""

import numpy as np

from sklstm.datasets import load_docstrings


def read_table(path):
    """Return texts and labels of a CSV file, or docstrings, which are on every machine."""
    if not path:
        bunch = load_docstrings()
        return bunch.data, bunch.target
    import pandas as pd  # docstrings and drawn texts need no extra package

    table = pd.read_csv(path, keep_default_na=False)
    return table["text"].tolist(), table["label"].to_numpy()


def load_texts(path, n_texts):
    """Return so many texts and targets, in a random order that is always the same."""
    texts, labels = read_table(path)
    rows = np.random.default_rng(0).permutation(len(texts))[:n_texts]
    _, targets = np.unique(labels, return_inverse=True)
    return [texts[row] for row in rows], targets[rows]


def load_halves(path, n_texts):
    """Return (texts, targets) to train on and as many others to predict; halves if few."""
    texts, targets = load_texts(path, 2 * n_texts)
    half = len(texts) // 2
    return (texts[:half], targets[:half]), (texts[half:], targets[half:])


def draw_texts(*, n_texts, length, vocabulary, seed=0):
    """Return texts of ``length`` tokens on average, and two targets that depend on the tokens.

    Lengths differ by up to half of ``length``, and tokens follow Zipf's law, as in real text. Every
    token of the vocabulary occurs at least once if there is room.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(length // 2, length + (length + 1) // 2 + 1, n_texts)
    frequency = 1 / np.arange(1, vocabulary + 1)
    numbers = rng.choice(vocabulary, lengths.sum(), p=frequency / frequency.sum())
    places = rng.permutation(len(numbers))[:vocabulary]
    numbers[places] = np.arange(len(places))
    words = np.array([f"w{number}" for number in range(vocabulary)], dtype=object)[numbers]
    texts = [" ".join(text) for text in np.split(words, np.cumsum(lengths)[:-1])]
    # A class has more odd tokens than the other one, so that there is something to learn.
    odd = np.add.reduceat(numbers % 2, np.cumsum(lengths) - lengths) / lengths
    return texts, (odd > np.median(odd)).astype(np.int64)


def cut_texts(path, *, n_texts, length):
    """Return texts of exactly ``length`` words, cut from those of a file one after another."""
    words = " ".join(read_table(path)[0]).split()
    texts = []
    for k in range(n_texts):
        begin = k * length % max(1, len(words) - length)
        texts.append(" ".join(words[begin : begin + length]))
    return texts, np.arange(n_texts) % 2
