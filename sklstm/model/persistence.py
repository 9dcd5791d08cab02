"""Fitted models as files that hold data alone: reading one runs no code from it."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
from torch import Tensor

# The one entry of the file's header that is ours, and what its JSON says of itself.
KEY = "sklstm"
VERSION = 1


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
