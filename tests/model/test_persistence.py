import json
import os
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sklstm.model.persistence import read_model, write_model

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b.c": torch.tensor([1.5])}


def write(path, **description):
    write_model(path, kind="model", weights=WEIGHTS, description=description)


def test_weights_and_description_come_back(tmp_path):
    write(
        tmp_path / "m.safetensors", words=["naïve", "房"], number=np.int64(3), share=np.float64(2)
    )
    weights, description = read_model(tmp_path / "m.safetensors", kind="model")
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)
    assert description["words"] == ["naïve", "房"]
    assert description["number"] == 3 and description["share"] == 2.0


def test_weights_need_not_lie_side_by_side(tmp_path):
    transposed = {"a": WEIGHTS["a"].T}
    write_model(tmp_path / "m", kind="model", weights=transposed, description={})
    assert torch.equal(read_model(tmp_path / "m", kind="model")[0]["a"], WEIGHTS["a"].T)


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    write(path, number=1)
    with pytest.raises(TypeError, match="which is no data"):
        write(path, number=object())

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, number=2)
    assert read_model(path, kind="model")[1]["number"] == 1
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    write(tmp_path / "m")
    (tmp_path / "other").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("m", "other")}
    assert len(modes) == 1


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="path must be a file that save has written; got "):
        read_model(tmp_path / "absent", kind="model")


@pytest.mark.parametrize("content", [b"", b"no model", b"\xff" * 100], ids=["empty", "text", "ff"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ValueError, match="must be a file that save of sklstm has written; got one"):
        read_model(tmp_path / "m", kind="model")


def test_half_a_file_is_named(tmp_path):
    write(tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(content[:-5])
    with pytest.raises(ValueError, match="broken or of another program"):
        read_model(tmp_path / "m", kind="model")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"sklstm": "{"}, {"sklstm": "[]"}])
def test_a_file_of_another_program_is_named(tmp_path, metadata):
    save_file(WEIGHTS, tmp_path / "m", metadata=metadata)
    with pytest.raises(ValueError, match="broken or of another program"):
        read_model(tmp_path / "m", kind="model")


def test_another_kind_or_version_is_named(tmp_path):
    write(tmp_path / "m")
    with pytest.raises(
        ValueError, match="must hold a tree in version 1 .* got a model in version 1"
    ):
        read_model(tmp_path / "m", kind="tree")
    metadata = {"sklstm": json.dumps({"kind": "model", "version": 99})}
    save_file(WEIGHTS, tmp_path / "m", metadata=metadata)
    with pytest.raises(ValueError, match="got a model in version 99"):
        read_model(tmp_path / "m", kind="model")
