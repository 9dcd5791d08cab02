"""LSTMTextClassifier by use: what it promises, and what it says when it is used wrongly."""

import pickle
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EarlyStopping

from sklstm import LSTMTextClassifier, SequenceVectorizer
from sklstm.kernels.cells import CELLS
from sklstm.model import prediction
from tests.conftest import LABELS, TEXTS, TINY, UNUSUAL, distinct, refuse, word_order

# What it promises


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention", "embedding_mean"])
@pytest.mark.parametrize("attention", [None, "dot"])
@pytest.mark.parametrize("backend", ["aten", "reference", "torch"])
def test_probabilities_do_not_depend_on_other_texts(texts, labels, pooling, attention, backend):
    model = LSTMTextClassifier(
        **(TINY | {"max_epochs": 1}),
        vectorizer=SequenceVectorizer(max_length=None),
        pooling=pooling,
        attention=attention,
        backend=backend,
        num_layers=2,
    ).fit(texts, labels)
    mixed = [*UNUSUAL[:5], *TEXTS, "good " * 50, *UNUSUAL[6:]]
    together = model.predict_proba(mixed)
    order = np.random.default_rng(0).permutation(len(mixed))
    shuffled = model.predict_proba([mixed[k] for k in order])
    one_by_one = np.vstack([model.predict_proba([text]) for text in mixed])
    np.testing.assert_allclose(shuffled, together[order], rtol=0, atol=1e-6)
    np.testing.assert_allclose(one_by_one, together, rtol=0, atol=1e-6)
    assert len(np.unique(together.round(6), axis=0)) > 5


METHODS = ["predict", "predict_proba", "predict_log_proba", "decision_function", "transform"]


@pytest.mark.parametrize("method", METHODS)
def test_predictions_in_chunks_are_those_of_all_texts_at_once(monkeypatch, fitted, method):
    mixed = [*UNUSUAL, *TEXTS]
    together = getattr(fitted, method)(mixed)
    monkeypatch.setattr(prediction, "TEXTS_PER_CHUNK", 5)
    in_chunks = getattr(fitted, method)(mixed)
    assert in_chunks.dtype == together.dtype
    if method == "predict":
        assert in_chunks.tolist() == together.tolist()
    else:
        np.testing.assert_allclose(in_chunks, together, rtol=0, atol=1e-6)


def test_no_work_starts_before_the_last_text_is_checked(monkeypatch, fitted):
    monkeypatch.setattr(prediction, "TEXTS_PER_CHUNK", 2)
    monkeypatch.setattr(fitted.vectorizer_, "transform_ragged", pytest.fail)
    with pytest.raises(TypeError, match=r"X\[10\] must be a str; got None"):
        fitted.predict([*TEXTS, None])


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_learns_and_is_repeatable_and_pickled(tiny, texts, labels, cell):
    tiny.set_params(cell=cell, lr=0.05, zoneout=0.1, recurrent_dropout=0.1, num_layers=2)
    model = tiny.fit(texts, labels)
    assert model.score(texts, labels) >= 0.8
    probabilities = model.predict_proba(UNUSUAL)
    one_by_one = np.vstack([model.predict_proba([text]) for text in UNUSUAL])
    np.testing.assert_allclose(one_by_one, probabilities, rtol=0, atol=1e-6)
    first, second = (clone(tiny).set_params(max_epochs=2).fit(texts, labels) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(UNUSUAL), second.predict_proba(UNUSUAL))
    back = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(back.predict_proba(UNUSUAL), probabilities)


def test_cells_differ_and_can_be_searched(tiny, texts, labels):
    grid = {"cell": sorted(CELLS)}
    search = GridSearchCV(tiny, grid, cv=2, scoring="neg_log_loss", refit=False)
    tiny.set_params(max_epochs=2)
    search.fit(texts, labels)
    assert len(set(search.cv_results_["mean_test_score"])) == len(CELLS)


def test_learns_what_a_bag_of_words_cannot():
    texts, negated = word_order(300)
    changes = {"hidden_size": 16, "batch_size": 20, "lr": 0.04, "max_epochs": 8}
    model = LSTMTextClassifier(**(TINY | changes)).fit(texts[:200], negated[:200])
    assert model.score(texts[200:], negated[200:]) > 0.95


def test_probabilities_add_up_and_agree_with_each_other(fitted, texts):
    probabilities = fitted.predict_proba(texts)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(texts)), probabilities)
    decision = fitted.decision_function(texts)
    np.testing.assert_allclose(1 / (1 + np.exp(-decision)), probabilities[:, 1], atol=1e-12)
    assert (fitted.predict(texts) == fitted.classes_[(decision > 0).astype(int)]).all()


def test_three_classes(tiny, texts):
    labels = np.array(["a", "b", "c", "a", "b", "c", "a", "b", "c", "a"] * 4)
    model = tiny.set_params(lr=0.05).fit(texts, labels)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.decision_function(texts).shape == (40, 3)
    assert model.score(texts, labels) > 0.6


def test_unusual_texts_get_probabilities(fitted):
    probabilities = fitted.predict_proba([*UNUSUAL, "good " * 1_000_000])
    assert np.isfinite(probabilities).all()
    # Without a single known token they are the same text.
    np.testing.assert_allclose(probabilities[[1, 3, 6]], probabilities[[0, 0, 0]], atol=1e-6)


def test_unusual_texts_can_be_trained_on(tiny):
    model = tiny.fit(UNUSUAL * 2, list("abcdefgh") * 2)
    assert np.isfinite(model.predict_proba(UNUSUAL)).all()


DROPOUTS = ["input_dropout", "recurrent_dropout", "weight_dropout", "zoneout"]


@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropouts_of_the_lstm_learn_and_repeat(tiny, texts, labels, kind):
    tiny.set_params(**{kind: 0.2}, lr=0.05)
    assert clone(tiny).fit(texts, labels).score(texts, labels) >= 0.8
    tiny.set_params(max_epochs=2)
    losses = clone(tiny).fit(texts, labels).loss_curve_
    assert clone(tiny).fit(texts, labels).loss_curve_ == losses
    assert clone(tiny).set_params(**{kind: 0.0}).fit(texts, labels).loss_curve_ != losses


def test_fitting_twice_is_fitting_once(tiny, texts, labels):
    tiny.set_params(max_epochs=3)
    first = tiny.fit(texts, labels).predict_proba(texts)
    second = tiny.fit(texts, labels).predict_proba(texts)
    np.testing.assert_array_equal(first, second)


def test_seeds_matter_and_repeat(tiny, texts, labels):
    tiny.set_params(max_epochs=3)

    def fit(seed):
        return clone(tiny).set_params(random_state=seed).fit(texts, labels).predict_proba(texts)

    np.testing.assert_array_equal(fit(1), fit(1))
    np.testing.assert_array_equal(fit(np.random.RandomState(1)), fit(np.random.RandomState(1)))
    assert np.abs(fit(1) - fit(2)).max() > 1e-3


def test_global_random_states_are_untouched(texts, labels):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002  the global state is what is under test
    before_torch, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = LSTMTextClassifier(random_state=0, max_epochs=1).fit(texts, labels)
    model.partial_fit(texts, labels).predict_proba(texts)
    assert torch.equal(torch.get_rng_state(), before_torch)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002


def test_without_random_state_numpys_global_seed_decides(tiny, texts, labels):
    tiny.set_params(max_epochs=3)

    def fit():
        np.random.seed(5)  # noqa: NPY002  the global state is what is under test
        model = clone(tiny).set_params(random_state=None).fit(texts, labels)
        return model.predict_proba(texts), np.random.random()  # noqa: NPY002

    (first, after), (second, _) = fit(), fit()
    np.testing.assert_array_equal(first, second)
    np.random.seed(5)  # noqa: NPY002
    np.random.randint(np.iinfo(np.int32).max)  # noqa: NPY002  the one draw
    assert np.random.random() == after  # noqa: NPY002


def test_unit_weights_equal_no_weights(tiny, texts, labels):
    without = tiny.set_params(max_epochs=3).fit(texts, labels).predict_proba(texts)
    for weights in (np.ones(len(texts)), np.full(len(texts), 7.0)):
        weighted = tiny.fit(texts, labels, sample_weight=weights).predict_proba(texts)
        np.testing.assert_array_equal(without, weighted)


def test_texts_of_weight_zero_might_as_well_be_missing(tiny, texts, labels):
    rows = np.arange(len(texts)) % 4 != 0
    weights = rows.astype(float)
    some = [text for text, row in zip(texts, rows, strict=True) if row]
    zero = tiny.fit(
        [t if r else "unseen word" for t, r in zip(texts, rows, strict=True)], labels, weights
    )
    expected = clone(tiny).fit(some, labels[rows])
    assert zero.vectorizer_.vocabulary_ == expected.vectorizer_.vocabulary_
    np.testing.assert_array_equal(zero.predict_proba(texts), expected.predict_proba(texts))


def test_weights_change_the_prediction(tiny):
    texts, labels = ["same text"] * 40, ["a", "b"] * 20
    weights = np.where(np.array(labels) == "a", 9.0, 1.0)
    for arguments, parameters in (
        ({"sample_weight": weights}, {}),
        ({}, {"class_weight": {"a": 9.0, "b": 1.0}}),
    ):
        model = clone(tiny).set_params(max_epochs=15, lr=0.05, label_smoothing=0.0, **parameters)
        model.fit(texts, labels, **arguments)
        assert model.predict_proba(["same text"])[0, 0] == pytest.approx(0.9, abs=0.05)


def test_weights_of_classes_come_from_the_texts_that_count(tiny, texts, labels):
    weights = (np.arange(len(texts)) % 4 != 0).astype(float)
    some = np.flatnonzero(weights)
    tiny.set_params(class_weight="balanced")
    with_zeros = clone(tiny).fit(texts, labels, weights)
    without = clone(tiny).fit([texts[k] for k in some], labels[some])
    np.testing.assert_array_equal(with_zeros.predict_proba(texts), without.predict_proba(texts))


def test_many_classes_in_few_texts_are_no_regression(tiny, texts):
    tiny.partial_fit(texts[:4], [0, 7, 9, 12], classes=range(30))
    tiny.fit(texts[:20], list(range(20)))


def test_balanced_classes_have_the_same_weight(tiny):
    texts, labels = ["same text"] * 40, ["a"] * 32 + ["b"] * 8
    model = tiny.set_params(class_weight="balanced", max_epochs=15, lr=0.05).fit(texts, labels)
    assert model.predict_proba(["same text"])[0, 0] == pytest.approx(0.5, abs=0.05)


def test_pickle_holds_the_weights_once(fitted):
    n_bytes = sum(4 * weight.numel() for weight in fitted.model_.network.parameters())
    assert len(pickle.dumps(fitted)) < n_bytes + 60_000


def test_threads_can_predict_with_one_estimator(texts, labels):
    model = LSTMTextClassifier(**(TINY | {"dropout": 0.5, "word_dropout": 0.5}))
    model.fit(texts, labels)
    expected = model.predict_proba(texts)
    answers = []

    def predict():
        answers.extend(model.predict_proba(texts) for _ in range(10))

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    for answer in answers:
        np.testing.assert_array_equal(answer, expected)


def test_fits_in_threads_do_not_disturb_each_other(tiny, texts, labels):
    tiny.set_params(max_epochs=3)
    expected = clone(tiny).fit(texts, labels).predict_proba(texts)
    models = [clone(tiny) for _ in range(3)]
    threads = [threading.Thread(target=model.fit, args=(texts, labels)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models:
        np.testing.assert_allclose(model.predict_proba(texts), expected, atol=1e-6)


# What it says


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"X": "text"}, "X must be a sequence of texts; got a single str"),
        ({"X": [*TEXTS[:9], None]}, r"X\[9\] must be a str; got None"),
        ({"y": LABELS[:9]}, "X and y must have the same length; got 10 texts and 9 labels"),
        ({"y": ["pos"] * 10}, "y must hold at least two classes; got one class: 'pos'"),
        ({"y": np.linspace(0, 1, 10)}, "y must hold classes; got continuous numbers"),
        ({"y": 2 * np.eye(10)}, "For numbers use LSTMTextRegressor"),
        ({"y": [["pos", "neg"]] * 10}, "MultiLabelBinarizer"),
        ({"sample_weight": "balanced"}, "use the parameter class_weight"),
        ({"sample_weight": [1] * 9}, "got 9 weights and 10 texts"),
        ({"sample_weight": [0] * 10}, "at least one weight above 0"),
        ({"X_val": TEXTS}, "X_val and y_val must be given together; got X_val only"),
        ({"y_val": LABELS}, "X_val and y_val must be given together; got y_val only"),
        ({"X_val": TEXTS, "y_val": ["odd"] * 10}, "y_val must hold the known classes"),
        ({"X_val": TEXTS, "y_val": LABELS[:9]}, "X_val and y_val must have the same length"),
        ({"X_val": "text", "y_val": LABELS}, "X_val must be a sequence of texts"),
    ],
)
def test_bad_input_keeps_an_earlier_fit(fitted, changes, match):
    before = fitted.predict_proba(TEXTS)
    refuse(match, fitted, **changes)
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), before)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"hidden_size": 0}, r"The 'hidden_size' parameter .* in the range \[1, inf\). Got 0"),
        ({"read_by": 64}, "The 'read_by' parameter .*'sentence'.* Got 64 instead"),
        ({"read_by": "line"}, "The 'read_by' parameter .* Got 'line' instead"),
        ({"embedding_dim": "wide"}, "The 'embedding_dim' parameter .* Got 'wide' instead"),
        ({"dropout": 1.0}, r"The 'dropout' parameter .* in the range \[0.0, 1.0\). Got 1.0"),
        (
            {"backend": "cuda"},
            "'backend' parameter .* must be a str among .* Got 'cuda' instead",
        ),
        ({"precision": "float16"}, "'precision' parameter .* must be a str among .* Got 'float16'"),
        ({"cell": "gru"}, "'cell' parameter .* must be a str among .* Got 'gru' instead"),
        ({"adversarial": 1.0}, r"'adversarial' parameter .* in the range \[0.0, 1.0\). Got 1.0"),
        ({"virtual_adversarial": -1}, r"'virtual_adversarial' parameter .* Got -1 instead"),
        ({"zoneout": 1.0}, r"'zoneout' parameter .* in the range \[0.0, 1.0\). Got 1.0"),
        ({"backend": "aten", "cell": "coupled"}, "backend='aten' has no cell 'coupled'"),
        (
            {"backend": "triton"},
            "backend='triton' (runs on CUDA cards; got .* on cpu|needs triton)",
        ),
        ({"lr_schedule": "step"}, "The 'lr_schedule' parameter .* Got 'step' instead"),
        ({"scoring": "log loss"}, "The 'scoring' parameter .* Got 'log loss' instead"),
        ({"class_weight": "equal"}, "The 'class_weight' parameter .* Got 'equal' instead"),
        ({"vectorizer": str.split}, "must be an instance of 'sklstm.text.vectorizer.Seq"),
        ({"pooling": ("max", "average")}, "pooling must name one or more of"),
        ({"class_weight": {"pos": -1}}, "class_weight must hold numbers of 0 or more"),
        (
            {"callbacks": [EarlyStopping(), 3]},
            r"callbacks\[1\] must be a callback of skorch.* got 3",
        ),
        ({"pooling": (["max"],)}, "pooling must name one or more of"),
        ({"backend": "aten", "recurrent_dropout": 0.1}, "backend='aten' has no recurrent dropout"),
        ({"device": "meta"}, "device='meta' must be a device that torch can compute on here"),
        ({"device": "gpu"}, "device must be 'auto' or a device of torch .* got 'gpu'"),
        ({"vectorizer": SequenceVectorizer(min_df=99)}, "No token occurs in at least min_df=99"),
        ({"vectorizer": SequenceVectorizer(keep="all")}, "The 'keep' parameter of SequenceV"),
    ],
)
def test_impossible_parameters_keep_an_earlier_fit(fitted, parameters, match):
    before = fitted.predict_proba(TEXTS)
    refuse(match, fitted.set_params(**parameters))
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none():
    refuse("device='cuda' needs a CUDA device", LSTMTextClassifier(device="cuda"))


def test_unknown_parameter_of_the_vectorizer(tiny):
    with pytest.raises(ValueError, match="Invalid parameter 'min_dff' for estimator SequenceVec"):
        tiny.set_params(vectorizer__min_dff=2)


@pytest.mark.parametrize(
    "method", ["predict", "predict_proba", "predict_log_proba", "decision_function", "transform"]
)
def test_before_fit(tiny, method):
    with pytest.raises(NotFittedError):
        getattr(tiny, method)(TEXTS)


@pytest.mark.parametrize(
    ("X", "match"), [("text", "got a single str"), ([], "X must hold at least one text")]
)
def test_bad_input_of_predict(fitted, X, match):
    with pytest.raises((TypeError, ValueError), match=match):
        fitted.predict(X)


def test_set_params_that_fails_changes_nothing(tiny):
    with pytest.raises(ValueError, match="Invalid parameter 'nope'"):
        tiny.set_params(vectorizer__nope=1)
    assert tiny.vectorizer is None
    tiny.set_params(vectorizer=SequenceVectorizer(min_df=3))
    tiny.set_params(vectorizer=None, vectorizer__max_df=7)
    assert (tiny.vectorizer.min_df, tiny.vectorizer.max_df) == ("auto", 7)


def test_validation_texts_that_do_not_count_are_refused(fitted):
    fitted.set_params(class_weight={"pos": 0.0})
    held = {"X_val": TEXTS[:5], "y_val": LABELS[:5]}
    refuse(r"a class whose class_weight is above 0; got \['pos'\] only", fitted, **held)


def test_a_fit_that_breaks_in_training_keeps_an_earlier_fit(fitted, texts, labels):
    class Break(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise RuntimeError("broken")

    before = fitted.predict_proba(texts)
    for method in (fitted.set_params(warm_start=True).fit, fitted.partial_fit):
        fitted.set_params(callbacks=[Break()])
        with pytest.raises(RuntimeError, match="broken"):
            method(texts, labels)
        np.testing.assert_array_equal(fitted.predict_proba(texts), before)


@pytest.mark.slow
def test_a_fresh_process_loads_and_predicts(fitted, tmp_path):
    """Five lines of a user, and neither triton nor CUDA is touched."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    program = textwrap.dedent(
        """
        import pickle, sys, torch
        model = pickle.load(open(sys.argv[1], "rb"))
        print(model.predict(["a good film", "a bad film"]).tolist())
        print("triton" in sys.modules, torch.cuda.is_initialized())
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model.pkl")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split("\n")[:2] == ["['pos', 'neg']", "False False"]


# Divergence


@pytest.mark.parametrize("lr", [1e20, np.float64(1e25)])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_a_rate_that_diverges_is_an_error(lr, early_stopping):
    texts, labels = distinct(120)
    clf = LSTMTextClassifier(**TINY).set_params(max_epochs=1, early_stopping=early_stopping)
    with pytest.raises(ValueError, match="Training diverged: .* Lower lr"):
        clf.set_params(lr=lr, batch_size=200).fit(texts, labels)
    assert not hasattr(clf, "model_")


def test_an_earlier_fit_outlives_a_divergence():
    texts, labels = distinct(120)
    clf = LSTMTextClassifier(**TINY).fit(texts, labels)
    expected = clf.predict_proba(texts)
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match="Training diverged"):
            getattr(clf.set_params(lr=1e20), method)(texts, labels)
        assert np.array_equal(clf.predict_proba(texts), expected)


def test_a_later_divergence_leaves_the_best_weights():
    class Explode(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 3:
                with torch.no_grad():
                    net.module_.head.weight.fill_(torch.inf)

    texts, labels = distinct(120)
    clf = LSTMTextClassifier(**TINY, callbacks=[("explode", Explode())])
    with pytest.warns(
        ConvergenceWarning, match="Training diverged: .* The best weights of the epochs"
    ):
        clf.fit(texts, labels)
    assert np.isfinite(clf.predict_proba(texts)).all()
    assert clf.n_iter_ == 2


def test_a_rate_beyond_float32_is_refused():
    texts, labels = distinct(20)
    with pytest.raises(ValueError, match="'lr' parameter .* must be a float in the range"):
        LSTMTextClassifier(**TINY).set_params(lr=1e38).fit(texts, labels)


def test_scoring_without_held_out_texts_warns():
    texts, labels = ["good film", "bad film"] * 20, ["pos", "neg"] * 20
    with pytest.warns(UserWarning, match="No texts could be held out of 40: .* scoring is without"):
        LSTMTextClassifier(**TINY, scoring="accuracy").fit(texts, labels)
