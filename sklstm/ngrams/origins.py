"""Which tokens of a text made its n-grams."""

import numpy as np
from scipy import sparse

from sklstm.ngrams.vectorizer import NgramVectorizer


def spread_over_tokens(
    vectorizer: NgramVectorizer,
    texts: list[str],
    shares: sparse.csr_array,  # (n_texts, n_features)
) -> list[np.ndarray]:
    """Return what the tokens (n_tokens,) of each text get of the shares of its features.

    A feature that a text has several times divides its share equally among these places. A pair
    gives half to each of its tokens; what is inside a token gives all to it.
    """
    inside, pairs, places, offsets = vectorizer.locate_features(texts)
    share, count = np.zeros(shares.shape[1]), np.zeros(shares.shape[1])
    spread = []
    for text, (begin, end) in enumerate(zip(offsets, offsets[1:], strict=False)):
        own = slice(shares.indptr[text], shares.indptr[text + 1])
        share[shares.indices[own]] = shares.data[own]
        of_tokens, of_pairs = inside[places[begin:end]], pairs[begin:end]
        first = np.flatnonzero(of_pairs >= 0)
        columns = of_pairs[first]
        np.add.at(count, of_tokens.indices, of_tokens.data)
        np.add.at(count, columns, 1.0)
        np.divide(share, count, out=share, where=count > 0)
        result = of_tokens @ share
        result[first] += share[columns] / 2
        result[first + 1] += share[columns] / 2
        spread.append(result)
        share[shares.indices[own]] = count[of_tokens.indices] = count[columns] = 0.0
    return spread
