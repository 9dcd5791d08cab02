"""LSTMLanguageModel: what texts without labels tell of a language."""

import copy
import numbers
import warnings

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklstm.checks import (
    Interval,
    StrOptions,
    check_texts,
    fit_context,
    fitted_by_meta_estimator,
)
from sklstm.kernels.contract import CELLS
from sklstm.kernels.dispatch import BACKENDS
from sklstm.model.generation import sample
from sklstm.model.persistence import read_model, write_model
from sklstm.model.prediction import TEXTS_PER_CHUNK, sum_log_likelihoods
from sklstm.model.validation import LabelledTexts, split_validation
from sklstm.network.language_network import LSTMLanguageNetwork, log_frequencies
from sklstm.text.batching import RaggedIds
from sklstm.text.tokenizers import join_tokens
from sklstm.text.vectorizer import BOUNDARY, SPECIAL_TOKENS, SequenceVectorizer
from sklstm.text.windows import TrainingWindows, enclose
from sklstm.training.loop import (
    SCHEDULES,
    LanguageNet,
    Schedule,
    build_net,
    check_precision,
    count_epochs,
    resolve_device,
    train,
)

# What a file says it holds.
KIND = "language model"
DIRECTIONS = ("forward", "backward")


class LSTMLanguageModel(BaseEstimator):
    """Learn from texts without labels which token follows which, and which comes before.

    A fitted language model tells how probable texts are, writes texts of its own, and gives a
    classifier of few labelled texts a start: ``LSTMTextClassifier(pretrained=model)``.

    Parameters
    ----------
    vectorizer : SequenceVectorizer or None, default=None
        Turns texts into token ids. None is ``SequenceVectorizer()``. Its ``max_length`` and
        ``keep`` are for the classifier that starts from the model; the language model itself
        reads all of each text.
    embedding_dim : int, default=128
        Numbers that describe a token.
    hidden_size : int, default=256
        Numbers in the state of each direction.
    num_layers : int, default=1
        LSTM layers, one on top of the other; more than one with ``bidirectional=False`` only.
    bidirectional : bool, default=True
        Whether a second LSTM reads each text from its end and predicts the token before. The two
        share the embedding.
    cell : {'lstm', 'peephole', 'peephole_previous', 'layer_norm', 'coupled'}, default='lstm'
        What the LSTM computes at a token. See :class:`~sklstm.lstm.LSTM`.
    dropout : float, default=0.0
        Share of the states set to 0 while training. More texts than epochs need none.
    weight_decay : float, default=0.01
        Weight decay of AdamW.
    n_negatives : int, default=2048
        Words that each batch compares its own with, in place of all words of the vocabulary. More
        are slower and no less exact; from the size of the vocabulary on the softmax is the full
        one.
    window : int, default=128
        Tokens that are read in a row while training, from a state of 0. The texts follow each
        other in a new order each epoch and are cut anew.
    lr : float, default=4e-3
        Highest learning rate of AdamW.
    lr_schedule : {'linear', 'cosine', 'constant'} or None, default='linear'
        How the learning rate falls to 0 (or does not) after rising over the first tenth of the
        updates. None leaves it alone, for an LRScheduler among the ``callbacks``.
    batch_size : int, default=32
        Windows per update.
    max_epochs : int or 'auto', default='auto'
        Passes over the texts. 'auto' makes about 2,000 updates in 1 to 50 epochs.
    validation_fraction : float, default=0.01
        Share of the texts set aside, whose perplexity is recorded at each epoch; the weights of
        the best epoch are kept. Equal texts stay together. Where it rounds to no text, or all
        texts are equal, none is set aside.
    callbacks : list of skorch callbacks or None, default=None
        Callbacks of skorch, instances or (name, instance) pairs; copied before use. The history
        they see has train_loss, valid_loss, valid_perplexity and valid_perplexity_backward.
    device : str, default='auto'
        'cpu', 'cuda', ...; 'auto' is CUDA where there is one.
    precision : {'auto', 'float32', 'bfloat16'}, default='auto'
        What the LSTM computes in; see :class:`~sklstm.LSTMTextClassifier`.
    backend : {'auto', 'aten', 'cpu', 'native', 'reference', 'triton'}, default='auto'
        Implementation of the LSTM; a name gives that one or an error.
    random_state : int, RandomState instance or None, default=None
        Makes fits repeatable. None draws a seed from numpy's global random state.
    verbose : int, default=0
        0 is silent, 1 prints a line an epoch, 2 also shows a progress bar.

    Attributes
    ----------
    vectorizer_ : SequenceVectorizer
        The fitted vectorizer.
    network_ : torch.nn.Module
        The trained network: ``embedding``, ``lstm``, ``projections``, ``bias``.
    n_iter_ : int
        Epochs trained.
    loss_curve_ : list of float
        Mean training loss of each epoch, by the sampled softmax and over both directions.
    validation_perplexities_ : list of float
        Perplexity of the texts set aside after each epoch; empty without such texts.
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
    that the sum in the softmax is right on average (Jean et al. 2015).

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

    _parameter_constraints = {
        "vectorizer": [SequenceVectorizer, None],
        "embedding_dim": [Interval(numbers.Integral, 1, None, closed="left")],
        "hidden_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "num_layers": [Interval(numbers.Integral, 1, None, closed="left")],
        "bidirectional": ["boolean"],
        "cell": [StrOptions(set(CELLS))],
        "dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "weight_decay": [Interval(numbers.Real, 0, None, closed="left")],
        "n_negatives": [Interval(numbers.Integral, 1, None, closed="left")],
        "window": [Interval(numbers.Integral, 2, None, closed="left")],
        "lr": [Interval(numbers.Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions(set(SCHEDULES)), None],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "max_epochs": [Interval(numbers.Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="left")],
        "callbacks": [list, None],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "backend": [StrOptions({"auto", *BACKENDS})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

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
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.backend = backend
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Learn vocabulary and network from texts.

        Interrupting it with Ctrl-C keeps the weights so far and warns.

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
        device = self._check_parameters()
        texts = check_texts(X)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(int(seed))
        texts, held_out = self._set_aside(texts, rng)
        vectorizer, ids = self._vectorize(texts)
        n_ids = len(vectorizer.get_feature_names_out())
        windows = TrainingWindows(
            ids,
            n_ids=n_ids,
            window=self.window,
            batch_size=self.batch_size,
            n_negatives=self.n_negatives,
            rng=rng,
        )
        max_epochs = count_epochs(self.max_epochs, n_batches=len(windows), fewest=1)
        net = build_net(
            self._network_settings(n_ids)
            | {"generator": generator, "log_frequency": log_frequencies(windows.counts)},
            net_class=LanguageNet,
            module=LSTMLanguageNetwork,
            lr=self.lr,
            weight_decay=self.weight_decay,
            device=device,
            verbose=int(self.verbose),
            schedule=self.lr_schedule and Schedule(self.lr_schedule, max_epochs * len(windows)),
            judge=_Judge(_read_whole(vectorizer, held_out)) if held_out else None,
            patience=max_epochs if held_out else None,  # never reached: the best weights are kept
            user_callbacks=self.callbacks,
            n_batches=len(windows),
        )
        interrupted = train(net, windows, max_epochs=max_epochs)
        self._keep(vectorizer, net.module_, [dict(row) for row in net.history])
        if interrupted:
            self._tell_interrupted()
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
        """Return among how many equally probable tokens the model is as uncertain; lower is better.

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
        check_is_fitted(self, "network_")
        _check_generation(n_texts, prompt, max_tokens, temperature)
        begin = _read_whole(self.vectorizer_, [prompt]).ids if prompt else []
        drawn = sample(
            self.network_,
            np.concatenate([[BOUNDARY], begin]).astype(np.int64),
            n_texts=int(n_texts),
            max_tokens=int(max_tokens),
            temperature=temperature,
            rng=check_random_state(random_state),
        )
        tokens, glue = self.vectorizer_.get_feature_names_out(), self._join
        rest = [glue(tokens[ids].tolist()) for ids in drawn]
        space = " " if glue is join_tokens else ""
        return [f"{prompt}{space}{text}" if prompt and text else prompt + text for text in rest]

    @property
    def _join(self):
        """Return the function that makes a text of tokens."""
        return "".join if self.vectorizer_.analyzer == "char" else join_tokens

    def save(self, path):
        """Write the fitted model into one file that holds data alone (safetensors).

        Callbacks, and a ``random_state`` that is no number, are not saved.

        Parameters
        ----------
        path : str or path-like
            The file; one that is there is replaced when the new one is complete.

        Raises
        ------
        ValueError
            If the vectorizer holds functions, which are no data.
        OSError
            If the file cannot be written.
        """
        check_is_fitted(self, "network_")
        parameters = self.get_params(deep=False) | {"callbacks": None}
        if not isinstance(self.random_state, numbers.Integral):
            parameters["random_state"] = None
        parameters["vectorizer"] = self.vectorizer is not None
        write_model(
            path,
            kind=KIND,
            weights=self.network_.state_dict(),
            description={
                "parameters": parameters,
                "vectorizer": _describe(self.vectorizer_),
                "vocabulary": list(self.vectorizer_.vocabulary_),
                "history": self.history_,
            },
        )

    @classmethod
    def load(cls, path):
        """Return the model that ``save`` has written, on the CPU; no code from the file is run.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        model : LSTMLanguageModel

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it is not one of a language model.
        """
        weights, description = read_model(path, kind=KIND)
        try:
            return cls()._restore(weights, description)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{str(path)!r} must hold weights, vocabulary and parameters that fit together; "
                f"got {str(error).splitlines()[0]!r}. Save the model again."
            ) from error

    def _restore(self, weights, description):
        """Take over what ``save`` has written."""
        vectorizer = SequenceVectorizer(**description["vectorizer"])
        parameters = description["parameters"]
        self.set_params(**parameters | {"vectorizer": None})
        if parameters["vectorizer"]:
            self.vectorizer = clone(vectorizer)
        vectorizer.vocabulary_ = {
            token: i for i, token in enumerate(description["vocabulary"], len(SPECIAL_TOKENS))
        }
        n_ids = len(vectorizer.get_feature_names_out())
        settings = self._network_settings(n_ids) | {"generator": torch.Generator()}
        network = LSTMLanguageNetwork(**settings)
        network.load_state_dict(weights)
        self._keep(vectorizer, network.eval(), description["history"])
        return self

    def _check_parameters(self):
        """Check all parameters; return the device."""
        if self.bidirectional and self.num_layers > 1:
            raise ValueError(
                "num_layers must be 1 where bidirectional=True, since a second layer would see the "
                f"tokens that it is to predict; got num_layers={self.num_layers}. Set "
                "bidirectional=False, or num_layers=1."
            )
        device = resolve_device(self.device)
        check_precision(self.precision, device)
        return device

    def _set_aside(self, texts, rng):
        """Return the texts to train on and those to judge by, or None."""
        if round(self.validation_fraction * len(texts)) == 0:
            return texts, None
        unlabelled = LabelledTexts(texts, np.zeros(len(texts), np.int64), np.ones(len(texts)))
        kept, held_out = split_validation(unlabelled, fraction=self.validation_fraction, rng=rng)
        return kept.texts, held_out and held_out.texts

    def _vectorize(self, texts):
        """Return the vectorizer, fitted on the texts, and all their ids."""
        given = SequenceVectorizer() if self.vectorizer is None else self.vectorizer
        vectorizer = clone(given).set_params(max_length=None)
        ids = RaggedIds(*vectorizer.fit_ragged(texts))
        return vectorizer.set_params(max_length=given.max_length), ids

    def _network_settings(self, n_ids):
        names = ("embedding_dim", "hidden_size", "num_layers", "bidirectional", "cell", "dropout")
        names += ("backend", "precision")
        return {name: getattr(self, name) for name in names} | {"n_ids": n_ids}

    def _keep(self, vectorizer, network, history):
        """Set all learnt attributes together, so that a failed fit sets none."""
        self.vectorizer_ = vectorizer
        self.network_ = network
        self.history_ = history
        self.n_iter_ = len(history)
        self.loss_curve_ = [float(row["train_loss"]) for row in history]
        self.validation_perplexities_ = [
            row["valid_perplexity"] for row in history if "valid_perplexity" in row
        ]

    def _mean_log_likelihood(self, X, direction):
        """Return the mean over all tokens of all texts, a chunk of texts at a time."""
        check_is_fitted(self, "network_")
        texts, directions = check_texts(X), self.network_.lstm.num_directions
        if direction >= directions:
            raise ValueError(
                "direction='backward' needs a model of both directions; got bidirectional=False. "
                "Use direction='forward'."
            )
        total, n_tokens = 0.0, 0
        for begin in range(0, len(texts), TEXTS_PER_CHUNK):
            ids = _read_whole(self.vectorizer_, texts[begin : begin + TEXTS_PER_CHUNK])
            total += sum_log_likelihoods(self.network_, enclose(ids))[direction]
            n_tokens += len(ids.ids) + len(ids)
        return float(total / n_tokens)

    def _tell_interrupted(self):
        """Warn of an interrupted fit; inside a search, end that as well."""
        if fitted_by_meta_estimator():
            raise KeyboardInterrupt
        warnings.warn(
            f"Training was interrupted after {self.n_iter_} epochs; the "
            + ("best" if self.validation_perplexities_ else "newest")
            + " weights so far are kept.",
            UserWarning,
            stacklevel=4,
        )

    def __sklearn_tags__(self):
        """Tell scikit-learn that texts come in."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags


class _Judge:
    """What the texts set aside say of a network."""

    def __init__(self, ids: RaggedIds):
        self.ids = enclose(ids)
        self.n_predicted = len(self.ids.ids) - len(self.ids)

    def __call__(self, network: LSTMLanguageNetwork) -> dict[str, float]:
        """Return the mean loss of all directions, and the perplexity of each."""
        losses = -sum_log_likelihoods(network, self.ids) / self.n_predicted
        names = ("valid_perplexity", "valid_perplexity_backward")
        perplexities = map(float, np.exp(losses))
        return {"valid_loss": float(losses.mean())} | dict(zip(names, perplexities, strict=False))


def _read_whole(vectorizer: SequenceVectorizer, texts: list[str]) -> RaggedIds:
    """Return all ids of the texts, however few of them the vectorizer keeps for a classifier."""
    whole = copy.copy(vectorizer).set_params(max_length=None)
    return RaggedIds(*whole.transform_ragged(texts))


def _describe(vectorizer: SequenceVectorizer) -> dict:
    """Return the parameters of a vectorizer, if they are data."""
    parameters = vectorizer.get_params(deep=False)
    if parameters["vocabulary"] is not None:
        parameters["vocabulary"] = list(vectorizer.vocabulary_)
    functions = [name for name, value in parameters.items() if callable(value)]
    if functions or type(vectorizer) is not SequenceVectorizer:
        what = f"a function as {functions[0]!r}" if functions else type(vectorizer).__name__
        raise ValueError(
            "save needs a SequenceVectorizer whose parameters are data, since a file holds no code;"
            f" got {what}. Use pickle or joblib."
        )
    return parameters


def _check_generation(n_texts, prompt, max_tokens, temperature):
    """Raise TypeError or ValueError for an argument of generate that is not what it must be."""
    if not isinstance(prompt, str):
        raise TypeError(f"prompt must be a str; got {type(prompt).__name__} ({prompt!r:.40}).")
    for name, number in (("n_texts", n_texts), ("max_tokens", max_tokens)):
        if not isinstance(number, numbers.Integral) or number < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more; got {number!r}.")
    is_number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
    if not is_number or not 0 <= temperature < np.inf:
        raise ValueError(f"temperature must be a number of 0 or more; got {temperature!r}.")
