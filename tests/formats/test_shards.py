"""Checkpoints in shards: what an index lists, read tensor by tensor, and what is refused."""

import json
import os
import re

import ml_dtypes
import numpy as np
import pytest

import replicajax as rj
from replicajax._writing import refuse_overwriting
from replicajax.formats import _files
from replicajax.formats._files import Entry, open_weights, parts, write_safetensors

INDEX = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
RNG = np.random.default_rng(0)
TENSORS = {
    ONE: {
        "embedding": RNG.normal(size=(50, 8)).astype(np.float32),
        "a.weight": RNG.normal(size=(8, 8)).astype(ml_dtypes.bfloat16),
    },
    TWO: {
        "z.weight": RNG.normal(size=(8, 16)).astype(np.float16),
        "a.bias": np.arange(8),
        "head": RNG.normal(size=(16, 8)).astype(ml_dtypes.float8_e4m3fn),
    },
}
LISTED = {name: shard for shard, tensors in TENSORS.items() for name in tensors}
NAMES = list(LISTED)


def write(path, tensors, metadata=None):
    write_safetensors(path, {name: Entry(x.shape, x.dtype, lambda x=x: x) for name, x in tensors.items()}, metadata)


def reindex(folder, index):
    (folder / INDEX).write_text(index if isinstance(index, str) else json.dumps(index))


@pytest.fixture
def folder(tmp_path):
    """With the index in alphabetical order, as it is found in the wild."""
    folder = tmp_path / "model"
    folder.mkdir()
    for shard, tensors in TENSORS.items():
        write(folder / shard, tensors, {"format": "pt"})
    reindex(folder, {"metadata": {"total_size": 1234, "note": "as is"}, "weight_map": dict(sorted(LISTED.items()))})
    return folder


@pytest.fixture
def opening(monkeypatch):
    """The shards opened so far."""
    opened, plain = [], _files._Tensors
    monkeypatch.setattr(_files, "_Tensors", lambda path: opened.append(path.name) or plain(path))
    return opened


def refused(path, message, error: type[Exception] = ValueError):
    """By one line."""
    with pytest.raises(error, match=message) as raised, open_weights(path):
        pass
    assert type(raised.value) is error
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.mark.parametrize("place", [".", INDEX])
def test_the_same_as_one_file(folder, place, monkeypatch, opening):
    monkeypatch.chdir(folder)
    with open_weights(place) as file:
        assert list(file.names) == NAMES  # of shards in order, each in its own
        assert file.metadata == {"total_size": "1234", "note": "as is"}
        for name in reversed(NAMES):
            read, wanted = file.read(name), TENSORS[LISTED[name]][name]
            assert read.dtype == wanted.dtype
            np.testing.assert_array_equal(read, wanted)
    assert opening == [ONE, TWO]


def test_described_as_one_file(folder, tmp_path):
    write(tmp_path / "whole.safetensors", {name: x for tensors in TENSORS.values() for name, x in tensors.items()})
    whole, sharded = rj.formats.describe_weights(tmp_path / "whole.safetensors"), rj.formats.describe_weights(folder)
    assert [t[:5] for t in whole] == [t[:5] for t in sharded]


def test_tensors_are_read_when_asked_for(folder):
    with open_weights(folder) as file:
        (folder / TWO).unlink()
        np.testing.assert_array_equal(file.read("embedding"), TENSORS[ONE]["embedding"])
        with pytest.raises(ValueError, match=f"weight file '.*{TWO}' cannot be read: .*No such file"):
            file.read("head")
        with pytest.raises(ValueError, match=f"index '.*{INDEX}' has no tensor 'nose'"):
            file.read("nose")


def test_what_the_index_does_not_list_is_not_there(folder):
    write(folder / TWO, TENSORS[TWO] | {"stale": np.ones(3), "embedding": np.zeros(3)})
    write(folder / "other.safetensors", {"more": np.ones(3)})
    with open_weights(folder) as file:
        assert list(file.names) == NAMES
        np.testing.assert_array_equal(file.read("embedding"), TENSORS[ONE]["embedding"])
        with pytest.raises(ValueError, match="has no tensor 'stale'"):
            file.read("stale")


def test_shards_in_a_folder_below(folder, opening):
    (folder / "below").mkdir()
    for shard in TENSORS:
        (folder / shard).rename(folder / "below" / shard)
    spelled = {name: f"{'./' * (name == 'a.bias')}below/{shard}" for name, shard in LISTED.items()}
    reindex(folder, {"weight_map": spelled})
    with open_weights(folder) as file:
        assert list(file.names) == NAMES
        assert file.metadata == {}
    assert opening == [ONE, TWO]  # however they are spelled


def test_links_kept_together(folder, tmp_path):
    """Files of other names, elsewhere, linked to under their own."""
    links, blobs = tmp_path / "links", tmp_path / "blobs"
    links.mkdir()
    blobs.mkdir()
    for i, name in enumerate((INDEX, ONE, TWO)):
        (folder / name).rename(blobs / f"{i}")
        (links / name).symlink_to(f"../blobs/{i}")
    with open_weights(links) as file:
        np.testing.assert_array_equal(file.read("a.bias"), np.arange(8))
    assert parts(links) == [links / INDEX, links / ONE, links / TWO]
    with pytest.raises(ValueError, match="would overwrite"):
        refuse_overwriting(blobs / "2", *parts(links))


def test_a_folder_of_one_file(tmp_path):
    path = tmp_path / "model.safetensors"
    write(path, TENSORS[ONE], {"format": "pt"})
    np.savez(tmp_path / "other.npz", np.ones(3))
    (tmp_path / "no_file.safetensors").mkdir()
    with open_weights(tmp_path) as file:
        assert list(file.names) == list(TENSORS[ONE])
        assert file.metadata == {"format": "pt"}
    assert parts(tmp_path) == parts(path) == [path]


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b"], ["a", "b", "c", "d"]])
@pytest.mark.parametrize("suffix", [".safetensors", ".safetensors.index.json"])
def test_folders_that_do_not_say_which(tmp_path, names, suffix):
    (tmp_path / "config.json").touch()
    for name in names:
        (tmp_path / f"{name}{suffix}").touch()
    if len(names) == 1:  # that one is meant, and is empty
        refused(tmp_path, "cannot be read|must be JSON")
        return
    some = ", ".join([f"'{name}{suffix}'" for name in names[:3]] + ["..."] * (len(names) > 3))
    wanted = r"must hold one \*\.safetensors\.index\.json or, without any, one \*\.safetensors, got "
    refused(tmp_path, f"^folder '.*' {wanted}{re.escape(some or 'none')}$")
    with pytest.raises(ValueError, match=wanted):
        parts(tmp_path)


def test_places_without_weights(folder):
    refused(folder / "nowhere", "^weight file '.*nowhere' does not exist$", FileNotFoundError)
    with pytest.raises(FileNotFoundError, match="nowhere' does not exist"):
        parts(folder / "nowhere")
    (folder / "index.json").write_text((folder / INDEX).read_text())
    refused(folder / "index.json", r"must end in .* or be an index \*\.safetensors\.index\.json, got '.*index\.json'")


def test_an_index_that_leads_nowhere(folder):
    """The one shard beside it is not the whole."""
    (folder / TWO).unlink()
    (folder / INDEX).unlink()
    (folder / INDEX).symlink_to("nowhere")
    refused(folder, f"weight file '.*{INDEX}' does not exist", FileNotFoundError)


BAD = [
    ("", "must be JSON, which it is not: Expecting value"),
    ("weights", "must be JSON, which it is not: Expecting value"),
    ('{"weight_map": {"a": ', "must be JSON, which it is not"),
    ("[" * 10**6, "must be JSON, which it is not"),
    ([1, 2], r"must have a weight_map of tensor names to shard names, got \[1, 2\]"),
    ({"metadata": {}}, r"must have a weight_map of tensor names to shard names, got \{'metadata': \{\}\}"),
    ({"weight_map": [ONE]}, "must have a weight_map"),
    ({"weight_map": {}}, r"must have a weight_map .*, got \{'weight_map': \{\}\}"),
    ({"weight_map": LISTED, "metadata": [1]}, r"must have metadata by name, or none, got \[1\]"),
]
STRAYS = [f"../{ONE}", f"below/../../{ONE}", f"/{ONE}", f"//{ONE}", "..", "", "model.bin", "w.npz", INDEX, 3, None]


@pytest.mark.parametrize(("index", "message"), BAD)
def test_indices_that_are_none(folder, index, message):
    reindex(folder, index)
    found = refused(folder, f"^index '.*{INDEX}' {message}")
    assert len(found) < 1000
    with pytest.raises(ValueError, match=message):
        parts(folder)


def test_an_index_of_other_bytes(folder):
    (folder / INDEX).write_bytes(b'{"weight_map": "\xff"}')
    refused(folder, "must be JSON, which it is not: .*utf-8")


@pytest.mark.parametrize("stray", STRAYS)
def test_shards_outside_the_folder(folder, stray):
    write(folder.parent / ONE, TENSORS[ONE])  # being there does not help
    reindex(folder, {"weight_map": LISTED | {"head": stray}})
    wanted = "must place tensor 'head' in a .safetensors file of its own folder, got "
    refused(folder, f"^index '.*{INDEX}' {wanted}{re.escape(repr(stray))}$")
    with pytest.raises(ValueError, match=wanted):
        parts(folder)


@pytest.mark.parametrize("name", [TWO, "dir.safetensors", "\0.safetensors", "two\nlines.safetensors"])
def test_missing_shards(folder, name, opening):
    (folder / TWO).unlink()
    (folder / "dir.safetensors").mkdir()
    reindex(folder, {"weight_map": LISTED | dict.fromkeys(TENSORS[TWO], name)})
    wanted = f"^shard {re.escape(repr(str(folder / name)))} of index '.*{INDEX}' does not exist$"
    refused(folder, wanted, FileNotFoundError)
    with pytest.raises(FileNotFoundError, match=wanted):
        parts(folder)
    assert not opening


@pytest.mark.parametrize("cut", [0, 50, -1, None])
def test_damaged_shards(folder, cut):
    whole = (folder / TWO).read_bytes()
    (folder / TWO).write_bytes(b"noise" if cut is None else whole[:cut])
    refused(folder, f"^weight file '.*{TWO}' cannot be read: ")


def test_shards_without_what_they_should_hold(folder):
    reindex(folder, {"weight_map": LISTED | {"nose": TWO}})
    refused(folder, f"^shard '.*{TWO}' has no tensor 'nose', which index '.*{INDEX}' places there$")
    reindex(folder, {"weight_map": LISTED | {"embedding": TWO}})  # the other has it
    refused(folder, f"^shard '.*{TWO}' has no tensor 'embedding', which index '.*{INDEX}' places there$")
    write(folder / TWO, {})
    refused(folder, f"^weight file '.*{TWO}' holds no tensors$")


def test_parts_are_kept_from_writers(folder, tmp_path):
    assert parts(folder) == parts(str(folder / INDEX)) == [folder / INDEX, folder / ONE, folder / TWO]
    os.link(folder / ONE, tmp_path / "hard")
    for alias in (folder / INDEX, folder / TWO, tmp_path / "hard"):
        with pytest.raises(ValueError, match="would overwrite"):
            refuse_overwriting(alias, *parts(folder))
    refuse_overwriting(folder / "new.safetensors", *parts(folder))


def test_one_file_has_one_part(tmp_path):
    np.savez(tmp_path / "w.npz", np.ones(3))
    assert parts(tmp_path / "w.npz") == [tmp_path / "w.npz"]
