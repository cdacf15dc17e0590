"""An adapter store as its readers see it: the pointer, and the adapter it names."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.toy_adapter import toy_manifest
from worker.contract import AdapterRefused, FileDigest, Manifest, write_manifest
from worker.contract.digest import sha256_bytes
from worker.contract.manifest import is_digest
from worker.contract.store import (
    CURRENT_NAME,
    HISTORY_NAME,
    Pointer,
    find_adapter,
    load_stored,
    read_pointer,
    write_pointer,
)

DIGEST = "ab" * 32


def store_adapter(store: Path, name: str) -> Manifest:
    weights = name.encode()
    files = {"adapter_model.safetensors": FileDigest(sha256_bytes(weights), len(weights))}
    manifest = toy_manifest(name=name, files=files)
    directory = store / manifest.digest
    directory.mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(weights)
    write_manifest(directory, manifest)
    return manifest


def pointer(digest: str = DIGEST, name: str = "one") -> Pointer:
    return Pointer(digest, name, "2024-05-06T07:08:09Z", None, "ann@host", None, "publish")


def test_a_store_is_found_as_its_current_adapter(tmp_path: Path) -> None:
    store_adapter(tmp_path, "one")
    two = store_adapter(tmp_path, "two")
    written = replace(pointer(two.digest, "two"), previous=DIGEST, reason="größer")
    write_pointer(tmp_path, written)
    found = find_adapter(tmp_path)
    assert found.directory == tmp_path / two.digest
    assert found.pointer == written == read_pointer(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not a pointer"),
        ("[]", "must be an object"),
        (json.dumps({"digest": DIGEST}), "lacks"),
        ("{" * 5000, "not a pointer"),
        ('{"schema": "current/2"}', "lacks|must be"),
    ],
)
def test_a_bad_pointer_is_refused_and_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / CURRENT_NAME).write_text(text)
    with pytest.raises(AdapterRefused, match=problem) as caught:
        find_adapter(tmp_path)
    assert caught.value.path == tmp_path / CURRENT_NAME


@pytest.mark.parametrize("digest", ["../../etc", "AB" * 32, "ab" * 31, "ab" * 32 + "\n"])
def test_a_pointer_names_a_digest_and_no_path(digest: str) -> None:
    assert not is_digest(digest)
    with pytest.raises(ValueError, match="not a digest"):
        pointer(digest)
    with pytest.raises(ValueError, match="not a digest"):
        replace(pointer(), previous=digest)


def test_an_adapter_under_another_ones_name_is_refused(tmp_path: Path) -> None:
    manifest = store_adapter(tmp_path, "one")
    write_pointer(tmp_path, pointer(manifest.digest))
    write_manifest(tmp_path / manifest.digest, replace(manifest, name="other"))
    for read in (lambda: find_adapter(tmp_path), lambda: load_stored(tmp_path, manifest.digest)):
        with pytest.raises(AdapterRefused, match="stored under another"):
            read()


def test_a_pointer_to_nothing_is_refused(tmp_path: Path) -> None:
    write_pointer(tmp_path, pointer())
    with pytest.raises(AdapterRefused, match=f"{DIGEST}.*no such adapter directory"):
        find_adapter(tmp_path)


def test_a_store_in_which_nothing_is_current_says_so(tmp_path: Path) -> None:
    (tmp_path / HISTORY_NAME).write_text("")
    with pytest.raises(AdapterRefused, match="no publication to this store was completed"):
        find_adapter(tmp_path)


def test_a_reader_never_sees_a_bad_pointer(tmp_path: Path) -> None:
    """While another thread moves the pointer back and forth."""
    moves = [pointer(store_adapter(tmp_path, name).digest, name) for name in ("one", "two" * 30)]
    write_pointer(tmp_path, moves[0])
    done = threading.Event()

    def move() -> None:
        for turn in range(40):
            write_pointer(tmp_path, moves[turn % 2])
        done.set()

    mover = threading.Thread(target=move)
    mover.start()
    seen = []
    while not done.is_set():
        seen.append(find_adapter(tmp_path).pointer)
    mover.join()
    assert len(seen) > 10
    assert set(seen) <= set(moves)
