"""Integrated gradients: they add up, they are those of others, and nothing else changes."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from sklstm import LSTMTextClassifier, LSTMTextRegressor, SequenceVectorizer
from sklstm.kernels import available_backends
from sklstm.kernels.cells import CELLS
from sklstm.model import attribution
from sklstm.network.encoder import Embedded
from sklstm.network.pooling import POOLINGS
from sklstm.text.special_tokens import UNKNOWN
from tests.conftest import LABELS, TEXTS, TINY, UNUSUAL

ALL_TEXTS = TEXTS * 4
POSITIVE = np.array(LABELS * 4) == "pos"
FILM = np.array(["film" in text for text in ALL_TEXTS])
STARS = np.where(POSITIVE, 4.0, 1.0) + FILM
#: Of each kind of y an estimator, y, and the targets that can be explained.
TASKS = {
    "two classes": (LSTMTextClassifier, np.array(LABELS * 4), ["neg", "pos"]),
    "four classes": (LSTMTextClassifier, POSITIVE * 2 + FILM, [0, 1, 2, 3]),
    "label sets": (LSTMTextClassifier, np.column_stack([POSITIVE, FILM, ~FILM]) * 1, [0, 1, 2]),
    "numbers": (LSTMTextRegressor, STARS, [0]),
    "several numbers": (LSTMTextRegressor, np.column_stack([STARS, 1 - POSITIVE]), [0, 1]),
}
BLENDS = (None, "ngrams")
#: Short ones, so that slow backends are fast enough.
SHORT = [*TEXTS[:3], *(text for text in UNUSUAL if len(text) < 100)]
SOME = [*TEXTS[:3], "a dull film , but wonderful actors . not bad !", *UNUSUAL]


def fit(task="two classes", **settings):
    kind, y, _ = TASKS[task]
    return kind(**TINY | {"early_stopping": False, "max_epochs": 6} | settings).fit(ALL_TEXTS, y)


def numbers_to_explain(model, texts, target):
    """Return log-odds or numbers of a target, from the public predictions."""
    if isinstance(model, LSTMTextRegressor):
        return np.reshape(model.predict(texts), (len(texts), -1))[:, target]
    probabilities = model.predict_proba(texts)
    return logit(probabilities[:, model.classes_.tolist().index(target)])


def check_completeness(model, targets, texts=SOME, tolerance=1e-2):
    for target in targets:
        explanations = model.explain(texts, target)
        wanted = numbers_to_explain(model, texts, target)
        sums = [e.base + e.attributions.sum() for e in explanations]
        np.testing.assert_allclose(sums, wanted, rtol=0, atol=tolerance)
        np.testing.assert_allclose([e.value for e in explanations], wanted, rtol=0, atol=1e-6)
        assert {e.target for e in explanations} == {target}


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("task", TASKS)
def test_attributions_add_up_for_every_kind_of_y(task, blend):
    model = fit(task, blend=blend)
    check_completeness(model, TASKS[task][2])
    if blend is None:
        assert not any(e.ngrams.any() for e in model.explain(SOME, TASKS[task][2][0]))


@pytest.mark.parametrize(
    "settings",
    [
        *({"pooling": name} for name in POOLINGS),
        *({"cell": cell} for cell in CELLS),
        *({"backend": name} for name in available_backends()),
        {"attention": "dot"},
        {"num_layers": 2},
        {"bidirectional": False},
        {"read_by": "sentence"},
        {"read_by": "sentence", "pooling": "last"},
        {"zoneout": 0.1, "backend": "torch"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_attributions_add_up_for_every_network(settings):
    check_completeness(fit(**settings), ["pos"], texts=SHORT)


def test_attributions_add_up_with_a_temperature_and_fitted_weights():
    texts = [f"{text} {k}" for k in range(30) for text in TEXTS]
    settings = TINY | {"blend": "ngrams", "max_epochs": 3, "validation_fraction": 0.4}
    model = LSTMTextClassifier(**settings).fit(texts, LABELS * 30)
    assert model.temperature_ != 1.0 and model.blend_weights_ != (0.2, 0.8)
    check_completeness(model, ["neg", "pos"])


def test_attributions_add_up_after_partial_fit_and_with_a_class_that_the_member_lacks():
    model = LSTMTextClassifier(**TINY | {"blend": "ngrams"})
    model.partial_fit(ALL_TEXTS, LABELS * 4, classes=["neg", "none", "pos"])
    check_completeness(model, ["neg", "none", "pos"])
    model.fit(ALL_TEXTS, LABELS * 4)
    check_completeness(model, ["neg", "pos"])


def test_attributions_add_up_where_the_n_grams_are_sure(monkeypatch):
    """Below one in a million the member's probability is cut off, so that its slope jumps to 0."""
    model = fit("four classes", blend="ngrams")
    logistic = model.member_[-1].estimators_[0]
    logistic.coef_ *= 20
    model.member_[-1].estimators_[1].coef_ *= 20
    assert model.member_.predict_proba(TEXTS).min() < 1e-6
    check_completeness(model, [0, 1, 2, 3])


def fine_sums(model, text, target, n_points=400):
    """Return integrated gradients of the network by the plain definition, in float64."""
    network = copy.deepcopy(model.model_.network).double()
    ids, lengths = model.model_.encode([text]).pad(np.zeros(1, dtype=int))
    start = network.embedding(torch.where(ids > 0, UNKNOWN, 0)).detach()
    way = network.embedding(ids).detach() - start
    total, column = torch.zeros_like(way), model.classes_.tolist().index(target)
    for point in (np.arange(n_points) + 0.5) / n_points:
        vectors = (start + point * way).requires_grad_()
        outputs = network.classify(network.read(Embedded(vectors), ids, lengths))
        explained = outputs[0, column] - outputs[0, 1 - column]
        total += torch.autograd.grad(explained / model.temperature_, vectors)[0] / n_points
    return (total * way).sum(dim=2)[: int(lengths), 0].numpy()


@pytest.mark.parametrize("pooling", [("max", "mean", "embedding_mean"), "attention"])
def test_attributions_are_those_of_the_plain_definition(pooling):
    model, text = fit(backend="torch", pooling=pooling), SOME[3]
    (found,), wanted = model.explain([text], "pos"), fine_sums(model, text, "pos")
    np.testing.assert_allclose(found.attributions, wanted, rtol=5e-3, atol=2e-3)
    assert np.abs(found.attributions).max() > 0.1


def test_attributions_are_those_of_captum():
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    model, text = fit(precision="float32"), SOME[3]
    network = model.model_.network
    ids, lengths = model.model_.encode([text]).pad(np.zeros(1, dtype=int))
    start = network.embedding(torch.where(ids > 0, UNKNOWN, 0)).detach().transpose(0, 1)
    end = network.embedding(ids).detach().transpose(0, 1)

    def log_odds(vectors):  # captum's batches come first
        n = len(vectors)
        embedded = Embedded(vectors.transpose(0, 1).contiguous())
        outputs = network.classify(network.read(embedded, ids.expand(-1, n), lengths.expand(n)))
        return outputs[:, 1] - outputs[:, 0]

    wanted = captum.IntegratedGradients(log_odds).attribute(end, start, n_steps=500)
    (found,) = model.explain([text], "pos")
    wanted = wanted.sum(dim=2)[0, : int(lengths)].numpy()
    np.testing.assert_allclose(found.network, wanted, rtol=5e-3, atol=2e-3)


def test_attributions_of_a_linear_model_are_coefficient_times_feature():
    """A regressor's n-grams have one path, whatever its points: nothing is approximate."""
    model = fit("numbers", blend="ngrams")
    weight = model.blend_weights_[1]
    ngrams, ridge = (step for _, step in model.member_.steps)
    features = ngrams.transform(TEXTS).toarray()
    wanted = weight * (features @ ridge.coef_[0]) * ridge.scale_[0]
    found = [explanation.ngrams.sum() for explanation in model.explain(TEXTS)]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_target_is_the_prediction_unless_it_is_given():
    model = fit("four classes")
    explanations = model.explain(TEXTS)
    assert [e.target for e in explanations] == model.predict(TEXTS).tolist()
    probabilities = model.predict_proba(TEXTS).max(axis=1)
    np.testing.assert_allclose([e.probability for e in explanations], probabilities, atol=1e-9)
    sets = fit("label sets")
    most = sets.predict_proba(TEXTS).argmax(axis=1)
    assert [e.target for e in sets.explain(TEXTS)] == most.tolist()
    numbers = fit("numbers").explain(TEXTS)
    assert {(e.target, e.probability) for e in numbers} == {(0, None)}


def test_a_word_that_decides_has_the_largest_attribution():
    model = LSTMTextClassifier(**TINY).fit(ALL_TEXTS, LABELS * 4)
    (explanation,) = model.explain(["the evening was wonderful , people said"], "pos")
    assert explanation.top(1)[0][0] == "wonderful"
    (against,) = model.explain([explanation.text], "neg")
    np.testing.assert_allclose(against.attributions, -explanation.attributions, atol=5e-3)


def test_texts_do_not_depend_on_each_other(monkeypatch):
    model = fit(blend="ngrams")
    together = model.explain(SOME)
    monkeypatch.setattr(attribution, "TEXTS_PER_CHUNK", 3)
    monkeypatch.setattr(attribution, "STEPS_PER_BATCH", 100)
    for text, explanation in zip(SOME, together, strict=True):
        (alone,) = model.explain([text])
        np.testing.assert_allclose(alone.attributions, explanation.attributions, atol=1e-4)
    in_chunks = model.explain(SOME)
    assert [e.text for e in in_chunks] == SOME
    for one, other in zip(in_chunks, together, strict=True):
        np.testing.assert_allclose(one.attributions, other.attributions, atol=1e-4)


def test_an_empty_text_and_unknown_tokens_get_nothing_from_the_network():
    model = fit(blend="ngrams")
    empty, unknown = model.explain(["", "zzz qqq"])
    assert empty.tokens == [] and empty.attributions.shape == (0,)
    assert empty.base == pytest.approx(empty.value, abs=1e-6)
    assert unknown.tokens == ["zzz", "qqq"] and not unknown.network.any()


def test_tokens_that_max_length_leaves_out_keep_their_n_grams():
    vectorizer = SequenceVectorizer(max_length=4)
    model = fit(blend="ngrams", vectorizer=vectorizer)
    text = "the plot of it was so dull and bad and the actors good"
    (explanation,) = model.explain([text])
    assert explanation.tokens == text.split()
    read = model.vectorizer_.tokenize([text])[0]
    kept = [0, 10, 11, 12]  # one from the beginning and three from the end
    assert [explanation.tokens[k] for k in kept] == read
    assert not np.delete(explanation.network, kept).any() and explanation.network[-1] != 0
    assert explanation.ngrams[explanation.tokens.index("dull")] != 0
    assert model.vectorizer_.max_length == 4
    check_completeness(model, ["pos"], texts=[text])


def test_sentences_have_the_sums_of_their_tokens():
    model = fit(blend="ngrams", read_by="sentence")
    text = 'A good film. "Dull," he said! Not bad'
    (explanation, empty) = model.explain([text, ""])
    spans = [sentence.span for sentence in explanation.sentences]
    assert [text[slice(*span)] for span in spans] == ["A good film.", '"Dull," he said!', "Not bad"]
    sums = [sentence.attribution for sentence in explanation.sentences]
    assert sum(sums) == pytest.approx(explanation.attributions.sum())
    assert [t for s in explanation.sentences for t in s.tokens] == explanation.tokens
    assert sum(s.attribution for s in empty.sentences) == 0
    assert fit().explain([text])[0].sentences is None


def test_spans_are_none_where_a_function_hides_them():
    model = fit(vectorizer=SequenceVectorizer(analyzer=str.split), blend="ngrams")
    (explanation,) = model.explain(["a good film"])
    assert explanation.spans == [None] * 3 and explanation.tokens == ["a", "good", "film"]


def test_nothing_changes_and_no_gradient_is_left():
    model = fit(blend="ngrams")
    before, state = model.predict_proba(TEXTS), torch.get_rng_state()
    wanted = model.explain(TEXTS)
    with torch.no_grad():
        others = model.explain(TEXTS)
    with torch.inference_mode():
        more = model.explain(TEXTS)
    for one, two, three in zip(wanted, others, more, strict=True):
        np.testing.assert_array_equal(one.attributions, two.attributions)
        np.testing.assert_array_equal(one.attributions, three.attributions)
    assert all(p.grad is None and p.requires_grad for p in model.model_.network.parameters())
    assert not model.model_.network.training
    np.testing.assert_array_equal(model.predict_proba(TEXTS), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_ordinary_texts_need_no_steps(monkeypatch):
    monkeypatch.setattr(attribution, "divide_step", None)
    check_completeness(fit(), ["pos"], texts=[*TEXTS, SOME[3], "", "zzz"])


def test_a_step_is_divided_among_the_tokens_that_make_it():
    """A word repeated 256 times takes the LSTM from one state to another within one float."""
    model, text = fit(), "good " * 1000
    (explanation,) = model.explain([text], "pos")
    error = explanation.base + explanation.attributions.sum() - explanation.value
    assert abs(error) < 1e-2
    assert not explanation.attributions[96:-160].any()  # not read
    np.testing.assert_allclose(attribution.divide_step(2.0, np.array([1.0, -3.0])), [0.5, 1.5])
    np.testing.assert_allclose(attribution.divide_step(2.0, np.zeros(2)), [1.0, 1.0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_attributions_add_up_in_either_precision(precision):
    """bfloat16 has three digits: what is lost is in proportion to the number explained."""
    model = fit(precision=precision)
    tolerance = 1e-2 if precision == "float32" else 5e-2
    check_completeness(model, ["pos"], texts=TEXTS, tolerance=tolerance)


def test_probability_belongs_to_the_value():
    (explanation,) = fit(blend="ngrams").explain([TEXTS[0]])
    assert explanation.probability == pytest.approx(expit(explanation.value))
