"""The ids that stand for no token of a text; those of real tokens follow."""

PADDING, UNKNOWN, BOUNDARY = 0, 1, 2
SPECIAL_TOKENS = ("<padding>", "<unknown>", "<boundary>")
