"""What the estimators of texts do alike: the story of ``fit``, and what a model shows."""

from operator import attrgetter

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sklstm.model.persistence import load, save
from sklstm.names import NamedParameters
from sklstm.network.pooling import check_pooling
from sklstm.text.vectorizer import SequenceVectorizer
from sklstm.training.loop import wrap_net
from sklstm.training.sklearn_callbacks import CallbackSupportMixin


class TextEstimator(CallbackSupportMixin, NamedParameters, BaseEstimator):
    """An estimator of texts: its parameters, and what it has learnt as ``model_``.

    All other learnt attributes are properties of ``model_``. Subclasses document parameters and
    attributes; this class holds verbs only.
    """

    #: The tasks that an estimator can have.
    tasks: tuple[type, ...] = ()
    _parts = {"vectorizer": SequenceVectorizer}
    vectorizer_ = property(attrgetter("model_.vectorizer"), doc="The fitted vectorizer.")
    history_ = property(attrgetter("model_.history"), doc="What was recorded of each epoch.")
    loss_curve_ = property(attrgetter("model_.loss_curve"), doc="Training loss of each epoch.")

    @property
    def n_iter_(self):
        """Number of epochs trained."""
        return len(self.model_.history)

    @property
    def net_(self):
        """The skorch net around the trained network, with its history; made anew each time."""
        model = self.model_
        return wrap_net(
            model.network, callbacks=model.callbacks, history=model.history, moments=model.moments
        )

    def set_params(self, **params):
        """Set parameters, those of the vectorizer as ``vectorizer__<name>``.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        nested = {name for name in params if name.startswith("vectorizer__")}
        if nested and params.get("vectorizer", self.vectorizer) is None:
            values = {name.removeprefix("vectorizer__"): params[name] for name in nested}
            others = {name: value for name, value in params.items() if name not in nested}
            params = others | {"vectorizer": SequenceVectorizer().set_params(**values)}
        return super().set_params(**params)

    def save(self, path):
        """Write the fitted estimator into one file that holds data only (safetensors).

        ``callbacks``, ``pretrained``, ``embeddings``, a ``scoring`` that is a function and a
        ``random_state`` that is no number are not written: a fitted model does not need them.

        Parameters
        ----------
        path : str or path-like
            The file; one that is there is replaced when the new one is complete.

        Raises
        ------
        ValueError
            If something that predictions need is no data: a function of the vectorizer, or an
            estimator of your own as ``blend``. Use joblib for these.
        OSError
            If the file cannot be written.
        """
        check_is_fitted(self)
        save(path, type(self).__name__, self.get_params(deep=False), self.model_)

    @classmethod
    def load(cls, path, *, trust_pattern=False):
        """Return the estimator that ``save`` has written, on the CPU; no code from it is run.

        Parameters
        ----------
        path : str or path-like
            The file.
        trust_pattern : bool, default=False
            Whether to accept a vectorizer with a ``token_pattern`` of its own. A regular expression
            can be made to take for ever on some texts: set it for files whose source you trust.

        Returns
        -------
        estimator : object
            The fitted estimator.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is damaged, of another program, of a later version, or holds another estimator.
        """
        return load_estimator(path, {cls.__name__: cls}, cls.__name__, trust_pattern=trust_pattern)

    def __sklearn_tags__(self):
        """Tell scikit-learn that texts come in."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags


def load_estimator(path, kinds: dict, expected: str | None = None, *, trust_pattern: bool = False):
    """Return the fitted estimator that a file holds, of one of these kinds.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, of another program, of a later version, or holds another estimator.
    """
    saved = load(path, expected=expected, trust_pattern=trust_pattern)
    if saved.kind not in kinds:
        raise ValueError(
            f"{str(path)!r} must hold one of {', '.join(kinds)}; got {saved.kind:.60}. Use load of "
            "that class."
        )
    try:
        estimator = kinds[saved.kind](**saved.parameters)
        estimator._validate_params()
        check_pooling(getattr(estimator, "pooling", "last"))
        if not isinstance(saved.model.task, estimator.tasks):
            raise ValueError("the model is that of another estimator")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} must hold an estimator of this version of sklstm, with parameters that "
            f"fit would take; got the error {str(error).splitlines()[0][:200]!r}. Save the model "
            "again."
        ) from error
    estimator.model_ = saved.model
    return estimator
