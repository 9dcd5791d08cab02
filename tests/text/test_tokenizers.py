"""Text to tokens."""

import pytest

from sklstm.text.tokenizers import replace_line_breaks, tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \t\n ", []),
        ("Good, bad!", ["Good", ",", "bad", "!"]),
        ("isn't", ["is", "n't"]),
        ("I can’t", ["I", "ca", "n’t"]),
        ("DON'T", ["DO", "N'T"]),
        ("cannot", ["cannot"]),
        ("it's 10/10?!", ["it", "'", "s", "10", "/", "10", "?", "!"]),
        ("naïve café", ["naïve", "café"]),
        ("great 😀😀", ["great", "😀", "😀"]),
        ("房间太小，不好", ["房", "间", "太", "小", "，", "不", "好"]),
        ("とても良い", ["と", "て", "も", "良", "い"]),
        ("iPhone手机ok", ["iPhone", "手", "机", "ok"]),
        ("정말 좋아요", ["정말", "좋아요"]),
        ("a<br />b<BR>c", ["a", "b", "c"]),
    ],
)
def test_tokens_by_eye(text, tokens):
    assert tokenize(text) == tokens


def test_only_line_break_tags_become_spaces():
    assert replace_line_breaks("1 < 2<br/>x <b>y</b>") == "1 < 2 x <b>y</b>"
