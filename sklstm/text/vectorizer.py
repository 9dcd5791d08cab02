"""Token to id and back: texts as sequences of whole numbers."""

import itertools
import numbers
import re
import sys
from collections.abc import Callable, Collection, Mapping, Set

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils.validation import check_is_fitted

from sklstm.checks import Interval, RealNotInt, StrOptions, check_texts, fit_context
from sklstm.text.tokenizers import TOKEN_PATTERN, replace_line_breaks

PADDING, UNKNOWN, BOUNDARY = 0, 1, 2
SPECIAL_TOKENS = ("<padding>", "<unknown>", "<boundary>")

# The share of a long text that ``keep="both"`` takes from its beginning: reviews conclude at the
# end, so the larger part comes from there.
HEAD_SHARE = 3 / 8

# From so many texts on, ``min_df="auto"`` leaves out what stands in one text alone.
MANY_TEXTS = 1_000

# While texts are read their ids are bytes: joining bytes costs less than gathering numbers in
# Python, and less memory.
BYTES_PER_ID = np.dtype(np.int32).itemsize
# Words between white space are remembered up to so many; more come from texts that repeat few.
MOST_REMEMBERED = 2**19


def _to_bytes(token_id: int) -> bytes:
    return token_id.to_bytes(BYTES_PER_ID, sys.byteorder)


class _Remembered(dict):
    """What a function makes of the keys that were asked for, each computed once."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def __missing__(self, key):
        value = self[key] = self.function(key)
        return value


class SequenceVectorizer(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Turn texts into sequences of token ids, in the order of reading.

    The sibling of :class:`~sklearn.feature_extraction.text.CountVectorizer` for networks that
    read: it shares its parameters where the meaning is the same and its machinery that turns
    text into tokens.

    Parameters
    ----------
    lowercase : bool, default=True
        Whether to turn texts into lower case.
    strip_accents : {'ascii', 'unicode'}, callable or None, default=None
        Whether and how to remove accents.
    preprocessor : callable or None, default=None
        Function from text to text that replaces lower-casing, accent stripping and the
        treatment of the HTML tag ``<br />`` as white space.
    tokenizer : callable or None, default=None
        Function from text to a list of tokens that replaces ``token_pattern``.
    analyzer : {'word', 'char'} or callable, default='word'
        What a token is: a match of ``token_pattern``, a character, or what a function from raw
        text to a list of tokens makes of it.
    stop_words : {'english'}, list of str or None, default=None
        Tokens to leave out. By default none, since words like "not" turn a meaning around.
    token_pattern : str
        Regular expression of a token. The default takes words, the "n't" of "isn't", each other
        visible character such as "!", "?" and emoji, and each Chinese or Japanese character.
    min_df : int, float or 'auto', default='auto'
        Leave out tokens that stand in fewer texts: a number, or a share of the texts. 'auto' is 2
        from 1,000 texts on, so that the unknown token is learnt too and no text is known by a word
        of its own, and 1 below.
    max_df : int or float, default=1.0
        Leave out tokens that stand in more texts: a number, or a share of the texts.
    max_features : int or None, default=30000
        Keep the most frequent tokens only.
    vocabulary : mapping or collection of str, or None, default=None
        The tokens to use instead of learning them. Their order, in a mapping that of its
        values and in a set the alphabet's, is the order of their ids.
    max_length : int or None, default=256
        Keep at most that many tokens of a text, and make ``transform`` so many columns wide.
        None keeps all, and ``transform`` is as wide as its longest text.
    keep : {'head', 'tail', 'both'}, default='both'
        What stays of a longer text: its beginning, its end, or three eighths from the
        beginning and the rest from the end.

    Attributes
    ----------
    vocabulary_ : dict
        Token to id. Ids start at 3, the most frequent token first; equal counts in
        alphabetical order.

    Notes
    -----
    The ids 0, 1 and 2 stand for padding, an unknown token and the boundary of a text (which
    language models use). A text without any token becomes a single unknown one.

    Examples
    --------
    >>> from sklstm import SequenceVectorizer
    >>> vectorizer = SequenceVectorizer(max_length=4)
    >>> vectorizer.fit_transform(["so good!", "so so", ""])
    array([[3, 5, 4, 0],
           [3, 3, 0, 0],
           [1, 0, 0, 0]], dtype=int32)
    >>> vectorizer.inverse_transform([[3, 5, 4, 0]])
    [array(['so', 'good', '!'], dtype=object)]
    """

    _parameter_constraints = {
        "lowercase": ["boolean"],
        "strip_accents": [StrOptions({"ascii", "unicode"}), callable, None],
        "preprocessor": [callable, None],
        "tokenizer": [callable, None],
        "analyzer": [StrOptions({"word", "char"}), callable],
        "stop_words": [StrOptions({"english"}), list, None],
        "token_pattern": [str],
        "min_df": [
            StrOptions({"auto"}),
            Interval(RealNotInt, 0, 1, closed="both"),
            Interval(numbers.Integral, 1, None, closed="left"),
        ],
        "max_df": [
            Interval(RealNotInt, 0, 1, closed="both"),
            Interval(numbers.Integral, 1, None, closed="left"),
        ],
        "max_features": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "vocabulary": [Mapping, Collection, None],
        "max_length": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "keep": [StrOptions({"head", "tail", "both"})],
    }

    def __init__(
        self,
        *,
        lowercase=True,
        strip_accents=None,
        preprocessor=None,
        tokenizer=None,
        analyzer="word",
        stop_words=None,
        token_pattern=TOKEN_PATTERN,
        min_df="auto",
        max_df=1.0,
        max_features=30_000,
        vocabulary=None,
        max_length=256,
        keep="both",
    ):
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.preprocessor = preprocessor
        self.tokenizer = tokenizer
        self.analyzer = analyzer
        self.stop_words = stop_words
        self.token_pattern = token_pattern
        self.min_df = min_df
        self.max_df = max_df
        self.max_features = max_features
        self.vocabulary = vocabulary
        self.max_length = max_length
        self.keep = keep

    def fit(self, X, y=None):
        """Learn the vocabulary of the texts.

        Parameters
        ----------
        X : iterable of str
            The texts.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : SequenceVectorizer

        Raises
        ------
        TypeError, ValueError
            If X does not hold texts, or no token is left for the vocabulary.
        """
        self.fit_ragged(X)
        return self

    def fit_transform(self, X, y=None):
        """Learn the vocabulary and return the ids, reading the texts once.

        Parameters
        ----------
        X : iterable of str
            The texts.
        y : ignored
            Present for pipelines.

        Returns
        -------
        ids : ndarray of shape (n_texts, length), int32
            As from ``transform``.
        """
        return self._pad(*self.fit_ragged(X))

    def transform(self, X):
        """Return the ids of the texts, padded on the right with 0.

        Parameters
        ----------
        X : iterable of str
            The texts.

        Returns
        -------
        ids : ndarray of shape (n_texts, length), int32
            ``length`` is ``max_length``, or the longest text's where that is None.
        """
        return self._pad(*self.transform_ragged(X))

    def inverse_transform(self, X):
        """Return the tokens of id sequences, without the padding.

        Parameters
        ----------
        X : array-like of shape (n_texts, length)
            Ids as from ``transform``.

        Returns
        -------
        tokens : list of ndarray of str
            One array a text. Tokens that ``fit`` did not keep read "<unknown>".

        Raises
        ------
        ValueError
            If an id is not in the vocabulary.
        """
        tokens = self.get_feature_names_out()
        ids = np.asarray(X)
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                "X must be a matrix of ids as transform returns it; "
                f"got shape {ids.shape} of {ids.dtype}."
            )
        if ids.size and (ids.min() < 0 or ids.max() >= len(tokens)):
            raise ValueError(
                f"X must hold ids from 0 to {len(tokens) - 1}; "
                f"got values from {ids.min()} to {ids.max()}."
            )
        return [tokens[row[row != PADDING]] for row in ids]

    def get_feature_names_out(self, input_features=None):
        """Return the token of each id, the three special ones first.

        Parameters
        ----------
        input_features : ignored
            Present for pipelines.

        Returns
        -------
        tokens : ndarray of str objects of shape (n_ids,)
        """
        check_is_fitted(self, "vocabulary_")
        return np.array([*SPECIAL_TOKENS, *self.vocabulary_], dtype=object)

    @fit_context(prefer_skip_nested_validation=True)
    def fit_ragged(self, X):
        """Learn the vocabulary and return the ids one text after another, unpadded.

        Parameters
        ----------
        X : iterable of str
            The texts.

        Returns
        -------
        ids : ndarray of shape (n_ids,), int32
            The ids of all texts.
        offsets : ndarray of shape (n_texts + 1,), int64
            Text ``k`` is ``ids[offsets[k]:offsets[k + 1]]``.
        """
        texts = check_texts(X)
        if self.vocabulary is not None:
            self.vocabulary_ = self._given_vocabulary()
            return self.transform_ragged(texts)
        tokens, texts_read = self._read_all(texts)
        kept = self._select(tokens, *_to_arrays(texts_read))
        self.vocabulary_ = {tokens[k]: i for i, k in enumerate(kept.tolist(), len(SPECIAL_TOKENS))}
        new_id = np.full(len(SPECIAL_TOKENS) + len(tokens), UNKNOWN, dtype=np.int32)
        new_id[len(SPECIAL_TOKENS) + kept] = np.arange(len(kept)) + len(SPECIAL_TOKENS)
        ids, offsets = _to_arrays(list(map(self._finish, texts_read)))
        return new_id[ids], offsets

    def read_tokens(self, X):
        """Return the different tokens of texts, and the texts as places among them, unshortened.

        Neither asks for a vocabulary nor learns one.

        Parameters
        ----------
        X : iterable of str
            The texts.

        Returns
        -------
        tokens : ndarray of str objects of shape (n_tokens,)
            In the order in which they come first.
        places : ndarray of shape (n_places,), int32
            The tokens of all texts, one text after another.
        offsets : ndarray of shape (n_texts + 1,), int64
            Text ``k`` is ``places[offsets[k]:offsets[k + 1]]``; an empty one has no token.
        """
        tokens, texts_read = self._read_all(check_texts(X, allow_empty=True))
        numbers_, offsets = _to_arrays(texts_read)
        return tokens, numbers_ - len(SPECIAL_TOKENS), offsets

    def _read_all(self, texts):
        """Return the different tokens, and the texts as bytes of their numbers.

        Numbers are in the order of appearance, like ids behind those of the special tokens.
        """
        count = itertools.count(len(SPECIAL_TOKENS))
        numbers_ = _Remembered(lambda token: _to_bytes(next(count)))
        read = self._build_reader(numbers_)
        texts_read = [read(text) for text in texts]
        return np.array(list(numbers_), dtype=object), texts_read

    def transform_ragged(self, X):
        """Return the ids one text after another, unpadded.

        Parameters
        ----------
        X : iterable of str
            The texts.

        Returns
        -------
        ids, offsets : ndarray
            As from ``fit_ragged``.
        """
        check_is_fitted(self, "vocabulary_")
        texts = check_texts(X, allow_empty=True)
        known = self.vocabulary_.get
        ids_of_token = _Remembered(lambda token: _to_bytes(known(token, UNKNOWN)))
        read = self._build_reader(ids_of_token, shortens=True)
        return _to_arrays([self._finish(read(text)) for text in texts])

    def tokenize(self, X):
        """Return the tokens behind the ids of the texts, unknown ones as they stand.

        Parameters
        ----------
        X : iterable of str
            The texts.

        Returns
        -------
        tokens : list of list of str
            At most ``max_length`` of each text; none of a text without any.
        """
        analyze = self.build_analyzer()
        return [self._shorten(list(analyze(text))) for text in check_texts(X, allow_empty=True)]

    def build_analyzer(self):
        """Return the function that turns a raw text into its list of tokens.

        Returns
        -------
        analyze : callable
            From str to list of str.
        """
        return self._build_counter().build_analyzer()

    def _build_counter(self):
        """Return the CountVectorizer that does the work on a single text."""
        counter = CountVectorizer(
            lowercase=self.lowercase,
            strip_accents=self.strip_accents,
            preprocessor=self.preprocessor,
            tokenizer=self.tokenizer,
            analyzer=self.analyzer,
            stop_words=self.stop_words,
            token_pattern=self.token_pattern,
        )
        try:
            re.compile(self.token_pattern)
        except re.error as error:
            raise ValueError(
                f"token_pattern must be a regular expression; got {self.token_pattern!r} ({error})."
            ) from error
        if self.preprocessor is None:
            preprocess = counter.build_preprocessor()
            counter.set_params(preprocessor=lambda text: preprocess(replace_line_breaks(text)))
        return counter

    def _build_reader(self, ids_of_token, *, shortens=False):
        """Return the function from a text to its ids, as bytes.

        Where the default pattern is what cuts, texts are split at white space first, as the
        pattern allows, and each word is cut once however often it comes. With ``shortens``,
        ids that ``max_length`` takes away may be missing already.
        """
        if not self._may_split():
            analyze = self.build_analyzer()
            return lambda text: b"".join(map(ids_of_token.__getitem__, analyze(text)))
        counter = self._build_counter()
        preprocess, cut = counter.build_preprocessor(), counter.build_tokenizer()
        if self.stop_words is not None:
            cut = counter.set_params(preprocessor=str).build_analyzer()  # str changes nothing more
            shortens = False  # since words can be without a token
        ids_of_word = _Remembered(lambda word: b"".join(map(ids_of_token.__getitem__, cut(word))))

        def read(text):
            if len(ids_of_word) > MOST_REMEMBERED:
                ids_of_word.clear()
            words = str.split(preprocess(text))
            if shortens:
                words = self._shorten(words)
            return b"".join(map(ids_of_word.__getitem__, words))

        return read

    def _may_split(self):
        """Whether texts may be split at white space: where the default pattern is what cuts."""
        is_ours = type(self).build_analyzer is SequenceVectorizer.build_analyzer
        by_pattern = self.analyzer == "word" and self.tokenizer is None
        return is_ours and by_pattern and self.token_pattern == TOKEN_PATTERN

    def _select(self, tokens, ids, offsets):
        """Return the positions of the tokens to keep, the most frequent first."""
        n_texts = len(offsets) - 1
        positions = ids - len(SPECIAL_TOKENS)
        frequency = np.bincount(positions, minlength=len(tokens))
        min_df = 1 + (n_texts >= MANY_TEXTS) if self.min_df == "auto" else self.min_df
        lowest, highest = self._limit(min_df, n_texts), self._limit(self.max_df, n_texts)
        if lowest <= 1 and highest >= n_texts:  # no need to count: every token passes
            n_texts_with = np.ones(len(tokens))
        else:
            n_texts_with = _count_texts(positions, offsets, n_tokens=len(tokens))
        if self.min_df == "auto":  # rare tokens are better than none
            lowest = min(lowest, n_texts_with.max(initial=1))
        kept = np.flatnonzero((n_texts_with >= lowest) & (n_texts_with <= highest))
        if len(kept) == 0:
            raise ValueError(self._empty_vocabulary(n_texts, n_texts_with, lowest))
        kept = kept[np.lexsort((tokens[kept], -frequency[kept]))]
        return kept[: self.max_features]

    def _limit(self, limit, n_texts):
        return limit if isinstance(limit, numbers.Integral) else limit * n_texts

    def _empty_vocabulary(self, n_texts, n_texts_with, lowest):
        if len(n_texts_with) == 0:
            return (
                f"X must hold at least one token; got none in {n_texts} texts, so the vocabulary "
                "is empty. Check token_pattern and stop_words."
            )
        if n_texts_with.max() < lowest:
            return (
                f"No token of the {n_texts} texts stands in min_df={self.min_df} texts or more, "
                "so the vocabulary is empty. Lower min_df."
            )
        return (
            f"Every token of the {n_texts} texts stands in fewer than min_df={self.min_df} or "
            f"more than max_df={self.max_df} of them, so the vocabulary is empty. "
            "Lower min_df or raise max_df."
        )

    def _given_vocabulary(self):
        if isinstance(self.vocabulary, Mapping):
            tokens = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        else:  # a set has no order of its own that would be the same tomorrow
            is_set = isinstance(self.vocabulary, Set)
            tokens = sorted(self.vocabulary) if is_set else list(self.vocabulary)
        if isinstance(self.vocabulary, str) or not all(isinstance(token, str) for token in tokens):
            raise ValueError(
                "vocabulary must be a mapping or a collection of str tokens; "
                f"got {self.vocabulary!r:.60}."
            )
        keys = self.vocabulary.values() if isinstance(self.vocabulary, Mapping) else tokens
        if not tokens or len(set(keys)) < len(tokens):
            raise ValueError(
                f"vocabulary must hold different tokens, at least one; got {len(tokens)} "
                f"of which {len(set(keys))} differ."
            )
        return {token: i for i, token in enumerate(tokens, len(SPECIAL_TOKENS))}

    def _finish(self, ids):
        """Cut the bytes of one text to ``max_length`` ids; no id at all becomes the unknown one."""
        return self._shorten(ids, size=BYTES_PER_ID) or _to_bytes(UNKNOWN)

    def _shorten(self, sequence, size=1):
        """Return what ``max_length`` leaves of a text, whose items are of that size."""
        if self.max_length is None or len(sequence) <= size * self.max_length:
            return sequence
        share = {"head": 1, "tail": 0, "both": HEAD_SHARE}[self.keep]
        head = int(self.max_length * share)
        tail = self.max_length - head
        return sequence[: size * head] + sequence[len(sequence) - size * tail :]

    def _pad(self, ids, offsets):
        """Return the matrix of ids, one row a text."""
        lengths = np.diff(offsets)
        width = self.max_length or int(lengths.max(initial=1))
        matrix = np.full((len(lengths), width), PADDING, dtype=np.int32)
        matrix[np.arange(width) < lengths[:, None]] = ids
        return matrix

    def __sklearn_tags__(self):
        """Tell scikit-learn that texts come in."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags


def _to_arrays(texts_read: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and offsets of texts whose ids are bytes."""
    ids = np.frombuffer(bytearray().join(texts_read), dtype=np.int32)  # as bytes: read-only
    lengths = np.fromiter(map(len, texts_read), dtype=np.int64, count=len(texts_read))
    return ids, np.concatenate([[0], np.cumsum(lengths // BYTES_PER_ID)])


def _count_texts(positions: np.ndarray, offsets: np.ndarray, *, n_tokens: int) -> np.ndarray:
    """Return in how many texts each token stands.

    The conversion to columns sorts by counting: the texts of each token in order, equal ones side
    by side.
    """
    shape = (len(offsets) - 1, n_tokens)
    marks = np.ones(len(positions), dtype=np.int8)
    columns = sparse.csr_array((marks, positions, offsets), shape=shape).tocsc()
    is_new = np.ones(len(positions), dtype=bool)
    is_new[1:] = columns.indices[1:] != columns.indices[:-1]
    is_new[columns.indptr[:-1]] = True
    token = np.repeat(np.arange(n_tokens), np.diff(columns.indptr))
    return np.bincount(token[is_new], minlength=n_tokens)
