"""Pictures: what is drawn, in which font, and what cannot be drawn."""

import sys
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib import pyplot as plt
from sklearn.exceptions import NotFittedError

from sklstm import (
    LSTMLanguageModel,
    LSTMTextClassifier,
    LSTMTextRegressor,
    TokenAttributionDisplay,
    TrainingCurveDisplay,
    display,
)
from tests.conftest import TEXTS, TINY, distinct


@pytest.fixture(autouse=True)
def _close():
    matplotlib.use("Agg")
    yield
    plt.close("all")


def fit(kind=LSTMTextClassifier, **settings):
    texts, labels = distinct(100)
    y = labels if kind is LSTMTextClassifier else np.arange(100.0)
    return kind(**TINY | {"max_epochs": 4} | settings).fit(texts, y)


def test_training_curve_shows_what_was_recorded():
    clf = fit()
    shown = TrainingCurveDisplay.from_estimator(clf)
    assert list(shown.lines_) == ["train_loss", "valid_loss", "valid_accuracy", "lr"]
    losses = shown.lines_["valid_loss"].get_ydata()
    assert losses.tolist() == [row["valid_loss"] for row in clf.history_]
    assert shown.best_epoch_ == int(np.argmin(losses)) + 1
    assert len(shown.axes_) == 3 and shown.ax_ is shown.axes_[0]
    assert shown.figure_ is shown.ax_.figure and shown.axes_[-1].get_xlabel() == "epoch"
    labels = [text.get_text() for text in shown.ax_.get_legend().get_texts()]
    assert labels == ["training", "validation", f"best epoch: {shown.best_epoch_}"]
    shown.figure_.canvas.draw()


def test_training_curve_of_other_estimators():
    shown = TrainingCurveDisplay.from_estimator(fit(LSTMTextRegressor, scoring="r2"))
    assert list(shown.lines_) == ["train_loss", "valid_loss", "valid_score", "lr"]
    scores = shown.lines_["valid_score"].get_ydata()
    assert shown.best_epoch_ == int(np.argmax(scores)) + 1
    model = LSTMLanguageModel(
        embedding_dim=4, hidden_size=4, window=16, max_epochs=2, validation_fraction=0.2
    ).fit(distinct(50)[0])
    shown = TrainingCurveDisplay.from_estimator(model)
    assert list(shown.lines_)[2:] == ["valid_perplexity", "valid_perplexity_backward", "lr"]


def test_training_curve_without_validation_and_of_earlier_files():
    clf = fit(early_stopping=False)
    shown = TrainingCurveDisplay.from_estimator(clf)
    assert shown.best_epoch_ is None and list(shown.lines_) == ["train_loss", "lr"]
    history = [{name: row[name] for name in row if name != "lr"} for row in clf.history_]
    assert list(TrainingCurveDisplay(history=history).plot().lines_) == ["train_loss"]
    validated = fit().partial_fit(TEXTS, ["neg"] * len(TEXTS))
    shown = TrainingCurveDisplay.from_estimator(validated)
    assert len(shown.lines_["lr"].get_xdata()) == len(shown.lines_["valid_loss"].get_xdata()) + 1
    assert shown.best_epoch_ is None  # the last epoch is what is kept


def test_training_curve_divides_the_axes_that_it_is_given():
    figure, (left, right) = plt.subplots(1, 2)
    shown = TrainingCurveDisplay.from_estimator(fit(), ax=left)
    assert shown.figure_ is figure and len(figure.axes) == 2 + 3
    bounds = [axis.get_position().x1 for axis in shown.axes_]
    assert max(bounds) < right.get_position().x0
    with pytest.raises(ValueError, match="ax must be one of a grid"):
        TrainingCurveDisplay.from_estimator(fit(), ax=plt.figure().add_axes((0, 0, 1, 1)))


def test_learning_rate_is_that_of_the_optimiser():
    clf = fit(lr=0.01, lr_schedule="constant")
    assert [row["lr"] for row in clf.history_] == [0.01] * len(clf.history_)
    falling = [row["lr"] for row in fit(lr_schedule="linear", early_stopping=False).history_]
    assert falling == sorted(falling, reverse=True) and falling[-1] == 0.0


def test_token_attributions_are_bars_in_the_order_of_the_text(fitted):
    shown = TokenAttributionDisplay.from_estimator(fitted, "so good , so bad", target="pos")
    (explanation,) = fitted.explain(["so good , so bad"], "pos")
    labels = [label.get_text() for label in shown.ax_.get_yticklabels()]
    assert labels == explanation.tokens and shown.ax_.yaxis_inverted()
    widths = [bar.get_width() for bar in shown.bars_]
    np.testing.assert_allclose(widths, explanation.attributions)
    assert shown.ax_.get_title() == f"probability {explanation.probability:.3f} of pos"
    few = TokenAttributionDisplay(explanation=explanation).plot(n_tokens=2)
    largest = sorted(np.argsort(-np.abs(explanation.attributions))[:2])
    shown_tokens = [label.get_text() for label in few.ax_.get_yticklabels()]
    assert shown_tokens == [explanation.tokens[k] for k in largest]


def test_token_attributions_of_a_regressor_and_of_no_token():
    reg = fit(LSTMTextRegressor)
    shown = TokenAttributionDisplay.from_estimator(reg, "", ax=plt.subplots()[1])
    assert shown.ax_.get_title().startswith("prediction ") and not shown.bars_.patches
    assert shown.ax_.get_xlabel() == "contribution to the number"
    shown.figure_.canvas.draw()


def test_labels_are_legible(fitted):
    text = "$x$ a\x00b " + "w" * 100
    shown = TokenAttributionDisplay.from_estimator(fitted, text)
    labels = [label.get_text() for label in shown.ax_.get_yticklabels()]
    assert labels[:3] == ["$", "x", "$"] and "\\x00" in labels
    assert labels[-1] == "w" * 23 + "…"
    shown.figure_.canvas.draw()  # dollars are no formula


def test_fonts_that_have_the_characters_follow_the_usual_one(monkeypatch):
    usual = list(matplotlib.rcParams["font.family"])
    assert display.find_families("good é ω ж") == usual
    assert display.find_families("") == usual

    def characters(path):
        return {ord("房")} if path == "/there/zenhei.ttf" else set(map(ord, "gо"))

    class Entry:
        name, fname = "WenQuanYi Zen Hei", "/there/zenhei.ttf"

    monkeypatch.setattr(display, "_characters_of", characters)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [Entry])
    assert display.find_families("g房") == [*usual, "WenQuanYi Zen Hei"]
    assert display.find_families("g間") == usual


def test_a_character_that_no_font_has_is_a_warning_of_matplotlib(fitted):
    shown = TokenAttributionDisplay.from_estimator(fitted, "good \U0001bfff")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shown.figure_.canvas.draw()
    assert any("missing from" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("kind", [TrainingCurveDisplay, TokenAttributionDisplay])
def test_bad_input(kind, fitted, monkeypatch):
    arguments = (TEXTS[0],) if kind is TokenAttributionDisplay else ()
    with pytest.raises(NotFittedError):
        kind.from_estimator(LSTMTextClassifier(), *arguments)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    message = f'{kind.__name__} needs matplotlib, which is not installed. Run: pip install "sklstm'
    with pytest.raises(ImportError, match=message.replace("[", r"\[")):
        kind.from_estimator(fitted, *arguments)


def test_bad_text_and_number_of_tokens(fitted):
    with pytest.raises(TypeError, match="text must be one str; got list. Use explain"):
        TokenAttributionDisplay.from_estimator(fitted, [TEXTS[0]])
    for n_tokens in (0, 1.5, True):
        with pytest.raises(ValueError, match="n_tokens must be a whole number"):
            TokenAttributionDisplay.from_estimator(fitted, TEXTS[0], n_tokens=n_tokens)
