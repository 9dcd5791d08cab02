"""Fitted estimators as files that hold data only: what is written, and what is accepted."""

import numbers
import warnings
from contextlib import contextmanager
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import sklearn
import torch

from sklstm.checks import level_of_user
from sklstm.kernels.surroundings import own_surroundings
from sklstm.labels import LARGEST_NUMBER
from sklstm.model import container
from sklstm.model.blending import Blend
from sklstm.model.container import DamagedFile
from sklstm.model.reading import Reader
from sklstm.model.text_model import TextModel
from sklstm.model.writing import Writer
from sklstm.network.language_network import LSTMLanguageNetwork
from sklstm.network.settings import NetworkSettings
from sklstm.ngrams.state import KINDS as KINDS_OF_MEMBERS
from sklstm.ngrams.updating import check_precisions
from sklstm.tasks.multiclass import Multiclass
from sklstm.tasks.multilabel import Multilabel
from sklstm.tasks.regression import ERRORS, Regression
from sklstm.text.vectorizer import SequenceVectorizer
from sklstm.text.vocabulary import number_tokens

#: The version of the format. Files of all earlier versions are read too.
VERSION = 4
#: What files of version 1 call the only kind that they hold.
KIND_IN_VERSION_1 = {"language model": "LSTMLanguageModel"}
#: Backends that had another name when files of version 1 were written.
BACKENDS_IN_VERSION_1 = {"native": "compiled", "cpu": "torch"}
#: Parameters that a fitted model does not need: those that no file holds, and those that it holds
#: where they are a number or a name.
NOT_WRITTEN = ("callbacks", "pretrained", "embeddings")
NO_FUNCTION = ("random_state", "scoring")
LIBRARIES = {
    "sklstm": version("sklstm"),
    "scikit-learn": sklearn.__version__,
    "torch": str(torch.__version__),
    "numpy": np.__version__,
}


class Saved(NamedTuple):
    """What a file holds."""

    kind: str  # the name of the estimator's class
    parameters: dict
    model: TextModel


def save(path, kind: str, parameters: dict, model: TextModel) -> None:
    """Write a fitted estimator into one file.

    Parameters
    ----------
    path : str or path-like
        The file; one that is there is replaced when the new one is complete.
    kind : str
        The name of the estimator's class.
    parameters : dict
        Its parameters.
    model : TextModel
        What it has learnt.

    Raises
    ------
    ValueError
        If something that a fitted model needs is no data.
    OSError
        If the file cannot be written.
    """
    kept, dropped = _drop_what_is_not_needed(parameters)
    writer = Writer()
    described = {
        "kind": kind,
        "version": VERSION,
        "versions": LIBRARIES,
        "parameters": writer.mapping(kept, "parameters"),
        "dropped": dropped,
        "model": writer.take_apart(model, "model"),
    }
    described["arrays"] = {
        name: [array.dtype.str, list(array.shape)] for name, array in writer.arrays.items()
    }
    container.write(path, container.pack(described, writer.arrays))


def _drop_what_is_not_needed(parameters: dict) -> tuple[dict, list[str]]:
    """Return the parameters to write, and the names of those that were dropped."""
    dropped = [name for name in NOT_WRITTEN if parameters.get(name) is not None]
    for name in NO_FUNCTION:
        if not isinstance(parameters.get(name), numbers.Integral | str | None):
            dropped.append(name)
    return parameters | dict.fromkeys(dropped), dropped


def load(
    path,
    *,
    expected: str | None = None,
    trust_pattern: bool = False,
) -> Saved:
    """Return what ``save`` has written, the weights on the CPU; no code from the file is run.

    Parameters
    ----------
    path : str or path-like
        The file.
    expected : str or None
        The kind that it must hold.
    trust_pattern : bool
        Whether a regular expression for tokens that is not our own may be used.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, of another program, of a later version, or holds another kind.
    """
    with _one_error(path), own_surroundings(), container.opened(path) as file:
        described, head = container.read_description(file)
        found, number = described.get("kind"), described.get("version")
        if number == 1 and type(number) is int and found in KIND_IN_VERSION_1:
            _check_kind(KIND_IN_VERSION_1[found], expected)
            arrays = container.load_arrays(head + file.read())
            return _load_version_1(described, arrays, trust_pattern)
        if type(number) is not int or not isinstance(found, str) or number < 1:
            raise DamagedFile("one that is broken or of another program")
        if number > VERSION:
            raise DamagedFile(f"one in version {number} of the format: it needs a later sklstm")
        _check_kind(found, expected)
        reader = Reader(
            container.read_arrays(file, head, described["arrays"]), trust_pattern=trust_pattern
        )
        parameters = reader.put_together(described["parameters"])
        model = reader.put_together(described["model"])
        _require(not reader.arrays, "arrays that belong to nothing")
        if number < 3 and model.network.settings.read_by == "sentence":
            warnings.warn(
                f"{str(path)!r} is of an earlier version, which found the ends of sentences by "
                "other rules: dots inside of numbers and addresses ended them. Predictions for "
                "such texts are different now. Fit and save again.",
                UserWarning,
                stacklevel=level_of_user(),
            )
        return Saved(found, _checked_parameters(parameters), _checked(model))


@contextmanager
def _one_error(path):
    """Turn whatever a damaged file leads to into one sentence."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except DamagedFile as error:
        raise ValueError(
            f"{str(path)!r} must be a file that save has written; got {str(error)[:200]}."
        ) from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{str(path)!r} must hold parts that fit together; got the error {reason[:200]!r}. "
            "Save the model again."
        ) from error


def _check_kind(found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise DamagedFile(f"one that holds an {found}: use {found}.load or sklstm.load")


def _checked_parameters(parameters: dict) -> dict:
    """Return parameters of which none is what no file holds; the estimator checks the rest."""
    for name in NOT_WRITTEN:
        _require(parameters.get(name) is None, f"a value of {name}")
    for name in NO_FUNCTION:
        _require(isinstance(parameters.get(name), int | str | None), f"no name as {name}")
    return parameters


def _checked(model) -> TextModel:
    """Return a model whose parts fit together."""
    if not isinstance(model, TextModel) or not isinstance(model.vectorizer, SequenceVectorizer):
        raise DamagedFile("one without a model")
    n_ids = len(model.vectorizer.tokens_)
    _require(n_ids == model.network.embedding.num_embeddings, "a vocabulary of another size")
    is_language_model = isinstance(model.network, LSTMLanguageNetwork)
    _require(isinstance(model.task, tuple(TASKS)) != is_language_model, "another task")
    _check_blend(model.blend)
    if model.task is not None:
        TASKS[type(model.task)](model.task)
        _require(model.task.n_outputs == model.network.head.out_features, "other classes")
        for _, member in model.blend.members:
            _check_member(member, model.task)
    members = model.blend.members
    check_precisions(model.precisions, members[0][1] if len(members) == 1 else None)
    _check_moments(model)
    _check_records(model)
    return model


def _check_blend(blend) -> None:
    _require(isinstance(blend, Blend) and isinstance(blend.members, tuple), "no blend")
    _require(len(blend.weights) == 1 + len(blend.members), "weights of other members")
    _require(all(len(pair) == 2 and type(pair[0]) is str for pair in blend.members), "no members")
    _require(all(isinstance(row, dict) and "model" in row for row in blend.report), "no report")
    values = [blend.temperature, *blend.weights]
    _require(all(type(v) in (int, float) and np.isfinite(v) for v in values), "no blend")
    # Far more than fit allows, and with it all predictions are finite.
    usual = (
        1e-6 <= blend.temperature <= 1e6 and 0 <= min(blend.weights) <= max(blend.weights) <= 1e6
    )
    _require(usual, "no blend")


def _check_moments(model: TextModel) -> None:
    shapes = {name: weight.shape for name, weight in model.network.named_parameters()}
    for name, moments in model.moments.items():
        fitting = all(moments[of].shape == shapes[name] for of in ("exp_avg", "exp_avg_sq"))
        _require(fitting and moments["step"].ndim == 0, "moments of other weights")
        _require(all(bool(moment.isfinite().all()) for moment in moments.values()), "no moments")


def _check_records(model: TextModel) -> None:
    """Check what says how the model was trained."""
    rows = all(isinstance(row, dict) and "train_loss" in row for row in model.history)
    _require(isinstance(model.history, list) and rows, "no history")
    curves = [*model.loss_curve, *model.validation_scores]
    _require(all(isinstance(number, float | int) for number in curves), "no history")
    # Version 1 has none, of language models, whose training does not resume.
    kinds = np.random.Generator if model.task is not None else np.random.Generator | None
    _require(isinstance(model.rng, kinds), "no random state")
    _require(set(model.given) <= vars(model.network.settings).keys(), "no names of parameters")
    shares = (0.0, 0.0) if model.coverage is None else model.coverage
    _require(len(shares) == 2 and all(type(share) is float for share in shares), "no coverage")


def _check_member(member, task) -> None:
    _require(KINDS_OF_MEMBERS[type(member[-1])] == task.kind, "n-grams of another kind of y")
    if isinstance(task, Multiclass):
        _require(len(np.setdiff1d(member.classes_, task.classes)) == 0, "n-grams of other classes")
    else:
        _require(len(member[-1].coef_) == task.n_outputs, "n-grams of other labels")


def _check_classes(task: Multiclass) -> None:
    _check_names(task.classes)
    ascends = bool((task.classes[:-1] < task.classes[1:]).all())
    _require(ascends and len(task.classes) > 1, "classes that are not sorted")
    _check_weights(task.class_weights, task)


def _check_label_sets(task: Multilabel) -> None:
    _check_names(task.classes)
    _require(len(set(task.classes.tolist())) == len(task.classes) > 0, "labels that come twice")
    _require(type(task.is_sparse) is bool, "labels that are neither sparse nor not")
    _check_weights(task.class_weights, task)


def _check_names(classes) -> None:
    _require(isinstance(classes, np.ndarray) and classes.dtype.kind in "biufUO", "no classes")
    _require(classes.ndim == 1, "no classes")


def _check_weights(weights, task) -> None:
    if weights is not None:
        _require(weights.shape == (task.n_outputs,), "other weights of classes")
        _require(weights.dtype == np.float64 and np.isfinite(weights).all(), "no weights")
        _require(bool((weights >= 0).all()), "no weights")


def _check_numbers(task: Regression) -> None:
    for array in (task.mean, task.scale):
        _require(array.dtype == np.float64 and array.shape == (len(task.mean),), "no scale of y")
        _require(bool((np.abs(array) <= LARGEST_NUMBER).all()), "no scale of y")
    _require(len(task.scale) > 0 and bool((task.scale >= 0).all()), "no scale of y")
    _require(task.error in ERRORS and type(task.is_flat) is bool, "another loss")
    _require(task.n_outputs == 1 or not task.is_flat, "another number of columns")


def _require(right: bool, what: str) -> None:
    if not right:
        raise DamagedFile(f"one with {what}")


def _load_version_1(described: dict, weights: dict, trust_pattern: bool) -> Saved:
    """Read a language model as 0.1.0 wrote it: without a digest, its lists in the description."""
    parameters, tokens = described["parameters"], described["vocabulary"]
    _require(
        isinstance(tokens, list) and all(isinstance(token, str) for token in tokens),
        "a vocabulary that is no list of strings",
    )
    backend = parameters["backend"]
    parameters["backend"] = BACKENDS_IN_VERSION_1.get(backend, backend)
    reader = Reader({}, trust_pattern=trust_pattern)
    vectorizer = reader.vectorizer({"parameters": described["vectorizer"]})
    vectorizer.vocabulary_ = number_tokens(tokens)
    _require(len(vectorizer.vocabulary_) == len(tokens) > 0, "a token that comes twice")
    state = {
        "kind": LSTMLanguageNetwork.__name__,
        "settings": vars(NetworkSettings.from_parameters(parameters)),
        "weights": weights,
        "generator": torch.Generator().get_state().numpy(),
    }
    network = reader.network({"state": state})
    described = reader.put_together({"history": described["history"]})
    own = vectorizer.get_params(deep=False) if parameters["vectorizer"] else None
    parameters["vectorizer"] = own and SequenceVectorizer(**own)
    model = TextModel(vectorizer, network, history=described["history"])
    return Saved("LSTMLanguageModel", _checked_parameters(parameters), _checked(model))


#: What y may be, and what checks it.
TASKS = {
    Multiclass: _check_classes,
    Multilabel: _check_label_sets,
    Regression: _check_numbers,
}
