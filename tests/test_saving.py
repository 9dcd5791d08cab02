"""Whatever can be fitted can be saved, and what is loaded goes on as if it had not been away."""

import json
import os
import subprocess
import sys
from collections import UserDict

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

import sklstm
from sklstm import LSTMLanguageModel, LSTMTextClassifier, SequenceVectorizer
from sklstm.kernels.cells import CELLS
from sklstm.model.container import DESCRIPTION, opened, read_description
from sklstm.model.persistence import VERSION
from sklstm.network.pooling import POOLINGS
from tests.conftest import LABELS, TEXTS, TINY, UNUSUAL, distinct

MORE = [*TEXTS, *UNUSUAL]
FAST = TINY | {"max_epochs": 1, "embedding_dim": 5, "hidden_size": 4}
CHINESE = ["房间很好。非常好！", "服务很差。太差了！", "早餐好吃", "位置太远"] * 4
CLASSES = {"str": ["neg", "pos"], "int": [7, -3], "bool": [False, True], "float": [1.0, 2.0]}

LANGUAGE_MODEL = {"embedding_dim": 5, "hidden_size": 4, "window": 8, "batch_size": 4}
LANGUAGE_MODEL |= {"max_epochs": 2, "validation_fraction": 0.2, "random_state": 0}


def write_vectors(path):
    lines = [f"{word} 0.1 0.{k} 0.3" for k, word in enumerate(["good", "bad", "a", "film"])]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="session")
def language_model(tmp_path_factory):
    """Return the path of a language model."""
    path = tmp_path_factory.mktemp("saved") / "lm.safetensors"
    LSTMLanguageModel(**LANGUAGE_MODEL).fit(TEXTS * 2).save(path)
    return path


def save_and_load(estimator, tmp_path):
    estimator.save(tmp_path / "m.safetensors")
    return sklstm.load(tmp_path / "m.safetensors")


def describe(path):
    with opened(path) as file:
        return read_description(file)[0]


def check_same(loaded, fitted, texts=MORE):
    """Check that two classifiers say the same, bit by bit, also once they have learnt more."""
    assert type(loaded) is type(fitted)
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        expected, got = getattr(fitted, method)(texts), getattr(loaded, method)(texts)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    assert loaded.classes_.dtype == fitted.classes_.dtype
    assert loaded.history_ == fitted.history_
    assert loaded.vectorizer_.vocabulary_ == fitted.vectorizer_.vocabulary_


def check_goes_on_alike(loaded, fitted, texts, labels):
    """Check that one more epoch, and then one more fit, give the same bits."""
    for estimator in (loaded, fitted):
        estimator.partial_fit(texts, labels)
    np.testing.assert_array_equal(loaded.predict_proba(texts), fitted.predict_proba(texts))
    for estimator in (loaded, fitted):
        estimator.set_params(warm_start=True).fit(texts, labels)
    np.testing.assert_array_equal(loaded.predict_proba(texts), fitted.predict_proba(texts))


@pytest.mark.parametrize("blend", ["ngrams", None])
@pytest.mark.parametrize("labels", CLASSES)
def test_every_kind_of_label(tmp_path, blend, labels):
    y = np.array([CLASSES[labels][label == "pos"] for label in LABELS] * 2)
    fitted = LSTMTextClassifier(**FAST | {"blend": blend}).fit(TEXTS * 2, y)
    loaded = save_and_load(fitted, tmp_path)
    check_same(loaded, fitted)
    assert loaded.get_params(deep=False) == fitted.get_params(deep=False)
    check_goes_on_alike(loaded, fitted, TEXTS * 2, y)


CHOICES = {
    **{f"cell {name}": {"cell": name} for name in CELLS},
    **{f"pooling {name}": {"pooling": name} for name in POOLINGS},
    "all pools": {"pooling": list(POOLINGS)},
    "a tuple of pools": {"pooling": ("max", "attention", "attention")},
    "by sentence": {"read_by": "sentence", "blend": "ngrams"},
    "one class's weight": {"class_weight": {"neg": 2}},
    "attention": {"attention": "dot"},
    "layers": {"num_layers": 2, "bidirectional": False},
    "every dropout": {name: 0.1 for name in ("dropout", "word_dropout", "weight_dropout")}
    | {"zoneout": 0.1, "recurrent_dropout": 0.1, "input_dropout": 0.1, "embedding_dropout": 0.1},
    "numpy's numbers": {
        "hidden_size": np.int64(4),
        "dropout": np.float64(0.25),
        "lr": np.float64(0.02),
        "bidirectional": np.bool_(True),
    },
    "weights of classes": {"class_weight": {"neg": 2, "pos": 1.5}},
    "adversarial": {"virtual_adversarial": 0.3, "ema": 0.9},
}


@pytest.mark.parametrize("settings", CHOICES.values(), ids=CHOICES)
def test_every_choice(tmp_path, settings):
    fitted = LSTMTextClassifier(**FAST | settings).fit(TEXTS * 2, LABELS * 2)
    loaded = save_and_load(fitted, tmp_path)
    check_same(loaded, fitted)
    assert loaded.get_params() == fitted.get_params()
    check_goes_on_alike(loaded, fitted, TEXTS * 2, LABELS * 2)
    again = [clone(e).fit(TEXTS, LABELS).predict_proba(TEXTS) for e in (loaded, fitted)]
    np.testing.assert_array_equal(*again)


def test_three_classes_and_weights_by_a_whole_number(tmp_path):
    y = [1, 2, 3, 1, 2] * 4
    settings = FAST | {"blend": "ngrams", "class_weight": {1: 2.0, np.int64(3): 0.5}}
    fitted = LSTMTextClassifier(**settings).fit(TEXTS * 2, y)
    loaded = save_and_load(fitted, tmp_path)
    assert loaded.class_weight == {1: 2.0, 3: 0.5}
    check_same(loaded, fitted)
    check_goes_on_alike(loaded, fitted, TEXTS * 2, y)


def test_chinese(tmp_path):
    """No token has pieces, so that the n-grams are of one block."""
    y = ["好", "差", "好", "差"] * 4
    fitted = LSTMTextClassifier(**FAST | {"blend": "ngrams"}).fit(CHINESE, y)
    check_same(save_and_load(fitted, tmp_path), fitted, [*CHINESE, *MORE])


def test_a_calibrated_blend(tmp_path):
    texts, labels = distinct(600)
    settings = FAST | {"blend": "ngrams", "early_stopping": True, "validation_fraction": 0.3}
    fitted = LSTMTextClassifier(**settings | {"random_state": 1}).fit(texts, labels)
    assert fitted.temperature_ != 1.0
    loaded = save_and_load(fitted, tmp_path)
    check_same(loaded, fitted)
    assert (loaded.temperature_, loaded.blend_weights_) == (
        fitted.temperature_,
        fitted.blend_weights_,
    )
    assert loaded.validation_scores_ == fitted.validation_scores_


def test_a_classifier_that_was_pretrained_or_has_word_vectors(tmp_path, language_model):
    vectors = write_vectors(tmp_path / "vectors.txt")
    for name, given in (("pretrained", language_model), ("embeddings", vectors)):
        settings = FAST | {"embedding_dim": "auto", name: given}
        fitted = LSTMTextClassifier(**settings).fit(TEXTS * 2, LABELS * 2)
        fitted.save(tmp_path / "m")
        assert describe(tmp_path / "m")["dropped"] == [name]
        loaded = LSTMTextClassifier.load(tmp_path / "m")
        expected = fitted.get_params(deep=False) | {name: None}
        assert loaded.get_params(deep=False) == expected
        assert loaded.embedding_coverage_ == fitted.embedding_coverage_
        check_same(loaded, fitted)
        # As the loaded one: it starts from what was learnt, and not from what was given.
        check_goes_on_alike(loaded, fitted, TEXTS * 2, LABELS * 2)


def test_a_language_model(tmp_path):
    fitted = LSTMLanguageModel(**LANGUAGE_MODEL).fit(TEXTS * 2)
    loaded = save_and_load(fitted, tmp_path)
    assert loaded.get_params() == fitted.get_params()
    for direction in ("forward", "backward"):
        assert loaded.perplexity(MORE, direction) == fitted.perplexity(MORE, direction)
    assert loaded.generate(3, random_state=0) == fitted.generate(3, random_state=0)
    assert loaded.validation_perplexities_ == fitted.validation_perplexities_
    clone(loaded).fit(TEXTS)


VECTORIZERS = {
    "of characters": {"analyzer": "char", "max_length": 30},
    "with limits": {"min_df": 2, "max_df": 0.9, "max_features": 20, "stop_words": ["a"]},
    "of a list": {"vocabulary": ["good", "bad", "\ud800"]},
    "of a mapping": {"vocabulary": {"good": 5, "bad": 2}},
    "of many tokens": {"vocabulary": {f"token{k}": 1000 - k for k in range(200)} | {"good": 0}},
    "of a long list": {"vocabulary": [f"token{k}" for k in range(200)] + ["good"]},
    "of digits": {"vocabulary": ["0" * 64, "good", '"sklstm_digest":"' + "0" * 64]},
}


@pytest.mark.filterwarnings("ignore:vocabulary holds:UserWarning")
@pytest.mark.parametrize("parameters", VECTORIZERS.values(), ids=VECTORIZERS)
def test_a_vectorizer_of_the_users(tmp_path, parameters):
    vectorizer = SequenceVectorizer(**parameters)
    fitted = LSTMTextClassifier(**FAST | {"vectorizer": vectorizer, "blend": "ngrams"})
    fitted.fit(TEXTS * 2, LABELS * 2)
    loaded = save_and_load(fitted, tmp_path)
    assert loaded.vectorizer.get_params() == vectorizer.get_params()
    check_same(loaded, fitted)
    again = [clone(e).fit(TEXTS * 2, LABELS * 2).predict_proba(TEXTS) for e in (loaded, fitted)]
    np.testing.assert_array_equal(*again)


@pytest.mark.parametrize(
    "vocabulary",
    [{"good", "bad"}, frozenset(["good", "bad"]), np.array(["good", "bad"]), {"bad": 1, "good": 0}],
    ids=["set", "frozenset", "array", "mapping"],
)
def test_a_collection_of_tokens_comes_back_as_a_list(tmp_path, vocabulary):
    if isinstance(vocabulary, dict):
        vocabulary = UserDict(vocabulary)
    vectorizer = SequenceVectorizer(vocabulary=vocabulary)
    fitted = LSTMLanguageModel(**LANGUAGE_MODEL, vectorizer=vectorizer).fit(TEXTS)
    loaded = save_and_load(fitted, tmp_path)
    assert loaded.vectorizer.vocabulary == list(fitted.vectorizer_.vocabulary_)
    assert clone(loaded).fit(TEXTS).perplexity(TEXTS) == fitted.perplexity(TEXTS)


def test_a_pattern_of_the_users_needs_trust(tmp_path):
    vectorizer = SequenceVectorizer(token_pattern=r"\w+")
    fitted = LSTMTextClassifier(**FAST | {"vectorizer": vectorizer}).fit(TEXTS * 2, LABELS * 2)
    path = tmp_path / "m"
    fitted.save(path)
    for load in (sklstm.load, LSTMTextClassifier.load):
        with pytest.raises(ValueError, match="trust_pattern=True if you trust its source"):
            load(path)
        check_same(load(path, trust_pattern=True), fitted)


@pytest.mark.filterwarnings("ignore:No texts could be held out")
def test_what_is_not_needed_is_dropped_and_listed(tmp_path):
    settings = {"random_state": np.random.RandomState(0), "scoring": lambda *_: 0.5}
    fitted = LSTMTextClassifier(**FAST | settings | {"callbacks": []}).fit(TEXTS * 2, LABELS * 2)
    loaded = save_and_load(fitted, tmp_path)
    described = describe(tmp_path / "m.safetensors")
    assert described["dropped"] == ["callbacks", "random_state", "scoring"]
    assert described["versions"]["torch"] == str(torch.__version__)
    assert [loaded.callbacks, loaded.random_state, loaded.scoring] == [None] * 3
    check_same(loaded, fitted)
    check_goes_on_alike(loaded, fitted.set_params(scoring=None), TEXTS * 2, LABELS * 2)


def test_the_description_is_json_that_others_can_read(tmp_path, fitted):
    fitted.save(tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    described = json.loads(header["__metadata__"][DESCRIPTION])
    assert described["kind"] == "LSTMTextClassifier" and described["version"] == VERSION
    assert described["parameters"]["hidden_size"] == 8


def test_the_same_model_is_the_same_file(tmp_path, fitted):
    for name in "abcde":
        fitted.save(tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abcde"}) == 1
    sklstm.load(tmp_path / "a").save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "a").read_bytes()


def by_hand(text):
    return text.split()


def test_a_function_that_predictions_need_is_refused(tmp_path):
    for what in ("tokenizer", "preprocessor", "analyzer"):
        function = str if what == "preprocessor" else by_hand
        vectorizer = SequenceVectorizer(**{what: function})
        fitted = LSTMTextClassifier(**FAST | {"vectorizer": vectorizer})
        fitted.fit(TEXTS * 2, LABELS * 2)
        with pytest.raises(ValueError) as refusal:
            fitted.save(tmp_path / "m")
        assert str(refusal.value) == (
            f"save cannot write parameters.vectorizer: its {what} is a function, which is no data. "
            "Use joblib."
        )
    assert os.listdir(tmp_path) == []


def test_an_estimator_of_the_users_is_refused(tmp_path):
    member = make_pipeline(CountVectorizer(), MultinomialNB())
    fitted = LSTMTextClassifier(**FAST | {"blend": member}).fit(TEXTS * 2, LABELS * 2)
    message = "save cannot write {}: a Pipeline is no data of ours. Use joblib, or blend='ngrams'."
    with pytest.raises(ValueError) as refusal:
        fitted.save(tmp_path / "m")
    assert str(refusal.value) == message.format("parameters.blend")
    with pytest.raises(ValueError) as refusal:
        fitted.set_params(blend=None).save(tmp_path / "m")
    assert str(refusal.value) == message.format("model.blend.members.0.1")


def test_our_n_grams_with_parameters_of_the_users_are_refused(tmp_path):
    fitted = LSTMTextClassifier(**FAST | {"blend": "ngrams"}).fit(TEXTS * 2, LABELS * 2)
    own = clone(fitted.member_).set_params(linear__logistic__C=1.0)
    other = LSTMTextClassifier(**FAST | {"blend": own}).fit(TEXTS * 2, LABELS * 2)
    with pytest.raises(ValueError, match="cannot write parameters.blend: a Pipeline is no data"):
        other.save(tmp_path / "m")
    with pytest.raises(ValueError, match="cannot write model.blend.members.0.1: a Pipeline"):
        other.set_params(blend="ngrams").save(tmp_path / "m")


def test_another_kind_of_file_is_named(tmp_path, fitted, language_model):
    fitted.save(tmp_path / "m")
    for path, kind, found in (
        (tmp_path / "m", LSTMLanguageModel, "LSTMTextClassifier"),
        (language_model, LSTMTextClassifier, "LSTMLanguageModel"),
    ):
        with pytest.raises(ValueError) as refusal:
            kind.load(path)
        assert str(refusal.value) == (
            f"{str(path)!r} must be a file that save has written; got one that holds an {found}: "
            f"use {found}.load or sklstm.load."
        )


class Own(LSTMTextClassifier):
    """A user's class."""


def test_a_class_of_the_users_has_a_load_of_its_own(tmp_path):
    fitted = Own(**FAST).fit(TEXTS * 2, LABELS * 2)
    fitted.save(tmp_path / "m")
    check_same(Own.load(tmp_path / "m"), fitted)
    with pytest.raises(ValueError) as refusal:
        sklstm.load(tmp_path / "m")
    assert str(refusal.value) == (
        f"{str(tmp_path / 'm')!r} must hold one of LSTMTextClassifier, LSTMTextRegressor, "
        "LSTMLanguageModel; got Own. Use load of that class."
    )


def test_no_file(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileNotFoundError) as refusal:
            sklstm.load(path)
        assert str(refusal.value) == (
            f"path must be a file that save has written; got {str(path)!r}."
        )


def test_what_is_not_fitted_cannot_be_saved(tmp_path, tiny):
    with pytest.raises(ValueError, match="is not fitted yet"):
        tiny.save(tmp_path / "m")


IN_ANOTHER_PROCESS = """
import sys
import numpy as np
import torch
torch.set_num_threads(1)
import sklstm
from tests.conftest import LABELS, TEXTS
from tests.test_saving import MORE
classifier, model = map(sklstm.load, sys.argv[1:3])
outputs = [classifier.predict_proba(MORE), classifier.transform(MORE), model.perplexity(MORE)]
outputs += [model.generate(3, random_state=0)]
outputs += [classifier.partial_fit(TEXTS * 2, LABELS * 2).predict_proba(MORE)]
np.savez(sys.argv[3], *outputs)
"""


def test_the_same_bits_in_another_process(tmp_path, language_model):
    classifier = LSTMTextClassifier(**FAST | {"blend": "ngrams"}).fit(TEXTS * 2, LABELS * 2)
    classifier.save(tmp_path / "m")
    paths = [str(tmp_path / "m"), str(language_model), str(tmp_path / "outputs.npz")]
    code = [sys.executable, "-c", IN_ANOTHER_PROCESS, *paths]
    subprocess.run(code, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    model = LSTMLanguageModel.load(language_model)
    expected = [classifier.predict_proba(MORE), classifier.transform(MORE), model.perplexity(MORE)]
    expected += [model.generate(3, random_state=0)]
    expected += [classifier.partial_fit(TEXTS * 2, LABELS * 2).predict_proba(MORE)]
    outputs = np.load(tmp_path / "outputs.npz")
    for name, own in zip(outputs.files, expected, strict=True):
        np.testing.assert_array_equal(outputs[name], own)
