"""What ``model.adapter`` may name: an adapter, or a store that says which one is current."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.support.cascades import cascade_of
from tests.support.swapping import answer_with, with_probes
from tests.support.toy_adapter import (
    ENCODERS,
    one_golden,
    small_manifest,
    toy_encoder_manifest,
    toy_manifest,
    toy_spec,
)
from worker import serving
from worker.contract import AdapterRefused, Manifest, write_manifest
from worker.contract.store import CURRENT_NAME, Pointer, write_pointer
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.errors import EngineDied, SettingsError
from worker.settings import ModelSettings, ReviewSettings, Settings


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which adapters the engine was opened with; the engine is a fake."""
    adapters: list[Path] = []

    def open_engine(*, adapter: Path, **_: Any) -> OpenedEngine:
        adapters.append(adapter)
        engine = FakeEngine(lambda _: None)  # type: ignore[arg-type, return-value]
        return OpenedEngine(engine, small_manifest(), ENCODERS, "merged")

    monkeypatch.setattr(serving, "open_engine", open_engine)
    return adapters


def start(adapter: Path) -> list[dict[str, Any]]:
    """Open the model as a worker does at its start and return what was logged."""
    with structlog.testing.capture_logs() as logs:
        serving.open_model(
            Settings(model=ModelSettings(base=adapter, adapter=adapter))
        ).engine.close()
    return [dict(line) for line in logs if line["event"] == "adapter.current"]


def test_a_store_is_served_by_its_current_adapter(tmp_path: Path, opened: list[Path]) -> None:
    """A restart after a publication or a rollback is all a worker needs; the log says which."""
    for name in ("one", "two"):
        manifest = toy_manifest(name=name)
        (tmp_path / manifest.digest).mkdir()
        write_manifest(tmp_path / manifest.digest, manifest)
        since = "2024-05-06T07:08:09Z"
        write_pointer(tmp_path, Pointer(manifest.digest, name, since, None, "ann@desk", None))
        [event] = start(tmp_path)
        assert opened[-1] == tmp_path / manifest.digest
        assert event["adapter"] == name
        assert event["adapter_digest"] == manifest.digest[:12]
        assert (event["store"], event["since"]) == (str(tmp_path), since)


def test_one_adapter_is_served_as_before(tmp_path: Path, opened: list[Path]) -> None:
    """A directory with a manifest is opened itself, and nothing is said of a store."""
    write_manifest(tmp_path, toy_manifest())
    assert start(tmp_path) == []
    assert opened == [tmp_path]


def test_a_store_with_a_bad_pointer_stops_the_start(tmp_path: Path, opened: list[Path]) -> None:
    """No adapter is better than a guessed one."""
    (tmp_path / CURRENT_NAME).write_text("{}")
    with pytest.raises(AdapterRefused, match=CURRENT_NAME):
        start(tmp_path)
    assert opened == []
    with pytest.raises(SettingsError, match=r"model\.adapter"):
        serving.open_model(Settings())


def probed(name: str, label: str) -> Manifest:
    """An adapter whose probes all have one label."""
    return replace(with_probes(toy_manifest(name=name), *[label] * 3), name=name)


@pytest.mark.parametrize(
    ("event", "previous", "refused"),
    [
        ("publish", "kept", True),
        ("promote", "kept", True),
        (None, "kept", True),
        ("force", "kept", False),
        ("rollback", "kept", False),
        ("publish", "deleted", False),
        ("publish", None, False),
    ],
)
def test_a_starting_worker_compares_as_a_running_one_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    event: Any,
    previous: str | None,
    refused: bool,
) -> None:
    """What running workers refuse as worse is not served by whoever happens to start."""
    before, current = probed("before", "billing"), probed("current", "delivery")
    for manifest in (before, current) if previous == "kept" else (current,):
        (tmp_path / manifest.digest).mkdir()
        write_manifest(tmp_path / manifest.digest, manifest)
    pointed = Pointer(
        current.digest, "current", "2024-05-06T07:08:09Z", previous and before.digest, "ann", None
    )
    write_pointer(tmp_path, replace(pointed, event=event))
    engine = FakeEngine(lambda _: answer_with(current, "delivery"), service_s=0.0, concurrency=4)
    monkeypatch.setattr(
        serving, "open_engine", lambda **_: OpenedEngine(engine, current, ENCODERS, "runtime")
    )
    settings = Settings(model=ModelSettings(base=tmp_path, adapter=tmp_path))
    with structlog.testing.capture_logs() as logs:
        if refused:
            with pytest.raises(AdapterRefused, match="misclassifies 3 of the 3 probes of before"):
                serving.open_model(settings, watch=True)
            with pytest.raises(EngineDied):
                engine.check_health()
        else:
            serving.open_model(settings, watch=True).engine.close()
    told = [line["event"] for line in logs]
    assert told.count("adapter.not_compared") == (previous == "deleted")


def test_a_review_threshold_in_the_settings_replaces_the_manifests() -> None:
    """Each by itself: also that of an out-of-scope score."""
    manifest = toy_encoder_manifest(golden=one_golden(toy_spec()))
    found = serving.review_thresholds(ReviewSettings(out_of_scope=-7.5), manifest)
    assert found == replace(manifest.thresholds, review_out_of_scope=-7.5)
    found = serving.review_thresholds(ReviewSettings(confidence=0.25), manifest)
    assert found == replace(manifest.thresholds, review_confidence=0.25)


def test_the_settings_of_review_hold_for_each_stage_of_a_cascade() -> None:
    """What is not set stays the stage's own."""
    cascade = cascade_of(toy_manifest(name="small"), toy_manifest(name="large"))
    settings = Settings(review=ReviewSettings(confidence=0.25, disagreement=0.75))
    engine = FakeEngine(lambda _: ValueError())
    engine.precisions = ("int8", "bf16")
    adapter = serving.make_serving_adapter(settings, ENCODERS, cascade, engine)
    assert adapter.labeller.stages == tuple(
        replace(stage.thresholds, review_confidence=0.25, review_disagreement=0.75)
        for stage in cascade.stages
    )
    engine.precisions = ("int8", "bf16")
    unset = serving.make_serving_adapter(Settings(), ENCODERS, cascade, engine)
    assert unset.labeller.stages == tuple(stage.thresholds for stage in cascade.stages)
