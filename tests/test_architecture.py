"""The package is as docs/contributing.md draws it: layers, public names, who may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sklstm
import sklstm.kernels

PACKAGE = Path(sklstm.__file__).parent

#: From the bottom up. A module imports only from layers below its own, or from its own subpackage.
LAYERS = [
    {"kernels", "checks", "datasets", "display"},
    {"names"},
    {"lstm", "text", "labels", "composition"},
    {"tasks"},
    {"network", "ngrams"},
    {"model"},
    {"training"},
    {"parameters", "text_estimator"},
    {"language_model"},
    {"pretraining"},
    {"supervised"},
    {"classifier", "regressor"},
    {"saving"},
    {""},
]
LAYER_OF = {name: number for number, layer in enumerate(LAYERS) for name in layer}

#: Packages that only these modules may import.
DOORS = {
    "skorch": {
        "training.loop",
        "training.callbacks",
        "training.printing",
        "training.sklearn_callbacks",
    },
    "safetensors": {"model.container"},
    "triton": {"kernels.triton_block", "kernels.triton_forward", "kernels.triton_backward"},
}

#: Modules over 400 lines, and why.
LONG = {
    "classifier": "its docstrings: 45 parameters, each documented once",
    "regressor": "its docstrings: 43 parameters, since none is made by code",
    "lstm": "its docstrings: the parameters of torch.nn.LSTM, and ours",
    "text.vectorizer": "its docstrings: the parameters and methods of a transformer",
}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


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
    """Return the name of our module behind an imported name, or None."""
    if imported.split(".")[0] != "sklstm":
        return None
    parts = imported.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts)


ARROWS = {name: {own(i) for i in imports(path)} - {None} for name, path in MODULES.items()}


def top(name):
    return name.partition(".")[0]


def test_every_module_has_a_layer():
    assert {top(name) for name in MODULES} == set(LAYER_OF)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downward(name):
    for target in ARROWS[name]:
        inside = top(target) == top(name)
        assert inside or LAYER_OF[top(target)] < LAYER_OF[top(name)], f"{name} imports {target}"


def test_no_circle_inside_a_subpackage():
    left = {name: {t for t in ARROWS[name] if t != name} for name in MODULES}
    while left:
        free = {name for name, targets in left.items() if not targets & left.keys()}
        assert free, f"these import each other: {sorted(left)}"
        left = {name: targets for name, targets in left.items() if name not in free}


@pytest.mark.parametrize("package", DOORS)
def test_only_some_modules_import(package):
    users = {
        name
        for name, path in MODULES.items()
        if any(imported.split(".")[0] == package for imported in imports(path))
    }
    assert users == DOORS[package]


def test_private_helpers_of_scikit_learn_stay_in_checks():
    for name, path in MODULES.items():
        private = {
            imported
            for imported in imports(path)
            if imported.startswith("sklearn") and "._" in imported
        }
        assert name == "checks" or not private, f"{name} imports {private}"


def test_kernels_know_torch_and_numpy_only():
    allowed = {"torch", "numpy", "triton", "sklstm"}
    for name, path in MODULES.items():
        if name.startswith("kernels"):
            roots = {imported.split(".")[0] for imported in imports(path)}
            # joblib knows how many processors a process may use.
            more = {"joblib"} if name == "kernels.process" else set()
            assert roots - sys.stdlib_module_names <= allowed | more


def n_lines(name):
    return len(MODULES[name].read_text(encoding="utf-8").splitlines())


def test_long_modules_have_a_reason():
    assert {name for name in MODULES if n_lines(name) > 400} == set(LONG)


def test_fitting_owns_no_formula():
    """It is the most connected module: it stays short, and calls what computes."""
    assert n_lines("training.fitting") < 180
    tree = ast.parse(MODULES["training.fitting"].read_text(encoding="utf-8"))
    powers = [n for n in ast.walk(tree) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Pow)]
    assert not powers and "torch" not in imports(MODULES["training.fitting"])


def test_an_estimator_learns_nothing_but_a_model(fitted):
    parameters = fitted.get_params(deep=False).keys()
    assert vars(fitted).keys() - parameters == {"model_"}


def test_public_names():
    assert sklstm.__all__ == [
        "LSTMLanguageModel",
        "LSTMTextClassifier",
        "LSTMTextRegressor",
        "SequenceVectorizer",
        "TokenAttributionDisplay",
        "TrainingCurveDisplay",
        "__version__",
        "load",
    ]
    assert sklstm.kernels.__all__ == ["available_backends", "lstm_layer"]
    for name in sklstm.__all__:
        assert hasattr(sklstm, name)


def test_no_module_is_a_drawer_for_everything():
    drawers = {"utils", "common", "helpers", "misc", "base"}
    assert not drawers & {path.stem.strip("_") for path in MODULES.values()}


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
