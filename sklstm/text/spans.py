"""Where tokens are in a text: from tokens back to characters of the original."""

import re
from collections.abc import Callable

from sklstm.text.tokenizers import blank_line_breaks
from sklstm.text.unicode import INVISIBLE, MARK_OR_JOINER

#: The first character of a token and the one behind its last.
Span = tuple[int, int]

_WORD = re.compile(r"\S+")
# A character with all that belongs to it: what is seen as one, and preprocessed as one.
_CLUSTER = re.compile(rf"[\s\S](?:{MARK_OR_JOINER}|{INVISIBLE})*")
#: What the analyzer "char" of CountVectorizer cuts: white space counts once.
CHARACTER = re.compile(r"\s\s+|[\s\S]")


def match_tokens(pattern: re.Pattern, text: str) -> list[Span]:
    """Return where a pattern matches, or its group where it has one, as ``findall`` does.

    Examples
    --------
    >>> import re
    >>> from sklstm.text.spans import match_tokens
    >>> match_tokens(re.compile("[a-z]+"), "so good!")
    [(0, 2), (3, 7)]
    """
    group = min(pattern.groups, 1)
    return [match.span(group) for match in pattern.finditer(text)]


def find_tokens_in_order(tokens: list[str], text: str) -> list[Span | None]:
    """Return where tokens are in a text, each behind the one before; None where it is not.

    Examples
    --------
    >>> from sklstm.text.spans import find_tokens_in_order
    >>> find_tokens_in_order(["so", "SO", "good"], "so good")
    [(0, 2), None, (3, 7)]
    """
    spans, end = [], 0
    for token in tokens:
        begin = text.find(token, end)
        if begin < 0:
            spans.append(None)
        else:
            end = begin + len(token)
            spans.append((begin, end))
    return spans


def trace_characters(text: str, preprocess: Callable[[str], str]) -> list[Span] | None:
    """Return, for each character of a preprocessed text, the characters that it comes from.

    Word by word, and inside of a word character by character with its marks. A word whose
    characters change each other has all of them as the origin of each. None is returned where
    words depend on each other, which ours do not.

    Parameters
    ----------
    text : str
        The original text.
    preprocess : callable
        From a text to a text; white space may change, but no word may become two.

    Examples
    --------
    >>> from sklstm.text.spans import trace_characters
    >>> trace_characters("A<br>b", lambda text: text.replace("<br>", " ").lower())
    [(0, 1), (1, 5), (5, 6)]
    """
    result, origins, letters = preprocess(text), [], []
    for word in _WORD.finditer(blank_line_breaks(text)):
        found = _letters(preprocess(word[0]))
        letters.append(found)
        origins += _trace_word(word[0], found, word.start(), preprocess)
    if "".join(letters) != _letters(result):
        return None
    spans, end, own = [], 0, iter([*origins, (len(text), len(text))])
    following = next(own)
    for character in result:
        if character.isspace():  # what is between two letters
            spans.append((end, following[0]))
        else:
            spans.append(following)
            end, following = following[1], next(own)
    return spans


def _trace_word(word, found, begin, preprocess):
    """Return the origins of the letters that a word, which begins there, has become."""
    if len(found) == len(word) and word.isascii():
        return [(begin + k, begin + k + 1) for k in range(len(word))]
    origins, parts = [], []
    for cluster in _CLUSTER.finditer(word):
        part = _letters(preprocess(cluster[0]))
        parts.append(part)
        first, last = begin + cluster.start(), begin + cluster.end()
        origins += [(first, last)] * len(part)
    # A letter may look otherwise inside of a word, as the Greek sigma does; it is the same letter.
    if len("".join(parts)) == len(found):
        return origins
    return [(begin, begin + len(word))] * len(found)


def _letters(text):
    """Return a text without white space."""
    return "".join(text.split())
