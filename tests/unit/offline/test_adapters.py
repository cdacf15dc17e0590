"""Adapters' names on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.toy_adapter import small_manifest
from worker.contract import write_manifest
from worker.contract.store import Pointer, write_pointer
from worker.errors import SettingsError
from worker.offline.adapters import resolve_adapter


def stored(store: Path, name: str) -> str:
    """Put an adapter into a store; return its digest."""
    manifest = replace(small_manifest(), name=name)
    (store / manifest.digest).mkdir(parents=True)
    write_manifest(store / manifest.digest, manifest)
    return manifest.digest


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two adapters, the second of them current."""
    folder = tmp_path / "store"
    first, second = stored(folder, "first"), stored(folder, "second")
    assert first[:4] != second[:4]
    (folder / "history.jsonl").touch()
    write_pointer(
        folder, Pointer(second, "second", "2024-05-06T07:08:09Z", first, "me", None, "publish")
    )
    return folder


def digest(name: str) -> str:
    return replace(small_manifest(), name=name).digest


def test_current_is_what_the_settings_serve(store: Path) -> None:
    assert resolve_adapter("current", store) == store / digest("second")
    assert resolve_adapter("current", store / digest("first")) == store / digest("second")


def test_a_few_digits_of_a_digest_are_enough(store: Path) -> None:
    for name in ("first", "second"):
        for chars in (4, 12, 64):
            assert resolve_adapter(digest(name)[:chars], store) == store / digest(name)
    assert resolve_adapter(digest("first")[:12], store / digest("second")) == store / digest(
        "first"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("0000000", "no adapter with a digest"),
        ("nowhere/adapter", "is not a directory"),
        ("abc", "is not a directory"),
    ],
)
def test_an_unknown_name_is_reported(store: Path, name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        resolve_adapter(name, store)


def test_a_digest_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"model\.adapter"):
        resolve_adapter("abcdef", tmp_path)
    with pytest.raises(SettingsError, match=r"model\.adapter"):
        resolve_adapter("current", None)
    with pytest.raises(SettingsError, match="not an adapter or a store"):
        resolve_adapter(str(tmp_path), None)


def test_ambiguous_digits_are_refused(store: Path) -> None:
    twin = store / (digest("first")[:10] + "0" * 54)
    twin.mkdir()
    with pytest.raises(SettingsError, match="2 adapters"):
        resolve_adapter(digest("first")[:10], store)
