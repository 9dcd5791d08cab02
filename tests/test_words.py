"""Public words are those of docs/contributing.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "contributing.md"
FOLDERS = ("sklstm", "docs", "examples", "benchmarks")
ENDINGS = (".py", ".md", ".rst", ".c", ".h")
# What a build makes, and what a benchmark leaves.
MADE = {"_build", "generated", "auto_examples", "results"}


def read_phrases():
    """Return the phrases of the table in the guide."""
    section = GUIDE.read_text(encoding="utf-8").partition("\n## Words\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", section, flags=re.MULTILINE)
    return [phrase for row in rows if row != "not" for phrase in row.split(", ")]


def read_files():
    """Return the text of each file, on one line, by its path; without the table itself."""
    paths = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    for folder in FOLDERS:
        paths += [p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in ENDINGS]
    texts = {}
    for path in paths:
        if not MADE & set(path.relative_to(ROOT).parts):
            text = path.read_text(encoding="utf-8")
            if path == GUIDE:
                text = re.sub(r"^\| .*$", "", text, flags=re.MULTILINE)
            # Comments and docstrings break phrases at the ends of lines.
            texts[path.relative_to(ROOT)] = re.sub(r"\s*\n\s*(#:?|//|\*)?\s*", " ", text)
    return texts


FILES = read_files()
PHRASES = read_phrases()


def test_there_are_files_and_phrases():
    assert len(FILES) > 100 and len(PHRASES) > 20


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_file_has_a_phrase_to_avoid(phrase):
    pattern = re.compile(rf"\b{re.escape(phrase)}\b", flags=re.IGNORECASE)
    found = {}
    for path, text in FILES.items():
        if match := pattern.search(text):
            found[str(path)] = text[max(0, match.start() - 40) : match.end() + 40]
    assert not found
