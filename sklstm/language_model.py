"""LSTMLanguageModel: what texts without labels say about a language."""

import copy
from functools import partial
from operator import attrgetter

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklstm.checks import check_texts, fit_context
from sklstm.model.generation import check_arguments, sample
from sklstm.model.prediction import TEXTS_PER_CHUNK, sum_log_likelihoods
from sklstm.model.validation import LanguageValidation
from sklstm.network.language_network import LSTMLanguageNetwork, log_frequencies
from sklstm.parameters import AT_LEAST_1, REMEDIES, SHARE, constrain
from sklstm.text.batching import RaggedIds
from sklstm.text.special_tokens import BOUNDARY
from sklstm.text.tokenizers import join_tokens
from sklstm.text.vectorizer import SequenceVectorizer
from sklstm.text.windows import TrainingWindows, add_both_boundaries
from sklstm.text_estimator import TextEstimator
from sklstm.training.fitting import Fitting
from sklstm.training.settings import TrainingSettings
from sklstm.training.sklearn_callbacks import SklearnCallbacks
from sklstm.training.start import Fresh
from sklstm.training.steps import NextToken

DIRECTIONS = ("forward", "backward")


class LSTMLanguageModel(TextEstimator):
    """Language model: learn from unlabelled texts to predict the next and the previous token.

    A fitted language model computes how probable texts are, generates texts, and pre-trains a
    classifier for few labelled texts: ``LSTMTextClassifier(pretrained=model)``.

    Parameters
    ----------
    vectorizer : SequenceVectorizer or None, default=None
        Turns texts into token ids. None is ``SequenceVectorizer()``. Its ``max_length`` and
        ``keep`` are for the classifier that starts from the model; the language model itself
        reads all of each text.
    embedding_dim : int, default=128
        Size of the token embeddings.
    hidden_size : int, default=256
        Size of the hidden state of each direction.
    num_layers : int, default=1
        Number of stacked LSTM layers; more than one with ``bidirectional=False`` only.
    bidirectional : bool, default=True
        Whether a second LSTM reads each text from its end and predicts the token before. The two
        share the embedding.
    cell : {'lstm', 'peephole', 'peephole_previous', 'layer_norm', 'coupled'}, default='lstm'
        What the LSTM computes at a token: the standard cell, gates that see the cell state (the
        new one in the output gate, or the one before), layer norms inside the cell, or a forget
        gate coupled to the input gate. See :class:`~sklstm.lstm.LSTM`.
    dropout : float, default=0.0
        Share of the states set to 0 while training. Large collections, read once or twice, need
        none.
    weight_decay : float, default=0.01
        Weight decay of AdamW.
    n_negatives : int, default=2048
        Number of negative words sampled per batch for the softmax. More are slower and give less
        noisy gradients; at the size of the vocabulary the softmax is exact.
    window : int, default=128
        Number of tokens of a training window, which starts from a state of 0. The texts are
        shuffled, joined and cut into windows anew in each epoch.
    lr : float, default=4e-3
        Highest learning rate of AdamW.
    lr_schedule : {'linear', 'cosine', 'constant'} or None, default='linear'
        How the learning rate falls to 0 (or does not) after rising over the first tenth of the
        updates. None does not change it, so that an LRScheduler among the ``callbacks`` can.
    batch_size : int, default=32
        Windows per update.
    max_epochs : int or 'auto', default='auto'
        Most passes over the texts. 'auto' is what about 2,000 updates take, at most 10, since more
        overfit small collections; with ``max_minutes`` it is 10.
    max_minutes : float or None, default=None
        Most minutes of training; None is no limit. The learning rate falls as the time passes. A
        second fit differs, since the number of updates depends on the speed of the machine.
    validation_fraction : float, default=0.01
        Share of the texts held out, whose perplexity is recorded at each epoch; the weights of the
        best epoch are kept. Equal texts stay together. No text is held out where the share rounds
        to 0 texts, or all texts are equal.
    callbacks : list of skorch callbacks or None, default=None
        Callbacks of skorch, instances or (name, instance) pairs; copied before use. The history
        they see has train_loss, valid_loss, valid_perplexity and valid_perplexity_backward.
    device : str, default='auto'
        'cpu', 'cuda', ...; 'auto' is CUDA where there is one.
    precision : {'auto', 'float32', 'bfloat16'}, default='auto'
        Number format of the LSTM; everything else is float32. 'auto' trains in bfloat16 where that
        is faster, and in float32 elsewhere; it always validates and predicts in float32. bfloat16
        is faster on a CPU with instructions for it (AVX-512 or AMX), with the standard cell and
        without zoneout, and on a CUDA card of compute capability 8 or more, for up to 256 hidden
        units. 'bfloat16' is for prediction too, on any device; what it gains depends on the
        hardware. 'float32' is for everything, and does not depend on the device.
    backend : {'auto', 'aten', 'compiled', 'reference', 'torch', 'triton'}, default='auto'
        Implementation of the LSTM. 'auto' takes the fastest that can run; a name that cannot run
        raises an error.
    random_state : int, RandomState instance or None, default=None
        Makes fits repeatable. None draws a seed from numpy's global random state, the only
        global state that is ever changed. On a CUDA card, dropout draws other numbers than on a
        CPU.
    verbose : int, default=0
        0 is silent. 1 prints what is being fitted, a line for each epoch, and how it ended. 2 also
        shows a progress bar.

    Attributes
    ----------
    model_ : TextModel
        All that was learnt; the other attributes are read from it.
    vectorizer_ : SequenceVectorizer
        The fitted vectorizer.
    network_ : torch.nn.Module
        The trained network: ``embedding``, ``lstm``, ``projections``, ``bias``.
    n_iter_ : int
        Number of epochs trained.
    loss_curve_ : list of float
        Mean training loss of each epoch, by the sampled softmax and over both directions.
    validation_perplexities_ : list of float
        Perplexity of the validation texts after each epoch; empty without such texts.
    history_ : list of dict
        All that was recorded of each epoch.

    Notes
    -----
    A text is read between two boundaries, so that a text of n tokens has n + 1 predictions: the
    forward direction predicts its tokens and its end, the backward one its tokens and beginning.
    Words outside the vocabulary are one word, the unknown one, and count as such: perplexities
    compare models of the same vocabulary only.

    The probabilities are a softmax over all words, whose weights are the embedding's (Inan et al.
    2017; Press & Wolf 2017) behind a projection. While training it is estimated from a sample of
    negatives that all tokens of a batch share: each word is drawn with a chance that grows with its
    frequency, the most frequent ones surely, and counts by the inverse of that chance, so
    that the sum in the softmax is right on average (Jean et al. 2015). Where the LSTM trains in
    bfloat16, the products of this softmax do so too; its sums and logarithms are in float32.

    References
    ----------
    Mikolov et al. (2010), Recurrent neural network based language model; Dai & Le (2015),
    Semi-supervised Sequence Learning; Howard & Ruder (2018), Universal Language Model Fine-tuning
    for Text Classification; Peters et al. (2018) for the two directions.

    Examples
    --------
    >>> from sklstm import LSTMLanguageModel
    >>> texts = ["the dog barks", "the cat purrs", "a dog barks", "a cat purrs"] * 25
    >>> model = LSTMLanguageModel(batch_size=4, window=16, max_epochs=10, random_state=0).fit(texts)
    >>> bool(model.perplexity(["the dog barks"]) < model.perplexity(["barks dog the"]))
    True
    >>> model.generate(temperature=0, prompt="the cat")
    ['the cat purrs']
    """

    def __init__(
        self,
        *,
        # text
        vectorizer=None,
        # network
        embedding_dim=128,
        hidden_size=256,
        num_layers=1,
        bidirectional=True,
        cell="lstm",
        # regularisation
        dropout=0.0,
        weight_decay=0.01,
        # training
        n_negatives=2048,
        window=128,
        lr=4e-3,
        lr_schedule="linear",
        batch_size=32,
        max_epochs="auto",
        max_minutes=None,
        validation_fraction=0.01,
        callbacks=None,
        # machine
        device="auto",
        precision="auto",
        backend="auto",
        random_state=None,
        verbose=0,
    ):
        self.vectorizer = vectorizer
        self.embedding_dim = embedding_dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.cell = cell
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.n_negatives = n_negatives
        self.window = window
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.max_minutes = max_minutes
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.backend = backend
        self.random_state = random_state
        self.verbose = verbose

    _remedies = REMEDIES
    _parameter_constraints = constrain(
        __init__,
        embedding_dim=[AT_LEAST_1],
        validation_fraction=[SHARE],
    )

    tasks = (type(None),)

    network_ = property(attrgetter("model_.network"), doc="The trained network.")

    @property
    def validation_perplexities_(self):
        """Perplexity of the validation texts after each epoch; empty without such texts."""
        rows = self.model_.history
        return [row["valid_perplexity"] for row in rows if "valid_perplexity" in row]

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Learn vocabulary and network from texts.

        Interrupting it with Ctrl-C keeps the best weights so far and warns.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.
        y : ignored
            Present for pipelines and searches.

        Returns
        -------
        self : LSTMLanguageModel

        Raises
        ------
        TypeError, ValueError
            If X or a parameter is not what it must be. An earlier fit stays as it was.
        """
        self._check_parameters()
        texts = check_texts(X)
        settings = TrainingSettings.of(self, keep_best=True, min_epochs=1, most_epochs=10)
        with Fitting(self, Fresh(self), settings=settings) as fitting:
            rows, others = fitting.split_rows(texts)
            vectorizer, windows = self._cut_windows([texts[k] for k in rows], fitting.rng)
            validation = None
            if others is not None:
                ids = _read_whole(vectorizer, [texts[k] for k in others])
                validation = LanguageValidation(ids)
            told = SklearnCallbacks(self, fitting.count_epochs(windows), texts, y)
            network = LSTMLanguageNetwork(
                fitting.start.network_settings(),
                n_ids=len(windows.counts),
                generator=fitting.generator,
                log_frequency=log_frequencies(windows.counts),
            )
            last = told.watch_epochs(partial(fitting.model, vectorizer, network))
            trained = fitting.train(network, NextToken(), windows, validation, last)
            self.model_ = fitting.model(vectorizer, network, trained)
            told.end()
        return self

    def score(self, X, y=None):
        """Return the mean log-likelihood of a token in the forward direction; higher is better.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.
        y : ignored
            Present for searches.

        Returns
        -------
        score : float
            In nats: minus the logarithm of the perplexity.
        """
        return self._mean_log_likelihood(X, 0)

    def perplexity(self, X, direction="forward"):
        """Return the perplexity: the number of equally likely tokens among which one would guess.

        Lower is better.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts; all of each is read.
        direction : {'forward', 'backward'}, default='forward'
            Whether each token is predicted from those before it or from those behind it.

        Returns
        -------
        perplexity : float
            Of a token, the end of each text (or its beginning) among them.
        """
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be 'forward' or 'backward'; got {direction!r}.")
        return float(np.exp(-self._mean_log_likelihood(X, DIRECTIONS.index(direction))))

    def generate(self, n_texts=1, *, prompt="", max_tokens=100, temperature=1.0, random_state=None):
        """Return texts written by sampling one token after another.

        Parameters
        ----------
        n_texts : int, default=1
            How many texts.
        prompt : str, default=""
            How each of them begins; words outside the vocabulary read as unknown.
        max_tokens : int, default=100
            Most tokens behind the prompt. A text ends earlier where its end is drawn.
        temperature : float, default=1.0
            What the logits are divided by: below 1 probable tokens come more often, and at 0 the
            most probable one always.
        random_state : int, RandomState instance or None, default=None
            Makes the texts repeatable.

        Returns
        -------
        texts : list of str
            Tokens as the vectorizer made them, in lower case by default, joined by spaces except
            before punctuation; by nothing where tokens are characters.
        """
        check_is_fitted(self)
        check_arguments(n_texts, prompt, max_tokens, temperature)
        model = self.model_  # one, also where another thread fits meanwhile
        begin = _read_whole(model.vectorizer, [prompt]).ids if prompt else []
        drawn = sample(
            model.network,
            np.concatenate([[BOUNDARY], begin]).astype(np.int64),
            n_texts=int(n_texts),
            max_tokens=int(max_tokens),
            temperature=temperature,
            rng=check_random_state(random_state),
        )
        tokens, glue = model.vectorizer.tokens_, _choose_glue(model.vectorizer)
        rest = [glue(tokens[ids].tolist()) for ids in drawn]
        space = " " if glue is join_tokens else ""
        return [f"{prompt}{space}{text}" if prompt and text else prompt + text for text in rest]

    def _check_parameters(self):
        if self.bidirectional and self.num_layers > 1:
            raise ValueError(
                "num_layers must be 1 where bidirectional=True, since a second layer would see the "
                f"tokens that it is to predict; got num_layers={self.num_layers}. Set "
                "bidirectional=False, or num_layers=1."
            )

    def _cut_windows(self, texts, rng):
        """Return the vectorizer, fitted on the texts, and the windows to train on."""
        given = SequenceVectorizer() if self.vectorizer is None else self.vectorizer
        vectorizer = clone(given).set_params(max_length=None)
        ids = RaggedIds(*vectorizer.fit_ragged(texts))
        windows = TrainingWindows(
            ids,
            n_ids=len(vectorizer.tokens_),
            window=self.window,
            batch_size=self.batch_size,
            n_negatives=self.n_negatives,
            rng=rng,
        )
        return vectorizer.set_params(max_length=given.max_length), windows

    def _mean_log_likelihood(self, X, direction):
        """Return the mean over all tokens of all texts, a chunk of texts at a time."""
        check_is_fitted(self)
        model, texts = self.model_, check_texts(X)
        directions = model.network.lstm.num_directions
        if direction >= directions:
            raise ValueError(
                "direction='backward' needs a model of both directions; got bidirectional=False. "
                "Use direction='forward'."
            )
        total, n_tokens = 0.0, 0
        for begin in range(0, len(texts), TEXTS_PER_CHUNK):
            ids = _read_whole(model.vectorizer, texts[begin : begin + TEXTS_PER_CHUNK])
            total += sum_log_likelihoods(model.network, add_both_boundaries(ids))[direction]
            n_tokens += len(ids.ids) + len(ids)
        return float(total / n_tokens)


def _choose_glue(vectorizer: SequenceVectorizer):
    """Return the function that makes a text of tokens."""
    return "".join if vectorizer.analyzer == "char" else join_tokens


def _read_whole(vectorizer: SequenceVectorizer, texts: list[str]) -> RaggedIds:
    """Return all ids of the texts, however few of them the vectorizer keeps for a classifier."""
    whole = copy.copy(vectorizer).set_params(max_length=None)
    return RaggedIds(*whole.transform_ragged(texts))
