"""The code of the pages runs as it is printed, each block by itself."""

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
)
#: Packages that the tests do not install; what the page says of them is in test_plain_state.py.
FOREIGN = ("skops",)
#: What is long, and shorter in the test: workers have their own idea of how long a fit is.
SHORTER = {"n_jobs=2": "n_jobs=1", "range(5)": "range(2)"}
#: A page's heading or code block.
PART = re.compile(
    r"^#+ (?P<heading>[^\n]+)$|^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


def read_blocks():
    """Return each block of Python, with its page and heading as the test's name."""
    blocks = []
    for page in PAGES:
        heading = page
        for part in PART.finditer((ROOT / page).read_text(encoding="utf-8")):
            heading = part["heading"] or heading
            if part["code"] and not any(f"import {name}" in part["code"] for name in FOREIGN):
                blocks.append(pytest.param(part["code"], id=f"{Path(page).stem}-{heading}"))
    return blocks


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
def test_block_runs(code, monkeypatch):
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    # As a module, since the functions of a script can be pickled.
    page = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)
    exec(compile(code, "<page>", "exec"), vars(page))
