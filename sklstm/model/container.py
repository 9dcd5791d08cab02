"""One file of data: a description in JSON and arrays, complete and undamaged, or refused.

The file is a safetensors file. Its metadata have two entries: the description, and a digest of the
whole file (in which the digest's own place holds zeros). The same data are the same bytes. Reading
runs no code from the file, and sizes are checked before anything of that size is made.
"""

import errno
import hashlib
import json
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

DESCRIPTION, DIGEST = "sklstm", "sklstm_digest"
NO_DIGEST = "0" * 64
# A safetensors file begins with the length of its header, a number of 8 bytes.
LENGTH = 8
MOST_HEADER_BYTES = 2**24
# Parsed JSON takes up to 200 bytes and a microsecond or two for each of these characters.
MOST_ITEMS = 400_000


class DamagedFile(ValueError):
    """What a file is instead of one that ``save`` has written: the end of a sentence."""


def pack(description: dict, arrays: dict[str, np.ndarray]) -> bytes:
    """Return the content of a file.

    Raises
    ------
    ValueError
        If the description is longer than one that is read.
    """
    text = json.dumps(description, allow_nan=False)  # ASCII: lone surrogates are data too
    plain = safetensors.numpy.save(arrays)
    begin = LENGTH + int.from_bytes(plain[:LENGTH], "little")
    # Written here, since safetensors writes metadata in an order that changes from call to call.
    entries = {"__metadata__": {DIGEST: NO_DIGEST, DESCRIPTION: text}}
    entries |= json.loads(plain[LENGTH:begin])
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % LENGTH)
    if len(header) > MOST_HEADER_BYTES or _count_items(header) > MOST_ITEMS:
        raise ValueError(
            f"save can write a description of up to 16 MB and {MOST_ITEMS:,} items; got one of "
            f"{len(header) / 2**20:.1f} MB and {_count_items(header)} items. Use joblib."
        )
    head = len(header).to_bytes(LENGTH, "little") + header
    digest = _digest(head, plain[begin:])
    return head.replace(_entry(NO_DIGEST), _entry(digest), 1) + plain[begin:]


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _entry(digest: str) -> bytes:
    """Return the digest's entry as a header writes it; a JSON string cannot contain it."""
    return f'"{DIGEST}":"{digest}"'.encode()


def _count_items(text: bytes) -> int:
    """Return an upper bound of the number of items in a JSON text."""
    return sum(map(text.count, (b",", b":", b"[", b"{")))


def write(path, content: bytes) -> None:
    """Write a file completely or not at all; an earlier file is kept until then.

    A file that is replaced keeps its permissions; of a symbolic link, the target is written.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If the path is of something that is no file, such as a folder.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(
            f"path must be that of a file, old or new; got {str(path)!r}, which is something else."
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"path must be in a folder that exists; got {str(path)!r}. Make the folder first."
        )
    # The system applies the umask when it opens the file. The name has a fixed length, since the
    # target's may be as long as a name can be.
    temporary = target.parent / f".sklstm-{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as file:
            if target.exists():
                os.chmod(temporary, target.stat().st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            errno.ENOSPC,
            f"save needs {len(content) / 2**20:.1f} MB in {str(target.parent)!r}, where there is "
            "less room; an earlier file is as it was",
        ) from error
    finally:  # also where Ctrl-C comes; after the replacement there is nothing to remove
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a new name survives a crash, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def opened(path):
    """Open a file for ``read_description`` and ``read_arrays``: one file, even if it is replaced.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path must be a file that save has written; got {str(path)!r}.")
    with open(path, "rb") as file:
        yield file


def read_description(file) -> tuple[dict, bytes]:
    """Return the description of a file, not yet checked by its digest, and the file's head.

    Raises
    ------
    DamagedFile
        If it is none of ours.
    """
    n_bytes = os.fstat(file.fileno()).st_size
    length = file.read(LENGTH)
    n_header = int.from_bytes(length, "little")
    if not 2 <= n_header <= min(MOST_HEADER_BYTES, n_bytes - LENGTH):
        raise DamagedFile(_name_pickle(length) or "one that is broken or of another program")
    header = file.read(n_header)
    metadata = _parse(header).get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(DESCRIPTION), str):
        raise DamagedFile("one that is broken or of another program")
    return _parse(metadata[DESCRIPTION].encode("utf-8", "surrogatepass")), length + header


def _name_pickle(begin: bytes) -> str | None:
    """Return what a file is that begins as pickles or joblib's compressed ones do, or None."""
    is_pickle = begin[:1] == b"\x80" and begin[1:2] in b"\2\3\4\5"
    return "a pickle: use joblib.load or pickle.load" if is_pickle else None


def _parse(text: bytes) -> dict:
    """Return a JSON object whose size is bounded and whose names are different."""
    if _count_items(text) > MOST_ITEMS:
        raise DamagedFile("one with a description that is too long")
    try:
        parsed = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise DamagedFile("one that is broken or of another program") from error
    if not isinstance(parsed, dict):
        raise DamagedFile("one that is broken or of another program")
    return parsed


def _without_duplicates(pairs):
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def read_arrays(file, head: bytes, expected: dict[str, list]) -> dict[str, np.ndarray]:
    """Return the arrays of a file, once its digest, their names, dtypes and shapes are right.

    Parameters
    ----------
    file : binary file
        The file, after its head.
    head : bytes
        The head, as ``read_description`` has returned it.
    expected : dict
        Name -> [dtype, shape] of each array, as the description has it.

    Raises
    ------
    DamagedFile
        If the file is damaged, or holds other arrays.
    """
    rest = file.read()
    digest = _parse(head[LENGTH:])["__metadata__"].get(DIGEST)
    if not isinstance(digest, str) or len(digest) != len(NO_DIGEST) or not digest.isascii():
        raise DamagedFile("one without a digest")
    if _digest(head.replace(_entry(digest), _entry(NO_DIGEST), 1), rest) != digest:
        raise DamagedFile("one that has been damaged: its digest is another")
    arrays = load_arrays(head + rest)
    found = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    if found != expected:
        wrong = sorted(
            name for name in found.keys() | expected if found.get(name) != expected.get(name)
        )
        raise DamagedFile(f"one whose arrays differ from its description, such as {wrong[0]!r}")
    return arrays


def load_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of the content of a file, by their names.

    Raises
    ------
    DamagedFile
        If it is no safetensors file, or holds arrays of a dtype that numpy has not.
    """
    try:
        return safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedFile("one that is broken or of another program") from error
