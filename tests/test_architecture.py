"""The house is as docs/contributing.md draws it: floors, public names, doors."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sklstm
import sklstm.kernels

PACKAGE = Path(sklstm.__file__).parent

#: From the ground up. A file imports only from floors below its own.
FLOORS = [
    {"text", "network", "ngrams", "model", "training"},
    {"kernels.contract"},
    {"kernels.packing", "kernels.lanes", "kernels.memory", "kernels.triton_block"},
    {"kernels.cpu_cells", "kernels.triton_forward", "kernels.triton_backward"},
    {"kernels.reference", "kernels.cpu", "kernels.native", "kernels.aten", "kernels.cuda"},
    {"kernels.autograd"},
    {"kernels.dispatch"},
    {"kernels"},
    {
        "text.tokenizers",
        "checks",
        "datasets",
        "training.optimizer",
        "text.word_vectors",
        "training.fine_tuning",
        "model.persistence",
    },
    {"text.vectorizer", "lstm", "network.sentences", "ngrams.naive_bayes"},
    {"network.text_network", "text.batching", "ngrams.vectorizer"},
    {"network.language_network", "text.windows"},
    {"model.prediction", "training.adversarial", "ngrams.member", "model.generation"},
    {"training.loop", "model.validation"},
    {"language_model"},
    {"training.start"},
    {"classifier"},
    {""},
]
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}

#: Packages that only these files may import.
DOORS = {
    "skorch": {"training.loop"},
    "sklearn": {
        "ngrams.member",
        "checks",
        "classifier",
        "datasets",
        "language_model",
        "ngrams.naive_bayes",
        "ngrams.vectorizer",
        "training.start",
        "model.validation",
        "text.vectorizer",
    },
    "safetensors": {"model.persistence"},
    "triton": {"kernels.triton_block", "kernels.triton_forward", "kernels.triton_backward"},
}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path):
    """Return the modules a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(imported):
    """Return the name of the file of ours behind an imported name, or None."""
    if imported.split(".")[0] != "sklstm":
        return None
    parts = imported.split(".")[1:]
    while parts and ".".join(parts) not in FILES:
        parts.pop()
    return ".".join(parts)


def test_every_file_has_a_floor():
    assert set(FILES) == set(FLOOR_OF)


@pytest.mark.parametrize("name", FILES)
def test_imports_go_downward(name):
    for imported in imports(FILES[name]):
        target = own(imported)
        if target is not None:
            assert FLOOR_OF[target] < FLOOR_OF[name], f"{name} imports {imported}"


@pytest.mark.parametrize("package", DOORS)
def test_strangers_come_through_their_door(package):
    users = {
        name
        for name, path in FILES.items()
        if any(imported.split(".")[0] == package for imported in imports(path))
    }
    assert users == DOORS[package]


def test_private_helpers_of_scikit_learn_stay_in_checks():
    for name, path in FILES.items():
        private = {
            imported
            for imported in imports(path)
            if imported.startswith("sklearn") and "._" in imported
        }
        assert name == "checks" or not private, f"{name} imports {private}"


def test_kernels_know_torch_and_numpy_alone():
    for name, path in FILES.items():
        if name.startswith("kernels"):
            roots = {imported.split(".")[0] for imported in imports(path)}
            assert roots - sys.stdlib_module_names <= {"torch", "numpy", "triton", "sklstm"}


def test_public_names():
    assert sklstm.__all__ == [
        "LSTMLanguageModel",
        "LSTMTextClassifier",
        "SequenceVectorizer",
        "__version__",
    ]
    assert sklstm.kernels.__all__ == ["available_backends", "lstm_layer"]
    for name in sklstm.__all__:
        assert hasattr(sklstm, name)


def test_no_file_is_a_drawer_for_everything():
    drawers = {"utils", "common", "helpers", "misc", "base"}
    assert not drawers & {path.stem.strip("_") for path in FILES.values()}


def test_import_has_no_effects():
    """No device is chosen, no thread count set, no seed moved; no optional package is loaded."""
    program = """
import sys, torch, sklearn.model_selection, skorch, numpy as np
theirs = set(sys.modules)
torch.manual_seed(1); np.random.seed(1)
state, threads = torch.get_rng_state(), torch.get_num_threads()
import sklstm
assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
assert not torch.cuda.is_initialized()
print({"triton", "pandas", "matplotlib", "polars"} & (set(sys.modules) - theirs))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
