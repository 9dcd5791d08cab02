"""N-grams of tokens, and of the characters inside them: the features of the linear models."""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sklstm.checks import check_has
from sklstm.ngrams.counting import (
    FEWEST_TEXTS,
    compute_idf,
    count_columns,
    find_codes,
    find_common,
    pair_places,
    weigh_counts,
)
from sklstm.ngrams.pieces import TokenColumns, learn_pieces, tabulate
from sklstm.text.vectorizer import SequenceVectorizer

# Of words and pairs, and of pieces, which are many and alike: at their full weight they drown the
# words of long texts.
WEIGHTS = (1.0, 0.5)


class NgramCounts(NamedTuple):
    """The n-grams of texts, counted: of those that are in two texts at least."""

    tokens: np.ndarray  # (n_tokens,) of str, all that there are
    words: np.ndarray  # (n_words,) int64, places among the tokens
    pairs: np.ndarray  # (n_pairs,) int64, each as one number, sorted
    pieces: np.ndarray  # (n_pieces,) of str
    blocks: list  # of csr_array (n_texts, n) of words, of pairs and of pieces


# Its features are sparse, which no frame can hold, whatever set_output or set_config ask for.
class NgramVectorizer(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Turn texts into TF-IDF of their tokens, pairs of tokens, and characters inside tokens.

    The n-grams of 2 to 5 characters do not cross a token's ends, so they are found once for each
    different token and multiplied by the tokens' counts, instead of being found in every text.
    Tokens that were not there at ``fit`` have them too. Of a token of more than 200 characters only
    the first and the last 100 have n-grams, as if these were two tokens.

    Parameters
    ----------
    vectorizer : SequenceVectorizer or None, default=None
        Says what a token is. Its vocabulary and its limits, which spare a network, do not count.

    Attributes
    ----------
    token_places_ : dict of str to int
        The tokens that are features or part of a pair that is one, and their places.
    words_ : ndarray of shape (n_words,), int64
        The places of the tokens that are features.
    pairs_ : ndarray of shape (n_pairs,), int64
        The pairs of tokens that are features, each as one number, sorted.
    pieces_ : dict of str to int
        The n-grams of characters that are features, and their columns among these.
    idf_ : list of ndarray
        The weights of words and pairs, and those of the n-grams of characters, if there are any:
        ln((1 + n_texts) / (1 + number of texts with the feature)) + 1.
    """

    def __init__(self, vectorizer=None):
        self.vectorizer = vectorizer

    def fit(self, X, y=None):
        """Learn the n-grams of texts and how rare they are.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.
        y : None
            Ignored.

        Returns
        -------
        self : NgramVectorizer
        """
        self.fit_transform(X)
        return self

    def fit_transform(self, X, y=None):
        """Learn the n-grams of texts and return their features.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.
        y : None
            Ignored.

        Returns
        -------
        features : csr_array of shape (n_texts, n_features), float64
        """
        return self.fit_counts(self.count(X))

    def count(self, X):
        """Return the n-grams of texts, counted once for several fits; nothing is learnt.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        counts : NgramCounts
        """
        tokens, places, offsets = self._vectorizer.read_tokens(X)
        codes = pair_places(places, offsets, n_tokens=len(tokens))
        pairs = np.unique(codes[codes >= 0])
        pieces, pieces_of_tokens = learn_pieces(tokens)
        n_texts = len(offsets) - 1
        rows = np.repeat(np.arange(n_texts), np.diff(offsets))
        words = count_columns(rows, places, shape=(n_texts, len(tokens)))
        of_pairs = count_columns(rows, find_codes(codes, pairs), shape=(n_texts, len(pairs)))
        blocks = [words, of_pairs, words @ pieces_of_tokens]
        common = [find_common(block) for block in blocks]
        return NgramCounts(
            tokens=tokens,
            words=common[0],
            pairs=pairs[common[1]],
            pieces=np.array(pieces, dtype=object)[common[2]],
            blocks=[block[:, kept] for block, kept in zip(blocks, common, strict=True)],
        )

    def fit_counts(self, counts, rows=None):
        """Learn the n-grams of texts that are counted, and return their features.

        Parameters
        ----------
        counts : NgramCounts
            What ``count`` returns.
        rows : ndarray of shape (n_rows,), int64, or None
            The texts to learn from; None is all.

        Returns
        -------
        features : csr_array of shape (n_rows, n_features), float64
        """
        kinds, blocks = [counts.words, counts.pairs, counts.pieces], counts.blocks
        if rows is None:
            blocks = [block.copy() for block in blocks]
        else:
            blocks = [block[rows] for block in blocks]
            common = [find_common(block) for block in blocks]
            blocks = [block[:, kept] for block, kept in zip(blocks, common, strict=True)]
            kinds = [kind[kept] for kind, kept in zip(kinds, common, strict=True)]
        self._keep(counts.tokens, *kinds)
        *words, pieces = blocks
        blocks = [sparse.hstack(words, format="csr"), pieces]
        self.idf_ = [compute_idf(block) for block in blocks if block.shape[1]]
        return self._weigh(blocks)

    def transform(self, X):
        """Return the features of texts.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        features : csr_array of shape (n_texts, n_features), float64
        """
        check_has(self, "idf_")
        tokens, places, offsets = self._vectorizer.read_tokens(X)
        if len(offsets) == 2:
            return self._transform_one(tokens, places)
        return self._weigh(self._count(tokens, places, offsets))

    def get_feature_names_out(self, input_features=None):
        """Return the name of each feature.

        Parameters
        ----------
        input_features : ignored
            Present for pipelines.

        Returns
        -------
        names : ndarray of str objects of shape (n_features,)
            ``word__good``, ``pair__not good``, ``characters__goo``: the kind of the n-gram, and the
            n-gram as it is in the text. A space among characters is the end of a token.
        """
        return np.array([f"{kind}__{ngram}" for ngram, kind in self.list_features()], dtype=object)

    def list_features(self):
        """Return each feature as a pair of strings: the n-gram, and its kind.

        Returns
        -------
        features : list of (str, {'word', 'pair', 'characters'})
        """
        check_is_fitted(self)
        tokens = np.array(list(self.token_places_), dtype=object)
        first, second = np.divmod(self.pairs_, max(len(tokens), 1))
        return [
            *((token, "word") for token in tokens[self.words_]),
            *((f"{a} {b}", "pair") for a, b in zip(tokens[first], tokens[second], strict=True)),
            *((piece, "characters") for piece in self.pieces_),
        ]

    def locate_features(self, X):
        """Return which features the tokens of texts, and pairs of them, are.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        inside : csr_array of shape (n_tokens, n_features), float64
            How often each feature is inside each different token: words and characters.
        pairs : ndarray of shape (n_places,), int64
            The feature that the pair which begins at a place is, -1 where it is none.
        places, offsets : ndarray
            As from ``SequenceVectorizer.read_tokens``.
        """
        tokens, places, offsets = self._vectorizer.read_tokens(X)
        known = self._find_known(tokens)
        n_words, n_pairs = len(self.words_), len(self.pairs_)
        column = np.full(len(self.token_places_) + 1, -1)  # the last one is that of unknown tokens
        column[self.words_] = np.arange(n_words)
        words = count_columns(np.arange(len(tokens)), column[known], shape=(len(tokens), n_words))
        none = sparse.csr_array((len(tokens), n_pairs))
        inside = sparse.hstack([words, none, self._count_pieces(tokens)], format="csr")
        codes = pair_places(known[places], offsets, n_tokens=len(self.token_places_))
        found = find_codes(codes, self.pairs_)
        return inside, np.where(found >= 0, found + n_words, -1), places, offsets

    def estimate_sums(self):
        """Return what the IDF says of the texts of the fit.

        Most features are rare, so that the rarest are in ``FEWEST_TEXTS``; then the numbers of
        texts are exact. Of the squares only the sum of a block is known, since each text has
        length 1 there; a feature's share of it is its number of texts times its squared IDF.

        Returns
        -------
        n_texts : float
            How many texts there were.
        squares : ndarray of shape (n_features,)
            The sum over the texts of each feature's square, estimated.
        counts : ndarray of shape (n_features,)
            The number of texts that have it.
        """
        rarest = max(idf.max() for idf in self.idf_)
        n_texts = (1 + FEWEST_TEXTS) * np.exp(rarest - 1) - 1
        squares, counts = [], []
        for weight, idf in zip(WEIGHTS, self.idf_, strict=False):
            counts.append((1 + n_texts) / np.exp(idf - 1) - 1)
            shares = counts[-1] * idf**2
            squares.append(weight**2 * n_texts * shares / shares.sum())
        return n_texts, np.concatenate(squares), np.concatenate(counts)

    @property
    def _vectorizer(self):
        return SequenceVectorizer() if self.vectorizer is None else self.vectorizer

    def _count(self, tokens, places, offsets):
        """Return the counts of known tokens and pairs, and those of known pieces, (n_texts, n).

        ``places`` are among ``tokens``, some of which may be new.
        """
        n_texts, n_words, n_pairs = len(offsets) - 1, len(self.words_), len(self.pairs_)
        rows = np.repeat(np.arange(n_texts), np.diff(offsets))
        known = self._find_known(tokens)
        pairs = pair_places(known[places], offsets, n_tokens=len(self.token_places_))
        pairs = find_codes(pairs, self.pairs_)
        columns = [find_codes(known, self.words_)[places], np.where(pairs < 0, -1, pairs + n_words)]
        words = count_columns(
            np.tile(rows, 2), np.hstack(columns), shape=(n_texts, n_words + n_pairs)
        )
        all_tokens = count_columns(rows, places, shape=(n_texts, len(tokens)))
        return [words, all_tokens @ self._count_pieces(tokens)]

    def _transform_one(self, tokens, places):
        """Return the features of one text, to the last bit those that it has among others.

        Scipy's matrices take longer than the arithmetic of one text. What is stored has their
        order, by which sums are rounded: that of a product is the last new column first.
        """
        n_words, n_pairs, n_pieces = len(self.words_), len(self.pairs_), len(self.pieces_)
        known = self._find_known(tokens)
        pairs = pair_places(
            known[places], np.array([0, len(places)]), n_tokens=len(self.token_places_)
        )
        pairs = find_codes(pairs, self.pairs_)
        words = np.concatenate(
            [find_codes(known, self.words_)[places], pairs[pairs >= 0] + n_words]
        )
        blocks = [np.unique(words[words >= 0], return_counts=True)]
        columns, lengths = self._token_columns.find(tokens)
        times = np.repeat(np.bincount(places, minlength=len(tokens)), lengths)
        new, first, inverse = np.unique(columns, return_index=True, return_inverse=True)
        order = np.argsort(-first)
        blocks.append((new[order], np.bincount(inverse, times, minlength=len(new))[order]))
        weighed = []
        for weight, idf, (indices, counts) in zip(WEIGHTS, self.idf_, blocks, strict=False):
            data, row = np.log(counts.astype(np.float64)), np.zeros(len(counts), dtype=np.int64)
            weighed.append(weigh_counts(data, indices, row, idf, weight))
        indices = np.concatenate([blocks[0][0], blocks[1][0] + n_words + n_pairs], dtype=np.int32)
        data, n_features = np.concatenate(weighed), n_words + n_pairs + n_pieces
        return sparse.csr_array((data, indices, [0, len(indices)]), shape=(1, n_features))

    @property
    def _token_columns(self):
        """The columns of tokens, as far as they are known, of the present fit."""
        known = vars(self).get("_remembered")
        if known is None or known.column_of is not self.pieces_:
            known = self._remembered = TokenColumns(self.pieces_)
        return known

    def _count_pieces(self, tokens):
        """Return how often each known piece is in each token, (n_tokens, n_pieces), float64.

        A piece that a token has twice is stored twice.
        """
        return tabulate(*self._token_columns.find(tokens), n_columns=len(self.pieces_))

    def _find_known(self, tokens):
        """Return the place of each token among those of the fit, -1 of a new one."""
        return np.fromiter((self.token_places_.get(t, -1) for t in tokens), np.int64, len(tokens))

    def _keep(self, tokens, words, pairs, pieces):
        """Take these n-grams as the features, in this order."""
        first, second = np.divmod(pairs, max(len(tokens), 1))
        needed = np.unique(np.concatenate([words, first, second]))
        self.token_places_ = {token: place for place, token in enumerate(tokens[needed])}
        self.words_ = np.searchsorted(needed, words)
        first, second = np.searchsorted(needed, first), np.searchsorted(needed, second)
        self.pairs_ = first * len(needed) + second
        self.pieces_ = {piece: column for column, piece in enumerate(pieces.tolist())}

    def _weigh(self, blocks):
        """Turn counts into TF-IDF, in place, since they are the largest there is.

        As scikit-learn's ``TfidfTransformer(sublinear_tf=True)``, whose checks take longer than the
        arithmetic of one text.
        """
        for weight, idf, block in zip(WEIGHTS, self.idf_, blocks, strict=False):
            logs = np.log(block.data, out=block.data)
            rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
            weigh_counts(logs, block.indices, rows, idf, weight)
        return sparse.hstack(blocks, format="csr")

    def __getstate__(self):
        """Return the fields to pickle, without what is only remembered."""
        return {key: value for key, value in super().__getstate__().items() if key != "_remembered"}

    def __setstate__(self, state):
        """Take the fields; those of a pickle of an earlier version have other names."""
        state = dict(state)
        if "cutter_" in state:
            cutter = state.pop("cutter_")
            state["pieces_"] = {} if cutter is None else dict(cutter.vocabulary_)
            state["idf_"] = [idf.idf_ for idf in state["idf_"]]
        super().__setstate__(state)
