"""The search space of docs/tuning.md: its names, and that both forms are the same."""

import re
from pathlib import Path

import pytest

from sklstm import LSTMTextClassifier, SequenceVectorizer

PAGE = Path(__file__).parent.parent / "docs" / "tuning.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def run(block):
    found = {}
    exec(block, found)
    return found


def test_the_space_has_the_parameters_of_the_classifier():
    space = run(BLOCKS[0])["space"]
    names = LSTMTextClassifier(vectorizer=SequenceVectorizer()).get_params().keys()
    assert space.keys() <= names


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")  # that OptunaSearchCV is experimental
def test_the_space_of_optuna_is_the_same():
    pytest.importorskip("optuna_integration", reason='pip install -e ".[interop]"')
    space, distributions = run(BLOCKS[0])["space"], run(BLOCKS[2])["distributions"]
    assert list(space) == list(distributions)
    for name, distribution in distributions.items():
        if hasattr(distribution, "choices"):
            assert set(distribution.choices) <= set(space[name])
        else:
            assert (distribution.low, distribution.high) == pytest.approx(space[name].support())
