"""``model.adapter``: an adapter, or a store with a current one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.support.toy_adapter import (
    ENCODERS,
    answer_with,
    cascade_of,
    one_golden,
    small_manifest,
    toy_encoder_manifest,
    toy_manifest,
    toy_spec,
    with_probes,
    write_adapter,
)
from worker import serving
from worker.contract import AdapterRefused, Manifest, read_manifest, write_manifest
from worker.contract.store import CURRENT_NAME, Pointer, write_pointer
from worker.contract.verify import attach_probes
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.errors import EngineDied, SettingsError
from worker.settings import AdapterSettings, ModelSettings, ReviewSettings, Settings


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The adapters with which the (fake) engine was opened."""
    adapters: list[Path] = []

    def open_engine(*, adapter: Path, **_: Any) -> OpenedEngine:
        adapters.append(adapter)
        engine = FakeEngine(lambda _: None)  # type: ignore[arg-type, return-value]
        return OpenedEngine(engine, small_manifest(), ENCODERS, "merged")

    monkeypatch.setattr(serving, "open_engine", open_engine)
    return adapters


def start(adapter: Path) -> list[dict[str, Any]]:
    """Open the model like a starting worker; return the log."""
    with structlog.testing.capture_logs() as logs:
        serving.open_model(
            Settings(model=ModelSettings(base=adapter, adapter=adapter))
        ).engine.close()
    return [dict(line) for line in logs if line["event"] == "adapter.current"]


def test_a_store_is_served_by_its_current_adapter(tmp_path: Path, opened: list[Path]) -> None:
    for name in ("one", "two"):
        manifest = toy_manifest(name=name)
        (tmp_path / manifest.digest).mkdir()
        write_manifest(tmp_path / manifest.digest, manifest)
        since = "2024-05-06T07:08:09Z"
        write_pointer(
            tmp_path, Pointer(manifest.digest, name, since, None, "ann@desk", None, "publish")
        )
        [event] = start(tmp_path)
        assert opened[-1] == tmp_path / manifest.digest
        assert event["adapter"] == name
        assert event["adapter_digest"] == manifest.digest[:12]
        assert (event["store"], event["since"]) == (str(tmp_path), since)


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
    return with_probes(toy_manifest(name=name), *[label] * 3)


class Store:
    """A store in a folder, and the engines that a worker opens with what is in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.engines: dict[str, FakeEngine] = {}
        self.answers: dict[str, str] = {}
        self.failures: dict[str, Exception] = {}
        monkeypatch.setattr(serving, "open_engine", self._open)

    def add(self, manifest: Manifest, answers: str) -> Manifest:
        """Store an adapter that gives every message this label."""
        (self.folder / manifest.digest).mkdir()
        write_adapter(self.folder / manifest.digest, manifest)
        self.answers[manifest.digest] = answers
        return manifest

    def point(self, current: Manifest, previous: Manifest | None, event: Any = "publish") -> None:
        before = previous.digest if previous is not None else None
        since = "2024-05-06T07:08:09Z"
        write_pointer(
            self.folder, Pointer(current.digest, current.name, since, before, "ann", None, event)
        )

    def open(self, **more: Any) -> OpenedEngine:
        """As a worker does that starts."""
        settings = Settings(model=ModelSettings(base=self.folder, adapter=self.folder))
        return serving.open_model(settings, **{"watch": True} | more)

    def is_closed(self, manifest: Manifest) -> bool:
        try:
            self.engines[manifest.digest].check_health()
        except EngineDied:
            return True
        return False

    def _open(self, *, adapter: Path, **_: Any) -> OpenedEngine:
        if (error := self.failures.get(adapter.name)) is not None:
            raise error
        manifest = attach_probes(read_manifest(adapter), adapter)
        label = self.answers[manifest.digest]
        self.engines[manifest.digest] = engine = FakeEngine(
            lambda _: answer_with(manifest, label), service_s=0.0, concurrency=4
        )
        return OpenedEngine(engine, manifest, ENCODERS, "runtime")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("event", "previous", "declined"),
    [
        ("publish", "kept", True),
        ("promote", "kept", True),
        ("force", "kept", False),
        ("rollback", "kept", False),
        ("publish", "deleted", False),
        ("publish", None, False),
    ],
)
def test_a_starting_worker_compares_as_a_running_one_does(
    store: Store, event: Any, previous: str | None, declined: bool
) -> None:
    """Running workers refuse a worse adapter and keep the previous one."""
    before = probed("before", "billing")
    if previous == "kept":
        store.add(before, "billing")
    current = store.add(probed("current", "delivery"), "delivery")
    store.point(current, before if previous else None, event)
    with structlog.testing.capture_logs() as logs:
        opened = store.open()
    logged = [line["event"] for line in logs]
    assert logged.count("adapter.not_compared") == (previous == "deleted")
    assert logged.count("adapter.declined_at_start") == declined
    if declined:
        assert opened.manifest.digest == before.digest
        assert opened.declined is not None
        assert opened.declined.digest == current.digest
        assert "misclassifies 3 of the 3 probes of before" in opened.declined.problem
        assert store.is_closed(current)
        assert not store.is_closed(before)
    else:
        assert (opened.manifest.digest, opened.declined) == (current.digest, None)
    opened.engine.close()


def damage(store: Store, current: Manifest) -> None:
    (store.folder / current.digest / "manifest.json").write_text("{")


def delete(store: Store, current: Manifest) -> None:
    (store.folder / current.digest / "manifest.json").unlink()
    (store.folder / current.digest).rmdir()


def fail(error: Exception) -> Callable[[Store, Manifest], None]:
    def break_it(store: Store, current: Manifest) -> None:
        store.failures[current.digest] = error

    return break_it


def misclassify(store: Store, current: Manifest) -> None:
    store.answers[current.digest] = "other"


FAULTS = [
    damage,
    delete,
    misclassify,
    fail(AdapterRefused("adapter", "is of another base")),
    fail(RuntimeError("CUDA out of memory")),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_that_starts_serves_what_its_siblings_go_on_with(
    store: Store, fault: Callable[[Store, Manifest], None]
) -> None:
    """Otherwise a bad publication takes away each worker whose node is drained."""
    before = store.add(probed("before", "billing"), "billing")
    current = store.add(probed("current", "billing"), "billing")
    store.point(current, before)
    fault(store, current)
    with structlog.testing.capture_logs() as logs:
        opened = store.open()
    assert opened.manifest.digest == before.digest
    assert opened.declined is not None
    assert opened.declined.digest == current.digest
    [logged] = [line for line in logs if line["event"] == "adapter.declined_at_start"]
    assert (logged["log_level"], logged["adapter_digest"]) == ("error", current.digest[:12])
    assert logged["problem"] == opened.declined.problem
    opened.engine.close()


def test_it_ends_only_if_neither_can_be_served(store: Store) -> None:
    before = store.add(probed("before", "billing"), "other")
    current = store.add(probed("current", "billing"), "other")
    store.point(current, before)
    with (
        structlog.testing.capture_logs() as logs,
        pytest.raises(AdapterRefused, match="current misclassifies 3 of its own"),
    ):
        store.open()
    logged = [line for line in logs if line["event"] == "adapter.declined_at_start"]
    assert [line["adapter_digest"] for line in logged] == [current.digest[:12], before.digest[:12]]
    assert store.is_closed(current)
    assert store.is_closed(before)


def test_a_command_or_a_worker_that_follows_nothing_serves_the_current_one_or_none(
    store: Store,
) -> None:
    before = store.add(probed("before", "billing"), "billing")
    current = store.add(probed("current", "billing"), "other")
    store.point(current, before)
    with pytest.raises(AdapterRefused, match="current misclassifies"):
        store.open(watch=False)
    fixed = Settings(
        model=ModelSettings(base=store.folder, adapter=store.folder),
        adapters=AdapterSettings(watch=False),
    )
    with pytest.raises(AdapterRefused, match="current misclassifies"):
        serving.open_model(fixed, watch=True)


def test_a_review_threshold_in_the_settings_replaces_the_manifests() -> None:
    manifest = toy_encoder_manifest(golden=one_golden(toy_spec()))
    found = serving.override_thresholds(ReviewSettings(out_of_scope=-7.5), manifest.thresholds)
    assert found == replace(manifest.thresholds, review_out_of_scope=-7.5)
    found = serving.override_thresholds(ReviewSettings(confidence=0.25), manifest.thresholds)
    assert found == replace(manifest.thresholds, review_confidence=0.25)


def test_the_settings_of_review_hold_for_each_stage_of_a_cascade() -> None:
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
