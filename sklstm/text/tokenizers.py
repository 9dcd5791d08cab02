"""Text to tokens: pure functions over strings."""

import re
from collections.abc import Sequence
from functools import lru_cache

from sklstm.text.unicode import MARK, MARK_OR_JOINER, MOST_MARKS, normalize

# Scripts that write words without spaces between them: kana, Han and its extensions.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Such scripts that have marks: Thai, Lao, Burmese and Khmer.
_UNSPACED_WITH_MARKS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"
_LETTER = rf"[^\W{_UNSPACED}{_UNSPACED_WITH_MARKS}]"
_MARKS = f"{MARK_OR_JOINER}{{0,{MOST_MARKS}}}"

#: What counts as a token by default, first match first: a character of an unspaced script, with its
#: marks; the ``n't`` of "isn't", which carries a negation; a word with its marks, up to such an
#: ``n't``; marks without a letter; any other visible character by itself, so that ``!``, ``?`` and
#: emoji count (those that are joined are one). No token holds white space or depends on what is
#: beyond it, and every other character belongs to a token: the vectorizer may split texts there
#: first. The numbers of marks are bounded, so that the time is linear whatever comes.
TOKEN_PATTERN = (
    rf"(?u)[{_UNSPACED}]"
    rf"|[{_UNSPACED_WITH_MARKS}]{_MARKS}"
    r"|[nN]['’][tT]\b"
    rf"|{_LETTER}+?(?=[nN]['’][tT]\b)"
    rf"|{_LETTER}+(?:{MARK_OR_JOINER}{{1,{MOST_MARKS}}}{_LETTER}+)*{_MARKS}"
    rf"|{MARK_OR_JOINER}{{1,{MOST_MARKS}}}"
    rf"|[^\w\s](?:{MARK}{{0,{MOST_MARKS}}}\u200d[^\w\s])*{_MARKS}"
)

#: The default of earlier versions, which files of these have.
FORMER_PATTERN = (
    rf"(?u)[{_UNSPACED}]"
    r"|[nN]['’][tT]\b"
    rf"|[^\W{_UNSPACED}]+?(?=[nN]['’][tT]\b)"
    rf"|[^\W{_UNSPACED}]+"
    r"|[^\w\s]"
)

_find = re.compile(TOKEN_PATTERN).findall
_find_in_ascii = re.compile(FORMER_PATTERN).findall  # no character of ASCII is a mark


def find_tokens(text: str) -> list[str]:
    """Return the matches of ``TOKEN_PATTERN``, of most texts by a simpler pattern.

    Examples
    --------
    >>> from sklstm.text.tokenizers import find_tokens
    >>> find_tokens("isn't नहीं")
    ['is', "n't", 'नहीं']
    """
    return _find_in_ascii(text) if text.isascii() else _find(text)


# Words are read for the network and for the n-grams, and come again in other texts. Longer ones do
# not, and would fill the memory.
_LONGEST_REMEMBERED = 40


def find_tokens_of_word(word: str) -> Sequence[str]:
    """Return ``find_tokens`` of a word, remembered if it is not long."""
    return find_tokens(word) if len(word) > _LONGEST_REMEMBERED else _remember_tokens(word)


@lru_cache(maxsize=2**16)
def _remember_tokens(word):
    return tuple(find_tokens(word))


_LINE_BREAK_TAG = re.compile(r"<br\s*/?>", flags=re.IGNORECASE)


def replace_line_breaks(text: str) -> str:
    """Replace the HTML tag ``<br />``, which web texts use as white space, by a space.

    Examples
    --------
    >>> from sklstm.text.tokenizers import replace_line_breaks
    >>> replace_line_breaks("Dull.<br /><br />Very dull.")
    'Dull.  Very dull.'
    """
    return _LINE_BREAK_TAG.sub(" ", text) if "<" in text else text


def blank_line_breaks(text: str) -> str:
    """Replace the HTML tag ``<br />`` by as many spaces as it has characters."""
    return _LINE_BREAK_TAG.sub(lambda tag: " " * len(tag[0]), text) if "<" in text else text


def tokenize(text: str) -> list[str]:
    """Cut a text into tokens by ``TOKEN_PATTERN``, in normal form C, case kept.

    Examples
    --------
    >>> from sklstm.text.tokenizers import tokenize
    >>> tokenize("It isn't good!")
    ['It', 'is', "n't", 'good', '!']
    >>> tokenize("房间太小 OK")
    ['房', '间', '太', '小', 'OK']
    """
    return find_tokens(replace_line_breaks(normalize(text, "NFC")))


# Tokens without a space before them.
_CLOSING = re.compile(r"[.,!?;:%)\]}…'’]|[nN]['’][tT]")
_OPENING = re.compile(r"[(\[{'’]")


def join_tokens(tokens: list[str]) -> str:
    """Join tokens by spaces, except before and behind punctuation that has none there.

    The way back from ``tokenize`` as far as there is one.

    Examples
    --------
    >>> from sklstm.text.tokenizers import join_tokens
    >>> join_tokens(["it", "is", "n't", "john", "'", "s", "(", "good", ")", "dog", "."])
    "it isn't john's (good) dog."
    """
    parts = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        close = before is None or _CLOSING.fullmatch(token) or _OPENING.fullmatch(before)
        parts.append(token if close else f" {token}")
    return "".join(parts)
