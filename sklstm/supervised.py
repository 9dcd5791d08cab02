"""What the estimators of labelled texts do alike: the story of ``fit``, and what a model shows."""

from functools import partial
from numbers import Integral, Real
from operator import attrgetter

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from sklstm.checks import (
    check_has,
    check_same_length,
    check_sample_weight,
    check_texts,
    fit_context,
)
from sklstm.composition import NamedMembers, check_members
from sklstm.labels import warn_of_swapped
from sklstm.model.attribution import explain
from sklstm.model.validation import check_scoring
from sklstm.network.pooling import check_pooling
from sklstm.ngrams.member import fit_early
from sklstm.ngrams.ranking import rank_features
from sklstm.pretraining import check_unlabelled, learn_language, make_recipe
from sklstm.tasks.protocol import Task
from sklstm.text.examples import Examples
from sklstm.text.word_vectors import check_embeddings
from sklstm.text_estimator import TextEstimator
from sklstm.training.adversarial import choose_step
from sklstm.training.fitting import Fitting
from sklstm.training.reporting import Report
from sklstm.training.settings import TrainingSettings
from sklstm.training.sklearn_callbacks import SklearnCallbacks
from sklstm.training.start import Fresh, Pretrained, find_start
from sklstm.training.updating import update_blend


class LSTMTextEstimator(NamedMembers, TransformerMixin, TextEstimator):
    """An estimator that learns from labelled texts; a subclass says what y is.

    It does so by two methods: ``_check_y(y, name)`` returns checked labels, and
    ``_make_task(labels, weights, known)`` returns their task, that of the earlier task ``known`` if
    given. A classifier also gives weights to classes (``_weigh_classes``).
    """

    #: Whether the validation texts decide about the blend; a classifier has a parameter for it.
    calibrate = True

    #: By which method a member of the blend predicts.
    _response_method = "predict_proba"

    member_ = property(attrgetter("model_.blend.member"), doc="The fitted ensemble member.")
    temperature_ = property(
        attrgetter("model_.blend.temperature"), doc="What the network's outputs are divided by."
    )
    blend_weights_ = property(
        attrgetter("model_.blend.weights"), doc="The weights of network and members."
    )
    validation_scores_ = property(
        attrgetter("model_.validation_scores"), doc="Validation score of each epoch."
    )

    @property
    def members_(self):
        """The fitted ensemble members by their names."""
        return Bunch(**dict(self.model_.blend.members))

    @property
    def blend_report_(self):
        """How good network, members and blend are on the held-out texts, a dict each."""
        return [dict(row) for row in self.model_.blend.report]

    @property
    def embedding_coverage_(self):
        """Share of the tokens of the training texts that had word vectors; None without these."""
        return self.model_.coverage and self.model_.coverage[0]

    @property
    def vocabulary_coverage_(self):
        """Share of the vocabulary that had word vectors; None without these."""
        return self.model_.coverage and self.model_.coverage[1]

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, X_unlabelled=None):
        """Learn vocabulary and network from texts and their labels.

        Interrupting it with Ctrl-C keeps the best weights so far and warns.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts: a list, array, series, table of one column.
        y : array-like of shape (n_texts,) or (n_texts, n_columns)
            Their labels, label sets or numbers.
        sample_weight : array-like of shape (n_texts,) or None
            Weight of each text in the loss.
        X_val, y_val : as X and y, or None
            Validation texts to use instead of some held out from X.
        X_unlabelled : iterable of str or None
            Texts without labels. A language model learns from them and from X first, and the
            network starts from it, as with ``pretrained``. ``pretrained`` may be an unfitted
            LSTMLanguageModel whose parameters say how, such as ``max_epochs``; None is one with the
            parameters of this estimator. Ctrl-C while it learns ends that, and the network is
            trained. ``virtual_adversarial`` trains on these texts too.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not what it must be. An earlier fit stays as it was.
        """
        self._check_parameters()
        unlabelled = check_unlabelled(self, X_unlabelled)
        start = find_start(self, resume=self.warm_start) if unlabelled is None else Fresh(self)
        task, examples = self._read(X, y, sample_weight, start.task)
        held_out = self._read_validation(X_val, y_val, task)
        early = None
        if unlabelled is not None:
            recipe, tell = make_recipe(self), Report(self.verbose).member
            early = fit_early(self.blend, examples, task, tell=tell)
            start = Pretrained(self, learn_language(recipe, examples.texts, unlabelled))
        with Fitting(self, start, task) as fitting:
            everything, train, held_out = fitting.split(examples, held_out)
            vectorizer, batches = fitting.vectorize(train)
            seen = (examples.texts, y, sample_weight)
            told = SklearnCallbacks(self, fitting.count_epochs(batches), *seen)
            validation = fitting.validate_by(held_out, vectorizer)
            members = fitting.fit_members(everything, train, validation, vectorizer, early)
            network = fitting.build_network(vectorizer)

            def model_of(trained):
                blend = fitting.find_blend(network, members, validation)
                return fitting.model(vectorizer, network, trained, blend=blend)

            others = unlabelled and partial(start.encode, unlabelled, vectorizer)
            step = choose_step(task, fitting.settings, others, fitting.rng)
            last = told.watch_epochs(model_of)
            trained = fitting.train(network, step, batches, validation, last)
            blend = fitting.blend(network, members, validation)
            self.model_ = fitting.model(vectorizer, network, trained, blend=blend)
            told.end()
        return self

    def _fit_one_pass(self, X, y, sample_weight, start, known):
        """Train one epoch: ``fit`` without held-out texts, which updates the n-grams."""
        task, examples = self._read(X, y, sample_weight, known)
        settings = TrainingSettings.of(self).for_one_pass()
        with Fitting(self, start, task, settings) as fitting:
            _, train, _ = fitting.split(examples)
            vectorizer, batches = fitting.vectorize(train)
            seen = (examples.texts, y, sample_weight)
            told = SklearnCallbacks(self, fitting.count_epochs(batches), *seen)
            blend, precisions = update_blend(self, start, train, batches.texts, task, vectorizer)
            network = fitting.build_network(vectorizer)
            learnt = {"blend": blend, "precisions": precisions}
            last = told.watch_epochs(partial(fitting.model, vectorizer, network, **learnt))
            step = choose_step(task, fitting.settings)
            trained = fitting.train(network, step, batches, last=last)
            self.model_ = fitting.model(vectorizer, network, trained, **learnt)
            told.end()
        return self

    def _check_partial_fit(self):
        """Check all parameters, and those that partial_fit cannot use."""
        self._check_parameters()
        if not (self.blend is None or isinstance(self.blend, str)):
            raise ValueError(
                "blend must be None or 'ngrams' for partial_fit, since an estimator needs all "
                f"texts at once; got {self.blend!r}."
            )

    def __sklearn_clone__(self):
        """Return a clone that starts from the same language model, not from an unfitted one."""
        twin = super().__sklearn_clone__()
        twin.pretrained = self.pretrained
        return twin

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
        return self.model_.pooled(check_texts(X))

    def explain(self, X, target=None):
        """Return what each token of the texts contributes to the prediction.

        Integrated gradients of the log-odds of the target (of a regressor, of the predicted
        number), over network and n-grams together. They lead from a text of as many unknown tokens,
        without n-grams, straight to the text. What an n-gram contributes is divided equally among
        the tokens that made it. All contributions add up to the difference of the log-odds at both
        ends, up to 0.01.

        Parameters
        ----------
        X : iterable of str of length n_texts
            The texts.
        target : label, int or None, default=None
            What to explain: one of ``classes_``; of a regressor with several numbers a text, the
            column of y. None is the predicted class, the most probable label, or the only number.

        Returns
        -------
        explanations : list of Explanation
            One a text; see :class:`~sklstm.model.explanation.Explanation`.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If X does not hold texts.
        ValueError
            If there is no such target, or ``blend`` is an estimator of your own.

        References
        ----------
        Sundararajan, Taly & Yan (2017), Axiomatic Attribution for Deep Networks.
        """
        check_is_fitted(self)
        return explain(self.model_, check_texts(X), target)

    def top_features(self, n=20):
        """Return the n-grams that speak most for each class, as the linear models have learnt it.

        They are those of ``member_``, the n-grams of the blend; the network has no part in this. A
        weight is what a text's log-odds of the class rise by where the text has the n-gram, as the
        mean of both linear models: the coefficient of the logistic regression times the root mean
        square that TF-IDF has in texts with the n-gram (estimated from the IDF), and the
        coefficient of naive Bayes' regression. With more than two classes, a coefficient of the
        logistic regression is taken against the mean of the other classes'. Of a regressor, the
        weight is what the number rises by, and the n-grams with the largest weights by size are
        returned, negative ones too.

        Parameters
        ----------
        n : int, default=20
            Most n-grams for each class.

        Returns
        -------
        features : dict of list of Feature
            For each class, label or column of y its n-grams as named tuples (``ngram``, ``kind``,
            ``weight``), the largest weight first.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If it was not fitted with ``blend='ngrams'``, or n is no whole number of 1 or more.
        """
        check_is_fitted(self)
        if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
            raise ValueError(f"n must be a whole number of 1 or more; got {n!r}.")
        return rank_features(self.model_.blend.members, self.model_.task, n)

    def _outputs(self, X):
        """Return the task, and the outputs of network and member together, (n_texts, n_outputs).

        Both are of one model, also where another thread fits meanwhile.
        """
        check_has(self, "model_")
        model = self.model_
        return model.task, model.outputs(check_texts(X))

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns of ``transform``: pool and number, such as mean_17.

        Parameters
        ----------
        input_features : ignored
            Present for pipelines.

        Returns
        -------
        names : ndarray of str objects of shape (n_pooled,)
        """
        check_is_fitted(self)
        return np.array(self.model_.network.name_features(), dtype=object)

    def _check_parameters(self):
        """Check all parameters."""
        self._validate_params()  # scikit-learn leaves it out from the second partial_fit on
        check_pooling(self.pooling)
        check_embeddings(self.embeddings)
        check_scoring(self.scoring)
        check_members(self.blend, self._response_method, [*self._get_param_names(), "network"])

    def _read(self, X, y, sample_weight, known: Task | None) -> tuple[Task, Examples]:
        """Return what y is, and the texts with their targets and weights."""
        texts, labels = self._check_pair(X, y, ("X", "y"))
        warn_of_swapped(texts, labels)
        weights = check_sample_weight(sample_weight, n_texts=len(texts))
        task = self._make_task(labels, weights, known)
        examples = Examples(texts, task.encode(labels), weights)
        # Texts of weight 0 must not even shape the vocabulary.
        kept = weights > 0
        examples = examples if kept.all() else examples.take(np.flatnonzero(kept))
        task = self._weigh_classes(task, examples.targets)
        return task, examples.weigh(task.weigh(examples.targets))

    def _check_pair(self, X, y, names):
        """Return checked texts and labels."""
        texts, labels = check_texts(X, name=names[0]), self._check_y(y, name=names[1])
        check_same_length(texts, labels, names=names)
        return texts, labels

    def _weigh_classes(self, task: Task, targets) -> Task:
        """Return the task of a fit with weights of its classes, if it has any."""
        return task

    def _read_validation(self, X_val, y_val, task):
        """Return the validation texts that were given, or None."""
        if (X_val is None) != (y_val is None):
            share = " The share to hold out is validation_fraction." * isinstance(X_val, Real)
            raise ValueError(
                "X_val and y_val must be given together; "
                f"got {'X_val' if y_val is None else 'y_val'} only.{share}"
            )
        if X_val is None:
            return None
        texts, labels = self._check_pair(X_val, y_val, ("X_val", "y_val"))
        targets = task.encode(labels, name="y_val")
        return Examples(texts, targets, task.weigh(targets))

    def __sklearn_tags__(self):
        """Tell scikit-learn that the features are float32 whatever comes in."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
