"""Pictures of fitted estimators and of their explanations, as scikit-learn's displays.

matplotlib is imported when a picture is drawn: it comes with the extra ``plot``.
"""

import unicodedata
from collections.abc import Set
from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted

# Blue and orange, told apart by all eyes: for and against, training and validation.
BLUE, ORANGE, GREY = "#4285f4", "#e67c00", "#777777"
#: The panels of a training curve: the title of the y axis, and the columns of the history with what
#: the legend calls them. A panel without columns is left out.
PANELS = {
    "loss": {"train_loss": "training", "valid_loss": "validation"},
    "validation\naccuracy": {"valid_accuracy": "validation"},
    "validation\nscore": {"valid_score": "validation"},
    "validation\nperplexity": {
        "valid_perplexity": "forward",
        "valid_perplexity_backward": "backward",
    },
    "learning\nrate": {"lr": "learning rate"},
}
# The longest label of a token, in characters.
WIDEST = 24
#: Families of fonts that are tried first for characters that the usual font lacks.
FAMILIES = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Emoji",
    "Segoe UI Emoji",
    "Symbola",
)
# Fonts that matplotlib cannot draw, and one that has a box for every character.
USELESS = ("Color Emoji", "Last Resort")


class TrainingCurveDisplay:
    """How a training went: losses, validation scores and learning rate of each epoch.

    Make one with ``from_estimator``.

    Parameters
    ----------
    history : list of dict
        What was recorded of each epoch, as the attribute ``history_`` of an estimator.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The panel of the losses.
    axes_ : ndarray of matplotlib Axes
        All panels, from the top.
    figure_ : matplotlib Figure
        The figure.
    lines_ : dict of str to matplotlib Line2D
        The curves by their column of the history.
    best_epoch_ : int or None
        The best epoch by the validation texts, counted from 1, whose weights were kept; None where
        the last epoch had no validation.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklstm import LSTMTextClassifier, TrainingCurveDisplay
    >>> texts = ["good film", "so good", "not bad", "bad film", "so bad", "not good"] * 5
    >>> labels = ["pos", "pos", "pos", "neg", "neg", "neg"] * 5
    >>> clf = LSTMTextClassifier(max_epochs=5, random_state=0).fit(texts, labels)
    >>> display = TrainingCurveDisplay.from_estimator(clf)
    >>> sorted(display.lines_)
    ['lr', 'train_loss']
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, history):
        self.history = history

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the training of a fitted classifier, regressor or language model.

        Parameters
        ----------
        estimator : LSTMTextClassifier, LSTMTextRegressor or LSTMLanguageModel
            The fitted estimator.
        ax : matplotlib Axes or None, default=None
            Where to draw; the panels divide it. None makes a new figure.

        Returns
        -------
        display : TrainingCurveDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        _import_matplotlib(cls)
        check_is_fitted(estimator)
        return cls(history=estimator.history_).plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw the training.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; the panels divide it. None makes a new figure.

        Returns
        -------
        display : TrainingCurveDisplay
            This object.

        Raises
        ------
        ValueError
            If ``ax`` is not one of a grid, as ``plt.subplots()`` makes it.
        """
        _import_matplotlib(type(self))
        from matplotlib.ticker import MaxNLocator

        columns = {name for row in self.history for name in row}
        panels = {
            title: {name: label for name, label in curves.items() if name in columns}
            for title, curves in PANELS.items()
        }
        panels = {title: curves for title, curves in panels.items() if curves}
        self.figure_, self.axes_ = _divide(ax, [3] + [1] * (len(panels) - 1))
        self.ax_, self.lines_, self.best_epoch_ = self.axes_[0], {}, _find_best(self.history)
        for axis, (title, curves) in zip(self.axes_, panels.items(), strict=True):
            self._draw(axis, curves)
            axis.set_ylabel(title)
        self.ax_.legend(fontsize="small")
        last = self.axes_[-1]
        last.set_xlabel("epoch")
        last.xaxis.set_major_locator(MaxNLocator(integer=True))
        last.set_xlim(0.5, len(self.history) + 0.5)
        return self

    def _draw(self, axis, curves):
        """Draw the curves of a panel, and a line at the best epoch."""
        for name, label in curves.items():
            epochs = [k for k, row in enumerate(self.history, 1) if name in row]
            values = [self.history[k - 1][name] for k in epochs]
            second = name.startswith("valid") and name != "valid_perplexity"
            colour = GREY if name == "lr" else ORANGE if second else BLUE
            (self.lines_[name],) = axis.plot(
                epochs, values, marker="o", markersize=3, color=colour, label=label
            )
        if self.best_epoch_ is not None:
            label = f"best epoch: {self.best_epoch_}" if axis is self.ax_ else None
            axis.axvline(self.best_epoch_, color=GREY, linestyle=":", label=label)
        if len(curves) > 1:
            axis.legend(fontsize="small")


class TokenAttributionDisplay:
    """What the tokens of a text contribute to a prediction, as bars.

    Make one with ``from_estimator``. The tokens with the largest attributions by size are shown, in
    the order of the text.

    Parameters
    ----------
    explanation : Explanation
        What ``explain`` returns of a text.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    bars_ : matplotlib BarContainer
        The bars, from the top.

    Notes
    -----
    Characters that matplotlib's font lacks are drawn in another font of the machine that has them,
    in black: coloured emoji cannot be drawn. Where no font has a character, matplotlib warns and
    draws a box. Install a font with it then, such as Noto Sans CJK for Chinese, Japanese and Korean
    or Noto Emoji. Before matplotlib 3.11, letters of Arabic are drawn from left to right and are
    not joined.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklstm import LSTMTextClassifier, TokenAttributionDisplay
    >>> texts = ["good film", "so good", "not bad", "bad film", "so bad", "not good"] * 5
    >>> labels = ["pos", "pos", "pos", "neg", "neg", "neg"] * 5
    >>> clf = LSTMTextClassifier(max_epochs=5, random_state=0).fit(texts, labels)
    >>> display = TokenAttributionDisplay.from_estimator(clf, "a good film", target="pos")
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['a', 'good', 'film']
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, explanation):
        self.explanation = explanation

    @classmethod
    def from_estimator(cls, estimator, text, *, target=None, n_tokens=20, ax=None):
        """Explain the prediction for a text, and draw it.

        Parameters
        ----------
        estimator : LSTMTextClassifier or LSTMTextRegressor
            The fitted estimator.
        text : str
            The text.
        target : label, int or None, default=None
            What to explain, as in ``explain``.
        n_tokens : int, default=20
            Most tokens to show.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : TokenAttributionDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If ``text`` is no str.
        ValueError
            As in ``explain``.
        ImportError
            If matplotlib is not installed.
        """
        _import_matplotlib(cls)
        if not isinstance(text, str):
            raise TypeError(
                f"text must be one str; got {type(text).__name__}. Use explain for several texts."
            )
        (explanation,) = estimator.explain([text], target)
        return cls(explanation=explanation).plot(n_tokens=n_tokens, ax=ax)

    def plot(self, *, n_tokens=20, ax=None):
        """Draw the attributions.

        Parameters
        ----------
        n_tokens : int, default=20
            Most tokens to show.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : TokenAttributionDisplay
            This object.
        """
        plt = _import_matplotlib(type(self))
        if not isinstance(n_tokens, Integral) or isinstance(n_tokens, bool) or n_tokens < 1:
            raise ValueError(f"n_tokens must be a whole number of 1 or more; got {n_tokens!r}.")
        explanation = self.explanation
        numbers = explanation.attributions
        shown = np.sort(np.argsort(-np.abs(numbers), kind="stable")[:n_tokens])
        if ax is None:
            _, ax = plt.subplots(figsize=(6, 1.4 + 0.28 * len(shown)), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        colours = np.where(numbers[shown] > 0, BLUE, ORANGE)
        self.bars_ = ax.barh(np.arange(len(shown)), numbers[shown], color=colours)
        labels = [_shorten(explanation.tokens[k]) for k in shown]
        title = _describe(explanation)
        # A dollar is a dollar, not the beginning of a formula.
        ax.set_yticks(np.arange(len(shown)), labels, parse_math=False)
        ax.set_title(title, parse_math=False, fontsize="medium")
        families = find_families("".join([title, *labels]))
        for text in (ax.title, *ax.get_yticklabels()):
            text.set_fontfamily(families)
        ax.invert_yaxis()
        ax.axvline(0, color=GREY, linewidth=0.8)
        what = "number" if explanation.probability is None else "log-odds"
        ax.set_xlabel(f"contribution to the {what}")
        return self


def _import_matplotlib(display):
    """Return ``matplotlib.pyplot``."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{display.__name__} needs matplotlib, which is not installed. Run: "
            'pip install "sklstm[plot]".'
        ) from error
    return plt


def _divide(ax, heights):
    """Return the figure, and panels one below the other, which share their x axis."""
    plt = _import_matplotlib(TrainingCurveDisplay)
    if ax is None:
        size = (6, 0.6 + 0.9 * sum(heights))
        figure, axes = plt.subplots(
            len(heights), sharex=True, height_ratios=heights, figsize=size, layout="constrained"
        )
        return figure, np.atleast_1d(axes)
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError(
            "ax must be one of a grid, which panels can divide, as plt.subplots() makes it; got "
            "one at a place of its own."
        )
    ax.set_axis_off()
    grid = place.subgridspec(len(heights), 1, height_ratios=heights)
    axes = [ax.figure.add_subplot(grid[0])]
    axes += [ax.figure.add_subplot(cell, sharex=axes[0]) for cell in list(grid)[1:]]
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    return ax.figure, np.array(axes)


def _find_best(history: list[dict]) -> int | None:
    """Return the epoch whose weights were kept, from 1; None where the last one has no score."""
    for name in ("valid_score_best", "valid_loss_best"):
        if name in history[-1]:
            return max(k for k, row in enumerate(history, 1) if row.get(name))
    return None


def _describe(explanation) -> str:
    if explanation.probability is None:
        return f"prediction {explanation.value:.4g}, base {explanation.base:.4g}"
    # A target at the beginning could turn the direction of the whole line.
    return f"probability {explanation.probability:.3f} of {_shorten(str(explanation.target))}"


def _shorten(text: str) -> str:
    """Return a label: control characters are escaped, and a long one is cut."""
    shown = "".join(c if unicodedata.category(c) != "Cc" else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= WIDEST else shown[: WIDEST - 1] + "…"


def find_families(text: str) -> list[str]:
    """Return the families of fonts to draw a text in: the usual ones, and others where they lack.

    Parameters
    ----------
    text : str
        All that is to be drawn.

    Returns
    -------
    families : list of str
        For matplotlib, which takes each character from the first family that has it.
    """
    from matplotlib import font_manager, rcParams

    families = list(rcParams["font.family"])
    # What is invisible needs no glyph.
    left = {ord(c) for c in text if unicodedata.category(c) not in ("Cf", "Mn", "Zs")}
    left -= _characters_of(font_manager.findfont(font_manager.FontProperties(family=families)))
    if not left:
        return families
    paths = {entry.name: entry.fname for entry in reversed(font_manager.fontManager.ttflist)}
    names = [*(name for name in FAMILIES if name in paths), *sorted(paths.keys() - {*FAMILIES})]
    for name in names:
        if left and not any(part in name for part in USELESS):
            found = left & _characters_of(paths[name])
            families += [name] if found else []
            left -= found
    return families


def _characters_of(path: str) -> Set:
    """Return the code points that a font has."""
    from matplotlib.font_manager import get_font

    return get_font(path).get_charmap().keys()
