"""Text to tokens: pure functions over strings."""

import re

# Scripts that write words without spaces between them: kana, Han and its extensions.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

#: What counts as a token by default, first match first: a character of an unspaced script; the
#: ``n't`` of "isn't", which carries a negation; a word, up to such an ``n't``; any other visible
#: character by itself, so that ``!``, ``?`` and emoji count. No token holds white space or depends
#: on what is beyond it, and every other character belongs to a token: the vectorizer may split
#: texts there first.
TOKEN_PATTERN = (
    rf"(?u)[{_UNSPACED}]"
    r"|[nN]['’][tT]\b"
    rf"|[^\W{_UNSPACED}]+?(?=[nN]['’][tT]\b)"
    rf"|[^\W{_UNSPACED}]+"
    r"|[^\w\s]"
)

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


def tokenize(text: str) -> list[str]:
    """Cut a text into tokens by ``TOKEN_PATTERN``, case kept.

    Examples
    --------
    >>> from sklstm.text.tokenizers import tokenize
    >>> tokenize("It isn't good!")
    ['It', 'is', "n't", 'good', '!']
    >>> tokenize("房间太小 OK")
    ['房', '间', '太', '小', 'OK']
    """
    return re.findall(TOKEN_PATTERN, replace_line_breaks(text))


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
