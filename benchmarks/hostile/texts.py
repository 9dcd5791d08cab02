"""Hostile texts: what users' data hold by accident, and what somebody writes on purpose.

``SHAPES`` are functions of a number of characters, each a repeat that an analyzer could take long
for. ``draw`` makes many short texts of all kinds.
"""

import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable

import numpy as np

ACUTE, GRAVE_BELOW = "\u0301", "\u0316"  # of two classes, which normal forms have to sort
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"
DIRECTIONS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
FAMILY = "\U0001f469\U0001f3fd\u200d\U0001f469\u200d\U0001f467\ufe0f"
CONTROLS = "".join(map(chr, [*range(32), 127, *range(0x80, 0xA0)]))
ORDINARY = "the film is not good isn't bad 3.5 stars , but well don't know".split()


def _repeat(unit: str) -> Callable[[int], str]:
    return lambda n: (unit * (n // len(unit) + 1))[:n]


def _words(n: int) -> str:
    """Return different words, one after another."""
    return " ".join(f"w{k}" for k in range(n // 3 + 1))[:n]


def _no_unit(n: int) -> str:
    """Return one word without white space in which no part comes again soon."""
    return "".join(map(chr, 97 + np.random.default_rng(n).integers(26, size=n)))


#: Name -> function from a number of characters to a text of that many.
SHAPES: dict[str, Callable[[int], str]] = {
    "one letter": _repeat("a"),
    "one letter, then !": lambda n: "a" * (n - 1) + "!",
    "one token of random letters": _no_unit,
    "many different tokens": _words,
    "one token many times": _repeat("good "),
    "n't many times": _repeat("n't"),
    "almost n't": _repeat("n'tn"),
    "letters, then almost n't": lambda n: "n" * (n - 3) + "n'x",
    "punctuation by turns": _repeat("!?"),
    "letter and punctuation by turns": _repeat("a'"),
    "spaces": _repeat(" "),
    "line breaks": _repeat("\r\n"),
    "<": _repeat("<"),
    "&": _repeat("&"),
    "tags that never end": _repeat("<br "),
    "a tag of spaces that never ends": lambda n: "<br" + " " * (n - 3),
    "tags of many spaces": _repeat("<br" + " " * 1000),
    "nested quotes": _repeat("\"'(["),
    "decimals": _repeat("3.14159"),
    "points": _repeat("."),
    "ends of sentences": _repeat('a. " '),
    "abbreviations": _repeat("e.g. U.S. "),
    "e-mails": _repeat("a.b-c@d.e-f."),
    "marks on one letter": lambda n: "a" + _repeat(ACUTE)(n - 1),
    "marks of two classes on one letter": lambda n: "a" + _repeat(ACUTE + GRAVE_BELOW)(n - 1),
    "31 marks on each letter": _repeat("a" + (ACUTE + GRAVE_BELOW) * 15 + ACUTE),
    "marks and joiners by turns": _repeat(ACUTE + "\u200d"),
    "letter and mark by turns": _repeat("a" + ACUTE),
    "joiners": _repeat("\u200d"),
    "joiners inside of a word": lambda n: "a" + _repeat("\u200c\u200d")(n - 2) + "b",
    "letter and joiners": _repeat("a\u200d\u200d"),
    "nothing of width": _repeat(ZERO_WIDTH),
    "marks of direction": _repeat(DIRECTIONS),
    "joined emoji": _repeat(FAMILY + "\u200d"),
    "families of emoji": _repeat(FAMILY),
    "flags": _repeat("\U0001f1e9\U0001f1ea"),
    "Devanagari": _repeat("नहीं"),
    "Thai": _repeat("ไม่ดีเลย"),
    "Han": _repeat("房间太小"),
    "Hangul in parts": _repeat(unicodedata.normalize("NFD", "좋은")),
    "ligatures that unfold": _repeat("\ufdfa"),
    "lone surrogates": _repeat("\ud800a\udc00"),
    "NUL": _repeat("\0"),
    "controls": _repeat(CONTROLS),
}


def list_characters_by_script() -> dict[str, tuple[str, str]]:
    """Return for each script with combining marks its letters and its marks.

    ``unicodedata`` has no scripts; the first word of a character's name is nearly that.
    """
    letters, marks = defaultdict(list), defaultdict(list)
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] in "LM":
            script = unicodedata.name(character, "").partition(" ")[0]
            (letters if category[0] == "L" else marks)[script].append(character)
    return {s: ("".join(letters[s]), "".join(m)) for s, m in marks.items() if s in letters}


SCRIPTS = list_characters_by_script()
COMBINING = "".join(marks for _, marks in SCRIPTS.values())
NONCHARACTERS = [0xFDD0 + k for k in range(32)] + [
    plane * 0x10000 + end for plane in range(17) for end in (0xFFFE, 0xFFFF)
]


def _choose(rng, characters, most=40) -> str:
    return "".join(characters[k] for k in rng.integers(len(characters), size=rng.integers(1, most)))


def _any_plane(rng) -> str:
    plane = rng.integers(17) * 0x10000
    return "".join(map(chr, plane + rng.integers(0x10000, size=rng.integers(1, 40))))


def _all_planes(rng) -> str:
    return "".join(map(chr, rng.integers(sys.maxunicode + 1, size=rng.integers(1, 40))))


def _script(rng) -> str:
    letters, marks = list(SCRIPTS.values())[rng.integers(len(SCRIPTS))]
    words = [_choose(rng, letters[:200] + marks, 8) for _ in range(rng.integers(1, 8))]
    form = (None, "NFC", "NFD", "NFKD")[rng.integers(4)]
    return unicodedata.normalize(form, " ".join(words)) if form else " ".join(words)


def _storm(rng) -> str:
    marks = _choose(rng, COMBINING, 6)
    return _choose(rng, "aé房\u0e01 !", 4) + _repeat(marks)(int(rng.integers(1, 3_000)))


def _unseen(rng) -> str:
    return _choose(rng, "ab '!\u0301" + ZERO_WIDTH + DIRECTIONS + "\xad\ufe0f\u180e", 60)


def _mixture(rng) -> str:
    """Return ordinary words, with pieces of a hostile kind between and inside of them."""
    words = [ORDINARY[k] for k in rng.integers(len(ORDINARY), size=rng.integers(1, 20))]
    for _ in range(rng.integers(1, 4)):
        place = rng.integers(len(words))
        words[place] += _choose(rng, COMBINING + ZERO_WIDTH + CONTROLS + "<>&\"'\ud800\u2028", 4)
    return (" ", "", "\0", "<br />", "\u2003")[rng.integers(5)].join(words)


def _repeated(rng) -> str:
    shape = list(SHAPES.values())[rng.integers(len(SHAPES))]
    return shape(int(2 ** rng.uniform(2, 11)))


def _pieces(rng) -> str:
    pieces = ["<", "<br", "<br/>", "&amp;", "'", '"', ".", "n't", "N’T", "\u200d", "3.5", "a", " "]
    pieces += ["...", "…", "。", "?!", ")", "e.g.", "Mr.", "@", "\n", FAMILY, ACUTE, "\ud83d"]
    return "".join(pieces[k] for k in rng.integers(len(pieces), size=rng.integers(1, 30)))


#: Name -> function from a generator of random numbers to a text.
KINDS: dict[str, Callable[[np.random.Generator], str]] = {
    "characters of one plane": _any_plane,
    "characters of all planes": _all_planes,
    "scripts with marks": _script,
    "storms of marks": _storm,
    "what is not seen": _unseen,
    "surrogates": lambda rng: _choose(rng, "a \ud800\udbff\udc00\udfff\U0001f600"),
    "noncharacters": lambda rng: _choose(rng, [chr(code) for code in NONCHARACTERS]),
    "controls": lambda rng: _choose(rng, CONTROLS + "ab"),
    "white space": lambda rng: _choose(rng, " \t\n\r\v\f\x1c\x85\xa0\u2003\u2028\u3000", 9),
    "empty": lambda rng: "",
    "hostile inside of ordinary": _mixture,
    "repeats": _repeated,
    "pieces of what is parsed": _pieces,
}


def draw(rng: np.random.Generator, n_texts: int) -> list[str]:
    """Return texts of all kinds by turns, in a random order."""
    kinds = list(KINDS.values())
    return [kinds[k % len(kinds)](rng) for k in rng.permutation(n_texts)]
