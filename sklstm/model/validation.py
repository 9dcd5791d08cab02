"""What held-out texts say of a network after each epoch."""

from inspect import signature

import numpy as np
from sklearn.metrics import get_scorer, get_scorer_names

from sklstm.checks import shorten
from sklstm.model.prediction import compute_outputs, sum_log_likelihoods
from sklstm.network.language_network import LSTMLanguageNetwork
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.tasks.protocol import Task
from sklstm.text.batching import RaggedIds
from sklstm.text.examples import Examples
from sklstm.text.windows import add_both_boundaries

#: What scorers of two classes are called that take several, by words of scikit-learn's errors.
AVERAGES = {
    "average='binary'": ("_macro", "_micro", "_weighted"),
    "multi_class must be in": ("_ovr", "_ovo"),
}


class Validation:
    """Validates a network on texts that it is not trained on.

    Parameters
    ----------
    examples : Examples
        The texts; their weights count in the loss and the accuracy.
    ids : RaggedIds
        The same texts as ids.
    task : Task
        What y is.
    scoring : str, callable or None
        A scorer of scikit-learn; None is the loss.

    Raises
    ------
    ValueError
        If no text has a weight above 0.
    """

    def __init__(self, examples: Examples, ids: RaggedIds, *, task: Task, scoring):
        if not examples.weights.any():
            raise ValueError(
                "The validation texts must hold one of a class whose class_weight is above 0; got "
                f"{np.unique(task.decode(examples.targets)).tolist()} only. Give X_val and y_val "
                "with such texts, or set early_stopping=False."
            )
        self.examples = examples
        self.ids = ids
        self.task = task
        self.scoring = scoring
        self.scorer = get_scorer(scoring) if isinstance(scoring, str) else scoring
        self.monitor = "valid_loss" if scoring is None else "valid_score"

    @property
    def n_texts(self) -> int:
        """Number of texts."""
        return len(self.ids)

    def outputs(self, network: LSTMTextNetwork) -> np.ndarray:
        """Return the network's outputs for the texts, (n_texts, n_outputs)."""
        return compute_outputs(network, self.ids)

    def evaluate(self, network: LSTMTextNetwork) -> dict[str, float]:
        """Return what the task measures and, with a scorer, ``valid_score``."""
        outputs = self.outputs(network)
        result = self.task.measure(outputs, self.examples.targets, self.examples.weights)
        if self.scorer is not None:
            result["valid_score"] = self._score(outputs)
        return result

    def _score(self, outputs):
        """Return what the scorer returns, which must be a number."""
        targets, texts = self.examples.targets, self.examples.texts
        absent = self.task.absent(targets)
        where = f"the {len(texts)} validation texts"
        if absent:
            where += f", which hold none of the classes {absent}"
        try:
            score = self.scorer(self.task.as_estimator(outputs), texts, self.task.decode(targets))
            number = float(score)
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"scoring must give a number on {where}; {describe_scorer(self.scoring)} raised "
                f"{shorten(reason, 120)}. {self._remedy(reason)}"
            ) from error
        if not np.isfinite(number):
            raise ValueError(
                f"scoring must give a number on {where}; got {score}. {self._remedy()}"
            )
        return number

    def _remedy(self, reason: str = "") -> str:
        """Return what to do about a scorer that fails for a reason that scikit-learn gives."""
        name = self.scoring if isinstance(self.scoring, str) else ""
        if "pos_label" in reason:
            labels = " or ".join(repr(label) for label in self.task.classes.tolist()[:2])
            macro = f"{name}_macro" if f"{name}_macro" in get_scorer_names() else "f1_macro"
            return (
                f"Use scoring={macro!r}, or say which label is the positive one: "
                f"make_scorer(metric, pos_label={labels})."
            )
        for words, forms in AVERAGES.items():
            if words in reason:
                known = [form for end in forms if (form := name + end) in get_scorer_names()]
                if not known:
                    return "Use make_scorer(metric, average='macro')."
                return f"Use scoring={' or '.join(map(repr, known))}, which take several classes."
        others = "of every class" if hasattr(self.task, "classes") else "of different numbers"
        return f"Use scoring=None, or give X_val and y_val with texts {others}."


def check_scoring(scoring) -> None:
    """Raise TypeError for a metric, which takes labels and not an estimator.

    Parameters
    ----------
    scoring : str, callable or None
        A scorer, its name, or None.
    """
    if not callable(scoring):
        return
    try:
        names = list(signature(scoring).parameters)
    except ValueError:  # a function in C
        return
    if names[:1] == ["y_true"]:
        raise TypeError(
            f"scoring must be a scorer, called as scoring(estimator, X, y); got the metric "
            f"{describe_scorer(scoring)}. Write make_scorer({describe_scorer(scoring)})."
        )


def describe_scorer(scoring) -> str:
    """Return what a message calls a scorer."""
    return repr(scoring) if isinstance(scoring, str) else getattr(scoring, "__name__", "scoring")


class LanguageValidation:
    """Validates a language model on texts that it is not trained on.

    Parameters
    ----------
    ids : RaggedIds
        The texts, whole.
    """

    monitor = "valid_loss"

    def __init__(self, ids: RaggedIds):
        self.ids = add_both_boundaries(ids)
        self.n_predicted = len(self.ids.ids) - len(self.ids)

    @property
    def n_texts(self) -> int:
        """Number of texts."""
        return len(self.ids)

    def evaluate(self, network: LSTMLanguageNetwork) -> dict[str, float]:
        """Return the mean loss of all directions, and the perplexity of each."""
        losses = -sum_log_likelihoods(network, self.ids) / self.n_predicted
        names = ("valid_perplexity", "valid_perplexity_backward")
        perplexities = map(float, np.exp(losses))
        return {"valid_loss": float(losses.mean())} | dict(zip(names, perplexities, strict=False))
