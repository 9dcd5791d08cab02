import enum
import json
from collections import namedtuple
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from sklstm import SequenceVectorizer
from sklstm.model import container, reading, writing
from sklstm.model.blending import Blend
from sklstm.model.container import DamagedFile
from sklstm.model.reading import MAKERS, Reader
from sklstm.model.text_model import TextModel
from sklstm.model.writing import KIND, KINDS, Writer
from sklstm.tasks.multiclass import Multiclass
from tests.builders import build_language_network, build_network
from tests.conftest import LABELS, TEXTS


def there_and_back(thing, tmp_path, trust_pattern=False):
    """Return what a file gives back, once all that was kept is used."""
    writer = Writer()
    described = {"thing": writer.take_apart(thing, "thing")}
    shapes = {name: [array.dtype.str, list(array.shape)] for name, array in writer.arrays.items()}
    container.write(tmp_path / "thing", container.pack(described, writer.arrays))
    with container.opened(tmp_path / "thing") as file:
        described, head = container.read_description(file)
        arrays = container.read_arrays(file, head, shapes)
    reader = Reader(arrays, trust_pattern=trust_pattern)
    again = reader.put_together(described["thing"])
    assert reader.arrays == {}
    return again


class Color(str, enum.Enum):  # noqa: UP042 - whose str is its name, unlike a StrEnum's
    RED = "red"


class Names(list):
    """A list of the user's kind."""


Point = namedtuple("Point", "x y")

PLAIN = [
    None,
    True,
    False,
    0,
    -(2**80),
    1.5,
    0.1 + 0.2,
    5e-324,
    -0.0,
    "",
    "text",
    "naïve 房间",
    "\ud800",
    "\0",
    [],
    (),
    {},
    [1, [2.0, ["x", None]]],
    (1, (2, [3, ()])),
    {"a": {"b": [1, (2,)]}},
    {1: "a", "1": "b", 2.5: "c", None: "d", False: 3, (1, "x"): 4},
    {KIND: "TextModel"},
    {"a": {KIND: 1}},
    {"": 0},
    [str(k) for k in range(200)],
    ["\ud800", "", "房"] * 50,
    {f"token{k}": 200 - k for k in range(200)},
    {f"token{k}": 2.0**70 * k for k in range(200)},
    {f"token{k}": 2**70 * k for k in range(200)},
    {f"token{k}": True for k in range(200)},
    {k: k for k in range(200)},
    list(range(200)),
    [0.1 * k for k in range(200)],
    [k > 50 for k in range(200)],
    [k > 50 if k else 0 for k in range(200)],
    [2**63 + k for k in range(200)],
    [{"a": k, "b": k / 3, "c": str(k), "d": [k]} for k in range(200)],
    [{"a": k} if k % 90 > 2 else {"b": k, 1: None} for k in range(200)],
    [{"a": k} if k else {} for k in range(200)],
    [{KIND: k} for k in range(200)],
]


def check_equal(one, other):
    assert type(one) is type(other)
    assert one == other
    if isinstance(one, dict):
        assert list(one) == list(other)
        assert [type(key) for key in one] == [type(key) for key in other]
        assert [type(value) for value in one.values()] == [type(value) for value in other.values()]


@pytest.mark.parametrize("thing", PLAIN, ids=lambda thing: f"{thing!r:.20}")
def test_plain_data_come_back(thing, tmp_path):
    check_equal(there_and_back(thing, tmp_path), thing)
    check_equal(there_and_back([thing, thing], tmp_path), [thing, thing])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_come_back(number, tmp_path):
    again = there_and_back({"a": [number]}, tmp_path)
    assert type(again["a"][0]) is float
    np.testing.assert_equal(again, {"a": [number]})


@pytest.mark.parametrize(
    ("thing", "plain"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (Color.RED, "red"),
        ({np.int64(1): np.float64(2.0)}, {1: 2.0}),
        ({Color.RED: 1}, {"red": 1}),
        (Names(["a", "b"]), ["a", "b"]),
        (Point(1, 2), (1, 2)),
    ],
    ids=repr,
)
def test_numbers_of_numpy_and_kinds_of_the_users_become_plain(thing, plain, tmp_path):
    check_equal(there_and_back(thing, tmp_path), plain)


ARRAYS = [
    np.array(["neg", "positive", ""]),
    np.array(["neg", "x"], dtype="<U30"),
    np.array(["neg", "x"], dtype=">U3"),
    np.array(["neg", "\ud800", "房间"], dtype=object),
    np.array([3, -1]),
    np.array([3, 1], dtype=np.uint8),
    np.array([False, True]),
    np.array([0.5, np.nan, np.inf]),
    np.arange(6, dtype=np.float16).reshape(2, 3).T,
    np.arange(10)[::2],
    np.array(3.5),
    np.zeros((0, 3)),
    np.array([], dtype=object),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back(array, tmp_path):
    again = there_and_back({"a": array}, tmp_path)["a"]
    assert again.dtype == array.dtype and again.flags.writeable
    np.testing.assert_array_equal(again, array, strict=True)


def test_the_order_of_bytes_is_that_of_all_files(tmp_path):
    again = there_and_back(np.array([1, 2], dtype=">i4"), tmp_path)
    assert again.dtype == np.dtype("<i4") and again.tolist() == [1, 2]


def test_labels_of_one_long_string_take_no_more_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES_OF_LABELS", 100)
    again = there_and_back(np.array(["a" * 30, "b"]), tmp_path)
    assert again.dtype == object and again.tolist() == ["a" * 30, "b"]


@pytest.mark.parametrize(
    "tensor",
    [torch.arange(6.0).view(2, 3).T, torch.tensor(3.0), torch.tensor([1, 2]), torch.zeros(0, 2)],
    ids=lambda tensor: str(tuple(tensor.shape)),
)
def test_tensors_come_back(tensor, tmp_path):
    again = there_and_back([tensor], tmp_path)[0]
    torch.testing.assert_close(again, tensor, rtol=0, atol=0)


def test_keys_of_one_name_do_not_share_a_place(tmp_path):
    thing = {1: np.array([1]), "1": np.array([2]), "a.b": np.array([3]), "a": {"b": np.array([4])}}
    again = there_and_back(thing, tmp_path)
    assert [again[1], again["1"], again["a.b"], again["a"]["b"]] == [[1], [2], [3], [4]]
    thing = {"a": ["x"] * 200, "a.text": np.array([1])}
    again = there_and_back(thing, tmp_path)
    assert again["a"] == thing["a"] and again["a.text"] == [1]


def test_a_random_state_comes_back(tmp_path):
    rng = np.random.default_rng(3)
    rng.integers(10, size=3, dtype=np.int32)  # of which half a number is left over
    again = there_and_back(rng, tmp_path)
    assert again.integers(2**32, size=5).tolist() == rng.integers(2**32, size=5).tolist()


@pytest.mark.parametrize("build", [build_network, build_language_network])
def test_a_network_comes_back(build, tmp_path):
    network = build()
    again = there_and_back(network, tmp_path)
    assert type(again) is type(network) and again.settings == network.settings
    torch.testing.assert_close(again.state_dict(), network.state_dict(), rtol=0, atol=0)
    assert torch.equal(again.generator.get_state(), network.generator.get_state())


def test_a_vectorizer_comes_back(tmp_path):
    vectorizer = SequenceVectorizer(min_df=np.int64(1), stop_words=["a"]).fit(TEXTS)
    again = there_and_back(vectorizer, tmp_path)
    assert again.get_params() == vectorizer.get_params()
    assert list(again.vocabulary_.items()) == list(vectorizer.vocabulary_.items())
    unfitted = there_and_back(SequenceVectorizer(), tmp_path)
    assert not hasattr(unfitted, "vocabulary_")


def test_a_pattern_comes_back_where_it_is_trusted(tmp_path):
    vectorizer = SequenceVectorizer(token_pattern="(a+)+$")
    with pytest.raises(DamagedFile, match="can be made to take for ever on some texts"):
        there_and_back(vectorizer, tmp_path)
    assert there_and_back(vectorizer, tmp_path, trust_pattern=True).token_pattern == "(a+)+$"


class OwnVectorizer(SequenceVectorizer):
    """A user's class."""


def member():
    return make_pipeline(CountVectorizer(), MultinomialNB()).fit(TEXTS, LABELS)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ({"a": [len]}, "save cannot write x.a.0: a builtin_function_or_method is no data of ours."),
        ({"a": {1, 2}}, "save cannot write x.a: a set is no data of ours. Use joblib, or leave it"),
        ({"a": b"b"}, "save cannot write x.a: a bytes is no data of ours."),
        ({"a": 1j}, "save cannot write x.a: a complex is no data of ours."),
        ({(1, 2j): 1}, "save cannot write a key of x"),
        ({"a": np.datetime64("2020-01-01")}, "save cannot write x.a: a date is no data of ours."),
        ({"a": np.longdouble(1)}, "save cannot write x.a: a longdouble is no data of ours."),
        ({"a": np.array([1j])}, "save cannot write x.a: a ndarray is no data of ours."),
        ({"a": np.array([1, "x"], object)}, "save cannot write x.a: a ndarray is no data of ours."),
        ({"a": np.array(["2020"], "M8[Y]")}, "save cannot write x.a: a ndarray is no data of"),
        ({"a": np.array([["x"]])}, "save cannot write x.a: a ndarray is no data of ours."),
        (
            {"a": SequenceVectorizer(tokenizer=str.split)},
            "save cannot write x.a: its tokenizer is a function, which is no data. Use joblib.",
        ),
        ({"a": OwnVectorizer()}, "save cannot write x.a: a OwnVectorizer is no data of ours."),
        ({"a": member()}, "save cannot write x.a: a Pipeline is no data of ours."),
    ],
    ids=lambda value: value[20:50] if isinstance(value, str) else "",
)
def test_what_is_no_data_is_refused_by_its_path(thing, message):
    with pytest.raises(ValueError) as refusal:
        Writer().take_apart(thing, "x")
    assert message in str(refusal.value)


def test_a_long_history_takes_few_items_of_json():
    """Such as that of an estimator that learns by ``partial_fit`` for days."""
    row = {"epoch": 1, "dur": 0.1, "train_loss": np.float64(0.5), "best": True}
    writer = Writer()
    described = writer.take_apart([row] * 50_000, "history")
    assert len(json.dumps(described)) < 500
    assert Reader(writer.arrays).put_together(described) == [row] * 50_000


def test_no_more_rows_are_written_than_are_read(monkeypatch):
    described = (writer := Writer()).take_apart([{"a": True}] * 301, "history")
    for module in (reading, writing):
        monkeypatch.setattr(module, "MOST_ROWS", 300)
    with pytest.raises(DamagedFile, match="too many rows"):
        Reader(writer.arrays).put_together(described)
    with pytest.raises(ValueError) as refusal:
        Writer().take_apart([{"a": True}] * 301, "history")
    assert str(refusal.value) == "save can write at most 300 rows of history; got 301. Use joblib."


def test_a_refusal_names_the_way_out():
    model = TextModel(
        SequenceVectorizer(), build_network(), None, Blend(members=(("own", member()),))
    )
    with pytest.raises(ValueError) as refusal:
        Writer().take_apart(model, "model")
    assert str(refusal.value) == (
        "save cannot write model.blend.members.0.1: a Pipeline is no data of ours. Use joblib, or "
        "blend='ngrams'."
    )


def make_model(**parts):
    vectorizer = SequenceVectorizer().fit(TEXTS)
    network = build_network(n_ids=len(vectorizer.tokens_), n_outputs=2)
    task = Multiclass(np.array(["neg", "pos"]), 0.1)
    return TextModel(vectorizer, network, task, **parts)


def test_all_that_was_learnt_comes_back(tmp_path):
    moment = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3)}
    model = make_model(
        blend=Blend(2.0, (0.3,)),
        history=[{"train_loss": 0.5, "valid_loss": np.float64(np.inf)}],
        rng=np.random.default_rng(0),
        moments={"head.weight": moment},
        given=("embedding_dim",),
        coverage=(0.5, 0.25),
        callbacks=[("own", len)],
    )
    again = there_and_back(model, tmp_path)
    assert again.outputs(TEXTS).tolist() == model.outputs(TEXTS).tolist()
    assert again.task.classes.tolist() == ["neg", "pos"] and again.task.label_smoothing == 0.1
    assert vars(again.blend) == vars(model.blend)
    assert again.history == model.history
    assert again.given == model.given and again.coverage == model.coverage
    torch.testing.assert_close(again.moments, model.moments, rtol=0, atol=0)
    assert again.callbacks == []


@dataclass
class Noted(TextModel):
    """A model with one more thing that was learnt."""

    notes: list = field(default_factory=lambda: ["none"])


def test_a_new_field_saves_itself(tmp_path, monkeypatch):
    monkeypatch.setitem(writing.DATACLASSES, "Noted", Noted)
    monkeypatch.setitem(MAKERS, "Noted", Reader.dataclass)
    monkeypatch.setitem(KINDS, Noted, Writer.dataclass)
    model = Noted(**{**vars(make_model()), "notes": [np.arange(3), {1: "x"}]})
    again = there_and_back(model, tmp_path)
    assert type(again) is Noted
    assert again.notes[0].tolist() == [0, 1, 2] and again.notes[1] == {1: "x"}
    described = Writer().take_apart(model, "model")
    del described["fields"]["notes"]  # as in a file from before there were notes
    writer = Writer()
    writer.take_apart(model, "model")
    assert Reader(writer.arrays).put_together(described).notes == ["none"]


DAMAGED = {
    "an unknown kind": {KIND: "Estimator"},
    "a kind that is no name": {KIND: ["tuple"]},
    "a callable": {KIND: "builtins.eval"},
    "one more field": {KIND: "Blend", "fields": {"weight": 1}},
    "an array that is not there": {KIND: "array", "path": "absent"},
    "one array twice": [{KIND: "array", "path": "a"}] * 2,
    "strings by other arrays": {KIND: "strings", "paths": ["a", "b"]},
    "ends that descend": {KIND: "strings", "paths": ["text", "down"]},
    "ends beyond the text": {KIND: "strings", "paths": ["text", "beyond"]},
    "labels of another dtype": {KIND: "labels", "dtype": "<f8", "paths": ["text", "ends"]},
    "labels of wider strings": {KIND: "labels", "dtype": "<U1", "paths": ["text", "ends"]},
    "labels of a huge width": {KIND: "labels", "dtype": "<U999999999", "paths": ["text", "ends"]},
    "a float by another name": {KIND: "float", "value": "1e5"},
    "a generator of another kind": {KIND: "rng", "state": {"bit_generator": "MT19937"}},
    "a number too large": {
        KIND: "rng",
        "state": np.random.default_rng(0).bit_generator.state
        | {"state": {"state": 2**200, "inc": 1}},
    },
    "a vectorizer that fit refuses": {KIND: "vectorizer", "parameters": {"max_length": -5}},
    "a vectorizer with a function's name": {
        KIND: "vectorizer",
        "parameters": {"preprocessor": "os.system"},
    },
    "a vectorizer with a function": {
        KIND: "vectorizer",
        "parameters": {"tokenizer": Writer().take_apart(build_network(), "x")},
    },
    "a vocabulary of numbers": {KIND: "vectorizer", "parameters": {"vocabulary": [1, 2]}},
    "a token that comes twice": {
        KIND: "vectorizer",
        "parameters": {},
        "tokens": {KIND: "strings", "paths": ["text", "same"]},
    },
    "no token": {
        KIND: "vectorizer",
        "parameters": {},
        "tokens": {KIND: "strings", "paths": ["empty", "none"]},
    },
    "keys that are lists": {KIND: "dict", "items": [[[1], 2]]},
    "columns of other lengths": {
        KIND: "rows",
        "runs": [{"names": ["a", "b"], "columns": [[1], [1, 2]]}],
    },
    "one value for two names": {
        KIND: "table",
        "names": {KIND: "strings", "paths": ["text", "ends"]},
        "values": [1],
    },
}


@pytest.mark.parametrize("part", DAMAGED.values(), ids=DAMAGED)
def test_a_description_of_another_writer_is_refused(part):
    arrays = {
        "a": np.zeros(3),
        "b": np.zeros(3),
        "text": np.frombuffer(b"aabb", np.uint8),
        "ends": np.array([2, 4]),
        "same": np.array([1, 2, 4]),
        "down": np.array([3, 2, 4]),
        "beyond": np.array([2, 5]),
        "empty": np.zeros(0, np.uint8),
        "none": np.zeros(0, np.int64),
    }
    part = json.loads(json.dumps(part, default=lambda thing: None))
    errors = (ValueError, TypeError, LookupError, ArithmeticError)  # which ``load`` makes one of
    with pytest.raises(errors):
        Reader(arrays).put_together(part)


def test_a_weight_that_is_not_finite_is_neither_written_nor_read(tmp_path):
    network = build_network()
    described = (writer := Writer()).take_apart(network, "network")
    path = next(path for path in writer.arrays if path.endswith("head.bias"))
    writer.arrays[path] = np.full_like(writer.arrays[path], np.nan)
    with pytest.raises(DamagedFile, match="one whose weight 'head.bias' is not finite"):
        Reader(writer.arrays).put_together(described)
    with torch.no_grad():
        network.head.bias[1] = torch.nan
    with pytest.raises(ValueError, match="cannot write model.network: its weight 'head.bias'"):
        Writer().take_apart(network, "model.network")


def test_few_different_numbers_are_written_as_codes():
    few = np.repeat([0.1, -0.0, 0.0, 1e300, 0.2], 200)
    writer = Writer()
    described = writer.take_apart(few, "idf")
    assert sum(array.nbytes for array in writer.arrays.values()) < few.nbytes / 3
    again = Reader(writer.arrays).put_together(described)
    assert again.tobytes() == few.tobytes()
    many = np.arange(1000) / 7
    assert Writer().take_apart(many, "coef")[KIND] == "array"


@pytest.mark.parametrize("codes", [[3] * 200, [-1] * 200, [0.0] * 200])
def test_codes_of_no_number_are_refused(codes):
    writer = Writer()
    described = writer.take_apart(np.repeat([1.0, 2.0, 3.0], 100), "idf")
    wrong = np.array(codes).astype(np.uint16 if codes[0] >= 0 and type(codes[0]) is int else "f8")
    writer.arrays["idf.codes"] = wrong
    with pytest.raises((DamagedFile, IndexError)):
        Reader(writer.arrays).put_together(described)
