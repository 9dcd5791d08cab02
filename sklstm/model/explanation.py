"""What an explanation of a prediction holds, and how it looks in a notebook."""

from dataclasses import dataclass, replace
from html import escape
from typing import NamedTuple

import numpy as np

# Red, green and blue of what speaks for the target and against it: told apart by all eyes.
FOR, AGAINST = "66,133,244", "234,134,0"
# The opacity of the strongest token, in light and in dark notebooks.
MOST_OPAQUE = 0.65


class SentenceAttribution(NamedTuple):
    """What a sentence of a text contributes to a prediction.

    Attributes
    ----------
    tokens : list of str
        The tokens of the sentence.
    span : (int, int) or None
        Where it is in the original text: its first character, and the one behind its last.
    attribution : float
        The sum of the attributions of its tokens.
    """

    tokens: list[str]
    span: tuple[int, int] | None
    attribution: float


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What each token of a text contributes to a prediction.

    ``base + attributions.sum()`` is ``value``. In a notebook the text is shown with its tokens
    highlighted.

    Attributes
    ----------
    text : str
        The text.
    tokens : list of str
        All tokens of the text, as the vectorizer cuts it, also those that ``max_length`` keeps from
        the network.
    spans : list of (int, int) or None
        Where each token is in the text: its first character, and the one behind its last. None
        where a function as ``preprocessor``, ``tokenizer`` or ``analyzer`` hides that.
    network, ngrams : ndarray of shape (n_tokens,), float64
        What each token contributes through the network, and through the n-grams.
    target : label or int
        What is explained: a class or a label; of a regressor, the column of y.
    probability : float or None
        The predicted probability of the target; None of a regressor.
    value : float
        What is explained: the log-odds of the target, log(p / (1 - p)); of a regressor, the
        predicted number.
    base : float
        The same for a text of as many unknown tokens, without n-grams.
    sentences : list of SentenceAttribution or None
        The same by sentences, where the network reads by sentence; None where it does not.
    """

    text: str
    tokens: list[str]
    spans: list[tuple[int, int] | None]
    network: np.ndarray
    ngrams: np.ndarray
    target: object
    probability: float | None
    value: float
    base: float
    sentences: list[SentenceAttribution] | None = None

    @property
    def attributions(self) -> np.ndarray:
        """What each token contributes, network and n-grams together, (n_tokens,)."""
        return self.network + self.ngrams

    def top(self, n: int = 10) -> list[tuple[str, float]]:
        """Return the tokens with the largest attributions by size, and these, largest first.

        A token that occurs several times is as often among them.
        """
        order = np.argsort(-np.abs(self.attributions), kind="stable")[:n]
        return [(self.tokens[k], float(self.attributions[k])) for k in order]

    def __repr__(self) -> str:
        top = ", ".join(f"{token!r} {number:+.2f}" for token, number in self.top(5))
        return f"Explanation({self._headline()}: {top or 'no tokens'})"

    def _headline(self):
        if self.probability is None:
            return f"prediction {self.value:.4g}, base {self.base:.4g}"
        return f"probability {self.probability:.3f} of {self.target!s:.60}"

    def _repr_html_(self) -> str:
        """Return the text as HTML with its tokens highlighted; all of the text is escaped."""
        text, pieces = self.text, self._find_pieces()
        largest = max((abs(number) for *_, number in pieces), default=0.0)
        ends = {} if self.sentences is None else _find_ends(self.sentences)
        parts, position = [], 0
        for begin, end, number in pieces:
            parts.append(escape(text[position:begin]))
            parts.append(_highlight(text[begin:end], number, largest))
            parts.extend(_note(ends[end]) for _ in range(end in ends))
            position = end
        parts.append(escape(text[position:]))
        if any(span is None for span in self.spans):
            parts = self._highlight_tokens()
        return (
            f'<div><div><small>{escape(self._headline())}; <span style="{_colour(FOR)}">for</span> '
            f'<span style="{_colour(AGAINST)}">against</span></small></div>'
            f'<div dir="auto" style="white-space:pre-wrap">{"".join(parts)}</div></div>'
        )

    def _find_pieces(self) -> list[tuple[int, int, float]]:
        """Return the highlighted pieces of the text in order; tokens that overlap share one."""
        located = zip(self.spans, self.attributions.tolist(), strict=True)
        pieces = []
        for (begin, end), number in sorted(pair for pair in located if pair[0] is not None):
            if pieces and begin < pieces[-1][1]:
                first, last, earlier = pieces.pop()
                begin, end, number = first, max(last, end), earlier + number
            pieces.append((begin, end, number))
        return pieces

    def _highlight_tokens(self) -> list[str]:
        """Return the tokens in place of the text, where it is not known where they are."""
        numbers = self.attributions.tolist()
        largest = max(map(abs, numbers), default=0.0)
        pairs = zip(self.tokens, numbers, strict=True)
        return [_highlight(token, number, largest) + " " for token, number in pairs]


def add_sentences(explanation: Explanation, lengths: list[int]) -> Explanation:
    """Return an explanation with its sentences, which have these numbers of tokens."""
    numbers, sentences, begin = explanation.attributions, [], 0
    for length in lengths:
        own = slice(begin, begin + length)
        tokens, spans = explanation.tokens[own], explanation.spans[own]
        known = tokens and spans[0] is not None and spans[-1] is not None
        span = (spans[0][0], spans[-1][1]) if known else None
        sentences.append(SentenceAttribution(tokens, span, float(numbers[own].sum())))
        begin += length
    return replace(explanation, sentences=sentences)


def _find_ends(sentences):
    return {sentence.span[1]: sentence for sentence in sentences if sentence.span is not None}


def _highlight(text: str, number: float, largest: float) -> str:
    colour = _colour(FOR if number > 0 else AGAINST, abs(number) / largest if largest else 0.0)
    return f'<span style="{colour}" title="{number:+.3f}">{escape(text)}</span>'


def _colour(rgb: str, share: float = 1.0) -> str:
    return f"background:rgba({rgb},{MOST_OPAQUE * share:.2f})"


def _note(sentence: SentenceAttribution) -> str:
    return f"<sub>{sentence.attribution:+.2f}</sub>"
