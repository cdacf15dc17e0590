"""Probes beside an adapter: private, of that adapter alone, and never left out silently."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.toy_adapter import toy_manifest
from worker.contract import (
    MANIFEST_NAME,
    AdapterRefused,
    Manifest,
    Probe,
    read_manifest,
    write_manifest,
)
from worker.contract.probes import (
    ProbeFile,
    attach_probes,
    probes_path,
    read_probes,
    write_probes,
)

PROBES = (Probe("wo ist mein Päckchen?", "delivery"), Probe("charged twice", "billing"))
DEMO = Path(__file__).parents[3] / "worker" / "demo" / "adapter"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "adapter"
    directory.mkdir()
    write_manifest(directory, toy_manifest())
    return directory


def write(adapter: Path, /, **changes: object) -> Path:
    path = probes_path(adapter)
    file = ProbeFile(read_manifest(adapter).digest, "written", PROBES)
    write_probes(path, replace(file, **changes))  # type: ignore[arg-type]
    return path


def attached(adapter: Path) -> Manifest:
    return attach_probes(read_manifest(adapter), adapter)


def test_an_adapter_is_the_same_with_probes_and_without(adapter: Path) -> None:
    """They are beside it: its digest and its manifest's bytes stay."""
    without = attached(adapter)
    assert without.probes == ()
    before = (adapter / MANIFEST_NAME).read_bytes()
    write(adapter)
    found = attached(adapter)
    assert found.probes == PROBES
    assert found.digest == without.digest
    write_manifest(adapter, found)
    assert (adapter / MANIFEST_NAME).read_bytes() == before


def test_the_file_is_for_owner_and_group_whatever_the_umask(adapter: Path) -> None:
    """Nobody else may read messages; written again it stays so."""
    for _ in range(2):
        assert write(adapter).stat().st_mode & 0o777 == 0o640


def test_the_adapter_that_ships_is_still_tried() -> None:
    """Its probes are messages written for the demo."""
    assert len(attached(DEMO).probes) >= 50


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": "ab" * 32}, "another adapter"),
        ({"probes": (Probe("secret words", "nowhere"),)}, "nowhere"),
        ({"schema": "probes/9"}, "no file of probes"),
    ],
)
def test_probes_that_cannot_be_meant_are_refused(
    adapter: Path, changes: dict[str, object], said: str
) -> None:
    """Of another adapter, of other labels, of another version: the file is named, no text is."""
    path = write(adapter, **changes)
    with pytest.raises(AdapterRefused) as refused:
        attached(adapter)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "[]", '{"probes": "secret"}', "\ud800"])
def test_a_damaged_file_is_refused_without_its_text(adapter: Path, content: str) -> None:
    """Probes that somebody asked for are not skipped because they are damaged."""
    probes_path(adapter).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(AdapterRefused, match="no file of probes") as refused:
        attached(adapter)
    assert "secret" not in str(refused.value)


def test_a_file_that_may_not_be_read_says_how_to_mend_it(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's user is not in the file's group."""
    path = write(adapter)
    manifest = read_manifest(adapter)

    def denied(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(AdapterRefused, match="in the file's group"):
        read_probes(path, manifest)


def test_a_link_to_an_adapter_leads_to_its_probes(adapter: Path, tmp_path: Path) -> None:
    """And so does a path that ends in a dot."""
    write(adapter)
    (tmp_path / "link").symlink_to(adapter)
    assert attached(tmp_path / "link").probes == PROBES
    assert attached(adapter / ".").probes == PROBES
    assert json.loads(probes_path(tmp_path / "link").read_text())["source"] == "written"
