"""Where a fit starts: from a language model, or from the fit before."""

import copy
import pickle
from collections import UserDict

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.callbacks import Callback

from sklstm import LSTMLanguageModel, LSTMTextClassifier, SequenceVectorizer
from sklstm.training.start import Fresh, Pretrained, Resumed, find_start
from tests.builders import build_network
from tests.conftest import LABELS, TEXTS

TINY = {"blend": None, "max_epochs": 2, "batch_size": 8, "lr": 0.01, "random_state": 0}


@pytest.fixture(scope="module")
def model():
    settings = {"embedding_dim": 6, "hidden_size": 5, "window": 16, "max_epochs": 2}
    return LSTMLanguageModel(random_state=0, **settings).fit([*TEXTS, "more words , unlabelled"])


@pytest.fixture
def path(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def weights_of(classifier):
    network = classifier.model_.network
    return {
        "embedding": network.embedding.weight,
        **{name: weight for name, weight in network.lstm.named_parameters()},
    }


def fitted(pretrained, **settings):
    return LSTMTextClassifier(pretrained=pretrained, **TINY | settings).fit(TEXTS, LABELS)


# The three starts, by themselves


def test_the_start_is_chosen_by_what_there_is(model):
    unfitted = LSTMTextClassifier(pretrained=model, **TINY)
    assert type(find_start(LSTMTextClassifier(), resume=True)) is Fresh
    assert type(find_start(unfitted, resume=True)) is Pretrained
    once = fitted(model)
    assert type(find_start(once, resume=False)) is Pretrained
    assert type(find_start(once, resume=True)) is Resumed


def test_a_fresh_start_knows_nothing_but_parameters():
    start = find_start(LSTMTextClassifier(hidden_size=7, random_state=3), resume=False)
    assert start.task is None and start.history == [] and start.moments == {}
    assert start.network_settings().hidden_size == 7
    assert start.network_settings().embedding_dim == 128  # what "auto" is without word vectors
    (rng, generator), (same, same_generator) = start.generators(), start.generators()
    assert rng.random() == same.random()
    assert torch.equal(generator.get_state(), same_generator.get_state())


def test_a_resumed_start_has_weights_masks_and_order_of_the_earlier_fit(model):
    earlier = fitted(model)
    start = find_start(earlier, resume=True)
    learnt = earlier.model_
    assert start.task is learnt.task and start.blend is learnt.blend
    assert start.network_settings() == learnt.network.settings
    n_ids = learnt.network.embedding.num_embeddings
    rng, generator = start.generators()
    assert rng is not learnt.rng and generator is not learnt.network.generator
    sizes = {"n_ids": n_ids, "n_outputs": 2, "pooling": learnt.network.settings.pooling}
    network = build_network(1, **sizes, embedding_dim=6, hidden_size=5)
    start.load_into(network)
    for (name, one), other in zip(
        network.named_parameters(), learnt.network.parameters(), strict=True
    ):
        assert torch.equal(one, other) and one is not other, name
    assert torch.equal(network.generator.get_state(), learnt.network.generator.get_state())
    assert rng.random() == copy.deepcopy(learnt.rng).random()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"hidden_size": 6},
            "hidden_size must stay 5, as in the fit that warm_start or partial_fit resumes; got 6. "
            "Use fit with warm_start=False to start anew.",
        ),
        (
            {"embeddings": {"good": np.ones(6)}},
            "embeddings must be given to the first fit; got them for a network that was fitted "
            "without. Use fit with warm_start=False to start anew.",
        ),
    ],
    ids=str,
)
def test_what_contradicts_the_earlier_fit_is_refused(settings, sentence):
    estimator = fitted(None, embedding_dim=6, hidden_size=5)
    with pytest.raises(ValueError) as caught:
        find_start(estimator.set_params(**settings), resume=True)
    assert str(caught.value) == sentence


def test_what_is_no_language_model_is_refused_by_a_fit_that_resumes_too():
    estimator = fitted(None, embedding_dim=6, hidden_size=5).set_params(pretrained=3)
    with pytest.raises(TypeError, match="path of one that was saved; got int."):
        estimator.partial_fit(TEXTS, LABELS)


# Classifiers that start from a language model


def test_the_classifier_starts_exactly_from_the_model(model):
    still = fitted(model, lr=1e-30, ema=None, max_epochs=1, early_stopping=False)
    own = {"embedding": model.network_.embedding.weight}
    own |= dict(model.network_.lstm.named_parameters())
    assert weights_of(still).keys() == own.keys()
    for name, weight in weights_of(still).items():
        assert torch.equal(weight, own[name]), name
    assert still.vectorizer_.vocabulary_ == model.vectorizer_.vocabulary_
    assert "unlabelled" in still.vectorizer_.vocabulary_
    assert still.get_params()["hidden_size"] == 128  # no parameter was changed


@pytest.mark.parametrize("wrap", ["model", "frozen", "path", "str"])
def test_models_files_and_frozen_models_are_the_same(model, path, wrap):
    given = {"model": model, "frozen": FrozenEstimator(model), "path": path, "str": str(path)}
    p = fitted(given[wrap]).predict_proba(TEXTS)
    np.testing.assert_array_equal(p, fitted(model).predict_proba(TEXTS))


def test_a_fit_changes_neither_the_model_nor_its_vectorizer(model):
    before = copy.deepcopy(model)
    fitted(model, vectorizer=SequenceVectorizer(max_length=3), lr=0.1)
    assert model.score(TEXTS) == before.score(TEXTS)
    assert model.vectorizer_.max_length == 256


class Rates(Callback):
    """Notes the learning rates and the decays that the optimiser has at the end."""

    def on_train_end(self, net, **kwargs):
        groups = net.optimizer_.param_groups
        self.seen_ = {(round(group["lr"], 9), group["weight_decay"]) for group in groups}


def rates_of(classifier):
    return dict(classifier.model_.callbacks)["rates"].seen_


def test_weights_of_the_model_may_learn_more_slowly(model):
    slow = {
        "lr_schedule": None,
        "lr": 0.5,
        "layer_lr_decay": 0.3,
        "callbacks": [("rates", Rates())],
    }
    expected = {(0.5, 0.0), (0.5, 0.01), (0.15, 0.0), (0.15, 0.01), (0.045, 0.01)}
    estimator = fitted(model, **slow)
    assert rates_of(estimator) == expected
    assert rates_of(estimator.partial_fit(TEXTS, LABELS)) == expected
    assert rates_of(fitted(None, **slow)) == expected  # a rate needs nothing learnt before
    assert rates_of(fitted(model, **slow | {"layer_lr_decay": 1.0})) == {(0.5, 0.0), (0.5, 0.01)}


class Trained(Callback):
    """Notes in each epoch which weights are trained."""

    def on_train_begin(self, net, **kwargs):
        self.epochs_ = []

    def on_batch_begin(self, net, **kwargs):
        parts = {n.split(".")[0] for n, p in net.module_.named_parameters() if p.requires_grad}
        if not self.epochs_ or self.epochs_[-1] != parts:
            self.epochs_.append(parts)


def trained_parts(classifier):
    return dict(classifier.model_.callbacks)["trained"].epochs_


GRADUAL = {"gradual_unfreezing": True, "max_epochs": 4, "callbacks": [("trained", Trained())]}
ALL = {"head", "lstm", "embedding"}


def test_a_model_unfreezes_from_the_head_down(model):
    assert trained_parts(fitted(model, **GRADUAL)) == [{"head"}, {"head", "lstm"}, ALL]
    frozen = fitted(model, **GRADUAL | {"freeze_embeddings": True, "max_epochs": 2})
    assert trained_parts(frozen) == [{"head"}, {"head", "lstm"}]
    assert torch.equal(frozen.model_.network.embedding.weight, model.network_.embedding.weight)
    vectors = fitted(None, embeddings={"good": np.ones(6)}, num_layers=2, **GRADUAL)
    assert trained_parts(vectors) == [{"head"}, {"head", "lstm"}, ALL]


def test_early_stopping_and_automatic_epochs_wait_until_all_is_trained(model, monkeypatch):
    gradual = GRADUAL | {"max_epochs": "auto"}
    validated = {"validation_fraction": 0.3, "n_iter_no_change": 1, "ema": None}
    stopped = fitted(model, **gradual | validated | {"lr": 1e-30})
    assert stopped.n_iter_ == 4  # the third epoch is the first to count
    monkeypatch.setattr("sklstm.training.schedule.AUTO_UPDATES", 1)
    assert fitted(model, **gradual, early_stopping=False).n_iter_ == 5
    assert fitted(model, max_epochs="auto", early_stopping=False).n_iter_ == 3


def test_resuming_trains_all_at_once(model):
    estimator = fitted(model, warm_start=True, **GRADUAL)
    assert trained_parts(estimator.set_params(max_epochs=1).fit(TEXTS, LABELS)) == [ALL]
    assert trained_parts(estimator.partial_fit(TEXTS, LABELS)) == [ALL]
    anew = clone(estimator).partial_fit(TEXTS, LABELS, classes=["neg", "pos"])
    assert trained_parts(anew) == [ALL]


@pytest.mark.parametrize("settings", [{}, {"adversarial": 0.02, "virtual_adversarial": 0.02}])
def test_unfreezing_is_repeatable_and_kept_by_clones_and_pickles(model, settings):
    estimator = fitted(model, **GRADUAL | {"layer_lr_decay": 0.4}, **settings)
    assert estimator.get_params()["layer_lr_decay"] == 0.4
    assert estimator.get_params()["gradual_unfreezing"] is True
    p = estimator.predict_proba(TEXTS)
    again = clone(estimator).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), p)
    copied = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(copied.predict_proba(TEXTS), p)
    for each in (copied, estimator):
        each.partial_fit(TEXTS, LABELS)
    np.testing.assert_array_equal(copied.predict_proba(TEXTS), estimator.predict_proba(TEXTS))
    assert abs(p - fitted(model, max_epochs=4, **settings).predict_proba(TEXTS)).max() > 1e-6


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"pretrained": None, "gradual_unfreezing": True},
            "gradual_unfreezing=True needs weights that have learnt before; got pretrained=None "
            "and embeddings=None. Give one of them, or set gradual_unfreezing=False.",
        ),
        (
            {"gradual_unfreezing": True},
            "max_epochs must be at least 3 with gradual_unfreezing=True, which unfreezes one layer "
            "an epoch; got 2. Raise it, or set gradual_unfreezing=False.",
        ),
        (
            {"gradual_unfreezing": True, "freeze_embeddings": True, "max_epochs": 1},
            "max_epochs must be at least 2 with",
        ),
        ({"gradual_unfreezing": "yes"}, "The 'gradual_unfreezing' parameter of LSTMTextClass"),
        ({"layer_lr_decay": 0.0}, "The 'layer_lr_decay' parameter of LSTMTextClassifier must be"),
        ({"layer_lr_decay": 2.6}, "The 'layer_lr_decay' parameter of LSTMTextClassifier must be"),
    ],
    ids=str,
)
def test_what_cannot_unfreeze_is_refused_and_loses_nothing(model, settings, sentence):
    estimator = fitted(model)
    before, source = estimator.predict_proba(TEXTS), np.random.RandomState(0)
    with pytest.raises(ValueError) as caught:
        estimator.set_params(**settings, random_state=source).fit(TEXTS, LABELS)
    assert sentence in str(caught.value)
    np.testing.assert_array_equal(estimator.predict_proba(TEXTS), before)
    assert source.randint(10**9) == np.random.RandomState(0).randint(10**9)


def test_a_clone_starts_from_the_same_model(model):
    estimator = LSTMTextClassifier(pretrained=model, **TINY)
    twin = clone(estimator)
    assert twin is not estimator and twin.pretrained is model
    p = twin.fit(TEXTS, LABELS).predict_proba(TEXTS)
    np.testing.assert_array_equal(p, fitted(model).predict_proba(TEXTS))


def test_searches_and_cross_validation_start_from_the_model(model, path):
    estimator = LSTMTextClassifier(pretrained=model, **TINY)
    scores = cross_val_score(estimator, TEXTS, LABELS, cv=2, error_score="raise")
    assert len(scores) == 2
    grid = {"lr": [1e-30], "pretrained": [None, str(path), FrozenEstimator(model)]}
    search = GridSearchCV(estimator.set_params(ema=None), grid, cv=2, error_score="raise")
    search.fit(TEXTS, LABELS)
    search = GridSearchCV(estimator, {"lr": [1e-30]}, cv=2, error_score="raise").fit(TEXTS, LABELS)
    found = weights_of(search.best_estimator_)["embedding"]
    assert torch.equal(found, model.network_.embedding.weight)


def test_how_much_is_read_of_a_text_is_the_classifiers(model):
    short = fitted(model, vectorizer=SequenceVectorizer(max_length=2, keep="tail"))
    p = short.predict_proba(["bad good film", "dull good film", "good film bad"])
    np.testing.assert_allclose(p[0], p[1], atol=1e-6)
    assert abs(p[0] - p[2]).max() > 1e-6
    set_later = LSTMTextClassifier(pretrained=model).set_params(vectorizer__max_length=2)
    assert set_later.fit(TEXTS, LABELS).vectorizer_.max_length == 2


@pytest.mark.parametrize(
    ("settings", "keep", "expected"),
    [
        ({"pooling": "last", "bidirectional": False}, "auto", "tail"),
        ({"pooling": ("last",), "bidirectional": False}, "auto", "tail"),
        ({"pooling": "last", "bidirectional": False}, "head", "head"),
        ({"pooling": ("last", "max"), "bidirectional": False}, "auto", "both"),
        ({"pooling": "last"}, "auto", "both"),
        ({}, "auto", "both"),
    ],
)
def test_the_end_is_kept_where_only_the_last_state_is_read(settings, keep, expected):
    given = SequenceVectorizer(keep=keep)
    clf = LSTMTextClassifier(**TINY | settings, vectorizer=given).fit(TEXTS, LABELS)
    assert (given.keep, clf.vectorizer_.keep) == (keep, expected)
    assert clf.fit(TEXTS, LABELS).vectorizer_.keep == expected


def test_the_end_is_kept_of_a_language_model_of_one_direction(model):
    assert (
        LSTMTextClassifier(**TINY, pretrained=model).fit(TEXTS, LABELS).vectorizer_.keep == "both"
    )
    one_way = LSTMLanguageModel(bidirectional=False, hidden_size=5, max_epochs=1).fit(TEXTS)
    clf = LSTMTextClassifier(**TINY, pretrained=one_way, pooling="last")
    assert clf.fit(TEXTS, LABELS).vectorizer_.keep == "tail"
    assert one_way.vectorizer_.keep == "auto"


def test_resuming_keeps_what_was_learnt(model):
    first = fitted(model, warm_start=True)
    before = {name: weight.clone() for name, weight in weights_of(first).items()}
    first.set_params(lr=1e-30, ema=None, early_stopping=False).fit(TEXTS, LABELS)
    assert torch.allclose(weights_of(first)["embedding"], before["embedding"], atol=1e-5)
    assert not torch.equal(weights_of(first)["embedding"], model.network_.embedding.weight)


def test_partial_fit_starts_from_the_model_and_resumes(model):
    estimator = LSTMTextClassifier(pretrained=model, **TINY | {"lr": 1e-30})
    estimator.partial_fit(TEXTS, LABELS, classes=["neg", "pos"])
    assert torch.equal(weights_of(estimator)["embedding"], model.network_.embedding.weight)
    estimator.set_params(lr=0.01).partial_fit(TEXTS, LABELS)
    estimator.partial_fit(TEXTS, LABELS)
    assert estimator.n_iter_ == 3


def test_a_fitted_classifier_pickles(model):
    estimator = fitted(model)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), estimator.predict_proba(TEXTS))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"hidden_size": 64},
            "hidden_size is the language model's, 5, where pretrained is given; ",
        ),
        ({"embedding_dim": 7}, "embedding_dim is the language model's, 6, where"),
        (
            {"cell": "peephole"},
            "cell is the language model's, 'lstm', where .* got 'peephole'. Lea",
        ),
        (
            {"vectorizer": SequenceVectorizer(min_df=2, max_length=5)},
            "vectorizer may differ from the language model's in max_length and keep only, where "
            "pretrained is given; got another min_df. Leave it out, or fit",
        ),
        (
            {"pretrained": LSTMLanguageModel()},
            "must be a fitted LSTMLanguageModel; got one that is",
        ),
        (
            {"pretrained": "absent"},
            "pretrained='absent' must be a file that LSTM",
        ),
        (
            {"pretrained": FrozenEstimator(SequenceVectorizer())},
            "a FrozenEstimator of one or the path of one that was saved; got SequenceVectorizer.",
        ),
        ({"pretrained": 3}, "path of one that was saved; got int."),
    ],
    ids=str,
)
def test_contradictions_are_refused_and_lose_nothing(model, settings, sentence):
    estimator = fitted(model)
    before = estimator.predict_proba(TEXTS)
    errors = (ValueError, TypeError, NotFittedError, FileNotFoundError)
    with pytest.raises(errors, match=sentence):
        estimator.set_params(**settings).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(estimator.predict_proba(TEXTS), before)


def test_sizes_that_agree_may_be_given(model):
    assert fitted(model, hidden_size=5, embedding_dim=6).model_.network.lstm.hidden_size == 5


def test_a_vectorizer_of_another_class_is_refused(model):
    class Own(SequenceVectorizer):
        pass

    with pytest.raises(ValueError, match="got another class. Leave it out"):
        fitted(model, vectorizer=Own())


@pytest.mark.parametrize(
    ("words", "others"),
    [
        (np.array(["good", "bad", "film"]), np.array(["film", "bad", "good"])),
        (pd.Series(["good", "bad", "film"]), pd.Series(["good", "bad"])),
        (UserDict(good=2, bad=3, film=4), UserDict(good=4, bad=3, film=2)),
    ],
)
def test_a_vocabulary_may_be_of_any_kind(words, others):
    vectorizer = SequenceVectorizer(vocabulary=words)
    model = LSTMLanguageModel(vectorizer=vectorizer, hidden_size=5, max_epochs=1).fit(TEXTS)
    same = SequenceVectorizer(vocabulary=copy.copy(words), max_length=2)
    assert fitted(model, vectorizer=same).vectorizer_.max_length == 2
    with pytest.raises(ValueError, match="got another vocabulary"):
        fitted(model, vectorizer=SequenceVectorizer(vocabulary=others))


def test_word_vectors_together_with_it_are_refused_and_its_embedding_may_be_frozen(model):
    with pytest.raises(ValueError, match="embeddings and pretrained cannot be given together"):
        fitted(model, embeddings={"good": np.ones(6)})
    frozen = fitted(model, freeze_embeddings=True)
    assert torch.equal(frozen.model_.network.embedding.weight, model.network_.embedding.weight)


def test_the_member_has_the_tokens_of_the_language_model():
    by_characters = SequenceVectorizer(analyzer="char")
    model = LSTMLanguageModel(vectorizer=by_characters, embedding_dim=6, hidden_size=5)
    model.set_params(max_epochs=1, random_state=0).fit(TEXTS)
    tokens = fitted(model, blend="ngrams").member_[0].token_places_
    assert tokens and all(len(token) == 1 for token in tokens)


@pytest.mark.parametrize("first", ["with", "without"])
def test_partial_fit_keeps_its_moments_where_the_language_model_comes_or_goes(model, first):
    sizes = {"embedding_dim": 6, "hidden_size": 5}
    changing = LSTMTextClassifier(**TINY | sizes, pretrained=model if first == "with" else None)
    changing.partial_fit(TEXTS, LABELS, classes=["neg", "pos"])
    same = copy.deepcopy(changing).partial_fit(TEXTS, LABELS)
    changing.set_params(pretrained=None if first == "with" else model).partial_fit(TEXTS, LABELS)
    np.testing.assert_array_equal(changing.predict_proba(TEXTS), same.predict_proba(TEXTS))
