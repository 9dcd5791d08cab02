"""How a network is trained, whatever the estimator."""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of the training; each field has the name of the parameter it comes from.

    An estimator without a parameter has the default below. The parameters' own documentation is in
    :class:`~sklstm.LSTMTextClassifier` and :class:`~sklstm.LSTMLanguageModel`; the last fields are
    no parameters.

    Parameters
    ----------
    keep_best : bool
        Whether training ends with the weights of the best epoch even without early stopping, where
        there are validation texts.
    min_epochs, most_epochs : int
        The least and the largest number that ``max_epochs='auto'`` resolves to.
    continues : bool
        Whether the call is one of a series: the history continues, and the optimiser's moments are
        kept for the next call.
    """

    lr: float
    weight_decay: float
    batch_size: int
    max_epochs: int | str
    validation_fraction: float
    max_minutes: float | None = None
    lr_schedule: str | None = None
    layer_lr_decay: float = 1.0
    gradual_unfreezing: bool = False
    freeze_embeddings: bool = False
    ema: float | None = None
    adversarial: float = 0.0
    virtual_adversarial: float = 0.0
    early_stopping: bool = False
    n_iter_no_change: int = 1
    tol: float = 0.0
    callbacks: list | None = None
    verbose: int = 0
    keep_best: bool = False
    min_epochs: int = 3
    most_epochs: int = 50
    continues: bool = False

    @property
    def keeps_best(self) -> bool:
        """Whether training ends with the weights of the best epoch, where texts are held out."""
        return self.keep_best or self.early_stopping

    @classmethod
    def of(cls, estimator, **known) -> "TrainingSettings":
        """Return the settings of an estimator; ``known`` ones replace its parameters."""
        names = {field.name for field in fields(cls)}
        parameters = vars(estimator)  # all of them, also where a subclass has fewer
        return cls(**{name: parameters[name] for name in names & parameters.keys()} | known)

    def for_one_pass(self) -> "TrainingSettings":
        """Return the settings of ``partial_fit``: one pass over the texts, to be followed by more.

        The learning rate is constant, the newest weights count, no text is held out, and the
        optimiser's moments are kept.
        """
        return replace(
            self,
            max_epochs=1,
            lr_schedule=None,
            gradual_unfreezing=False,
            ema=None,
            early_stopping=False,
            continues=True,
        )
