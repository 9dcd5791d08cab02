"""Files of every version of the format load for ever, and answer what they answered.

``tests/files/make.py`` made them; tolerances are for other processors and backends.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import sklstm
from sklstm.model.persistence import VERSION
from tests.files.make import ASKED, TEXTS

FOLDER = Path(__file__).parent / "files"
ANSWERS = {
    f"{path.stem}_{name}": answers
    for path in sorted(FOLDER.glob("*.json"))
    for name, answers in json.loads(path.read_text(encoding="utf-8")).items()
}


#: Of an earlier version, and by sentence, whose ends were found in another way.
OTHER_SENTENCES = "version_2_network"


def load(name):
    path = FOLDER / f"{name}.safetensors"
    if name != OTHER_SENTENCES:
        return sklstm.load(path)
    with pytest.warns(UserWarning, match="which found the ends of sentences by other rules"):
        return sklstm.load(path)


def test_there_are_files_of_every_version():
    assert {int(name.split("_")[1]) for name in ANSWERS} == set(range(1, VERSION + 1))
    assert {path.stem for path in FOLDER.glob("*.safetensors")} == ANSWERS.keys()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_file_answers_what_it_answered(name):
    answers = ANSWERS[name]
    estimator = load(name)
    assert type(estimator).__name__ == answers["kind"]
    if answers["kind"] == "LSTMLanguageModel":
        assert estimator.perplexity(ASKED) == pytest.approx(answers["perplexity"], rel=1e-6)
        written = estimator.generate(3, temperature=0, max_tokens=5, prompt="a")
        assert written == answers["generate"]
        return
    if "classes" in answers:
        assert estimator.classes_.tolist() == answers["classes"]
    for method in {"predict", "predict_proba", "transform"} & answers.keys():
        got = getattr(estimator, method)(ASKED)
        np.testing.assert_allclose(got, answers[method], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ANSWERS if "language_model" not in name])
def test_what_a_file_holds_learns_on(name):
    estimator = load(name)
    before = estimator.transform(TEXTS)
    estimator.partial_fit(TEXTS, estimator.predict(TEXTS))
    after = estimator.transform(TEXTS)
    assert np.isfinite(after).all() and (after != before).any()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_file_can_be_saved_in_the_newest_version(name, tmp_path):
    load(name).save(tmp_path / "m")
    again, before = sklstm.load(tmp_path / "m"), load(name)
    nested = {"vectorizer"}  # whose own parameters are among the others
    parameters = [
        {key: value for key, value in estimator.get_params().items() if key not in nested}
        for estimator in (again, before)
    ]
    assert parameters[0] == parameters[1]
    assert again.history_ == before.history_


def test_the_files_are_small():
    assert all(os.path.getsize(path) < 60_000 for path in FOLDER.glob("version_*"))
