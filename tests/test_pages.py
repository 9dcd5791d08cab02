"""The code of the pages runs as it is printed, each block by itself."""

import ast
import importlib.util
import os
import re
import sys
import types
from pathlib import Path

import pytest

from sklstm import datasets
from sklstm.training import schedule

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "docs/index.md",
    "docs/user_guide.md",
    "docs/files.md",
    "docs/meta_estimators.md",
    "docs/tuning.md",
)
#: The page whose blocks need the extra of its name; their packages warn of each other.
INTEROP = "docs/works_with.md"
OF_INTEROP = (
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error:::sklstm"),
)
#: Packages that the tests do not install; what the page says of skops is in test_plain_state.py.
FOREIGN = ("skops", "sentence_transformers", "skrub", "optuna_integration")
#: What is long, and shorter in the test: workers have their own idea of how long a fit is.
SHORTER = {"n_jobs=2": "n_jobs=1", "range(5)": "range(2)"}
#: A page's heading or code block.
PART = re.compile(
    r"^#+ (?P<heading>[^\n]+)$|^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


def read_blocks():
    """Return each block of Python, with its page and heading as the test's name."""
    blocks = []
    for page in (*PAGES, INTEROP):
        heading, foreign, marks = page, FOREIGN, ()
        if page == INTEROP:
            foreign, marks = (), OF_INTEROP
        for part in PART.finditer((ROOT / page).read_text(encoding="utf-8")):
            heading, code = part["heading"] or heading, part["code"]
            if code and not any(
                f"{verb} {name}" in code for verb in ("import", "from") for name in foreign
            ):
                blocks.append(pytest.param(code, id=f"{Path(page).stem}-{heading}", marks=marks))
    return blocks


def find_missing(code):
    """Return the packages that a block imports and that are not installed."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom)]
    if "ProgressBar" in code:
        names.append("rich")
    packages = {name.split(".")[0] for name in names}
    # What is loaded may have no spec any more.
    packages = {name for name in packages if name not in sys.modules}
    missing = {name for name in packages if importlib.util.find_spec(name) is None}
    if "sklearn.callback" in names and importlib.util.find_spec("sklearn.callback") is None:
        missing.add("scikit-learn 1.9")
    return sorted(missing)


@pytest.fixture
def small_and_short(monkeypatch, tmp_path):
    """Make fits of a page short: 200 short texts instead of thousands, and three epochs."""
    every = datasets.load_docstrings
    texts, labels = every(return_X_y=True)
    short = [k for k, text in enumerate(texts) if len(text) < 100][:200]

    def load_few(return_X_y=False):
        few = every()
        few.data, few.target = [texts[k] for k in short], labels[short]
        return (few.data, few.target) if return_X_y else few

    monkeypatch.setattr(datasets, "load_docstrings", load_few)
    monkeypatch.setattr(schedule, "AUTO_UPDATES", 1)
    monkeypatch.chdir(tmp_path)


def test_there_are_blocks():
    assert len(read_blocks()) > 20


@pytest.mark.parametrize("code", read_blocks())
@pytest.mark.usefixtures("small_and_short")
def test_block_runs(code, request, monkeypatch):
    if request.node.get_closest_marker("interop") and "SKLSTM_INTEROP" not in os.environ:
        if missing := find_missing(code):
            pytest.skip(f'needs {", ".join(missing)}: pip install -e ".[interop]"')
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    # As a module, since the functions of a script can be pickled.
    page = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)
    exec(compile(code, "<page>", "exec"), vars(page))
