import copy
import json
import os
import re

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save_file

from sklstm import LSTMLanguageModel, LSTMTextClassifier, SequenceVectorizer, load
from sklstm.model import container
from sklstm.model.persistence import VERSION
from sklstm.model.writing import KIND
from sklstm.network.state import take_state
from tests.conftest import LABELS, TEXTS, TINY

SMALL = {"max_epochs": 1, "embedding_dim": 3, "hidden_size": 2, "random_state": 0}


@pytest.fixture(scope="session")
def _saved_once(tmp_path_factory):
    """Return the paths of a classifier and of a language model."""
    folder = tmp_path_factory.mktemp("saved")
    classifier = LSTMTextClassifier(**TINY | SMALL | {"blend": "ngrams"})
    classifier.fit(TEXTS * 2, LABELS * 2).partial_fit(TEXTS, LABELS)  # which leaves moments
    classifier.save(folder / "classifier")
    LSTMLanguageModel(**SMALL).fit(TEXTS).save(folder / "language model")
    return folder


def take(path):
    """Return the description of a file, and its arrays."""
    with container.opened(path) as file:
        described, head = container.read_description(file)
        return described, container.read_arrays(file, head, described["arrays"])


@pytest.fixture(scope="session")
def _taken(_saved_once):
    return {path.name: take(path) for path in _saved_once.iterdir()}


@pytest.fixture(params=["classifier", "language model"])
def taken(request, _taken):
    return copy.deepcopy(_taken[request.param])


@pytest.fixture
def classifier(_taken):
    return copy.deepcopy(_taken["classifier"])


def put(path, described, arrays):
    """Write a file whose digest is right, as somebody can who means harm."""
    described["arrays"] = {
        name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()
    }
    container.write(path, container.pack(described, arrays))
    return path


def check_refused(path, match):
    with pytest.raises(ValueError, match=match) as refusal:
        load(path)
    assert str(refusal.value).startswith(f"{str(path)!r} must ")
    assert len(str(refusal.value)) < 600 + len(str(path)) and "\n" not in str(refusal.value)


def fields(described):
    return described["model"]["fields"]


def settings(described):
    return fields(described)["network"]["state"]["settings"]


def test_what_is_put_as_it_was_taken_loads(tmp_path, taken):
    estimator = load(put(tmp_path / "m", *taken))
    assert estimator.n_iter_ >= 1


def test_damage_is_named(tmp_path, _saved_once):
    content = bytearray((_saved_once / "classifier").read_bytes())
    content[-1] ^= 1
    path = tmp_path / "m"
    path.write_bytes(content)
    with pytest.raises(ValueError) as refusal:
        load(path)
    assert str(refusal.value) == (
        f"{str(path)!r} must be a file that save has written; got one that has been damaged: its "
        "digest is another."
    )
    path.write_bytes(content[:-100])
    check_refused(path, "its digest is another|broken or of another program")
    path.write_bytes(b"no model")
    check_refused(path, "got one that is broken or of another program.$")


@pytest.mark.parametrize("version", [0, -1, True, 2.0, "2", None, [2]])
def test_a_version_that_is_none_is_refused(tmp_path, taken, version):
    described, arrays = taken
    described["version"] = version
    check_refused(put(tmp_path / "m", described, arrays), "broken or of another program")


def test_a_later_version_is_named(tmp_path, taken):
    described, arrays = taken
    described["version"] = VERSION + 1
    message = f"got one in version {VERSION + 1} of the format: it needs a later sklstm.$"
    check_refused(put(tmp_path / "m", described, arrays), message)


@pytest.mark.parametrize(
    "kind", [None, 3, ["LSTMTextClassifier"], "os.system", "SequenceVectorizer"]
)
def test_another_kind_is_refused(tmp_path, taken, kind):
    described, arrays = taken
    described["kind"] = kind
    check_refused(put(tmp_path / "m", described, arrays), "must hold one of|of another program")


def test_a_kind_and_a_model_of_another(tmp_path, taken):
    described, arrays = taken
    kinds = ["LSTMTextClassifier", "LSTMLanguageModel"]
    kinds.remove(described["kind"])
    described["kind"] = kinds[0]
    check_refused(put(tmp_path / "m", described, arrays), "with parameters that fit would take")
    described["parameters"] = {}  # which any estimator takes
    path = put(tmp_path / "m", described, arrays)
    check_refused(path, "the model is that of another estimator|one with another task")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name",
    [
        "model.network.weights.embedding.weight",
        "model.network.weights.head.bias",
        "model.moments.head.weight.exp_avg",
        "model.blend.members.0.1.idf.0",
        "model.blend.members.0.1.members.0.coef_",
        "model.blend.members.0.1.members.1.intercept_",
    ],
)
def test_numbers_that_are_not_finite_are_refused(tmp_path, classifier, name, number):
    described, arrays = classifier
    arrays[name] = arrays[name].copy()
    arrays[name].flat[-1] = number
    check_refused(put(tmp_path / "m", described, arrays), "not finite|no moments")


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float64, np.float16])
def test_weights_of_another_dtype_are_refused(tmp_path, taken, dtype):
    described, arrays = taken
    (name,) = [name for name in arrays if name.endswith("weights.lstm.bias_hh_l0")]
    arrays[name] = arrays[name].astype(dtype)
    check_refused(put(tmp_path / "m", described, arrays), "the weight 'lstm.bias_hh_l0' is of")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embedding_dim", 10**12),
        ("hidden_size", 10**5),
        ("num_layers", 10**9),
        ("bidirectional", False),
        ("cell", "coupled"),
        ("cell", "x"),
        ("embedding_dim", "3"),
        ("dropout", 2),
    ],
)
def test_settings_that_are_not_those_of_the_weights(tmp_path, taken, name, value):
    described, arrays = taken
    settings(described)[name] = value
    check_refused(put(tmp_path / "m", described, arrays), "must hold parts that fit together; got")


def test_an_array_that_is_used_twice_or_never_is_refused(tmp_path, taken):
    described, arrays = taken
    again = {KIND: "array", "path": "model.network.weights.embedding.weight"}
    fields(described)["history"] = [{"train_loss": again}]
    check_refused(put(tmp_path / "m", described, arrays), "must hold parts that fit together")
    fields(described)["history"] = []
    arrays["more"] = np.zeros(3)
    check_refused(put(tmp_path / "m", described, arrays), "one with arrays that belong to nothing")


def labels(*items):
    return {KIND: "labels", "dtype": "|O", "paths": ["a", "b"]}, {
        "a": np.frombuffer("".join(items).encode(), np.uint8),
        "b": np.cumsum([len(item) for item in items]),
    }


@pytest.mark.parametrize("items", [("pos", "neg"), ("neg", "neg"), ("neg",), ("a", "b", "c")])
def test_classes_that_are_not_sorted_or_not_those_of_the_head(tmp_path, classifier, items):
    described, arrays = classifier
    fields(described)["task"]["fields"]["classes"], own = labels(*items)
    arrays = {name: array for name, array in arrays.items() if ".task." not in name}
    check_refused(put(tmp_path / "m", described, arrays | own), "one with (other )?classes")


def test_n_grams_of_other_classes(tmp_path, classifier):
    described, arrays = classifier
    fields(described)["task"]["fields"]["classes"], own = labels("a", "b")
    arrays = {name: array for name, array in arrays.items() if ".task." not in name}
    check_refused(put(tmp_path / "m", described, arrays | own), "n-grams of other classes")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.0),
        ("temperature", "1"),
        ("temperature", {KIND: "float", "value": "nan"}),
        ("weights", [1.0]),
        ("weights", [1.0, "1"]),
        ("weights", [1.0, -1.0]),
        ("weights", None),
        ("members", {"a": 1}),
        ("members", {KIND: "tuple", "items": []}),
        ("members", {KIND: "tuple", "items": [1]}),
        ("members", {KIND: "tuple", "items": [["x", {"a": 1}]]}),
        ("members", {KIND: "tuple", "items": [["x", {KIND: "vectorizer", "parameters": {}}]]}),
        ("report", {KIND: "tuple", "items": [1]}),
        ("member", {"a": 1}),
        ("member", None),
    ],
)
def test_a_blend_that_is_none(tmp_path, classifier, name, value):
    described, arrays = classifier
    fields(described)["blend"]["fields"][name] = value
    if name.startswith("member"):
        arrays = {name: array for name, array in arrays.items() if ".members." not in name}
    why = "one with no (blend|members|report)|one with weights of other members|fit together"
    check_refused(put(tmp_path / "m", described, arrays), why)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("history", [1]),
        ("history", {}),
        ("history", [{"epoch": 1}]),
        ("rng", 3),
        ("given", [3]),
        ("coverage", [0.5]),
        ("coverage", "ab"),
        ("task", None),
        ("blend", None),
        ("network", None),
        ("vectorizer", None),
        ("callbacks", []),
        ("more", 1),
    ],
)
def test_what_is_no_model(tmp_path, classifier, name, value):
    described, arrays = classifier
    fields(described)[name] = value
    kept = {path: a for path, a in arrays.items() if not path.startswith(f"model.{name}.")}
    check_refused(put(tmp_path / "m", described, kept), "must ")


def test_moments_of_other_weights(tmp_path, classifier):
    described, arrays = classifier
    name = "model.moments.head.weight.exp_avg"
    path = put(tmp_path / "m", described, arrays | {name: arrays[name][:1]})
    check_refused(path, "one with moments of other weights.$")


def test_a_vocabulary_of_another_size(tmp_path, taken):
    described, arrays = taken
    fields(described)["vectorizer"]["tokens"]["paths"] = ["a", "b"]
    arrays = {name: a for name, a in arrays.items() if "vectorizer.tokens" not in name}
    own = {"a": np.frombuffer(b"ab", np.uint8), "b": np.array([1, 2])}
    check_refused(put(tmp_path / "m", described, arrays | own), "a vocabulary of another size.$")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("callbacks", ["x"]),
        ("pretrained", "path"),
        ("embeddings", "path"),
        ("scoring", {KIND: "vectorizer", "parameters": {}}),
        ("scoring", "x"),
        ("random_state", -1),
        ("random_state", [1]),
        ("hidden_size", 0),
        ("lr", "0.1"),
        ("lr", {KIND: "float", "value": "nan"}),
        ("dropout", 1.5),
        ("pooling", ["x"]),
        ("pooling", []),
        ("bidirectional", "no"),
        ("precision", "x"),
        ("device", 3),
        ("vectorizer", "x"),
        ("blend", "x"),
        ("more", 1),
    ],
)
def test_parameters_that_fit_would_refuse(tmp_path, classifier, name, value):
    described, arrays = classifier
    described["parameters"][name] = value
    check_refused(put(tmp_path / "m", described, arrays), "must (hold an estimator|be a file)")


def test_a_pattern_of_the_users_needs_trust(tmp_path, taken):
    described, arrays = taken
    fields(described)["vectorizer"]["parameters"]["token_pattern"] = "(a+)+$"
    path = put(tmp_path / "m", described, arrays)
    check_refused(path, "load it with trust_pattern=True if you trust its source")
    assert load(path, trust_pattern=True).vectorizer_.token_pattern == "(a+)+$"
    # A pattern that is none answers as a fit would.
    fields(described)["vectorizer"]["parameters"]["token_pattern"] = "("
    loaded = load(put(path, described, arrays), trust_pattern=True)
    with pytest.raises(ValueError, match="token_pattern must be a regular expression"):
        loaded.vectorizer_.transform(TEXTS)


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, fitted, monkeypatch):
    fitted.save(tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    fitted.model_.history[0]["note"] = object()
    with pytest.raises(ValueError) as refusal:
        fitted.save(tmp_path / "m")
    assert str(refusal.value) == (
        "save cannot write model.history.0.note: a object is no data of ours. Use joblib, or leave "
        "it out."
    )
    assert os.listdir(tmp_path) == ["m"] and (tmp_path / "m").read_bytes() == content


@pytest.fixture
def old(_saved_once):
    """Return the description and the weights of a language model, as version 1 had them."""
    model = LSTMLanguageModel.load(_saved_once / "language model")
    parameters = model.get_params(deep=False) | {"vectorizer": False}
    return {
        "kind": "language model",
        "version": 1,
        "parameters": parameters,
        "vectorizer": model.vectorizer_.get_params(),
        "vocabulary": list(model.vectorizer_.vocabulary_),
        "history": model.history_,
    }, take_state(model.network_)["weights"]


def put_old(path, described, weights):
    save_file(weights, path, metadata={"sklstm": json.dumps(described, ensure_ascii=False)})
    return path


def test_version_1_loads(tmp_path, old, _saved_once):
    described, weights = old
    expected = LSTMLanguageModel.load(_saved_once / "language model")
    for loader in (load, LSTMLanguageModel.load):
        loaded = loader(put_old(tmp_path / "m", described, weights))
        assert loaded.perplexity(TEXTS) == expected.perplexity(TEXTS)
        assert loaded.get_params() == expected.get_params()
        assert loaded.history_ == expected.history_
    loaded.save(tmp_path / "m")
    assert take(tmp_path / "m")[0]["version"] == VERSION
    assert load(tmp_path / "m").perplexity(TEXTS) == expected.perplexity(TEXTS)


def test_version_1_has_its_letters_as_they_are(tmp_path, old):
    described, weights = old
    described["vocabulary"][:4] = ["naïve", "房", "<unknown>", '"']
    loaded = load(put_old(tmp_path / "m", described, weights))
    assert list(loaded.vectorizer_.vocabulary_)[:4] == ["naïve", "房", "<unknown>", '"']


def test_version_1_may_have_numbers_that_are_not_finite(tmp_path, old):
    described, weights = old
    described["history"][0]["valid_perplexity"] = np.inf
    loaded = load(put_old(tmp_path / "m", described, weights))
    assert loaded.validation_perplexities_ == [np.inf]


@pytest.mark.parametrize(
    ("before", "now"),
    [("native", "compiled"), ("cpu", "torch"), ("aten", "aten"), ("auto", "auto")],
)
def test_version_1_knew_backends_by_other_names(tmp_path, old, before, now):
    described, weights = old
    described["parameters"]["backend"] = before
    loaded = load(put_old(tmp_path / "m", described, weights))
    assert loaded.backend == loaded.network_.settings.backend == now


def test_version_1_with_a_vectorizer_of_the_users(tmp_path, old):
    described, weights = old
    described["parameters"]["vectorizer"] = True
    described["vectorizer"] |= {"max_length": 7, "vocabulary": described["vocabulary"]}
    loaded = load(put_old(tmp_path / "m", described, weights))
    assert (
        loaded.vectorizer.get_params()
        == SequenceVectorizer(max_length=7, vocabulary=described["vocabulary"]).get_params()
    )
    assert not hasattr(loaded.vectorizer, "vocabulary_")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vocabulary", "abc", "a vocabulary that is no list of strings"),
        ("vocabulary", [1, 2], "a vocabulary that is no list of strings"),
        ("vocabulary", ["a", "a"], "a token that comes twice"),
        ("vocabulary", [], "a token that comes twice"),
        ("vocabulary", ["a"], "a vocabulary of another size"),
        ("vectorizer", {"max_length": -5}, "fit together"),
        ("vectorizer", {"preprocessor": "os.system"}, "fit together"),
        ("vectorizer", {"token_pattern": "(a+)+$"}, "trust_pattern=True"),
        ("history", None, "fit together"),
        ("history", {}, "no history"),
        ("parameters", [], "fit together"),
        ("kind", "tree", "fit together"),
        ("kind", "LSTMTextClassifier", "digest|fit together"),
    ],
)
def test_version_1_of_parts_that_do_not_fit_is_refused(tmp_path, old, name, value, message):
    described, weights = old
    check_refused(put_old(tmp_path / "m", described | {name: value}, weights), message)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("callbacks", ["x"]),
        ("hidden_size", 10**6),
        ("embedding_dim", 10**12),
        ("bidirectional", False),
        ("bidirectional", "no"),
        ("precision", "x"),
        ("random_state", "x"),
        ("n_negatives", 0),
        ("backend", "x"),
        ("more", 1),
    ],
)
def test_version_1_of_parameters_that_fit_would_refuse(tmp_path, old, name, value):
    described, weights = old
    described["parameters"][name] = value
    check_refused(put_old(tmp_path / "m", described, weights), "must ")


def test_version_1_with_other_weights_is_refused(tmp_path, old):
    described, weights = old
    for name, wrong, message in (
        ("bias", weights["bias"] * np.nan, "not finite"),
        ("bias", weights["bias"][1:], "the weight 'bias' is of shape"),
        ("bias", weights["bias"].astype(np.float64), "the weight 'bias' is of float64"),
        ("more", weights["bias"], "the weights are not those of the settings: see 'more'"),
    ):
        check_refused(put_old(tmp_path / "m", described, weights | {name: wrong}), message)


def test_version_1_is_read_for_its_own_kind_only(tmp_path, old):
    path = put_old(tmp_path / "m", *old)
    with pytest.raises(ValueError, match=re.escape("got one that holds an LSTMLanguageModel: use")):
        LSTMTextClassifier.load(path)


def test_a_file_is_a_safetensors_file(_saved_once):
    tensors = load_tensors((_saved_once / "classifier").read_bytes())
    assert tensors["model.network.weights.embedding.weight"].dtype == np.float32
