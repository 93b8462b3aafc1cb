"""Files written whole or not at all."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from replicajax._writing import refuse_overwriting, whole


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "answer.bin"
    path.write_bytes(b"what was there")
    yield path
    assert not list(tmp_path.glob(".*.part"))


def test_moved_there_when_complete(target, tmp_path):
    target.chmod(0o600)
    link = tmp_path / "link.bin"
    link.symlink_to(target)
    with whole(link) as file:
        file.write(b"new")
        assert target.read_bytes() == b"what was there"
    assert target.read_bytes() == b"new"
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_changes_nothing(target, error):
    with pytest.raises(error), whole(target) as file:  # noqa: PT012
        file.write(b"half")
        raise error
    assert target.read_bytes() == b"what was there"


def test_a_full_disk_changes_nothing(target):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="answer.bin' cannot be written: File too large"), whole(target) as file:
            file.write(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert target.read_bytes() == b"what was there"


def test_killed_half_way(tmp_path):
    path = tmp_path / "answer.bin"
    path.write_bytes(b"what was there")
    program = (
        "import os, signal; from replicajax._writing import whole\n"
        f"with whole({str(path)!r}) as file:\n    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program])
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"what was there"


@pytest.mark.parametrize(
    ("path", "message"),
    [("", "it is a directory"), ("nowhere/x", "folder .*nowhere' does not exist"), ("file/x", "does not exist")],
)
def test_places_that_take_no_file(tmp_path, path, message):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=message), whole(tmp_path / path):
        pass


def test_aliases_are_the_same_file(tmp_path, monkeypatch):
    path = tmp_path / "w"
    path.touch()
    (tmp_path / "link").symlink_to(path)
    os.link(path, tmp_path / "hard")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    for alias in (path, tmp_path / "link", tmp_path / "hard", "../w", f"{tmp_path}/folder/../w"):
        with pytest.raises(ValueError, match="would overwrite"):
            refuse_overwriting(alias, None, path)
    refuse_overwriting(tmp_path / "other", path)


def test_gone_on_with(target, tmp_path):
    """What was written before a kill is there for who writes the same; an error of any other kind leaves nothing."""
    program = (
        "import os, signal; from replicajax._writing import whole\n"
        f"with whole({str(target)!r}, 'k') as file:\n    file.write(b'half'); file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert [x.name for x in tmp_path.glob(".*.part")] == [".answer.bin.k.part"]
    with pytest.raises(KeyboardInterrupt), whole(target, "k") as file:  # noqa: PT012
        file.seek(0)
        assert file.read() == b"half"
        file.write(b" more")
        with whole(target, "k") as other:  # while the first one has it
            assert other.seek(0, os.SEEK_END) == 0
            other.write(b"another's")
        assert target.read_bytes() == b"another's"
        raise KeyboardInterrupt
    with whole(target, "k") as file:
        file.seek(0)
        assert file.read() == b"half more"
    assert target.read_bytes() == b"half more"
    with whole(target, "k") as file:
        assert file.seek(0, os.SEEK_END) == 0
        file.write(b"new")
    with pytest.raises(ValueError, match="bad"), whole(target, "k") as file:  # noqa: PT012
        file.write(b"half")
        raise ValueError("bad")
    assert target.read_bytes() == b"new"
