"""Real text that is on every machine: the docstrings of the libraries that sklstm needs."""

import importlib
import inspect
import pkgutil
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from types import ModuleType

import numpy as np
from sklearn.utils import Bunch, check_random_state

#: The libraries whose docstrings are read; their names are the labels.
LIBRARIES = {"numpy": "numpy", "scipy": "scipy", "sklearn": "scikit-learn", "torch": "torch"}

# A paragraph with fewer words says nothing ("See also", "Alias of ...").
MIN_WORDS = 8
_NAME = re.compile(r"(?i)\b(?:np|numpy|scipy|scikit-learn|sklearn|torch|pytorch)\b")
# Parts of the libraries that print, warn or need more than is installed when they are imported.
_SKIPPED = re.compile(
    r"\b(_|tests?\b|testing|conftest|setup|distutils|f2py|externals|experimental|distributed|"
    r"onnx|tensorboard|_inductor|_dynamo|cuda|xpu|mps|mtia|ao|contrib|cython|array_api|"
    r"ctypeslib|typing|char|matlib|core)"
)


def load_docstrings(*, random_state=0, return_X_y=False) -> Bunch | tuple:
    """Return paragraphs of docstrings of four libraries, and which library each comes from.

    The first paragraphs of the docstrings of the public modules, classes, functions and methods
    of numpy, scipy, scikit-learn and torch, as they are installed: real prose of a domain every
    user knows, without a download. Names of the libraries are taken out, since they would give
    the answer away. The texts change with the versions of the libraries.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=0
        Decides the order.
    return_X_y : bool, default=False
        Whether to return the texts and the labels only.

    Returns
    -------
    data : Bunch
        ``data`` (list of str), ``target`` (ndarray of str) and ``target_names`` (list of str).
    (data, target) : tuple
        If ``return_X_y``.

    Examples
    --------
    >>> from sklstm.datasets import load_docstrings
    >>> docstrings = load_docstrings()
    >>> docstrings.target_names
    ['numpy', 'scikit-learn', 'scipy', 'torch']
    >>> len(docstrings.data) == len(docstrings.target) > 2000
    True
    """
    label_of = {}
    for library, label in LIBRARIES.items():
        for docstring in _docstrings(importlib.import_module(library)):
            for text in _paragraphs(docstring):
                # A sentence of two libraries belongs to neither; the first one keeps it.
                label_of.setdefault(text, label)
    texts = sorted(label_of)
    order = check_random_state(random_state).permutation(len(texts))
    data = Bunch(
        data=[texts[k] for k in order],
        target=np.array([label_of[texts[k]] for k in order]),
        target_names=sorted(LIBRARIES.values()),
    )
    return (data.data, data.target) if return_X_y else data


def load_arguments(*, n_arguments=20, random_state=0, return_X_y=False) -> Bunch | tuple:
    """Return what docstrings say of functions, and which common arguments each function takes.

    Real texts with a set of labels each: the paragraphs before the first section of a docstring,
    joined, of the functions, classes and methods of numpy, scipy, scikit-learn and torch, as they
    are installed. A text has a label for each argument of its function that is among the most
    common ones; nearly half of the texts have none. Equal texts are one text with all their labels.

    Parameters
    ----------
    n_arguments : int, default=20
        How many arguments are labels, the most common ones.
    random_state : int, RandomState instance or None, default=0
        Decides the order.
    return_X_y : bool, default=False
        Whether to return the texts and the labels only.

    Returns
    -------
    data : Bunch
        ``data`` (list of str), ``target`` (ndarray of 0 and 1 with a column for each argument) and
        ``target_names`` (list of str, the arguments).
    (data, target) : tuple
        If ``return_X_y``.

    Examples
    --------
    >>> from sklstm.datasets import load_arguments
    >>> functions = load_arguments()
    >>> len(functions.data) > 2000, functions.target.shape[1], "axis" in functions.target_names
    (True, 20, True)
    """
    taken = {}
    for library in LIBRARIES:
        for thing in _documented(importlib.import_module(library)):
            names = _arguments(thing)
            text = " ".join(_paragraphs(thing.__doc__))
            if text and names is not None:
                taken.setdefault(text, set()).update(names)
    counts = Counter(name for names in taken.values() for name in names)
    common = sorted(counts, key=lambda name: (-counts[name], name))[:n_arguments]
    texts = sorted(taken)
    order = check_random_state(random_state).permutation(len(texts))
    data = Bunch(
        data=[texts[k] for k in order],
        target=np.array([[name in taken[texts[k]] for name in common] for k in order], dtype=int),
        target_names=common,
    )
    return (data.data, data.target) if return_X_y else data


def _arguments(thing) -> list[str] | None:
    """Return the names of the arguments of a function or class; None where they are not known."""
    try:
        parameters = inspect.signature(thing).parameters
    except (TypeError, ValueError):  # of modules, and of some functions in C
        return None
    return [name for name in parameters if name not in ("self", "cls", "args", "kwargs")]


def _docstrings(library: ModuleType) -> Iterator[str]:
    """Yield each docstring of the public parts of a library once."""
    yield from dict.fromkeys(thing.__doc__ for thing in _documented(library))


def _documented(library: ModuleType) -> Iterator:
    """Yield the public parts of a library that have a docstring."""
    for module in _modules(library):
        for thing in [module, *_public(module)]:
            for member in [thing, *(_public(thing) if inspect.isclass(thing) else ())]:
                if isinstance(member.__doc__, str):
                    yield member


def _modules(library: ModuleType) -> Iterator[ModuleType]:
    """Yield a library and its public modules."""
    yield library
    prefix = library.__name__ + "."
    for found in pkgutil.iter_modules(library.__path__, prefix):
        if _SKIPPED.search(found.name.removeprefix(prefix)):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the libraries
            yield importlib.import_module(found.name)


def _public(owner: ModuleType | type) -> Iterator:
    """Yield what a module or class shows, if it can be documented and is the library's own."""
    library = getattr(owner, "__module__", owner.__name__).partition(".")[0]
    for name, thing in sorted(vars(owner).items()):
        documented = inspect.isclass(thing) or inspect.isroutine(thing) or type(thing) is np.ufunc
        home = getattr(thing, "__module__", None) or library
        if not name.startswith("_") and documented and home.partition(".")[0] == library:
            yield thing


def _paragraphs(docstring: str) -> Iterator[str]:
    """Yield the paragraphs of prose before the first section of a docstring."""
    prose = re.split(r"\n[ \t]*(?:[-=]{4,}|Args:|Arguments:|Example)", inspect.cleandoc(docstring))
    paragraphs = re.split(r"\n\s*\n", prose[0])
    for paragraph in paragraphs[: len(paragraphs) - (len(prose) > 1)]:
        text = " ".join(paragraph.split())
        text = _NAME.sub("it", text)
        # Signatures, doctests and directives are no prose.
        prosaic = not re.search(r"->|>>>|\.\. |::|\w\(.*\)$", text)
        if prosaic and len(re.findall(r"\w+", text)) >= MIN_WORDS:
            yield text
