"""LSTMTextClassifier: its parameters, and what it predicts."""

from dataclasses import replace
from operator import attrgetter

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from sklstm.checks import check_texts, fit_context
from sklstm.labels import (
    LabelSets,
    check_label_sets,
    check_labels,
    find_shape,
    holds_label_sets,
)
from sklstm.model.sentences import check_reads_sentences, predict_sentences
from sklstm.parameters import REMEDIES, constrain
from sklstm.supervised import LSTMTextEstimator
from sklstm.tasks.multiclass import Multiclass
from sklstm.tasks.multilabel import Multilabel
from sklstm.training.start import find_start


class LSTMTextClassifier(ClassifierMixin, LSTMTextEstimator):
    """Classify raw texts with a long short-term memory network.

    Use it like any text classifier of scikit-learn: strings in, labels or probabilities out. A text
    has one class, or several labels where y has a column of 0 and 1 for each label. The network
    reads each text token by token in both directions. Its states are pooled into one vector, and a
    linear layer turns that into the probabilities of the classes. By default they are blended with
    those of a linear model of n-grams.

    Parameters
    ----------
    vectorizer : SequenceVectorizer or None, default=None
        Turns texts into token ids. None is ``SequenceVectorizer()``; its parameters can be set
        as ``vectorizer__min_df`` and so on either way.
    blend : 'ngrams', estimator, list of members or None, default='ngrams'
        A second classifier of raw texts, the ensemble member, or several of them: a list of
        'ngrams' and pairs (name, estimator), such as ``["ngrams", ("bayes", estimator)]``. The
        prediction is the product of all models' probabilities, each to the power of a weight, a
        log-linear pool. The weights minimise the log loss on the validation texts, with a small
        penalty that pulls them towards 0.2 (network) and 0.8 (n-grams), or towards 0.5 each for
        your own estimator. In a list, network and n-grams together weigh as much as each other
        estimator. Up to 1,000 texts, or 2,000 with several members, the members also predict all
        texts out of fold, and their weights are pulled towards the best ones there instead. Without
        validation texts, or with ``calibrate=False``, the weights are those they would be pulled
        towards; ``calibrate=False`` also leaves out the predictions out of fold.
        'ngrams' is the mean of two linear models of words, pairs of words and characters inside
        words: a logistic regression on their TF-IDF, and one on naive Bayes' log-count ratios
        (NB-SVM). With several labels, each label has such a model. ``partial_fit`` updates them. A
        FrozenEstimator is not fitted. As in VotingClassifier, ``<name>`` and
        ``<name>__<parameter>`` of a listed member can be set, and a member that is 'drop' is left
        out. None is the network by itself.
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
        A fitted language model, or the path of one that was saved. The classifier starts from its
        vectorizer, embedding and LSTM. ``embedding_dim``, ``hidden_size``, ``num_layers``,
        ``bidirectional`` and ``cell`` are then the language model's, and must not be given other
        values. So is the vectorizer: a ``vectorizer`` may differ from it in ``max_length`` and
        ``keep`` only. A clone starts from the same model. With ``warm_start`` and ``partial_fit``,
        only the first fit reads the language model.
    read_by : {'sentence'} or None, default=None
        'sentence' cuts a text after . ! ? and … before white space, and after the full stops of
        other scripts, with runs of them and with closing quotes and brackets. Each sentence is
        read, pooled and classified separately, and the logits of a text are a weighted mean of
        those of its sentences, which ``predict_sentences`` returns. The weights are learnt. None
        reads a text as a whole.
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
    weight_decay : float, default=0.01
        Weight decay of AdamW.
    label_smoothing : float, default=0.05
        Share of each target that is spread evenly over all classes; with several labels, how much
        nearer to each other 0 and 1 are moved.
    adversarial : float, default=0.0
        Size of the adversarial perturbation while training, as a multiple of the norm of one
        embedded token of the text. Each text is trained on as it is and, once more, moved by that
        much in the direction in which its loss rises fastest. 0.25 suits short texts and long ones;
        where the training loss does not fall, take less. An epoch takes twice as long.
    virtual_adversarial : float, default=0.0
        The same for the direction in which the probabilities change most, whatever the label; an
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
        best weights. A class so small that its share rounds to 0 texts contributes none. If that is
        true of every class, there is no validation set and training runs for ``max_epochs``.
    validation_fraction : float, default=0.1
        Share of each class held out, or of each label, by iterative stratification. Equal texts
        stay together.
    n_iter_no_change : int, default=3
        Epochs without improvement before training stops.
    tol : float, default=0.0
        Minimum improvement of the validation score that counts.
    scoring : str, callable or None, default=None
        The score of the validation texts: a scorer of scikit-learn. None is the log loss; with
        several labels, the sum over the labels.
    class_weight : {'balanced'}, dict or None, default=None
        Weights of the classes in the loss; 'balanced' gives all classes the same total weight. With
        several labels, the weight of each label in the loss of the texts that have it; 'balanced'
        is the number of texts without the label divided by that of texts with it.
    warm_start : bool, default=False
        Whether ``fit`` resumes from the weights and vocabulary of the fit before.
    calibrate : bool, default=True
        Whether to fit, on the validation texts, the weights of network and ``blend``, and the
        temperature that divides the network's logits. The temperature is left at 1 where these
        texts are fewer than 100 or lack a class.
    callbacks : list of skorch callbacks or None, default=None
        Callbacks of skorch, instances or (name, instance) pairs; copied before use. The history
        they see has train_loss, valid_loss, valid_accuracy and, with ``scoring``, valid_score.
        EpochScoring and BatchScoring do not work, since they need the data; use ``scoring``.
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
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; with several labels, the names of the columns of y, or their numbers.
    vectorizer_ : SequenceVectorizer
        The fitted vectorizer.
    net_ : skorch.NeuralNet
        A skorch net around the trained network, with its history and the fitted copies of
        ``callbacks``; ``net_.module_`` is the torch module.
    n_iter_ : int
        Number of epochs trained.
    loss_curve_ : list of float
        Mean training loss of each epoch.
    validation_scores_ : list of float
        Score of the validation texts after each epoch, higher is better; empty without such texts.
    history_ : list of dict
        All that was recorded of each epoch.
    temperature_ : float
        What the logits are divided by.
    member_ : estimator or None
        The fitted ensemble member, a classifier of texts; with several, see ``members_``.
    members_ : Bunch
        The fitted ensemble members by their names.
    blend_weights_ : tuple of floats
        The prediction is softmax(``blend_weights_[0]`` * logits / ``temperature_`` +
        ``blend_weights_[1]`` * log-probabilities of the first member + ...); with several labels,
        expit of the same sum of log-odds. Without a member, (1.0,).
    blend_report_ : list of dict
        For the network, each member and the blend: its name (``model``), its ``weight``, and
        ``loss`` and ``accuracy`` on the validation texts, from fits without these texts. The loss
        is the log loss. Empty without validation texts, and after ``partial_fit``.
    embedding_coverage_ : float or None
        Share of the tokens of the training texts, repetitions included, that had a vector in
        ``embeddings``; None without these.
    vocabulary_coverage_ : float or None
        The same share of the different tokens of the vocabulary.

    Notes
    -----
    The loss is the mean over a batch of weight times cross-entropy, with weights scaled to a mean
    of 1 over all training texts. With several labels it is the sum of the logistic losses of the
    labels. Texts of weight 0 are left out altogether. With ``adversarial`` the same loss of the
    moved texts is added, with ``virtual_adversarial`` weight times the divergence KL(clean ||
    moved); ``loss_curve_`` is the sum.

    References
    ----------
    Hochreiter & Schmidhuber (1997) for the LSTM; Maini et al. (2020), Why and
    when should you pool? for the pooling; Gal & Ghahramani (2016) for the dropout of whole columns;
    Merity, Keskar & Socher (2018) for that of weights; Guo et al. (2017) for the temperature;
    Miyato, Dai & Goodfellow (2017), Adversarial Training Methods for Semi-Supervised Text
    Classification, for both kinds of perturbation; Sechidis, Tsoumakas & Vlahavas (2011) for the
    stratification; Howard & Ruder (2018), Universal Language Model Fine-tuning for Text
    Classification, for ``layer_lr_decay`` and ``gradual_unfreezing``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklstm import LSTMTextClassifier
    >>> texts = ["good film", "so good", "not bad", "bad film", "so bad", "not good"] * 5
    >>> labels = ["pos", "pos", "pos", "neg", "neg", "neg"] * 5
    >>> clf = LSTMTextClassifier(max_epochs=30, random_state=0).fit(texts, labels)
    >>> clf.predict(["a good film", "a bad film"])
    array(['pos', 'neg'], dtype='<U3')
    >>> clf.predict_proba(["not bad"]).shape
    (1, 2)

    Several labels a text:

    >>> good, short = [1, 1, 0, 0, 0, 0] * 5, [0, 1, 0, 0, 1, 0] * 5
    >>> Y = np.column_stack([good, short])
    >>> clf = LSTMTextClassifier(max_epochs=30, random_state=0).fit(texts, Y)
    >>> clf.predict(["so good", "bad film"])
    array([[1, 1],
           [0, 0]])
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

    _parameter_constraints = constrain(__init__)
    _remedies = REMEDIES
    tasks = (Multiclass, Multilabel)

    classes_ = property(attrgetter("model_.task.classes"), doc="The labels, sorted.")

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train one epoch on these texts, resuming from earlier calls.

        The first call (of ``fit`` or of this) fixes the vocabulary, which n-grams are features, and
        the classes. There is no early stopping and no average of the weights; the learning rate is
        ``lr`` throughout.

        With ``blend='ngrams'``, both linear models are updated: new coefficients minimise the loss
        of the new texts plus a penalty for their distance from the earlier ones, weighted by how
        certain these are. No text is kept. Before that, network and n-grams predict the new texts.
        The two weights of the blend minimise this loss, with a small penalty that pulls them
        towards the earlier ones, which are 0.2 and 0.8 after a first call of this. They stay
        as they are if all the texts have the same label, or with ``calibrate=False``. The
        temperature of ``fit`` is kept. With ``blend=None``, or a member of your own from ``fit``,
        only the network is trained.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.
        y : array-like of shape (n_texts,), or indicator of shape (n_texts, n_labels)
            Their labels.
        classes : array-like of shape (n_classes,) or None
            All labels that will ever occur; needed at the first call. With several labels, the
            names of the columns; None takes them from y.
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

        References
        ----------
        Chapelle & Li (2011), An Empirical Evaluation of Thompson Sampling, Algorithm 3: the update
        of a logistic regression.
        """
        self._check_partial_fit()
        if isinstance(self.class_weight, str):
            raise ValueError(
                "class_weight='balanced' needs all texts at once and cannot be used with "
                "partial_fit; give a dict of weights, one for each class."
            )
        start = find_start(self, resume=True)
        known = self._all_classes(start.task, classes, y)
        return self._fit_one_pass(X, y, sample_weight, start, known)

    def predict(self, X):
        """Return the most probable label of each text, or the set of labels above 0.5.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        labels : ndarray of shape (n_texts,), or indicator of shape (n_texts, n_labels)
            An indicator is sparse if y was.
        """
        task, outputs = self._outputs(X)
        return task.decide(outputs)

    def predict_proba(self, X):
        """Return the probabilities of the classes.

        A text's probabilities do not depend on the other texts.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        probabilities : ndarray of shape (n_texts, n_classes)
            Columns in the order of ``classes_``. With several labels, those of the labels, which do
            not add up to 1.
        """
        task, outputs = self._outputs(X)
        return task.probabilities(outputs)

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
        task, outputs = self._outputs(X)
        return task.log_probabilities(outputs)

    def decision_function(self, X):
        """Return the logits; with two classes the log-odds of the second, with labels of each.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        decision : ndarray of shape (n_texts, n_classes), or (n_texts,) with two classes
            With several labels (n_texts, n_labels), also with two.
        """
        task, outputs = self._outputs(X)
        return task.decision(outputs)

    def score(self, X, y, sample_weight=None):
        """Return the accuracy; with several labels, the share of texts whose labels are all right.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.
        y : array-like of shape (n_texts,), or indicator of shape (n_texts, n_labels)
            Their labels.
        sample_weight : array-like of shape (n_texts,) or None
            Weight of each text.

        Returns
        -------
        score : float

        Raises
        ------
        ValueError
            If y has other columns than in the fit.
        """
        check_is_fitted(self)
        task = self.model_.task
        if isinstance(task, Multilabel) or holds_label_sets(y):
            y = task.decode(task.encode(self._check_y(y)))
        return super().score(X, y, sample_weight)

    def predict_sentences(self, X):
        """Return the sentences of the texts and what the network says of each.

        The logarithms of the network's probabilities for a text are, up to a constant, the mean of
        those of its sentences, weighted by ``weight``; with several labels, this is true of the
        log-odds. What an ensemble member adds to the prediction is not in them. Needs
        ``read_by='sentence'``.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.

        Returns
        -------
        sentences : list of list of Sentence
            For each text its sentences in order, as named tuples (``tokens``, a list of str;
            ``probabilities``, an ndarray of shape (n_classes,) with columns in the order of
            ``classes_``; ``weight``, a float; ``span``, its first character in the original text
            and the one behind its last). Their tokens together are those of the text that
            ``max_length`` leaves.

        Raises
        ------
        ValueError
            If the classifier was fitted without ``read_by='sentence'``.
        """
        check_is_fitted(self)
        model = self.model_
        check_reads_sentences(model)
        return predict_sentences(model, check_texts(X))

    def _check_y(self, y, name="y"):
        """Return the labels, of one class a text as an array."""
        check = check_label_sets if holds_label_sets(y) else check_labels
        return check(y, name=name)

    def _make_task(self, labels, weights, known=None):
        """Return the task of these labels, or of the classes that are known."""
        are_sets = isinstance(labels, LabelSets)
        if known is None:
            kind = Multilabel if are_sets else Multiclass
            return kind.of(labels, label_smoothing=self.label_smoothing)
        task = replace(known, label_smoothing=self.label_smoothing, class_weights=None)
        if are_sets and isinstance(task, Multilabel):
            task = replace(task, is_sparse=labels.is_sparse)
        return task

    def _weigh_classes(self, task, targets):
        """Return the task with the weights of its classes."""
        return task.weighted(self.class_weight, targets)

    def _all_classes(self, known, classes, y):
        """Return the task of the classes of all calls of ``partial_fit``."""
        are_sets = holds_label_sets(y)
        if classes is None:  # the columns of label sets say which there are
            if known is None and not are_sets:
                raise ValueError(
                    "classes must be passed on the first call to partial_fit; got None."
                )
            return known
        labels = check_labels(classes, name="classes")
        n_columns = find_shape(y)[1] if are_sets else None
        if are_sets and not len(np.unique(labels)) == len(labels) == n_columns:
            raise ValueError(
                f"classes must name the {n_columns} columns of y, each by a name of its own; got "
                f"{labels.tolist()}. Leave classes out to take the columns as they are."
            )
        task = Multilabel(labels) if are_sets else Multiclass.of(labels, name="classes")
        if known is not None and not np.array_equal(task.classes, known.classes):
            raise ValueError(
                f"classes must be those of the first call, {known.classes.tolist()}; "
                f"got {task.classes.tolist()}."
            )
        return known or task

    def __sklearn_tags__(self):
        """Tell scikit-learn that a text can have several labels."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
