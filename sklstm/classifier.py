"""LSTMTextClassifier: the whole story from texts to labels on one page."""

import copy
import numbers
import os
import sys
import warnings
from inspect import signature

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    clone,
)
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import get_scorer_names
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklstm.checks import (
    HasMethods,
    Interval,
    StrOptions,
    check_labels,
    check_pooling,
    check_same_length,
    check_same_network,
    check_sample_weight,
    check_sentences,
    check_texts,
    encode_labels,
    fit_context,
    fitted_by_meta_estimator,
    weigh_classes,
)
from sklstm.kernels.contract import CELLS
from sklstm.kernels.dispatch import BACKENDS
from sklstm.language_model import LSTMLanguageModel
from sklstm.model.prediction import (
    answer_in_chunks,
    compute_logits,
    compute_pooled,
    compute_sentences,
)
from sklstm.model.validation import (
    ALIKE,
    ALONE,
    BESIDE_NGRAMS,
    LabelledTexts,
    Validation,
    split_validation,
)
from sklstm.network.sentences import Segment, mark_tokens
from sklstm.network.text_network import POOLINGS
from sklstm.ngrams.member import choose_baseline, compute_log_probabilities, fit_and_judge
from sklstm.text.batching import RaggedIds, TrainingBatches
from sklstm.text.vectorizer import SPECIAL_TOKENS, SequenceVectorizer
from sklstm.text.word_vectors import check_embeddings, find_vectors
from sklstm.training.adversarial import Adversary
from sklstm.training.fine_tuning import count_stages
from sklstm.training.loop import (
    SCHEDULES,
    Schedule,
    build_net,
    check_precision,
    count_epochs,
    go_on,
    resolve_device,
    train,
)
from sklstm.training.start import find_start, keep_start


class LSTMTextClassifier(
    ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, BaseEstimator
):
    """Classify raw texts with a long short-term memory network.

    Used as any classifier of scikit-learn that takes texts: strings in, labels or probabilities
    out. Each text is read token by token in both directions; what the network saw is pooled
    into one vector, and a linear layer turns that into the probabilities of the classes.

    Parameters
    ----------
    vectorizer : SequenceVectorizer or None, default=None
        Turns texts into token ids. None is ``SequenceVectorizer()``; its parameters can be set
        as ``vectorizer__min_df`` and so on either way.
    baseline : 'auto', estimator or None, default='auto'
        A classifier of raw texts beside the network. The answer is the weighted geometric mean of
        their probabilities, with the weights that fit the texts set aside best, held to 0.2 and 0.8
        for 'auto' and to 0.5 each for an estimator; without such texts, or with ``calibrate`` off,
        they are these. 'auto' is the mean of two linear models of words, pairs of words and
        characters inside words: a logistic regression on their TF-IDF, and one on naive Bayes'
        log-count ratios (NB-SVM); with it, ``partial_fit`` trains the network alone. None is the
        pure LSTM.
    embedding_dim : int, default=128
        Numbers that describe a token. Left at its default, it is the width of ``embeddings`` where
        these are given; another number must equal that width.
    hidden_size : int, default=128
        Numbers in the state of each direction.
    num_layers : int, default=1
        LSTM layers, one on top of the other.
    bidirectional : bool, default=True
        Whether a second LSTM reads each text from its end.
    cell : {'lstm', 'peephole', 'peephole_previous', 'layer_norm', 'coupled'}, default='lstm'
        What the LSTM computes at a token: the standard cell, gates that see the cell state (the
        new one in the output gate, or the one before), layer norms inside the cell, or a forget
        gate coupled to the input gate. See :class:`~sklstm.lstm.LSTM`.
    attention : {'dot'} or None, default=None
        Whether each state is replaced by the mean of all states of its text, weighted by their
        likeness to it (dot-product self-attention), before pooling. Its memory grows with the
        square of the length.
    pretrained : LSTMLanguageModel, FrozenEstimator, str, path-like or None, default=None
        A fitted language model, or the path of one that was saved, whose vectorizer, embedding and
        LSTM the network starts from. ``embedding_dim``, ``hidden_size``, ``num_layers``,
        ``bidirectional`` and ``cell`` are then the language model's, and may not be given other
        values. So is the vectorizer, except for how much it reads of a text: a ``vectorizer`` that
        differs in ``max_length`` and ``keep`` alone may be given. A clone starts from the same
        model. ``warm_start`` and ``partial_fit`` go on from their own weights: the language model
        is for the first fit.
    segments : int, 'sentence' or None, default=None
        Tokens after which a text is cut. Its rows of so many tokens, the last one shorter, run
        through the LSTM side by side, each from a state of 0 and with dropout masks of its own,
        and their states are pooled together ('last' takes the last state of the last row and,
        backwards, that of the first). No state knows what stands in another row. That makes fewer
        steps over wider batches; whether it saves time depends on hardware and lengths. Texts that
        are not longer are read as without it. 'sentence' cuts after the tokens . ! ? … and their
        full-width forms, runs of them and closing quotes and brackets included; each sentence is
        read, pooled and classified by itself, and the logits of a text are a weighted mean of those
        of its sentences, which ``predict_segments`` shows. The weights are learnt.
    pooling : str or tuple of str, default=('max', 'mean', 'embedding_mean')
        What becomes the representation of a text: 'last' state, 'mean' or 'max' over the states,
        'attention' (a learnt weighted mean), 'embedding_mean' (the mean of the embeddings, past
        the LSTM). Several are concatenated.
    embeddings : str, path, mapping, KeyedVectors or None, default=None
        Word vectors that the embedding starts from: a text file in the format of GloVe or of
        word2vec (also .gz, .bz2, .xz), a mapping from token to a sequence of numbers, or
        ``KeyedVectors`` of gensim. A token is looked up as it is, then in lower case. Tokens
        without a vector are drawn at random, as all are with None. Read by the first call of
        ``fit`` or ``partial_fit``; later ones that go on read nothing, and do with None where
        ``embedding_dim`` is set to the width. Prediction does not need it.
    freeze_embeddings : bool, default=False
        Whether the embedding stays as it is at the start of the call, those tokens without a vector
        included. Needs ``embeddings``, except to go on from an earlier call.
    dropout : float, default=0.5
        Share of the pooled representation, and of the states between layers, set to 0 while
        training.
    embedding_dropout : float, default=0.3
        Share of the embedding columns set to 0 while training, the same for all tokens of a text.
    word_dropout : float, default=0.1
        Share of the tokens read as unknown while training.
    input_dropout : float, default=0.0
        Share of the features into each LSTM set to 0 while training, the same for all tokens of a
        text (Keras' ``dropout``).
    recurrent_dropout : float, default=0.0
        The same for the state on its way to the next token (Keras' ``recurrent_dropout``).
    weight_dropout : float, default=0.0
        Share of the recurrent weights set to 0 while training.
    zoneout : float, default=0.0
        Share of the units whose states stay as they were at a token, while training.
    weight_decay : float, default=0.01
        Weight decay of AdamW.
    label_smoothing : float, default=0.05
        Share of each target given to all classes alike.
    adversarial : float, default=0.0
        Size of the adversarial perturbation while training, as a share of the norm of the embedded
        text: each text is trained on as it is and, once more, moved by so much in the direction in
        which its loss rises fastest. 0.02 to 0.05 is usual; an epoch takes twice as long.
    virtual_adversarial : float, default=0.0
        The same for the direction in which the probabilities change most, whatever the label; an
        epoch takes three times as long. Both may be on together.
    ema : float or None, default=0.995
        Decay of the moving average of the weights that is evaluated and kept; None keeps the
        weights of the last update.
    lr : float, default=2e-3
        Highest learning rate of AdamW.
    lr_schedule : {'linear', 'cosine', 'constant'} or None, default='linear'
        How the learning rate falls to 0 (or does not) after rising over the first tenth of the
        updates. None leaves it alone, for an LRScheduler among the ``callbacks``.
    layer_lr_decay : float, default=1.0
        What the learning rate is multiplied by at each layer further down: the top layer of the
        LSTM learns at ``lr * layer_lr_decay``, the one below it at ``lr * layer_lr_decay**2``, and
        so on, last the embedding; pools and head learn at ``lr``. Meant for weights that have
        learnt before, from ``pretrained``, ``embeddings`` or an earlier call; 1 / 2.6 is usual
        there. 1 is the same rate for all.
    gradual_unfreezing : bool, default=False
        Whether ``fit`` trains pools and head alone in the first epoch, the top layer of the LSTM as
        well from the second on, then the layers below one by one, and the embedding last (unless
        ``freeze_embeddings``). Needs ``pretrained`` or ``embeddings``, and as many epochs. Early
        stopping looks at no epoch before all is trained. ``partial_fit`` and a ``fit`` that goes on
        by ``warm_start`` train all at once.
    batch_size : int, default=32
        Texts per update.
    max_epochs : int or 'auto', default='auto'
        Most passes over the texts. 'auto' makes about 2,000 updates in 3 to 50 epochs; with
        ``gradual_unfreezing`` all of the network is trained in 3 of them at least.
    early_stopping : bool, default=True
        Whether to set texts aside, stop when they show no more progress, and keep the best
        weights. Classes too small to give a text (``validation_fraction`` of them rounds to 0)
        set none aside; where no class can, training runs to its end.
    validation_fraction : float, default=0.1
        Share of each class set aside. Equal texts stay together.
    n_iter_no_change : int, default=3
        Epochs without progress before stopping.
    tol : float, default=0.0
        What counts as progress: the score must rise by more.
    scoring : str, callable or None, default=None
        What is judged on the texts set aside: a scorer of scikit-learn. None is the log loss.
    class_weight : {'balanced'}, dict or None, default=None
        Weights of the classes in the loss; 'balanced' gives all classes the same say.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the weights and vocabulary of the fit before.
    calibrate : bool, default=True
        Whether network and ``baseline`` are weighted as fits the texts set aside best, and the
        logits divided by the temperature that does; the temperature is left at 1 where these texts
        are fewer than 100 or lack a class.
    callbacks : list of skorch callbacks or None, default=None
        Callbacks of skorch, instances or (name, instance) pairs; copied before use. The
        history they see has train_loss, valid_loss, valid_accuracy and, with ``scoring``,
        valid_score. Those that score data themselves (EpochScoring, BatchScoring) find none,
        since texts come in whole batches; use ``scoring``.
    device : str, default='auto'
        'cpu', 'cuda', ...; 'auto' is CUDA where there is one.
    precision : {'auto', 'float32', 'bfloat16'}, default='auto'
        What the LSTM computes in; weights, optimiser, pooling and loss are in float32 always.
        'auto' trains in bfloat16 where there are matrix units for it (a CPU with Intel's AMX, a
        CUDA card of compute capability 8 or more) and torch's fused layer may run, and in float32
        elsewhere; it always judges and predicts in float32. 'bfloat16' is for prediction too, on
        any device; what it gains depends on the hardware. 'float32' is for everything, and makes no
        difference between devices.
    backend : {'auto', 'aten', 'cpu', 'native', 'reference', 'triton'}, default='auto'
        Implementation of the LSTM; a name gives that one or an error.
    random_state : int, RandomState instance or None, default=None
        Makes fits repeatable. None draws a seed from numpy's global random state, the only
        global state that is ever touched.
    verbose : int, default=0
        0 is silent, 1 prints a line an epoch, 2 also shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    vectorizer_ : SequenceVectorizer
        The fitted vectorizer.
    net_ : skorch.NeuralNet
        The trained net; ``net_.module_`` is the torch module.
    n_iter_ : int
        Epochs trained.
    loss_curve_ : list of float
        Mean training loss of each epoch.
    validation_scores_ : list of float
        Score of each epoch on the texts set aside, higher is better; empty without such texts.
    history_ : list of dict
        All that was recorded of each epoch.
    temperature_ : float
        What the logits are divided by.
    baseline_ : estimator or None
        The fitted baseline, by itself a classifier of texts.
    blend_weights_ : tuple of two floats
        The answer is softmax(``blend_weights_[0]`` * logits / ``temperature_`` +
        ``blend_weights_[1]`` * log-probabilities of the baseline). Without one, (1.0, 0.0).
    embedding_coverage_ : float or None
        Share of the tokens of the training texts, repetitions included, that had a vector in
        ``embeddings``; None without these.
    vocabulary_coverage_ : float or None
        The same of the different tokens of the vocabulary.

    Notes
    -----
    The loss is the mean over a batch of weight times cross-entropy, with weights scaled to a
    mean of 1 over all training texts. Texts of weight 0 are left out altogether. With
    ``adversarial`` the same loss of the moved texts is added, with ``virtual_adversarial`` weight
    times the divergence KL(clean || moved); ``loss_curve_`` is the sum.

    References
    ----------
    Hochreiter & Schmidhuber (1997) for the LSTM; Maini et al. (2020), Why and when should you
    pool? for the pooling; Johnson & Zhang (2016), Supervised and semi-supervised text
    categorization using LSTM for region embeddings, for the segments; Gal & Ghahramani (2016) for
    the dropout of whole columns; Merity, Keskar & Socher (2018) for that of weights; Guo et al.
    (2017) for the temperature; Miyato, Dai & Goodfellow (2017), Adversarial Training Methods for
    Semi-Supervised Text Classification, for both kinds of perturbation; Howard & Ruder (2018),
    Universal Language Model Fine-tuning for Text Classification, for ``layer_lr_decay`` and
    ``gradual_unfreezing``.

    Examples
    --------
    >>> from sklstm import LSTMTextClassifier
    >>> texts = ["good film", "so good", "not bad", "bad film", "so bad", "not good"] * 5
    >>> labels = ["pos", "pos", "pos", "neg", "neg", "neg"] * 5
    >>> clf = LSTMTextClassifier(max_epochs=30, random_state=0).fit(texts, labels)
    >>> clf.predict(["a good film", "a bad film"])
    array(['pos', 'neg'], dtype='<U3')
    >>> clf.predict_proba(["not bad"]).shape
    (1, 2)
    """

    _parameter_constraints = {
        "vectorizer": [SequenceVectorizer, None],
        "baseline": [StrOptions({"auto"}), HasMethods(["fit", "predict_proba"]), None],
        "embedding_dim": [Interval(numbers.Integral, 1, None, closed="left")],
        "hidden_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "num_layers": [Interval(numbers.Integral, 1, None, closed="left")],
        "bidirectional": ["boolean"],
        "cell": [StrOptions(set(CELLS))],
        "attention": [StrOptions({"dot"}), None],
        "pretrained": [LSTMLanguageModel, FrozenEstimator, str, os.PathLike, None],
        "segments": [
            Interval(numbers.Integral, 1, None, closed="left"),
            StrOptions({"sentence"}),
            None,
        ],
        "pooling": [StrOptions(set(POOLINGS)), tuple, list],
        "embeddings": "no_validation",  # by check_embeddings
        "freeze_embeddings": ["boolean"],
        "dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "embedding_dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "word_dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "input_dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "recurrent_dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "weight_dropout": [Interval(numbers.Real, 0, 1, closed="left")],
        "zoneout": [Interval(numbers.Real, 0, 1, closed="left")],
        "weight_decay": [Interval(numbers.Real, 0, None, closed="left")],
        "label_smoothing": [Interval(numbers.Real, 0, 1, closed="left")],
        "adversarial": [Interval(numbers.Real, 0, 1, closed="left")],
        "virtual_adversarial": [Interval(numbers.Real, 0, 1, closed="left")],
        "ema": [Interval(numbers.Real, 0, 1, closed="neither"), None],
        "lr": [Interval(numbers.Real, 0, None, closed="neither")],
        "lr_schedule": [StrOptions(set(SCHEDULES)), None],
        "layer_lr_decay": [Interval(numbers.Real, 0, 1, closed="right")],
        "gradual_unfreezing": ["boolean"],
        "batch_size": [Interval(numbers.Integral, 1, None, closed="left")],
        "max_epochs": [Interval(numbers.Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(numbers.Integral, 1, None, closed="left")],
        "tol": [Interval(numbers.Real, 0, None, closed="left")],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "warm_start": ["boolean"],
        "calibrate": ["boolean"],
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
        baseline="auto",
        # network
        embedding_dim=128,
        hidden_size=128,
        num_layers=1,
        bidirectional=True,
        cell="lstm",
        attention=None,
        pretrained=None,
        segments=None,
        pooling=("max", "mean", "embedding_mean"),
        embeddings=None,
        freeze_embeddings=False,
        # regularisation
        dropout=0.5,
        embedding_dropout=0.3,
        word_dropout=0.1,
        input_dropout=0.0,
        recurrent_dropout=0.0,
        weight_dropout=0.0,
        zoneout=0.0,
        weight_decay=0.01,
        label_smoothing=0.05,
        adversarial=0.0,
        virtual_adversarial=0.0,
        ema=0.995,
        # training
        lr=2e-3,
        lr_schedule="linear",
        layer_lr_decay=1.0,
        gradual_unfreezing=False,
        batch_size=32,
        max_epochs="auto",
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=3,
        tol=0.0,
        scoring=None,
        class_weight=None,
        warm_start=False,
        calibrate=True,
        callbacks=None,
        # machine
        device="auto",
        precision="auto",
        backend="auto",
        random_state=None,
        verbose=0,
    ):
        self.vectorizer = vectorizer
        self.baseline = baseline
        self.embedding_dim = embedding_dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.cell = cell
        self.attention = attention
        self.pretrained = pretrained
        self.segments = segments
        self.pooling = pooling
        self.embeddings = embeddings
        self.freeze_embeddings = freeze_embeddings
        self.dropout = dropout
        self.embedding_dropout = embedding_dropout
        self.word_dropout = word_dropout
        self.input_dropout = input_dropout
        self.recurrent_dropout = recurrent_dropout
        self.weight_dropout = weight_dropout
        self.zoneout = zoneout
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.adversarial = adversarial
        self.virtual_adversarial = virtual_adversarial
        self.ema = ema
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.layer_lr_decay = layer_lr_decay
        self.gradual_unfreezing = gradual_unfreezing
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.scoring = scoring
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.calibrate = calibrate
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.backend = backend
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params):
        """Set parameters, those of the vectorizer as ``vectorizer__<name>``.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : LSTMTextClassifier

        Raises
        ------
        ValueError
            If there is no such parameter, or one of a baseline that is no estimator.
        """
        nested = {name for name in params if name.startswith("vectorizer__")}
        if nested and params.get("vectorizer", self.vectorizer) is None:
            values = {name.removeprefix("vectorizer__"): params[name] for name in nested}
            others = {name: value for name, value in params.items() if name not in nested}
            params = others | {"vectorizer": SequenceVectorizer().set_params(**values)}
        of_baseline = [name for name in params if name.startswith("baseline__")]
        baseline = params.get("baseline", self.baseline)
        if of_baseline and baseline in ("auto", None):
            raise ValueError(
                f"{of_baseline[0]} needs an estimator as baseline; got baseline={baseline!r}. Set "
                "baseline to a classifier of raw texts first."
            )
        return super().set_params(**params)

    def __sklearn_clone__(self):
        """Return a clone that starts from the same language model, not from an unfitted one."""
        twin = super().__sklearn_clone__()
        twin.pretrained = self.pretrained
        return twin

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None):
        """Learn vocabulary and network from texts and their labels.

        Interrupting it with Ctrl-C keeps the best weights so far and warns.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts: a list, array, series, table of one column.
        y : array-like of shape (n_texts,)
            Their labels.
        sample_weight : array-like of shape (n_texts,) or None
            Weight of each text in the loss.
        X_val, y_val : as X and y, or None
            Texts to judge the training by, instead of some set aside from X.

        Returns
        -------
        self : LSTMTextClassifier

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not what it must be. An earlier fit stays as it was.
        """
        device = self._check_parameters()
        going_on = self.warm_start and hasattr(self, "net_")
        classes, data = self._check_data(
            X, y, sample_weight, classes=self.classes_ if going_on else None
        )
        held_out = self._check_validation(X_val, y_val, classes)
        class_weights = weigh_classes(self.class_weight, classes, data.targets)
        start = self._find_start(going_on)
        n_stages = self._count_stages(going_on, start)
        rng, generator = self._random_sources(going_on)
        everything = data.weigh(class_weights)
        if held_out is None and self.early_stopping:
            data, held_out = split_validation(data, fraction=self.validation_fraction, rng=rng)
        data = data.weigh(class_weights)

        vectorizer, ids = self._vectorize(data.texts, going_on, start)
        vectors = self._find_vectors(vectorizer, going_on)
        batches = self._cut(ids, data, rng)
        validation = self._judge_by(held_out, vectorizer, classes, class_weights)
        estimator = choose_baseline(self.baseline, vectorizer)
        judged = held_out if self.calibrate else None
        baseline, log_probabilities = fit_and_judge(estimator, everything, data, judged, classes)
        max_epochs = count_epochs(self.max_epochs, n_batches=len(batches), n_stages=n_stages)
        net = self._build_net(
            self._network_settings(vectorizer, classes, generator, vectors),
            device=device,
            n_batches=len(batches),
            going_on=going_on,
            vectors=vectors,
            start=start,
            schedule=self.lr_schedule and Schedule(self.lr_schedule, max_epochs * len(batches)),
            ema=self.ema,
            validation=validation,
            n_stages=n_stages,
        )
        coverage = self._measure_coverage(vectors, ids, going_on)
        interrupted = train(net, batches, max_epochs=max_epochs)
        temperature, blend, interrupted_later = self._calibrate(
            validation, net.module_, baseline, log_probabilities
        )
        # What comes next starts with fresh moments, so a pickle need not carry these.
        net.optimizer_.state.clear()
        self._keep(classes, vectorizer, net, baseline, temperature, blend, rng, coverage)
        if interrupted or interrupted_later:
            self._tell_interrupted()
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train one epoch on these texts, going on from where the estimator stands.

        The first call (of ``fit`` or of this) fixes vocabulary and classes. There is no early
        stopping and no average of the weights; the learning rate is ``lr`` throughout; a
        temperature that ``fit`` has found stays.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.
        y : array-like of shape (n_texts,)
            Their labels.
        classes : array-like of shape (n_classes,) or None
            All labels that will ever come; needed at the first call.
        sample_weight : array-like of shape (n_texts,) or None
            Weight of each text in the loss.

        Returns
        -------
        self : LSTMTextClassifier

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not what it must be, or a label is not in
            ``classes``. What was learnt before stays as it was.
        """
        device = self._check_parameters()
        going_on = hasattr(self, "net_")
        classes, data = self._check_data(X, y, sample_weight, classes=self._all_classes(classes))
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all texts at once and cannot be used with "
                "partial_fit; give a dict of weights, one for each class."
            )
        if self.baseline not in ("auto", None):
            raise ValueError(
                "baseline must be None or 'auto' for partial_fit, since an estimator needs all "
                f"texts at once; got {self.baseline!r}."
            )
        data = data.weigh(weigh_classes(self.class_weight, classes, data.targets))
        start = self._find_start(going_on)
        rng, generator = self._random_sources(going_on)

        vectorizer, ids = self._vectorize(data.texts, going_on, start)
        vectors = self._find_vectors(vectorizer, going_on)
        batches = self._cut(ids, data, rng)
        net = self._build_net(
            self._network_settings(vectorizer, classes, generator, vectors),
            device=device,
            n_batches=len(batches),
            going_on=going_on,
            vectors=vectors,
            start=start,
        )
        if going_on:
            net.history = copy.deepcopy(self.net_.history)
        coverage = self._measure_coverage(vectors, ids, going_on)
        interrupted = train(net, batches, max_epochs=1)
        baseline = self.baseline_ if going_on else None
        temperature, blend = (self.temperature_, self.blend_weights_) if going_on else (1.0, ALONE)
        self._keep(classes, vectorizer, net, baseline, temperature, blend, rng, coverage)
        if interrupted:
            self._tell_interrupted()
        return self

    def predict(self, X):
        """Return the most probable label of each text.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        labels : ndarray of shape (n_texts,)
        """
        return self._answer(X, lambda logits: self.classes_[logits.argmax(axis=1)])

    def predict_proba(self, X):
        """Return the probabilities of the classes.

        A text's probabilities do not depend on the texts beside it.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        probabilities : ndarray of shape (n_texts, n_classes)
            Columns in the order of ``classes_``.
        """
        return self._answer(X, lambda logits: softmax(logits, axis=1))

    def predict_log_proba(self, X):
        """Return the logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        log_probabilities : ndarray of shape (n_texts, n_classes)
            Columns in the order of ``classes_``.
        """
        return self._answer(X, lambda logits: log_softmax(logits, axis=1))

    def decision_function(self, X):
        """Return the logits, or with two classes the log-odds of the second one.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        decision : ndarray of shape (n_texts, n_classes), or (n_texts,) with two classes
        """
        return self._answer(
            X, lambda logits: logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits
        )

    def transform(self, X):
        """Return the pooled representation of the texts, as features for other estimators.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        features : ndarray of shape (n_texts, n_pooled), float32
        """
        check_is_fitted(self)
        network = self.net_.module_
        return answer_in_chunks(
            check_texts(X), lambda texts: compute_pooled(network, self._encode(texts))
        )

    def predict_segments(self, X):
        """Return the sentences of the texts and what each says by itself.

        That is the network's opinion: its logarithms of the text's probabilities are, up to a
        constant, the mean of the sentences', weighted by ``weight``. What a baseline adds to them
        has no sentences. Needs ``segments='sentence'``.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        segments : list of list of Segment
            For each text its sentences in order, as named tuples (``tokens``, a list of str;
            ``probabilities``, an ndarray of shape (n_classes,) with columns in the order of
            ``classes_``; ``weight``, a float). Their tokens together are those of the text that
            ``max_length`` leaves.

        Raises
        ------
        ValueError
            If the classifier was fitted with other ``segments``.
        """
        check_is_fitted(self)
        check_sentences(self.net_.module_.segments)
        texts = check_texts(X)
        sentences = answer_in_chunks(texts, self._read_sentences)
        tokens = self.vectorizer_.tokenize(texts)
        return [list(_segments(*pair)) for pair in zip(tokens, sentences, strict=True)]

    def _read_sentences(self, texts):
        """Return for each text the probabilities, weights and lengths of its sentences."""
        ids = self._encode(texts)
        answers = np.empty(len(ids), dtype=object)
        for k, (logits, *others) in enumerate(compute_sentences(self.net_.module_, ids)):
            logits = logits.astype(np.float64) / self.temperature_
            answers[k] = (softmax(logits, axis=1), *others)
        return answers

    @property
    def _n_features_out(self):
        return self.net_.module_.n_pooled

    def _answer(self, X, finish):
        """Return what ``finish`` makes of the calibrated logits, one row a text."""
        check_is_fitted(self)
        return answer_in_chunks(check_texts(X), lambda texts: finish(self._predict_logits(texts)))

    def _predict_logits(self, texts):
        """Return the logits of network and baseline together."""
        of_network, of_baseline = self.blend_weights_
        logits = compute_logits(self.net_.module_, self._encode(texts)) / self.temperature_
        logits *= of_network
        if of_baseline > 0:
            log_probabilities = compute_log_probabilities(self.baseline_, texts, self.classes_)
            logits += of_baseline * log_probabilities
        return logits

    def _encode(self, texts):
        return RaggedIds(*self.vectorizer_.transform_ragged(texts))

    def _check_parameters(self):
        """Check all parameters; return the device."""
        self._validate_params()  # scikit-learn leaves it out from the second partial_fit on
        check_pooling(self.pooling, POOLINGS)
        check_embeddings(self.embeddings)
        device = resolve_device(self.device)
        check_precision(self.precision, device)
        return device

    def _check_data(self, X, y, sample_weight, classes, names=("X", "y")):
        """Return the classes and the texts with their targets and weights."""
        texts, labels = check_texts(X, name=names[0]), check_labels(y, name=names[1])
        check_same_length(texts, labels, names=names)
        classes, targets = encode_labels(labels, classes, name=names[1])
        weights = check_sample_weight(sample_weight, n_texts=len(texts))
        data = LabelledTexts(texts, targets, weights)
        # Texts of weight 0 must not even shape the vocabulary.
        return classes, data if weights.all() else data.choose(np.flatnonzero(weights))

    def _check_validation(self, X_val, y_val, classes):
        """Return the validation texts that were given, or None."""
        if (X_val is None) != (y_val is None):
            raise ValueError(
                "X_val and y_val must be given together; "
                f"got {'X_val' if y_val is None else 'y_val'} alone."
            )
        if X_val is None:
            return None
        return self._check_data(X_val, y_val, None, classes, names=("X_val", "y_val"))[1]

    def _all_classes(self, classes):
        """Return the classes of all calls of partial_fit."""
        if hasattr(self, "net_"):
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(
                    f"classes must be those of the first call, {self.classes_.tolist()}; "
                    f"got {np.unique(classes).tolist()}."
                )
            return self.classes_
        if classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit; got None.")
        return encode_labels(check_labels(classes, name="classes"), name="classes")[0]

    def _random_sources(self, going_on):
        """Return numpy's generator for the order of texts and torch's for weights and masks.

        Going on, numpy's is the one of the call before, and ``go_on`` does the same for torch's:
        otherwise each call of partial_fit would repeat order and masks of the last.
        """
        if going_on:
            return copy.deepcopy(self._rng), torch.Generator()
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        return np.random.default_rng(seed), torch.Generator().manual_seed(int(seed))

    def _find_start(self, going_on):
        """Return what a language model gives a first fit (going on, the sizes), or None."""
        if self.pretrained is not None and self.embeddings is not None:
            raise ValueError(
                "embeddings cannot be given beside pretrained, whose language model has an "
                "embedding of its own. Leave one of them out."
            )
        if going_on and self.pretrained is not None:
            return keep_start(self.vectorizer_, self.net_.get_params_for("module"))
        defaults = {name: p.default for name, p in signature(type(self)).parameters.items()}
        return find_start(self.pretrained, self.get_params(deep=False), defaults)

    def _count_stages(self, going_on, start):
        """Return in how many epochs the network thaws; 1 is all at once."""
        if going_on or not self.gradual_unfreezing:
            return 1
        if self.pretrained is None and self.embeddings is None:
            raise ValueError(
                "gradual_unfreezing=True needs weights that have learnt before; got "
                "pretrained=None and embeddings=None. Give one of them, or set "
                "gradual_unfreezing=False."
            )
        num_layers = self.num_layers if start is None else start.sizes["num_layers"]
        n_stages = count_stages(num_layers, freeze_embeddings=self.freeze_embeddings)
        if self.max_epochs != "auto" and self.max_epochs < n_stages:
            raise ValueError(
                f"max_epochs must be at least {n_stages} with gradual_unfreezing=True, which thaws "
                f"one layer an epoch; got {self.max_epochs}. Raise it, or set "
                "gradual_unfreezing=False."
            )
        return n_stages

    def _vectorize(self, texts, going_on, start):
        """Return the vectorizer, fitted on the texts unless it was before, and their ids."""
        if going_on or start is not None:
            vectorizer = self.vectorizer_ if going_on else start.vectorizer
            return vectorizer, RaggedIds(*vectorizer.transform_ragged(texts))
        vectorizer = SequenceVectorizer() if self.vectorizer is None else clone(self.vectorizer)
        return vectorizer, RaggedIds(*vectorizer.fit_ragged(texts))

    def _find_vectors(self, vectorizer, going_on):
        """Return the word vectors of the vocabulary, or None where there are none to read."""
        if going_on and self.embeddings is not None and self.embedding_coverage_ is None:
            raise ValueError(
                "embeddings must be given to the first fit; got them for a network that goes on "
                "without. Use fit with warm_start=False to begin anew."
            )
        if going_on:
            return None
        if self.embeddings is None:
            if self.freeze_embeddings and self.pretrained is None:
                raise ValueError(
                    "freeze_embeddings=True needs word vectors to freeze; got embeddings=None. "
                    "Give embeddings or pretrained, or set freeze_embeddings=False."
                )
            return None
        return find_vectors(
            self.embeddings,
            vectorizer.get_feature_names_out(),
            n_special=len(SPECIAL_TOKENS),
            width=None if self._leaves_width_open() else self.embedding_dim,
        )

    def _leaves_width_open(self):
        """Whether ``embedding_dim`` is at its default, beside ``embeddings`` that have a width."""
        default = signature(LSTMTextClassifier).parameters["embedding_dim"].default
        return self.embeddings is not None and self.embedding_dim == default

    def _measure_coverage(self, vectors, ids, going_on):
        """Return and print the shares of the tokens and of the vocabulary that have a vector."""
        if going_on:
            return self.embedding_coverage_, self.vocabulary_coverage_
        if vectors is None:
            return None, None
        of_tokens, of_vocabulary = vectors.coverage(ids.ids)
        if self.verbose:
            sys.stdout.write(
                f"Word vectors of {vectors.width} numbers cover {of_tokens:.1%} of the tokens and "
                f"{of_vocabulary:.1%} of the vocabulary.\n"
            )
        return of_tokens, of_vocabulary

    def _cut(self, ids, data, rng):
        """Return the batches to train on; the weights get a mean of 1."""
        weights = data.weights / data.weights.mean()
        return TrainingBatches(ids, data.targets, weights, batch_size=self.batch_size, rng=rng)

    def _judge_by(self, held_out, vectorizer, classes, class_weights):
        """Return what judges the training, or None without texts to judge by."""
        if held_out is None:
            return None
        ids = RaggedIds(*vectorizer.transform_ragged(held_out.texts))
        held_out = held_out.weigh(class_weights)
        if not held_out.weights.any():
            raise ValueError(
                "The validation texts must hold one of a class whose class_weight is above 0; got "
                f"{np.unique(classes[held_out.targets]).tolist()} only. Give X_val and y_val with "
                "such texts, or set early_stopping=False."
            )
        return Validation(held_out, ids, classes=classes, scoring=self.scoring)

    def _calibrate(self, validation, network, baseline, log_probabilities):
        """Return temperature, blend and whether the user interrupted the search for them."""
        expected = BESIDE_NGRAMS if self.baseline == "auto" else ALIKE
        unknown = (1.0, ALONE if baseline is None else expected)
        if validation is None or not self.calibrate:
            return *unknown, False
        try:
            found = validation.calibrate(network, log_probabilities, expected=expected)
            return *found, False
        except KeyboardInterrupt:
            return *unknown, True

    def _network_settings(self, vectorizer, classes, generator, vectors):
        names = vectorizer.get_feature_names_out()
        width = self.embedding_dim
        if vectors is not None:
            width = vectors.width
        elif self._leaves_width_open():  # a net goes on that has read them
            width = self.net_.module_.embedding.embedding_dim
        return {
            "n_ids": len(names),
            "n_classes": len(classes),
            "embedding_dim": width,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bidirectional": self.bidirectional,
            "cell": self.cell,
            "attention": self.attention,
            "segments": self.segments,
            "marks": mark_tokens(names) if self.segments == "sentence" else None,
            "pooling": (self.pooling,) if isinstance(self.pooling, str) else tuple(self.pooling),
            "dropout": self.dropout,
            "embedding_dropout": self.embedding_dropout,
            "word_dropout": self.word_dropout,
            "input_dropout": self.input_dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "weight_dropout": self.weight_dropout,
            "zoneout": self.zoneout,
            "backend": self.backend,
            "precision": self.precision,
            "generator": generator,
        }

    def _build_net(
        self,
        network,
        *,
        device,
        n_batches,
        going_on,
        vectors,
        start,
        schedule=None,
        ema=None,
        validation=None,
        n_stages=1,
    ):
        """Return a net, with the weights of the net before if it goes on from there."""
        if start is not None:
            network |= start.sizes
        if going_on:
            check_same_network(self.net_.get_params_for("module"), network)
        net = build_net(
            network,
            lr=self.lr,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            device=device,
            verbose=int(self.verbose),
            adversary=Adversary(self.adversarial, self.virtual_adversarial),
            schedule=schedule,
            ema=ema,
            judge=validation.judge if validation else None,
            monitor=validation.monitor if validation else "valid_loss",
            patience=self.n_iter_no_change if validation and self.early_stopping else None,
            tol=self.tol,
            user_callbacks=self.callbacks,
            n_batches=n_batches,
            layer_lr_decay=self.layer_lr_decay,
            n_stages=n_stages,
        )
        if going_on:
            go_on(net, self.net_)
        if start is not None:
            start.give(net.module_)
        weight = net.module_.embedding.weight.requires_grad_(not self.freeze_embeddings)
        if vectors is not None:
            vectors.place(weight)
        return net

    def _keep(self, classes, vectorizer, net, baseline, temperature, blend, rng, coverage):
        """Set all learnt attributes together, so that a failed fit sets none."""
        self.classes_ = classes
        self.vectorizer_ = vectorizer
        self.net_ = net
        self.temperature_, self.blend_weights_ = temperature, blend
        self.baseline_ = baseline
        self.embedding_coverage_, self.vocabulary_coverage_ = coverage
        self._rng = rng
        self.history_ = [dict(row) for row in net.history]
        self.n_iter_ = len(self.history_)
        self.loss_curve_ = [float(row["train_loss"]) for row in self.history_]
        self.validation_scores_ = [
            row.get("valid_score", -row["valid_loss"])
            for row in self.history_
            if "valid_loss" in row
        ]

    def _tell_interrupted(self):
        """Warn of an interrupted fit; inside a search or another estimator, end that as well."""
        if fitted_by_meta_estimator():
            raise KeyboardInterrupt
        warnings.warn(
            f"Training was interrupted after {self.n_iter_} epochs; "
            + ("the best" if self.validation_scores_ else "the newest")
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
        tags.transformer_tags.preserves_dtype = []  # texts have none; features are float32
        return tags


def _segments(tokens, sentences):
    """Yield the segments of a text from its tokens and what came of its sentences."""
    begin = 0
    for probabilities, weight, length in zip(*sentences, strict=True):
        yield Segment(tokens[begin : begin + length], probabilities, float(weight))
        begin += length
