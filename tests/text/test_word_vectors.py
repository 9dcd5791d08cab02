"""Word vectors: what is read of files, mappings and KeyedVectors, and what a classifier does."""

import bz2
import gzip
import lzma
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sklstm.text.word_vectors import VectorFile, check_embeddings, find_vectors

GLOVE = "good 1 -2.5 3e-1\nbad -1 2.5 -0.3\n. . . 4 5 6\nFilm 7 8 9\ngood 0 0 0\n"
TOKENS = ["<padding>", "<unknown>", "<boundary>", "good", "film", "Bad", "dull"]
MATRIX = [[0, 0, 0]] * 3 + [[1, -2.5, 0.3], [0, 0, 0], [-1, 2.5, -0.3], [0, 0, 0]]
COVERED = [False] * 3 + [True, False, True, False]

DATA = Path(os.environ.get("SKLSTM_DATA", Path(__file__).parents[3] / "shared" / "data"))
REAL = DATA / "glove6B_50d_1000words.txt"


def find(embeddings, tokens=TOKENS, width=None):
    return find_vectors(embeddings, tokens, n_special=3, width=width)


@pytest.fixture
def write(tmp_path):
    """Return what writes a file of vectors and gives its path."""

    def write(content, name="vectors.txt", opener=open):
        with opener(tmp_path / name, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


class KeyedVectors:
    """What gensim's class shows of itself."""

    def __init__(self, vectors):
        self.key_to_index = {word: row for row, word in enumerate(vectors)}
        self.vectors = np.array(list(vectors.values()), dtype=np.float32)

    def __contains__(self, word):
        return word in self.key_to_index

    def __getitem__(self, word):
        return self.vectors[self.key_to_index[word]]


class WithSubwords(KeyedVectors):
    """As gensim's FastTextKeyedVectors: every word has a vector."""

    def __contains__(self, word):
        return True

    def __getitem__(self, word):
        return super().__getitem__(word) if word in self.key_to_index else np.full(3, len(word))


# What is read

FILES = {
    "GloVe": GLOVE,
    "word2vec": "5 3\n" + GLOVE,
    "word2vec's own tool": "5 3\n" + GLOVE.replace("\n", " \n"),
    "Windows": GLOVE.replace("\n", "\r\n"),
    "tabs": GLOVE.replace(" ", "\t"),
    "byte order mark": b"\xef\xbb\xbf" + GLOVE.encode(),
    "blank lines": "\n" + GLOVE.replace("\n", "\n\n") + " \n",
    "no last line feed": GLOVE.rstrip("\n"),
    "bytes that are no UTF-8": GLOVE.encode() + b"\xff\xfe 1 2 3\n",
    "white space of Unicode": GLOVE + "\x85 1 2 3\n\u2028x 1 2 3\n",
    "spaces first": "at name@example 4 5 6\n" + GLOVE,
    "a number first": "2 4 5 6\n" + GLOVE,
}


@pytest.mark.parametrize("kind", FILES)
def test_files(write, kind):
    vectors = find(write(FILES[kind]))
    assert vectors.matrix.dtype == np.float32
    np.testing.assert_array_equal(vectors.matrix, np.float32(MATRIX))
    assert vectors.covered.tolist() == COVERED


@pytest.mark.parametrize(
    ("ending", "opener"), [(".gz", gzip.open), (".bz2", bz2.open), (".XZ", lzma.open)]
)
def test_packed_files(write, ending, opener):
    path = write(GLOVE, name="vectors.txt" + ending, opener=opener)
    for name in (path, str(path)):
        np.testing.assert_array_equal(find(name).matrix, np.float32(MATRIX))


def test_words_with_spaces_are_words_of_their_own(write):
    tokens = [*TOKENS[:3], ".", ". . .", "..", " "]
    assert find(write(GLOVE), tokens).matrix[3:].tolist() == [[0] * 3, [4, 5, 6], [0] * 3, [0] * 3]


def test_words_of_other_scripts_and_odd_ones(write):
    tokens = [*TOKENS[:3], "房", "😀", "\ud800"]
    assert find(write("房 1 2\n😀 3 4\n"), tokens).matrix[3:].tolist() == [[1, 2], [3, 4], [0, 0]]


def test_the_file_is_read_once_line_by_line_and_little_is_kept(write):
    vectors = VectorFile(write(GLOVE)).read({"bad", "dull"})
    assert list(vectors) == ["bad"]


def test_case_is_kept_first_and_then_given_up(write):
    path = write("Film 1 2\nfilm 3 4\n")
    tokens = [*TOKENS[:3], "Film", "film", "FILM"]
    assert find(path, tokens).matrix[3:].tolist() == [[1, 2], [3, 4], [3, 4]]


SIMPLE = {"good": [1, -2.5, 0.3], "bad": (-1, 2.5, -0.3), "other": [0.0, 0.0, 0.0]}


@pytest.mark.parametrize(
    "embeddings",
    [
        SIMPLE,
        {word: np.array(vector) for word, vector in SIMPLE.items()},
        {word: torch.tensor(vector) for word, vector in SIMPLE.items()},
        KeyedVectors(SIMPLE),
        SimpleNamespace(
            key_to_index={"good": 1, "bad": 0}, vectors=np.array([SIMPLE["bad"], SIMPLE["good"]])
        ),
    ],
    ids=["lists", "arrays", "tensors", "keyed vectors", "no __getitem__"],
)
def test_mappings_and_keyed_vectors(embeddings):
    vectors = find(embeddings)
    np.testing.assert_array_equal(vectors.matrix, np.float32(MATRIX))
    assert vectors.covered.tolist() == COVERED


def test_vectors_of_subwords_cover_everything():
    vectors = find(WithSubwords(SIMPLE))
    assert vectors.covered.tolist() == [False] * 3 + [True] * 4
    assert vectors.matrix[4].tolist() == [4, 4, 4]


def test_special_tokens_have_no_vectors():
    vectors = find({token: [1.0] for token in TOKENS})
    assert vectors.covered.tolist() == [False] * 3 + [True] * 4


def test_coverage_counts_tokens_and_vocabulary():
    vectors = find(SIMPLE)
    assert vectors.coverage(np.array([3, 3, 5, 4, 1])) == (0.6, 0.5)


def test_vectors_replace_only_their_rows():
    weight = torch.full((len(TOKENS), 3), 0.5, dtype=torch.float64)
    find(SIMPLE).copy_into(weight)
    expected = torch.full_like(weight, 0.5)
    expected[COVERED] = torch.from_numpy(np.float32(MATRIX)[COVERED]).double()
    assert torch.equal(weight, expected)


def test_a_single_number_is_a_vector_too():
    assert find({"good": [2.0]}).matrix.tolist() == [[0], [0], [0], [2], [0], [0], [0]]


# What it says


def sentence(error, embeddings, **arguments):
    with pytest.raises(error) as caught:
        find(embeddings, **arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "{name} must hold a line for each word; got an empty file."),
        ("\n \n", "{name} must hold a line for each word; got an empty file."),
        (
            "good 1 2 3\nbad 1 2\n",
            "Line 2 of {name} must hold a word and 3 numbers, as the first line has it; got 2 "
            "behind 'bad'. Mend or remove it.",
        ),
        (
            "5 3\nother 1 2\n",
            "Line 2 of {name} must hold a word and 3 numbers, as the first line has it; got 2 "
            "behind 'other'. Mend or remove it.",
        ),
        (
            "other 1 2 3\n\nother 1 2 3 4\n",
            "Line 3 of {name} must hold a word and 3 numbers, as the first line has it; got more "
            "behind 'other 1'. Mend or remove it.",
        ),
        (
            "good 1 2 3\nbad 1 nan 3\n",
            "Line 2 of {name}, the vector of 'bad', must hold 3 finite numbers; got nan among "
            "them. Mend or remove it.",
        ),
        (
            "good 1 2 3\nbad 1 2 1e39\n",
            "Line 2 of {name}, the vector of 'bad', must hold 3 finite numbers; got 1e+39 among "
            "them. Mend or remove it.",
        ),
        (
            "good 1 2 3\nbad 1 2 x\n",
            "Line 2 of {name}, the vector of 'bad', must hold 3 finite numbers; got ['1', '2', "
            "'x']. Mend or remove it.",
        ),
        (
            "3 3\ngood 1 2 3\nbad 1 2 3\n",
            "{name} must hold 3 words, as its first line says; got 2. Fetch it again, or put the "
            "right number into its first line.",
        ),
        (
            "PK\x03\x04 zipped\n",
            "Line 1 of {name} must hold a word and its vector, or the number of words and the "
            "width; got 'PK\\x03\\x04 zipped'. Files that are zipped or binary are not read: "
            "unpack them, or pass them as KeyedVectors of gensim.",
        ),
    ],
)
def test_malformed_files_are_refused_with_the_line(write, content, expected):
    path = write(content)
    assert sentence(ValueError, path) == expected.format(name=f"embeddings={str(path)!r}")


def test_binary_files_of_word2vec_are_named(write):
    numbers = np.array([0.1, -0.2, 0.3], dtype=np.float32).tobytes()
    path = write(b"2 3\ngood " + numbers + b"\nbad " + numbers + b"\n")
    assert sentence(ValueError, path).endswith(
        "Files that are zipped or binary are not read: unpack them, or pass them as KeyedVectors "
        "of gensim."
    )


def test_widths_of_zero_are_no_header(write):
    assert "Line 2" in sentence(ValueError, write("5 0\ngood\n"))


def test_files_that_cannot_be_read(write, tmp_path):
    missing = str(tmp_path / "missing.txt")
    assert sentence(FileNotFoundError, missing) == (
        f"embeddings={missing!r} must be the path of a text file of word vectors; there is no such "
        "file. Check the name and the working directory."
    )
    cut = write(gzip.compress(GLOVE.encode() * 99)[:60], name="cut.gz")
    assert sentence(OSError, cut) == (
        f"embeddings={str(cut)!r} must be a file that can be read to its end; got the error "
        "'Compressed file ended before the end-of-stream marker was reached'. Check that it is "
        "complete and packed as its ending says."
    )
    for ending in (".gz", ".bz2", ".xz"):
        assert "got the error" in sentence(OSError, write(GLOVE, name="plain" + ending))
    assert "got the error" in sentence(OSError, tmp_path)  # a folder


@pytest.mark.parametrize(
    ("embeddings", "expected"),
    [
        (
            {"good": [1, 2], "bad": [1, 2, 3]},
            "embeddings['good'] must hold 3 finite numbers; got shape (2,). Mend or remove it.",
        ),
        (
            {"good": []},
            "embeddings['good'] must hold one or more finite numbers; got shape (0,). Mend or "
            "remove it.",
        ),
        (
            {"good": 1.5},
            "embeddings['good'] must hold one or more finite numbers; got shape (). Mend or "
            "remove it.",
        ),
        (
            {"good": [[1, 2]]},
            "embeddings['good'] must hold one or more finite numbers; got shape (1, 2). Mend or "
            "remove it.",
        ),
        (
            {"good": [1.0, -np.inf]},
            "embeddings['good'] must hold one or more finite numbers; got -inf among them. Mend "
            "or remove it.",
        ),
        (
            {"good": "vector"},
            "embeddings['good'] must hold one or more finite numbers; got 'vector'. Mend or "
            "remove it.",
        ),
        (
            {"good": None},
            "embeddings['good'] must hold one or more finite numbers; got shape (). Mend or "
            "remove it.",
        ),
    ],
)
def test_vectors_that_are_none_are_refused_by_name(embeddings, expected):
    with np.errstate(all="raise"):
        assert sentence(ValueError, embeddings) == expected


def test_a_tensor_in_training_is_refused():
    message = sentence(ValueError, {"good": torch.ones(2, requires_grad=True)})
    assert message.startswith("embeddings['good'] must hold one or more finite numbers; got tensor")


def test_no_word_with_a_vector_is_an_error():
    assert sentence(ValueError, {"房": [1.0]}) == (
        "embeddings must hold vectors of words of the texts; got one for none of the 4 words of "
        "the vocabulary, such as 'good'. Check that texts and vectors are of one language and cut "
        "into the same kind of tokens."
    )


def test_another_width_is_an_error():
    assert find(SIMPLE, width=3).width == 3
    assert sentence(ValueError, SIMPLE, width=64) == (
        "embedding_dim must be 3, the width of the vectors in embeddings, or 'auto'; got 64."
    )


def test_what_is_no_word_vectors():
    for embeddings in (None, "path", Path("path"), {}, KeyedVectors(SIMPLE)):
        check_embeddings(embeddings)
    with pytest.raises(TypeError) as caught:
        check_embeddings([1.0])
    assert str(caught.value) == (
        "embeddings must be the path of a text file of word vectors, a mapping from token to "
        "vector, KeyedVectors of gensim or None; got list."
    )
    assert sentence(TypeError, SimpleNamespace(wv=None)).endswith(
        "got SimpleNamespace. Pass its attribute wv."
    )


@pytest.mark.skipif(not REAL.exists(), reason=f"there is no {REAL}")
def test_a_real_file_of_glove():
    words = [line.split(" ")[0] for line in REAL.read_text(encoding="utf-8").splitlines()]
    vectors = find(REAL, [*TOKENS[:3], *words, "surely-not-a-word"])
    assert vectors.covered[3:].tolist() == [True] * 1000 + [False]
    expected = np.loadtxt(REAL, usecols=range(1, 51), comments=None, dtype=np.float32)
    np.testing.assert_array_equal(vectors.matrix[3:-1], expected)
