"""The demo's base model; ``tests/e2e`` runs the conversion itself, which takes half a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.common import base_model
from worker.common.base_model import BaseModelError, base_revision, ensure_base_model


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed here, and a file that is in it, stand in for the model's."""
    monkeypatch.setattr(base_model, "_PACKAGE", "pytest")
    monkeypatch.setattr(base_model, "_GGUF", "METADATA")


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Weights are unpacked by copying; each time the source is noted."""
    sources: list[Path] = []

    def convert(gguf: Path, target: Path) -> None:
        sources.append(gguf)
        (target / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(base_model, "_convert_apart", convert)
    return sources


@pytest.mark.usefixtures("package")
def test_it_is_made_once_and_then_reused(tmp_path: Path, converted: list[Path]) -> None:
    events: list[str] = []
    home = tmp_path / "new" / "cache"
    made = ensure_base_model(home, events.append)
    assert made == ensure_base_model(home, events.append)
    assert made.name == f"SmolLM2-135M-Instruct-{pytest.__version__}"
    assert (made / "model.safetensors").read_bytes() == converted[0].read_bytes()
    assert len(converted) == len(events) == 1
    assert events[0].startswith("unpacking the base model SmolLM2-135M-Instruct")
    assert made.stat().st_mode & 0o777 == 0o755
    assert base_revision() == f"pytest-{pytest.__version__}-q4_1-bf16"


def test_a_missing_package_is_reported_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "_PACKAGE", "no-such-package-at-all")
    with pytest.raises(BaseModelError, match=r"pip install -e '\.\[demo,cpu\]'"):
        ensure_base_model(tmp_path)
    monkeypatch.setattr(base_model, "_PACKAGE", "pytest")
    with pytest.raises(BaseModelError, match=r"^pytest [\d.]+ does not contain SmolLM2"):
        ensure_base_model(tmp_path)
