"""LSTMTextRegressor: its parameters, and what it predicts."""

from dataclasses import replace

import numpy as np
from sklearn.base import RegressorMixin

from sklstm.checks import HasMethods, StrOptions, fit_context
from sklstm.labels import check_numbers
from sklstm.parameters import REMEDIES, constrain
from sklstm.supervised import LSTMTextEstimator
from sklstm.tasks.regression import Regression, as_columns, mean_and_scale
from sklstm.training.start import find_start


class LSTMTextRegressor(RegressorMixin, LSTMTextEstimator):
    """Predict numbers from raw texts with a long short-term memory network.

    Use it like any text regressor of scikit-learn: strings in, numbers out. It is
    :class:`LSTMTextClassifier` for numbers: the same network, blended by default with a ridge
    regression on n-grams. y is standardised inside.

    Parameters
    ----------
    vectorizer : SequenceVectorizer or None, default=None
        Turns texts into token ids. None is ``SequenceVectorizer()``; its parameters can be set
        as ``vectorizer__min_df`` and so on either way.
    blend : 'ngrams', estimator, list of members or None, default='ngrams'
        A second regressor of raw texts, the ensemble member, or several of them: a list of 'ngrams'
        and pairs (name, estimator), such as ``["ngrams", ("trees", estimator)]``. The prediction is
        a weighted sum of all. The weights minimise the loss on the validation texts, with a small
        penalty that pulls them towards 0.2 (network) and 0.8 (n-grams), or towards 0.5 each for
        your own estimator. In a list, network and n-grams together weigh as much as each other
        estimator. Up to 1,000 texts, or 2,000 with several members, the members also predict all
        texts out of fold, and their weights are pulled towards the best ones there instead. Without
        validation texts, the weights are those they would be pulled towards. A FrozenEstimator is
        not fitted. As in VotingRegressor, ``<name>`` and ``<name>__<parameter>`` of a listed member
        can be set, and a member that is 'drop' is left out. 'ngrams' is a ridge regression on the
        TF-IDF of words, pairs of words and characters inside words; generalised cross-validation
        chooses its penalty, and ``partial_fit`` updates it. None is the network by itself.
    embedding_dim : int or 'auto', default='auto'
        Size of the token embeddings. 'auto' is the width of ``embeddings`` where these are given,
        and 128 otherwise. A number must equal that width.
    hidden_size : int, default=128
        Size of the hidden state of each direction.
    num_layers : int, default=1
        Number of stacked LSTM layers.
    bidirectional : bool, default=True
        Whether a second LSTM reads each text from its end.
    cell : {'lstm', 'peephole', 'peephole_previous', 'layer_norm', 'coupled'}, default='lstm'
        What the LSTM computes at a token: the standard cell, gates that see the cell state (the
        new one in the output gate, or the one before), layer norms inside the cell, or a forget
        gate coupled to the input gate. See :class:`~sklstm.lstm.LSTM`.
    attention : {'dot'} or None, default=None
        Whether each state is replaced by the mean of all states of its text, weighted by their
        similarity to it (dot-product self-attention), before pooling. Its memory grows with the
        square of the length.
    pretrained : LSTMLanguageModel, FrozenEstimator, str, path-like or None, default=None
        A fitted language model, or the path of one that was saved. The regressor starts from its
        vectorizer, embedding and LSTM. ``embedding_dim``, ``hidden_size``, ``num_layers``,
        ``bidirectional`` and ``cell`` are then the language model's, and must not be given other
        values. So is the vectorizer: a ``vectorizer`` may differ from it in ``max_length`` and
        ``keep`` only. A clone starts from the same model. With ``warm_start`` and ``partial_fit``,
        only the first fit reads the language model.
    read_by : {'sentence'} or None, default=None
        'sentence' cuts a text after . ! ? and … before white space, and after the full stops of
        other scripts, with runs of them and with closing quotes and brackets. Each sentence is
        read and pooled separately, and the prediction for a text is a weighted mean of those for
        its sentences. The weights are learnt. None reads a text as a whole.
    pooling : str or tuple of str, default=('max', 'mean', 'embedding_mean')
        What represents a text: the 'last' state, the 'mean' or 'max' over the states,
        'attention' (a learnt weighted mean), or 'embedding_mean' (the mean of the embeddings, which
        bypasses the LSTM). Several are concatenated. With only 'last' and one direction the
        end of a long text is read, unless the vectorizer's ``keep`` says something else.
    embeddings : str, path, mapping, KeyedVectors or None, default=None
        Word vectors that the embedding starts from: a text file in the format of GloVe or of
        word2vec (also .gz, .bz2, .xz), a mapping from token to a sequence of numbers, or
        ``KeyedVectors`` of gensim. A token is looked up as it is, then in lower case. Tokens
        without a vector are drawn at random, as all are with None. The first call of ``fit`` or
        ``partial_fit`` reads them. Later calls that resume training ignore them, and may be made
        with ``embeddings=None``. Prediction does not need them.
    freeze_embeddings : bool, default=False
        Whether to keep the embedding fixed during training, including the random rows of tokens
        without a vector. Needs ``embeddings`` or ``pretrained``, except when training resumes.
    dropout : float, default=0.5
        Share of the pooled representation, and of the states between layers, set to 0 while
        training.
    embedding_dropout : float, default=0.3
        Share of the numbers in the embeddings set to 0 while training, the same for equal tokens of
        a batch.
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
        Share of the hidden units that keep their state at a token, while training.
    loss : {'squared_error', 'absolute_error'}, default='squared_error'
        The loss of a number, after y has been standardised. The member 'ngrams' has the squared
        error always.
    weight_decay : float, default=0.01
        Weight decay of AdamW.
    adversarial : float, default=0.0
        Size of the adversarial perturbation while training, as a multiple of the norm of one
        embedded token of the text. Each text is trained on as it is and, once more, moved by that
        much in the direction in which its loss rises fastest. 0.25 suits short texts and long ones;
        where the training loss does not fall, take less. An epoch takes twice as long.
    virtual_adversarial : float, default=0.0
        The same for the direction in which the prediction changes most, whatever y is; an
        epoch takes three times as long. Both can be combined.
    ema : float or None, default=0.995
        Decay of the moving average of the weights that is evaluated and kept; None keeps the
        weights of the last update.
    lr : float, default=2e-3
        Highest learning rate of AdamW.
    lr_schedule : {'linear', 'cosine', 'constant'} or None, default='linear'
        How the learning rate falls to 0 (or does not) after rising over the first tenth of the
        updates. None does not change it, so that an LRScheduler among the ``callbacks`` can.
    layer_lr_decay : float, default=1.0
        Factor of the learning rate for each layer further down: the top layer of the LSTM learns at
        ``lr * layer_lr_decay``, the one below it at ``lr * layer_lr_decay**2``, and so on, last the
        embedding; pools and head learn at ``lr``. Meant for weights that have learnt before, from
        ``pretrained``, ``embeddings`` or an earlier call; 1 / 2.6 is usual there. 1 is the same
        rate for all.
    gradual_unfreezing : bool, default=False
        Whether ``fit`` trains only pools and head in the first epoch, the top layer of the LSTM as
        well from the second on, then the layers below one by one, and the embedding last (unless
        ``freeze_embeddings``). Needs ``pretrained`` or ``embeddings``, and as many epochs. Early
        stopping ignores the epochs before all is trained. ``partial_fit``, and a ``fit`` that
        resumes by ``warm_start``, train all at once.
    batch_size : int, default=32
        Texts per update.
    max_epochs : int or 'auto', default='auto'
        Most passes over the texts. 'auto' makes about 2,000 updates in 3 to 50 epochs; with
        ``gradual_unfreezing`` all of the network is trained in at least 3 of them.
    early_stopping : bool, default=True
        Whether to hold out validation texts, stop when their score no longer improves, and keep the
        best weights. With so few texts that none can be spared, training runs for ``max_epochs``.
    validation_fraction : float, default=0.1
        Share of the texts held out, the same of each tenth of y. Equal texts stay together.
    n_iter_no_change : int, default=3
        Epochs without improvement before training stops.
    tol : float, default=0.0
        Minimum improvement of the validation score that counts.
    scoring : str, callable or None, default=None
        The score of the validation texts: a scorer of scikit-learn. None is the loss.
    warm_start : bool, default=False
        Whether ``fit`` resumes from the weights and vocabulary of the fit before.
    callbacks : list of skorch callbacks or None, default=None
        Callbacks of skorch, instances or (name, instance) pairs; copied before use. The
        history they see has train_loss, valid_loss and, with ``scoring``, valid_score. Those
        that score data themselves (EpochScoring, BatchScoring) find none, since texts come in whole
        batches; use ``scoring``.
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
    net_ : skorch.NeuralNet
        A skorch net around the trained network, with its history and the fitted copies of
        ``callbacks``; ``net_.module_`` is the torch module.
    n_iter_ : int
        Number of epochs trained.
    loss_curve_ : list of float
        Mean training loss of each epoch, of standardised numbers.
    validation_scores_ : list of float
        Score of the validation texts after each epoch, higher is better; empty without such texts.
    history_ : list of dict
        All that was recorded of each epoch.
    member_ : estimator or None
        The fitted ensemble member, a regressor of texts; with several, see ``members_``.
    members_ : Bunch
        The fitted ensemble members by their names.
    blend_weights_ : tuple of floats
        The weights of network and members in the prediction, all standardised. Without a member,
        (1.0,).
    blend_report_ : list of dict
        For the network, each member and the blend: its name (``model``), its ``weight``, and its
        ``loss`` on the validation texts, of standardised numbers, from fits without these texts.
        Empty without validation texts, and after ``partial_fit``.
    embedding_coverage_ : float or None
        Share of the tokens of the training texts, repetitions included, that had a vector in
        ``embeddings``; None without these.
    vocabulary_coverage_ : float or None
        The same share of the different tokens of the vocabulary.

    Notes
    -----
    The loss is the mean over a batch of weight times error, with weights scaled to a mean of 1 over
    all training texts; of several numbers a text, their errors' mean. Texts of weight 0 are left
    out altogether. Mean and standard deviation of y are those of the first call of ``fit`` or
    ``partial_fit``; give it texts whose numbers are typical.

    References
    ----------
    See :class:`LSTMTextClassifier`. Golub, Heath & Wahba (1979) for the penalty of the ridge
    regression.

    Examples
    --------
    >>> from sklstm import LSTMTextRegressor
    >>> texts = ["good film", "so good", "not bad", "bad film", "so bad", "not good"] * 5
    >>> stars = [5, 5, 4, 1, 1, 2] * 5
    >>> reg = LSTMTextRegressor(max_epochs=30, random_state=0).fit(texts, stars)
    >>> reg.predict(["a good film", "a bad film"]).round()
    array([5., 1.])
    """

    def __init__(
        self,
        *,
        # text
        vectorizer=None,
        blend="ngrams",
        # network
        embedding_dim="auto",
        hidden_size=128,
        num_layers=1,
        bidirectional=True,
        cell="lstm",
        attention=None,
        pretrained=None,
        read_by=None,
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
        loss="squared_error",
        weight_decay=0.01,
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
        warm_start=False,
        callbacks=None,
        # machine
        device="auto",
        precision="auto",
        backend="auto",
        random_state=None,
        verbose=0,
    ):
        self.vectorizer = vectorizer
        self.blend = blend
        self.embedding_dim = embedding_dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.cell = cell
        self.attention = attention
        self.pretrained = pretrained
        self.read_by = read_by
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
        self.loss = loss
        self.weight_decay = weight_decay
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
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.backend = backend
        self.random_state = random_state
        self.verbose = verbose

    _parameter_constraints = constrain(
        __init__,
        blend=[StrOptions({"ngrams"}), HasMethods(["fit"]), list, tuple, None],
    )
    _remedies = {name: remedy for name, remedy in REMEDIES.items() if name != "blend"}
    tasks = (Regression,)
    _response_method = "predict"

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y, sample_weight=None):
        """Train one epoch on these texts, resuming from earlier calls.

        The first call (of ``fit`` or of this) fixes the vocabulary, which n-grams are features, and
        the mean and standard deviation by which y is standardised. There is no early stopping and
        no average of the weights; the learning rate is ``lr`` throughout.

        With ``blend='ngrams'``, the ridge regression is updated: new coefficients minimise the
        squared error of the new texts plus a penalty for their distance from the earlier ones,
        weighted by how certain these are. No text is kept. Before that, network and n-grams predict
        the new texts. The two weights of the blend minimise this loss, with a small penalty that
        pulls them towards the earlier ones, which are 0.2 and 0.8 after a first call of this.
        With ``blend=None``, or a member of your own from ``fit``, only the network is trained.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.
        y : array-like of shape (n_texts,) or (n_texts, n_numbers)
            Their numbers.
        sample_weight : array-like of shape (n_texts,) or None
            Weight of each text in the loss.

        Returns
        -------
        self : LSTMTextRegressor

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not what it must be. What was learnt before stays as
            it was.
        """
        self._check_partial_fit()
        start = find_start(self, resume=True)
        if start.task is None:
            self._check_varies(y)
        return self._fit_one_pass(X, y, sample_weight, start, start.task)

    def predict(self, X):
        """Return the numbers of each text.

        A text's numbers do not depend on the other texts.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        numbers : ndarray of shape (n_texts,) or (n_texts, n_numbers), as y had
        """
        task, outputs = self._outputs(X)
        return task.decide(outputs)

    def score(self, X, y, sample_weight=None):
        """Return R2, the share of the variance of y that the predictions explain.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.
        y : array-like of shape (n_texts,) or (n_texts, n_numbers)
            Their numbers.
        sample_weight : array-like of shape (n_texts,) or None
            Weight of each text.

        Returns
        -------
        score : float
            1 is best; 0 is what the mean of y gets. Of several numbers, the mean of each one's.
        """
        return super().score(X, y, sample_weight)

    def _check_varies(self, y):
        """Raise ValueError if a column of y is constant, so that later numbers had no scale."""
        numbers = check_numbers(y)
        _, scale = mean_and_scale(as_columns(numbers), np.ones(len(numbers)))
        if not scale.all():
            raise ValueError(
                "y must hold different numbers at the first call to partial_fit, which fixes their "
                "mean and standard deviation; got equal ones. Give this call more texts."
            )

    def _check_y(self, y, name="y"):
        """Return the numbers as an array."""
        return check_numbers(y, name=name)

    def _make_task(self, labels, weights, known=None):
        """Return the task of these numbers, or of the mean and the scale that are known."""
        if known is None:
            return Regression.of(labels, weights, error=self.loss)
        return replace(known, error=self.loss, is_flat=labels.ndim == 1)

    def __sklearn_tags__(self):
        """Tell scikit-learn that a text can have several numbers."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
