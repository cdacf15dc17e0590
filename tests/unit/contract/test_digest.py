"""Digests that every machine agrees on, and writes that leave no half a file."""

import os
from pathlib import Path

import pytest

from worker.contract.digest import canonical_json, sha256_file, sha256_json, write_atomically


def test_equal_values_have_one_canonical_form() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "ü"}) == '{"a":"ü","b":[1,2.5]}'.encode()
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_values_without_a_json_form_have_no_digest() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        sha256_json({"a": float("nan")})


def test_a_write_replaces_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]
    assert sha256_file(path) == "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "manifest.json"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_data_reaches_the_disk_before_the_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power cut could leave a manifest without content."""
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        order.append("fsync")
        fsync(handle)

    def noted_replace(path: Path, target: Path) -> Path:
        order.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_atomically(tmp_path / "manifest.json", b"x")
    assert order == ["fsync", "replace", "fsync"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "file")
    for text in (b"new", b"newer"):
        write_atomically(link, text)
        assert link.is_symlink()
        assert (tmp_path / "there" / "file").read_bytes() == text


def test_a_pipe_gets_the_data(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, [b"a", b"b"])
    assert os.read(reader, 10) == b"ab"
    assert pipe.is_fifo()
    os.close(reader)


def test_a_device_is_not_replaced() -> None:
    """As root, a report written to /dev/full would replace the device."""
    write_atomically(Path("/dev/null"), b"text")
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(Path("/dev/full"), b"text")
    assert caught.value.filename == "/dev/full"
    assert Path("/dev/full").is_char_device()


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "nowhere" / "file", b"text")
    assert caught.value.filename == str(tmp_path / "nowhere" / "file")
