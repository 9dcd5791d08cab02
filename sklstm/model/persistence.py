"""Fitted models as files that hold data only: reading one runs no code from it."""

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sklstm.model.text_model import TextModel
from sklstm.network.language_network import LSTMLanguageNetwork
from sklstm.network.settings import NetworkSettings
from sklstm.text.vectorizer import SequenceVectorizer
from sklstm.text.vocabulary import number_tokens

# The one entry of the file's header that is ours, and what its JSON says of itself.
KEY = "sklstm"
VERSION = 1
#: What a file of a language model says it holds.
LANGUAGE_MODEL = "language model"


def save_language_model(path, model: TextModel, parameters: dict) -> None:
    """Write what a language model has learnt, and its parameters, into one file.

    Raises
    ------
    ValueError
        If the vectorizer holds functions, which are no data.
    OSError
        If the file cannot be written.
    """
    write_model(
        path,
        kind=LANGUAGE_MODEL,
        weights=model.network.state_dict(),
        description={
            "parameters": parameters,
            "network": asdict(model.network.settings),
            "vectorizer": _describe(model.vectorizer),
            "vocabulary": list(model.vectorizer.vocabulary_),
            "history": model.history,
        },
    )


def load_language_model(path) -> tuple[TextModel, dict]:
    """Return what ``save_language_model`` has written, the weights on the CPU.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is not one of a language model.
    """
    weights, description = read_model(path, kind=LANGUAGE_MODEL)
    try:
        vectorizer = SequenceVectorizer(**description["vectorizer"])
        vectorizer.vocabulary_ = number_tokens(description["vocabulary"])
        # Parameters may have been set after the fit; the first files hold nothing else.
        settings = description.get("network", description["parameters"])
        network = LSTMLanguageNetwork(
            NetworkSettings.from_parameters(settings),
            n_ids=len(vectorizer.get_feature_names_out()),
            generator=torch.Generator(),
        )
        network.load_state_dict(weights)
        model = TextModel(vectorizer, network.eval(), history=description["history"])
        return model, description["parameters"]
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{str(path)!r} must hold weights, vocabulary and parameters that fit together; "
            f"got {str(error).splitlines()[0]!r}. Save the model again."
        ) from error


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


def write_model(path, *, kind: str, weights: dict[str, Tensor], description: dict) -> None:
    """Write weights and a description that JSON can express into one safetensors file.

    The file is there in full or not at all; one that was there before stays until then.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    described = {"kind": kind, "version": VERSION} | description
    text = json.dumps(described, ensure_ascii=False, default=_to_plain)
    content = safetensors.torch.save(
        {name: weight.detach().cpu().contiguous() for name, weight in weights.items()},
        metadata={KEY: text},
    )
    file, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _to_plain(value):
    """Return a number of numpy as Python's; json asks for what it does not know."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r:.40} is a {type(value).__name__}, which is no data.")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_model(path, *, kind: str) -> tuple[dict[str, Tensor], dict]:
    """Return the weights (on the CPU) and the description of a file from ``write_model``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a file, or one of another kind of model or of a later version.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path must be a file that save has written; got {str(path)!r}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[KEY])
            found = description.get("kind"), description.get("version")
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, AttributeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} must be a file that save of sklstm has written; got one that is broken "
            "or of another program. Save the model again."
        ) from error
    if found != (kind, VERSION):
        raise ValueError(
            f"{str(path)!r} must hold a {kind} in version {VERSION} of the format; got a "
            f"{found[0]} in version {found[1]}. Load it with the class and the version of sklstm "
            "that wrote it."
        )
    return weights, description
