"""Where sentences end: what each token of a text does to them.

That depends on what follows the token, so it belongs to a place in a text and not to the
vocabulary. It travels with the ids of texts, in bits above each id.
"""

import re
from collections.abc import Iterator

import numpy as np

from sklstm.text.spans import Span

#: What a token does to sentences, its mark: none, one or both of these. It ends its sentence; it
#: belongs to the sentence before even if that has ended, as a closing quote does.
ENDS, CLOSES = 1, 2
#: The number of bits of an id; those above hold the mark.
ID_BITS = 28
ID_MASK = 2**ID_BITS - 1

# What ends a sentence at the end of a word: dots are in numbers, addresses and abbreviations too.
_ENDING_WORDS = frozenset(".!?\u2026")  # …
# What ends a sentence wherever it is.
_ENDING = frozenset(
    "\u3002\uff01\uff1f\uff0e\uff61"  # Chinese and Japanese: 。 ！ ？ ． ｡
    "\u0964\u0965\u061f\u06d4"  # Indic dandas; the Arabic question mark and full stop
    "\u1362\u1367\u104b\u17d4"  # Ethiopic, Burmese and Khmer
)
# Behind a closing quotation mark a sentence is over without white space, too.
_CLOSING_QUOTES = frozenset('"\u201d\u00bb\u300d\u300f')  # " ” » 」 』
_CLOSING = _CLOSING_QUOTES | frozenset("'\u2019)]}\uff09\u3011\u300b")  # ' ’ ) ] } ） 】 》
_PUNCTUATION = _ENDING_WORDS | _ENDING | _CLOSING
# Quotation marks that open as well as close.
_STRAIGHT = frozenset("\"'\u2019")
_PIECE = re.compile(r"\s+|\S+")


def mark_word(pieces: list[str]) -> list[int]:
    """Return the mark of each piece of a word.

    A word is what white space surrounds, and its pieces are its tokens. A sentence ends with
    . ! ? or the ellipsis at the end of a word, and with the full stops of other scripts anywhere,
    unless a digit follows. Closing quotes and brackets behind belong to it; a closing quotation
    mark ends a sentence inside of a word, too.

    Examples
    --------
    >>> from sklstm.text.sentences import mark_word
    >>> mark_word(["good", "!", ")"]), mark_word(["3", ".", "5"]), mark_word(["好", "。", "不"])
    ([0, 3, 2], [0, 0, 0], [0, 3, 0])
    """
    marks = []
    is_last = True  # whether only what ends or closes is behind
    run, following = "", ""  # what ends and closes directly behind; the piece behind
    for number, piece in reversed(list(enumerate(pieces))):
        core = piece.rstrip("".join(_CLOSING))
        run = piece[len(core) :] + run
        if not core:
            opens = number == 0 and not is_last and _STRAIGHT.issuperset(piece)
            marks.append(0 if opens else CLOSES)
        else:
            is_over = is_last or not _CLOSING_QUOTES.isdisjoint(run)
            ends = core[-1] in _ENDING or (core[-1] in _ENDING_WORDS and is_over)
            has_word = not _PUNCTUATION.issuperset(core)
            if not ends or following[:1].isdigit():
                marks.append(0)
            else:
                marks.append(ENDS if has_word else ENDS | CLOSES)
            if has_word:
                run, is_last = "", False
            else:
                run = core + run
        following = piece
    return marks[::-1]


def mark_tokens(tokens: list[str], text: str, spans: list[Span | None]) -> list[int]:
    """Return the mark of each token of a text.

    Parameters
    ----------
    tokens : list of str
        The tokens, in the order of reading.
    text : str
        What they were cut from.
    spans : list of (int, int) or None
        Where each token is in the text; one that is nowhere is a word by itself.

    Examples
    --------
    >>> from sklstm.text.sentences import mark_tokens
    >>> mark_tokens(["so", "good", "yes"], "so good! yes", [(0, 2), (3, 7), (9, 12)])
    [0, 1, 0]
    """
    marks = [0] * len(tokens)
    for word in _words(tokens, text, spans):
        for (number, piece, is_token), mark in zip(
            word, mark_word([piece for _, piece, _ in word]), strict=True
        ):
            if is_token:
                marks[number] = CLOSES if piece.isspace() else mark
            elif number >= 0:
                marks[number] |= mark & ENDS
    return marks


def _words(tokens, text, spans) -> Iterator[list[tuple[int, str, bool]]]:
    """Yield the words of a text as pieces, each with the number of its token.

    A piece between tokens, such as a full stop that is no token, has the number of the token before
    it, or -1; the last field tells them apart.
    """
    word, end = [], 0
    for number, (token, span) in enumerate(
        zip([*tokens, ""], [*spans, (len(text),) * 2], strict=True)
    ):
        if span is None:
            yield word
            yield [(number, token, True)]
            word = []
            continue
        for piece in _PIECE.findall(text, end, span[0]):
            if piece.isspace():
                yield word
                word = []
            else:
                word.append((number - 1, piece, False))
        end = span[1]
        if number == len(tokens):
            break
        if token.isspace():
            yield word
            yield [(number, token, True)]
            word = []
        else:
            word.append((number, token, True))
    yield word


def pack(ids: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Return ids with a mark above each."""
    return ids | np.left_shift(marks, ID_BITS, dtype=ids.dtype)
