"""What held-out texts say of a network."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, make_scorer, roc_auc_score

from sklstm.model.prediction import compute_outputs, sum_log_likelihoods
from sklstm.model.validation import LanguageValidation, Validation
from sklstm.text.batching import RaggedIds
from sklstm.text.examples import Examples
from sklstm.text.windows import add_both_boundaries
from tests.builders import build_language_network, build_network, make_ragged, make_task


def validation(scoring=None, n_classes=2, n_texts=60, targets=None, weights=None):
    ids = np.random.default_rng(0).integers(3, 20, size=3 * n_texts).astype(np.int32)
    return Validation(
        Examples(
            [f"text {k}" for k in range(n_texts)],
            np.arange(n_texts) % n_classes if targets is None else targets,
            np.ones(n_texts) if weights is None else weights,
        ),
        RaggedIds(ids, np.arange(0, 3 * n_texts + 1, 3)),
        task=make_task(n_classes),
        scoring=scoring,
    )


@pytest.mark.parametrize("scoring", ["accuracy", "roc_auc", "neg_log_loss", "balanced_accuracy"])
def test_scorers_of_two_classes(scoring):
    network = build_network(n_outputs=2)
    result = validation("accuracy").evaluate(network)
    assert result["valid_score"] == pytest.approx(result["valid_accuracy"])
    by_scorer = validation(scoring)
    result = by_scorer.evaluate(network)
    assert np.isfinite(result["valid_score"])
    assert by_scorer.monitor == "valid_score"
    if scoring == "neg_log_loss":
        assert result["valid_score"] == pytest.approx(-result["valid_loss"])


def test_scorers_of_three_classes():
    scorer = make_scorer(roc_auc_score, response_method="predict_proba", multi_class="ovr")
    for scoring in ("f1_macro", scorer):
        result = validation(scoring, n_classes=3).evaluate(build_network())
        assert 0 <= result["valid_score"] <= 1


def test_without_a_scorer_the_log_loss_is_watched():
    by_loss = validation()
    assert by_loss.monitor == "valid_loss"
    result = by_loss.evaluate(build_network(n_outputs=2))
    assert set(result) == {"valid_loss", "valid_accuracy"}


def test_weights_of_the_texts_count():
    network = build_network(n_outputs=2)
    weights = np.random.default_rng(1).random(60)
    weighted = validation(weights=weights)
    outputs, targets = weighted.outputs(network), weighted.examples.targets
    np.testing.assert_array_equal(outputs, compute_outputs(network, weighted.ids))
    result = weighted.evaluate(network)
    losses = make_task(2).losses(outputs, targets)
    assert result["valid_loss"] == pytest.approx((weights * losses).sum() / weights.sum())
    right = outputs.argmax(axis=1) == targets
    assert result["valid_accuracy"] == pytest.approx(weights[right].sum() / weights.sum())


def test_texts_of_which_none_counts_are_refused():
    with pytest.raises(ValueError) as caught:
        validation(targets=np.ones(60, dtype=int), weights=np.zeros(60))
    assert str(caught.value) == (
        "The validation texts must hold one of a class whose class_weight is above 0; got ['b'] "
        "only. Give X_val and y_val with such texts, or set early_stopping=False."
    )


@pytest.mark.parametrize(
    ("score", "targets", "sentence"),
    [
        (
            lambda *_: "high",
            None,
            "scoring must give a number on the 60 validation texts; <lambda> raised 'could not "
            "convert string to float: 'high''.",
        ),
        (
            lambda *_: float("nan"),
            np.zeros(60, dtype=int),
            "scoring must give a number on the 60 validation texts, which hold none of the classes "
            "['b']; got nan.",
        ),
    ],
)
def test_what_is_no_score_is_named(score, targets, sentence):
    with pytest.raises(ValueError) as caught:
        validation(score, targets=targets).evaluate(build_network(n_outputs=2))
    assert str(caught.value).replace('"', "'") == (
        f"{sentence} Use scoring=None, or give X_val and y_val with texts of every class."
    )


@pytest.mark.parametrize(
    ("scoring", "n_classes", "remedy"),
    [
        ("f1", 2, "scoring='f1_macro', or say.* pos_label='a' or 'b'"),
        ("precision", 3, "scoring='precision_macro' or 'precision_micro' or 'precision_weighted'"),
        ("roc_auc", 3, "scoring='roc_auc_ovr' or 'roc_auc_ovo', which take several classes"),
        (make_scorer(f1_score), 3, "Use make_scorer.metric, average='macro'."),
    ],
)
def test_a_scorer_that_fails_gets_its_own_remedy(scoring, n_classes, remedy):
    network = build_network(n_outputs=n_classes)
    with pytest.raises(ValueError, match=remedy):
        validation(scoring, n_classes).evaluate(network)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_loss_and_perplexities_of_a_language_model(bidirectional):
    network, texts = build_language_network(n_ids=20, bidirectional=bidirectional), make_ragged(9)
    result = LanguageValidation(texts).evaluate(network)
    # Of a text with a boundary on both sides, all tokens but one are predicted.
    losses = -sum_log_likelihoods(network, add_both_boundaries(texts)) / (len(texts.ids) + 9)
    assert result["valid_loss"] == pytest.approx(losses.mean())
    assert result["valid_perplexity"] == pytest.approx(np.exp(losses[0]))
    assert ("valid_perplexity_backward" in result) is bidirectional
    if bidirectional:
        assert result["valid_perplexity_backward"] == pytest.approx(np.exp(losses[1]))
