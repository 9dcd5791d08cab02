"""Every example runs as it stands, in a fresh process, in an empty folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sklstm.datasets import load_docstrings

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
#: What makes a long example short enough for a test.
SHORTER = {
    "plot_language_model": ("max_epochs=8", "max_epochs=1"),
    "plot_quickstart": ("LSTMTextClassifier(", "LSTMTextClassifier(max_epochs=1, "),
    "plot_text_and_columns": ("max_epochs=4", "max_epochs=1"),
    "plot_explain": ("LSTMTextClassifier(", "LSTMTextClassifier(max_epochs=1, "),
    "plot_grid_search": ("LSTMTextClassifier(", "LSTMTextClassifier(max_epochs=2, "),
}


def run(folder, *command):
    return subprocess.run(
        [sys.executable, "-W", "error", *map(str, command)],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.stem.startswith("plot_")], ids=str)
def test_example_runs(example, tmp_path):
    code = example.read_text(encoding="utf-8")
    if example.stem in SHORTER:
        long, short = SHORTER[example.stem]
        assert long in code
        code = code.replace(long, short)
    (tmp_path / example.name).write_text(code, encoding="utf-8")
    result = run(tmp_path, example.name)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def reviews():
    """Return real texts: film reviews where the development data is, else docstrings."""
    data = Path(os.environ.get("SKLSTM_DATA", ROOT.parent / "shared" / "data")) / "mr"
    if data.exists():
        return pd.read_csv(data / "train.csv.xz", keep_default_na=False).sample(400, random_state=0)
    docstrings = load_docstrings()
    return pd.DataFrame({"text": docstrings.data, "label": docstrings.target})[:400]


@pytest.mark.slow
def test_comparison_on_a_file_of_ones_own(tmp_path):
    table = reviews().rename(columns={"text": "review", "label": "stars"})
    table.to_csv(tmp_path / "reviews.csv.xz", index=False)
    columns = ["--text-column", "review", "--label-column", "stars"]
    script = ROOT / "examples" / "compare_baselines.py"
    options = ["--plot", "bars.png", "--json", "rows.json"]
    result = run(tmp_path, script, "--train", "reviews.csv.xz", *columns, *options)
    assert result.returncode == 0, result.stderr
    rows = pd.read_json(tmp_path / "rows.json").set_index("model")
    assert rows.shape == (5, 5)
    assert (rows["accuracy"] > 0.4).all()
    assert "LSTMTextClassifier" in result.stdout
    assert (tmp_path / "bars.png").stat().st_size > 10_000


@pytest.mark.slow
def test_comparison_says_which_column_is_missing(tmp_path):
    pd.DataFrame({"a": ["x"], "b": ["y"]}).to_csv(tmp_path / "table.csv", index=False)
    script = ROOT / "examples" / "compare_baselines.py"
    result = run(tmp_path, script, "--train", "table.csv")
    assert result.returncode == 1
    assert "must have the columns 'text' and 'label'; got ['a', 'b']" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--packed"], ["--cells"], ["--dtype", "bfloat16"]], ids=str)
def test_benchmark_of_the_layer(tmp_path, options):
    script = ROOT / "benchmarks" / "speed" / "lstm.py"
    settings = ["--sizes", "4x8", "--repeats", "1", "--threads", "1", "--json", "rows.json"]
    result = run(tmp_path, script, *settings, *options)
    assert result.returncode == 0, result.stderr
    rows = pd.DataFrame(json.loads((tmp_path / "rows.json").read_text())["rows"])
    assert (rows["seconds"] > 0).all() and (rows["of_peak"] > 0).all()
    names = {"lstm", "layer_norm", "zoneout"} if "--cells" in options else {"aten", "torch", "auto"}
    assert names < set(rows["name"])


@pytest.mark.slow
def test_benchmark_from_end_to_end(tmp_path):
    script = ROOT / "benchmarks" / "speed" / "end_to_end.py"
    settings = ["--texts", "96", "--repeats", "1", "--backends", "auto", "--json", "rows.json"]
    result = run(tmp_path, script, *settings, "--memory")
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "rows.json").read_text())
    rows = pd.DataFrame(results["rows"])
    assert {"sklstm, auto", "skorch + nn.LSTM, padded", "TF-IDF + LogisticRegression"} <= set(
        rows["system"]
    )
    for phase in ("fit", "predict"):
        assert all(cell["tokens/s"] > 0 for cell in rows[phase])
    stages = results["stages"]["classifier's defaults"]["fit"]
    for stage in ("tokenise", "batch", "forward", "backward", "optimiser", "callbacks", "loop"):
        assert stages[stage] > 0, stage


@pytest.mark.slow
def test_benchmark_of_growth(tmp_path):
    script = ROOT / "benchmarks" / "speed" / "growth.py"
    settings = ["--quick", "--sweeps", "cut", "vocabulary", "--threads", "1"]
    result = run(tmp_path, script, *settings, "--json", "rows.json")
    assert result.returncode == 0, result.stderr
    rows = pd.DataFrame(json.loads((tmp_path / "rows.json").read_text())["rows"])
    assert rows["sweep"].tolist() == ["cut", "cut", "vocabulary", "vocabulary"]
    assert (rows[["fit s", "predict s"]] > 0).all(axis=None)
    assert rows["ids"].tolist()[2:] == [53, 103]  # with the three special ones


@pytest.mark.slow
def test_benchmark_of_parallel_fits(tmp_path):
    script = ROOT / "benchmarks" / "speed" / "parallel.py"
    settings = ["--texts", "64", "--epochs", "1", "--repeats", "1", "--json", "rows.json"]
    result = run(tmp_path, script, *settings)
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "rows.json").read_text())
    assert set(results["searches"]["loky"]) == {"1", "2"}
    assert len(results["workers"]["loky"][0]) == 2


@pytest.mark.slow
def test_benchmark_of_tokenising(tmp_path):
    script = ROOT / "benchmarks" / "speed" / "tokenise.py"
    result = run(tmp_path, script, "--repeats", "1", "--json", "rows.json")
    assert result.returncode == 0, result.stderr
    rows = pd.DataFrame(json.loads((tmp_path / "rows.json").read_text())["rows"])
    assert {"sklstm, fit", "sklstm, transform", "regular expression"} <= set(rows["name"])
    assert (rows["tokens_per_s"] > 0).all()


@pytest.mark.slow
def test_benchmark_of_label_sets(tmp_path):
    script = ROOT / "benchmarks" / "accuracy" / "label_sets.py"
    settings = ["--texts", "300", "--systems", "TF-IDF", "--json", "rows.json"]
    for _ in range(2):  # the second time nothing is fitted
        result = run(tmp_path, script, *settings)
        assert result.returncode == 0, result.stderr
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert 0 < row["scores"]["log loss"] < 1 and row["n_texts"] == 300
    assert "| TF-IDF + LogisticRegression, one vs rest | 1 |" in result.stdout


@pytest.mark.slow
def test_benchmark_of_pretraining(tmp_path):
    for part in (slice(0, 150), slice(150, 300)):
        texts = pd.DataFrame({"text": load_docstrings().data[part]})
        texts.to_csv(tmp_path / f"{part.start}.csv", index=False)
    script = ROOT / "benchmarks" / "accuracy" / "pretrain.py"
    sizes = ["--hidden-size", "8", "--embedding-dim", "8", "--window", "16", "--batch-size", "4"]
    settings = ["--texts", "0.csv", "150.csv", *sizes, "--n-negatives", "50", "--threads", "1"]
    result = run(tmp_path, script, *settings, "--save", "m", "--json", "rows.json")
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "rows.json").read_text())
    assert len(results["perplexity"]) == 1 and (tmp_path / "m").stat().st_size > 10_000
