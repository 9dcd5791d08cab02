"""Counts of n-grams as sparse matrices: where each comes, how common it is, how much it weighs."""

import numpy as np
from scipy import sparse

# What occurs in one text only says nothing about others.
FEWEST_TEXTS = 2


def weigh_counts(logs, columns, rows, idf, weight):
    """Turn logarithms of counts into TF-IDF of that length a row, in place."""
    logs += 1.0
    logs *= idf[columns]
    logs /= np.sqrt(np.bincount(rows, logs**2))[rows]
    logs *= weight
    return logs


def pair_places(places, offsets, *, n_tokens):
    """Return the code of the pair that begins at each place, -1 where there is none."""
    paired = (places[:-1] >= 0) & (places[1:] >= 0)
    ends = offsets[1:-1]
    paired[ends[(ends > 0) & (ends < len(places))] - 1] = False
    pairs = np.full(len(places), -1)
    pairs[:-1][paired] = (places[:-1].astype(np.int64) * n_tokens + places[1:])[paired]
    return pairs


def find_codes(codes, known):
    """Return the place of each code among the known ones, which are sorted; -1 where not there."""
    if len(known) == 0:
        return np.full(len(codes), -1)
    place = np.searchsorted(known, codes)
    place[place == len(known)] = 0
    return np.where(known[place] == codes, place, -1)


def count_columns(rows, columns, *, shape):
    """Return how often each column comes in each row; column -1 does not count."""
    counts = columns >= 0
    ones = np.ones(int(counts.sum()))
    return sparse.csr_array((ones, (rows[counts], columns[counts])), shape=shape)


def compute_idf(counts):
    """Return the weight of each feature, which falls with the number of texts that have it."""
    n_texts = np.bincount(counts.indices, minlength=counts.shape[1])
    return np.log((1 + counts.shape[0]) / (1 + n_texts)) + 1.0


def find_common(counts):
    """Return the columns that occur in enough texts, or all where none does."""
    n_texts = np.bincount(counts.indices, minlength=counts.shape[1])
    common = np.flatnonzero(n_texts >= FEWEST_TEXTS)
    return common if len(common) else np.arange(counts.shape[1])
