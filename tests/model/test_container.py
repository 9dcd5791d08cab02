import json
import os
import stat

import numpy as np
import pytest
from safetensors.numpy import save as save_tensors

from sklstm.model import container
from sklstm.model.container import (
    DESCRIPTION,
    DIGEST,
    LENGTH,
    NO_DIGEST,
    DamagedFile,
    opened,
    pack,
    read_arrays,
    read_description,
    write,
)

ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "none": np.zeros((0, 4)),
    "a.number": np.array(3.5),
    "bytes": np.arange(5, dtype=np.uint8),
}
SHAPES = {name: [array.dtype.str, list(array.shape)] for name, array in ARRAYS.items()}
WORDS = ["naïve", "房间", "\ud800", "", '"sklstm_digest":"' + NO_DIGEST + '"', NO_DIGEST]
BROKEN = "one that is broken or of another program"

ON_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


def read(path):
    """Return description and arrays as a reader does, which checks the description itself."""
    with opened(path) as file:
        description, head = read_description(file)
        return description, read_arrays(file, head, description.get("arrays"))


@pytest.fixture
def content():
    """Return a small file that is right."""
    return pack({"words": WORDS, "arrays": SHAPES}, ARRAYS)


@pytest.fixture
def path(tmp_path, content):
    """Return the path of a small file that is right."""
    write(tmp_path / "m", content)
    return tmp_path / "m"


def sign(content):
    """Return a file whose digest of zeros is replaced by the right one."""
    return content.replace(NO_DIGEST.encode(), container._digest(content).encode(), 1)


def with_header(header: bytes, rest=b""):
    return len(header).to_bytes(LENGTH, "little") + header + rest


def with_description(text, **entries):
    """Return a file with any text as its description."""
    metadata = {DIGEST: NO_DIGEST, DESCRIPTION: text} | entries
    return sign(with_header(json.dumps({"__metadata__": metadata}, separators=(",", ":")).encode()))


def check_refused(tmp_path, content, match=BROKEN):
    (tmp_path / "damaged").write_bytes(content)
    with pytest.raises(DamagedFile, match=match):
        read(tmp_path / "damaged")


def test_what_is_written_comes_back(path):
    description, arrays = read(path)
    assert description == {"words": WORDS, "arrays": SHAPES}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array, strict=True)


def test_other_programs_can_read_the_arrays(path):
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(path, framework="np") as file:
        assert set(file.keys()) == ARRAYS.keys()
        assert json.loads(file.metadata()[DESCRIPTION])["words"] == WORDS
        np.testing.assert_array_equal(file.get_tensor("weights"), ARRAYS["weights"])


def test_the_same_data_are_the_same_bytes(content):
    backwards = dict(reversed(ARRAYS.items()))
    assert {pack({"words": WORDS, "arrays": SHAPES}, backwards) for _ in range(10)} == {content}


def test_numbers_that_json_has_no_name_for_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack({"number": float("nan")}, {})


def test_a_description_that_would_not_be_read_is_not_written(monkeypatch):
    monkeypatch.setattr(container, "MOST_ITEMS", 1000)
    pack({"items": [0] * 900}, {})
    with pytest.raises(ValueError) as refusal:
        pack({"items": [0] * 1000}, {})
    assert str(refusal.value) == (
        "save can write a description of up to 16 MB and 1,000 items; got one of 0.0 MB and "
        "1008 items. Use joblib."
    )
    monkeypatch.setattr(container, "MOST_HEADER_BYTES", 1000)
    with pytest.raises(ValueError, match="save can write a description of up to 16 MB"):
        pack({"item": "x" * 1000}, {})


def test_every_flipped_byte_is_seen(tmp_path, content):
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        check_refused(tmp_path, bytes(flipped), match="^one ")


def test_every_shorter_file_and_any_longer_one_is_seen(tmp_path, content):
    for length in range(len(content)):
        check_refused(tmp_path, content[:length], match="^one ")
    for more in (b"\0", b"x" * 100, content):
        check_refused(tmp_path, content + more, match="^one ")


@pytest.mark.parametrize(
    "content",
    [b"", b"no model", b"\xff" * 100, b"\0" * 100, with_header(b"[]"), with_header(b"{}")]
    + [save_tensors(ARRAYS), save_tensors(ARRAYS, metadata={"format": "pt"})],
)
def test_files_of_other_programs_are_refused(tmp_path, content):
    check_refused(tmp_path, content)


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**24 + 1, 2**63, 2**64 - 1])
def test_a_header_whose_length_is_a_lie_is_not_read(tmp_path, content, length):
    check_refused(tmp_path, length.to_bytes(LENGTH, "little") + content[LENGTH:])


def test_a_name_that_comes_twice_is_refused(tmp_path):
    check_refused(tmp_path, with_description('{"a": 1, "a": 2}'))
    check_refused(tmp_path, with_description('{"a": {"b": 1, "b": 1}}'))
    tensor = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    metadata = f'"__metadata__":{{"{DIGEST}":"{NO_DIGEST}","{DESCRIPTION}":"{{}}"}}'
    header = f'{{{metadata},"a":{tensor},"a":{tensor}}}'.encode()
    check_refused(tmp_path, sign(with_header(header, b"\0" * 4)))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"text"', "null", '{"a": 1} x', '{"a": 0x1}'])
def test_a_description_that_is_no_object_is_refused(tmp_path, text):
    check_refused(tmp_path, with_description(text))


def test_deep_or_long_json_is_refused(tmp_path):
    for begin, end in (("[", "]"), ('{"a":', "}")):
        text = '{"a": ' + begin * 200_000 + "1" + end * 200_000 + "}"
        check_refused(tmp_path, with_description(text), match="broken or|too long")
    check_refused(tmp_path, with_description('{"a": [' + "0," * 10**6 + "0]}"), match="too long")
    check_refused(tmp_path, with_description('{"a": ' + "9" * 10_000 + "}"))


def test_a_missing_or_wrong_digest_is_refused(tmp_path):
    for digest, match in (
        (None, "without a digest"),
        (3, "without a digest"),
        ("", "without a digest"),
        ("é" * 64, "without a digest"),
        ("1" * 64, "its digest is another"),
    ):
        content = with_description('{"arrays": {}}', **{DIGEST: digest})
        check_refused(tmp_path, content, match=match)


@pytest.mark.parametrize(
    "expected",
    [
        SHAPES | {"more": ["<f4", [1]]},
        {name: SHAPES[name] for name in ("weights", "none")},
        SHAPES | {"weights": ["<f4", [3, 2]]},
        SHAPES | {"weights": ["<i4", [2, 3]]},
    ],
    ids=["one more", "some", "another shape", "another dtype"],
)
def test_arrays_that_are_not_the_described_ones_are_refused(tmp_path, expected):
    content = pack({"arrays": expected}, ARRAYS)
    check_refused(tmp_path, content, match="arrays differ from its description, such as '")


def test_dtypes_that_numpy_has_not_are_refused(tmp_path, content):
    header = content[LENGTH : LENGTH + int.from_bytes(content[:LENGTH], "little")]
    for dtype in (b'"F8_E4M3"', b'"BF16"', b'"X"'):
        own = header.replace(b'"U8"', dtype)
        check_refused(tmp_path, with_header(own, content[LENGTH + len(header) :]), "^one ")


def test_a_file_that_is_replaced_while_it_is_read_stays_one_file(path):
    with opened(path) as file:
        description, head = read_description(file)
        write(path, pack({"words": [], "arrays": {}}, {}))
        arrays = read_arrays(file, head, SHAPES)
    assert description["words"] == WORDS and arrays.keys() == ARRAYS.keys()
    assert read(path) == ({"words": [], "arrays": {}}, {})


def test_no_file(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileNotFoundError, match="path must be a file that save has written; "):
            read(path)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("step", ["os.replace", "os.fsync", "os.chmod", "open"])
def test_what_fails_leaves_the_old_file_and_no_other(path, content, monkeypatch, error, step):
    def fail(*args, **kwargs):
        raise error

    class Full:
        """A file on a full disk."""

        def __init__(self, *args):
            self.file = open(*args)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def fileno(self):
            return self.file.fileno()

        def write(self, content):
            self.file.write(content[:100])
            raise error

    if step == "open":
        monkeypatch.setattr(container, "open", Full, raising=False)
    else:
        monkeypatch.setattr(step, fail)
    with pytest.raises(type(error)) as raised:
        write(path, b"another")
    assert raised.value is error
    monkeypatch.undo()
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["m"]


def test_an_interrupt_behind_the_replacement_stays_one(path, monkeypatch):
    """The new file is there; there is no temporary one to remove, and nothing hides the Ctrl-C."""

    def interrupted(*args, replace=os.replace):
        replace(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(path, b"another")
    assert path.read_bytes() == b"another"
    assert os.listdir(path.parent) == ["m"]


def test_bytes_are_on_the_disk_before_the_name(path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda number: calls.append("fsync"))
    monkeypatch.setattr(
        os, "replace", lambda *args, own=os.replace: calls.append("replace") or own(*args)
    )
    write(path, b"another")
    assert calls[:2] == ["fsync", "replace"]


@ON_WINDOWS
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_keeps_its_permissions(path, mode):
    path.chmod(mode)
    write(path, b"another")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@ON_WINDOWS
def test_a_new_file_has_those_of_any_new_file(tmp_path, monkeypatch):
    def touched(mask):
        raise AssertionError("the umask is the whole process's")

    monkeypatch.setattr(os, "umask", touched)
    write(tmp_path / "m", b"content")
    (tmp_path / "other").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("m", "other")}
    assert len(modes) == 1


@ON_WINDOWS
def test_the_target_of_a_link_is_written(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "target")
    for content in (b"first", b"second"):  # at first there is no target
        write(tmp_path / "link", content)
        assert (tmp_path / "folder" / "target").read_bytes() == content
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "folder") == ["target"]


@ON_WINDOWS
def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(ValueError) as refusal:
            write(path, b"content")
        assert str(refusal.value) == (
            f"path must be that of a file, old or new; got {str(path)!r}, which is something else."
        )
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "fifo")
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_name_may_be_long(tmp_path):
    path = tmp_path / ("m" * 250)
    write(path, b"content")
    assert path.read_bytes() == b"content"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "absent" / "m", b"content")
