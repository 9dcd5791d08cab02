"""SequenceVectorizer: texts as sequences of whole numbers, and back."""

import itertools
import numbers
import re
from collections.abc import Collection, Mapping

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils.validation import check_is_fitted

from sklstm.checks import (
    Interval,
    RealNotInt,
    StrOptions,
    check_has,
    check_preprocessed,
    check_texts,
    check_tokens,
    fit_context,
    warn_of_no_pickle,
)
from sklstm.names import NamedParameters
from sklstm.text.reading import (
    BYTES_PER_ID,
    Cache,
    join_ids,
    number_in_order,
    read_by_words,
    shorten,
    to_arrays,
    to_bytes,
)
from sklstm.text.sentences import ID_MASK, mark_tokens, mark_word
from sklstm.text.spans import (
    CHARACTER,
    find_tokens_in_order,
    match_tokens,
    trace_characters,
)
from sklstm.text.special_tokens import PADDING, SPECIAL_TOKENS, UNKNOWN
from sklstm.text.tokenizers import (
    FORMER_PATTERN,
    TOKEN_PATTERN,
    find_tokens_of_word,
    replace_line_breaks,
)
from sklstm.text.unicode import cut_floods, normalize
from sklstm.text.vocabulary import (
    check_vocabulary,
    choose_tokens,
    number_tokens,
    warn_of_tokens_never_made,
)

#: Patterns by which no token holds white space, and which take linear time: ours.
OWN_PATTERNS = (None, TOKEN_PATTERN, FORMER_PATTERN)


class SequenceVectorizer(TransformerMixin, NamedParameters, BaseEstimator):
    """Turn texts into sequences of token ids, in the order of reading.

    Like :class:`~sklearn.feature_extraction.text.CountVectorizer`, but it keeps the order of the
    tokens. Parameters of the same name have the same meaning.

    Parameters
    ----------
    lowercase : bool, default=True
        Whether to turn texts into lower case.
    strip_accents : {'ascii', 'unicode'}, callable or None, default=None
        Whether and how to remove accents.
    normalize : {'NFC', 'NFKC'} or None, default='NFC'
        The Unicode normal form that texts are brought into first, so that an "é" of one character
        and one of two are the same. Invisible characters are removed: soft hyphens, byte order
        marks, spaces of no width, marks of direction, variation selectors, and joiners with nothing
        to join. So are combining marks beyond 30 in a row, with ``strip_accents`` in any case. None
        leaves texts as they are.
    preprocessor : callable or None, default=None
        Function from text to text that replaces lower-casing, accent stripping, normalization and
        the treatment of the HTML tag ``<br />`` as white space.
    tokenizer : callable or None, default=None
        Function from text to a list of tokens that replaces ``token_pattern``.
    analyzer : {'word', 'char'} or callable, default='word'
        What a token is: a match of ``token_pattern``, a character, or what a function from raw
        text to a list of tokens makes of it.
    stop_words : {'english'}, list of str or None, default=None
        Tokens to leave out. By default none, since words like "not" turn a meaning around.
    token_pattern : str or None, default=None
        Regular expression of a token. None takes words with their accents and other marks, the
        "n't" of "isn't", each other visible character such as "!", "?" and emoji, and each
        character, with its marks, of Chinese, Japanese, Thai, Lao, Khmer and Burmese.
    min_df : int, float or 'auto', default='auto'
        Leave out tokens that occur in fewer texts: a number, or a share of the texts. 'auto' is 2
        from 1,000 texts on, and 1 below. Words of a single text would let the network memorise that
        text, and it would never learn what an unknown word means.
    max_df : int or float, default=1.0
        Leave out tokens that occur in more texts: a number, or a share of the texts.
    max_features : int or None, default=30000
        Keep the most frequent tokens only.
    vocabulary : mapping or collection of str, or None, default=None
        The tokens to use instead of learning them. Their order, in a mapping that of its
        values and in a set the alphabet's, is the order of their ids.
    max_length : int or None, default=256
        Keep at most that many tokens of a text, and make ``transform`` so many columns wide.
        None keeps all, and ``transform`` is as wide as its longest text.
    keep : {'auto', 'head', 'tail', 'both'}, default='auto'
        What stays of a longer text: its beginning, its end, or three eighths from the
        beginning and the rest from the end. 'auto' is 'both'; an estimator that reads in one
        direction and has ``pooling='last'`` takes 'tail', since 'both' cuts out the middle.

    Attributes
    ----------
    vocabulary_ : dict
        Token to id. Ids start at 3, the most frequent token first; equal counts in
        alphabetical order.
    tokens_ : ndarray of str objects of shape (n_ids,)
        The token of each id, the three special ones first.

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
        "normalize": [StrOptions({"NFC", "NFKC"}), None],
        "preprocessor": [callable, None],
        "tokenizer": [callable, None],
        "analyzer": [StrOptions({"word", "char"}), callable],
        "stop_words": [StrOptions({"english"}), list, None],
        "token_pattern": [str, None],
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
        "keep": [StrOptions({"auto", "head", "tail", "both"})],
    }

    def __init__(
        self,
        *,
        lowercase=True,
        strip_accents=None,
        normalize="NFC",
        preprocessor=None,
        tokenizer=None,
        analyzer="word",
        stop_words=None,
        token_pattern=None,
        min_df="auto",
        max_df=1.0,
        max_features=30_000,
        vocabulary=None,
        max_length=256,
        keep="auto",
    ):
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.normalize = normalize
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
        tokens, ids = self.tokens_, np.asarray(X)
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

    @property
    def tokens_(self):
        """The token of each id, the three special ones first."""
        check_is_fitted(self, "vocabulary_")
        return np.array([*SPECIAL_TOKENS, *self.vocabulary_], dtype=object)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns of ``transform``: token_0, token_1 and so on.

        Parameters
        ----------
        input_features : ignored
            Present for pipelines.

        Returns
        -------
        names : ndarray of str objects of shape (max_length,)
            ``tokens_`` has the tokens by their ids.

        Raises
        ------
        ValueError
            If ``max_length`` is None: the number of columns is then that of the longest text.
        """
        check_is_fitted(self, "vocabulary_")
        if self.max_length is None:
            raise ValueError(
                "get_feature_names_out needs a number of columns that is known; got "
                "max_length=None. Set max_length. For the tokens by their ids use tokens_."
            )
        return np.array([f"token_{place}" for place in range(self.max_length)], dtype=object)

    @fit_context(prefer_skip_nested_validation=True)
    def fit_ragged(self, X, *, marks=False):
        """Learn the vocabulary and return the ids one text after another, unpadded.

        Parameters
        ----------
        X : iterable of str
            The texts.
        marks : bool, default=False
            Whether each id also says, in bits above its own, what its token does to its sentence
            (``sklstm.text.sentences``).

        Returns
        -------
        ids : ndarray of shape (n_ids,), int32
            The ids of all texts.
        offsets : ndarray of shape (n_texts + 1,), int64
            Text ``k`` is ``ids[offsets[k]:offsets[k + 1]]``.
        """
        texts = check_texts(X)
        analyze = self.build_analyzer()  # where scikit-learn warns of stop words
        if self.vocabulary is not None:
            tokens = check_vocabulary(self.vocabulary)
            if isinstance(self.analyzer, str) and self.tokenizer is None:
                warn_of_tokens_never_made(tokens, analyze)
            self._warn_of_no_pickle()
            self.vocabulary_ = number_tokens(tokens)
            return self.transform_ragged(texts, marks=marks)
        n_special = len(SPECIAL_TOKENS)
        tokens, texts_read = self._read_all(texts, marks=marks)
        ids, offsets = to_arrays(texts_read)
        kept = choose_tokens(
            tokens,
            (ids & ID_MASK) - n_special,
            offsets,
            min_df=self.min_df,
            max_df=self.max_df,
            max_features=self.max_features,
        )
        self._warn_of_no_pickle()
        self.vocabulary_ = number_tokens(tokens[kept].tolist())
        new_id = np.full(n_special + len(tokens), UNKNOWN, dtype=np.int32)
        new_id[n_special + kept] = np.arange(len(kept)) + n_special
        ids, offsets = to_arrays(list(map(self._finish, texts_read)))
        return new_id[ids & ID_MASK] | (ids & ~ID_MASK), offsets

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
        texts = check_texts(X, allow_empty=True)
        if len(texts) == 1:
            tokens, places = number_in_order(self._cut_one(texts[0]))
            return tokens, places, np.array([0, len(places)])
        tokens, texts_read = self._read_all(texts)
        ids, offsets = to_arrays(texts_read)
        return tokens, ids - len(SPECIAL_TOKENS), offsets

    def _read_all(self, texts, *, marks=False):
        """Return the different tokens, and the texts as bytes of their numbers.

        Numbers are in the order of appearance, like ids behind those of the special tokens.
        """
        count = itertools.count(len(SPECIAL_TOKENS))
        ids_of_token = Cache(lambda token: to_bytes(next(count)))
        read = self._build_reader(ids_of_token, marks=marks)
        texts_read = [read(text) for text in texts]
        return np.array(list(ids_of_token), dtype=object), texts_read

    def transform_ragged(self, X, *, marks=False):
        """Return the ids one text after another, unpadded.

        Parameters
        ----------
        X : iterable of str
            The texts.
        marks : bool, default=False
            As in ``fit_ragged``.

        Returns
        -------
        ids, offsets : ndarray
            As from ``fit_ragged``.
        """
        check_has(self, "vocabulary_")
        texts = check_texts(X, allow_empty=True)
        known = self.vocabulary_.get
        if len(texts) == 1 and not marks:
            tokens = self._shorten(self._cut_one(texts[0], shortens=True))
            ids = [known(token, UNKNOWN) for token in tokens] or [UNKNOWN]
            return np.array(ids, dtype=np.int32), np.array([0, len(ids)])
        ids_of_token = Cache(lambda token: to_bytes(known(token, UNKNOWN)))
        read = self._build_reader(ids_of_token, shortens=True, marks=marks)
        return to_arrays([self._finish(read(text)) for text in texts])

    def tokenize(self, X):
        """Return the tokens behind the ids of the texts, unknown ones as written.

        Parameters
        ----------
        X : iterable of str
            The texts.

        Returns
        -------
        tokens : list of list of str
            At most ``max_length`` of each text; none of a text without any.
        """
        analyze = self._checked_analyzer()
        return [self._shorten(analyze(text)) for text in check_texts(X, allow_empty=True)]

    def locate_tokens(self, X):
        """Return where the tokens that ``tokenize`` returns are in the texts.

        Parameters
        ----------
        X : iterable of str
            The texts.

        Returns
        -------
        spans : list of list of (int, int) or None
            For each token the position of its first character in the original text, and the one
            behind its last. None where that cannot be known: with a ``preprocessor`` or an
            ``analyzer`` that is a function, and for a token that a ``tokenizer`` has changed.
        """
        preprocess, cut = self._build_counter().build_preprocessor(), self._build_locator()
        spans = []
        for text in check_texts(X, allow_empty=True):
            tokens, preprocessed, places = cut(text)
            origins = trace_characters(text, preprocess) if self.preprocessor is None else None
            if origins is None or len(origins) != len(preprocessed):
                places = [None] * len(tokens)
            spans.append(
                self._shorten(
                    [place and (origins[place[0]][0], origins[place[1] - 1][1]) for place in places]
                )
            )
        return spans

    def build_analyzer(self):
        """Return the function that turns a raw text into its list of tokens.

        Returns
        -------
        analyze : callable
            From str to list of str.
        """
        return self._build_counter().build_analyzer()

    def _checked_analyzer(self):
        """Return the function from a text to its tokens, which checks what the user's returns."""
        analyze = self.build_analyzer()
        names = [name for name in ("analyzer", "tokenizer") if callable(getattr(self, name))]
        name = names[0] if names else "build_analyzer"
        return lambda text: check_tokens(analyze(text), text, name=name)

    def _build_counter(self):
        """Return the CountVectorizer that does the work on a single text."""
        pattern = TOKEN_PATTERN if self.token_pattern is None else self.token_pattern
        counter = CountVectorizer(
            lowercase=self.lowercase,
            strip_accents=self.strip_accents,
            preprocessor=self.preprocessor,
            tokenizer=self.tokenizer,
            analyzer=self.analyzer,
            stop_words=self.stop_words,
            token_pattern=pattern,
        )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"token_pattern must be a regular expression; got {pattern!r} ({error})."
            ) from error
        preprocess = counter.build_preprocessor()
        if self.preprocessor is None:
            # scikit-learn removes accents from a normal form.
            cuts = self.normalize is None and isinstance(self.strip_accents, str)
            prepare = cut_floods if cuts else lambda text: normalize(text, self.normalize)
            counter.preprocessor = lambda text: preprocess(replace_line_breaks(prepare(text)))
        else:
            counter.preprocessor = lambda text: check_preprocessed(preprocess(text), text)
        return counter

    def _build_locator(self):
        """Return the function from a text to its tokens, the text they were cut from, and where.

        What a function as ``analyzer`` makes of a text has no places in it.
        """
        if not self._has_own_analyzer():
            analyze = self._checked_analyzer()
            return lambda text: ((tokens := analyze(text)), text, [None] * len(tokens))
        counter = self._build_counter()
        preprocess, stop_words = counter.build_preprocessor(), counter.get_stop_words() or ()
        pattern = CHARACTER if self.analyzer == "char" else re.compile(counter.token_pattern)

        def locate(text):
            text = preprocess(text)
            if self.analyzer == "word" and self.tokenizer is not None:
                tokens = check_tokens(list(self.tokenizer(text)), text, name="tokenizer")
                places = find_tokens_in_order(tokens, text)
            else:
                places = match_tokens(pattern, text)
                tokens = [text[begin:end] for begin, end in places]
                # A pattern of the user's may match nothing, or leave its group out.
                places = [place if place[0] < place[1] else None for place in places]
            if self.analyzer == "char":
                return [" " if len(t) > 1 else t for t in tokens], text, places
            kept = [pair for pair in zip(tokens, places, strict=True) if pair[0] not in stop_words]
            return [token for token, _ in kept], text, [place for _, place in kept]

        return locate

    def _build_reader(self, ids_of_token, *, shortens=False, marks=False):
        """Return the function from a text to its ids, as bytes.

        With ``shortens``, ids that ``max_length`` takes away may be missing already.
        """
        if not self._splits_at_white_space():
            if marks:
                locate = self._build_locator()

                def read_marked(text):
                    tokens, *place = locate(text)
                    return join_ids(tokens, ids_of_token, mark_tokens(tokens, *place))

                return read_marked
            analyze = self._checked_analyzer()
            return lambda text: join_ids(analyze(text), ids_of_token)
        preprocess, cut = self._build_cutter()
        shortens = shortens and self.stop_words is None  # a word may have no token left

        def read_word(word):
            tokens = cut(word)
            return join_ids(tokens, ids_of_token, mark_word(tokens) if marks else None)

        return read_by_words(preprocess, read_word, self._shorten if shortens else None)

    def _build_cutter(self):
        """Return the functions that preprocess a text, and that cut a word of it into tokens."""
        counter = self._build_counter()
        preprocess, cut = counter.build_preprocessor(), counter.build_tokenizer()
        if self.token_pattern in (None, TOKEN_PATTERN):
            cut = find_tokens_of_word
        if self.stop_words is not None:
            cut = counter.set_params(preprocessor=str).build_analyzer()  # str changes nothing more
        return preprocess, cut

    def _cut_one(self, text, *, shortens=False):
        """Return the tokens of one text, for which the caches of a reader would not pay."""
        if not self._splits_at_white_space():
            return self._checked_analyzer()(text)
        preprocess, cut = self._build_cutter()
        words = str.split(preprocess(text))
        if shortens and self.stop_words is None:
            words = self._shorten(words)
        return list(itertools.chain.from_iterable(map(cut, words)))

    def _has_own_analyzer(self):
        """Whether ``analyzer`` is not a function, and no subclass has another."""
        is_ours = type(self).build_analyzer is SequenceVectorizer.build_analyzer
        return is_ours and isinstance(self.analyzer, str)

    def _splits_at_white_space(self):
        """Whether texts may be split at white space first: where the default pattern cuts them."""
        by_pattern = self.analyzer == "word" and self.tokenizer is None
        return self._has_own_analyzer() and by_pattern and self.token_pattern in OWN_PATTERNS

    def _warn_of_no_pickle(self):
        for name in ("preprocessor", "strip_accents", "tokenizer", "analyzer"):
            if callable(function := getattr(self, name)):
                warn_of_no_pickle(function, name=name)

    def _finish(self, ids):
        """Cut the bytes of one text to ``max_length`` ids; no id at all becomes the unknown one."""
        return self._shorten(ids, size=BYTES_PER_ID) or to_bytes(UNKNOWN)

    def _shorten(self, sequence, size=1):
        return shorten(sequence, max_length=self.max_length, keep=self.keep, size=size)

    def _pad(self, ids, offsets):
        """Return the matrix of ids, one row a text."""
        lengths = np.diff(offsets)
        width = self.max_length or int(lengths.max(initial=1))
        matrix = np.full((len(lengths), width), PADDING, dtype=np.int32)
        matrix[np.arange(width) < lengths[:, None]] = ids
        return matrix

    def __setstate__(self, state):
        """Take the fields; a pickle of an earlier version has no normal form."""
        super().__setstate__({"normalize": None} | state)

    def __sklearn_tags__(self):
        """Tell scikit-learn that texts come in."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags
