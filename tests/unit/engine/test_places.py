"""The number of adapters for which a vLLM engine is started, with cascades. Without vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.toy_adapter import (
    ENCODERS,
    cascade_of,
    toy_encoder_manifest,
    toy_manifest,
    toy_spec,
)
from worker import serving
from worker.contract import Lora, Manifest, verify, write_manifest
from worker.contract.store import CanaryPointer, Pointer, write_canary, write_pointer
from worker.engine import open as opening
from worker.engine.arguments import EngineSettings, engine_arguments
from worker.engine.memory import EngineMemory
from worker.engine.onnx_engine import OnnxLoader
from worker.settings import AdapterSettings, ModelSettings, Settings

SINCE = "2024-05-06T07:08:09Z"
SMALL = toy_manifest(name="small")
LARGE = toy_manifest(name="large", lora=Lora(64, 32.0, ("q_proj", "v_proj")))
ENCODER = toy_encoder_manifest()
ELSEWHERE = toy_manifest(name="elsewhere", base=replace(SMALL.base, name="other-base"))


class Bases:
    """Finds a base for everything."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def find(self, _adapter: Path, manifest: Manifest) -> Path:
        return Path("/bases") / manifest.base.name

    def encoders(self, *_: Any) -> Any:
        return ENCODERS


class Host:
    """An engine of vLLM that is up, with its first adapter."""

    is_open = True
    memory = EngineMemory(0, 0)

    def __init__(self, settings: EngineSettings, started: list[EngineSettings]) -> None:
        started.append(settings)
        self.first = SimpleNamespace(
            warm_up=lambda _: None, close=lambda: None, precisions=("bf16",)
        )

    def add(self, *_: Any, **__: Any) -> Any:
        return self.first


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[EngineSettings]:
    """The settings of all engines that are started; adapters are manifests alone."""
    found: list[EngineSettings] = []
    for module, name, stand_in in (
        (opening, "require_vllm", lambda: None),
        (opening, "vllm_runs_on_cpu", lambda: False),
        (opening, "VllmEngine", lambda settings: Host(settings, found)),
        (opening, "require_vllm", lambda: None),
        (opening, "begin_to_import", lambda _: None),
        (opening, "Bases", Bases),
        (serving, "check_own_probes", lambda *_: 0),
        (verify, "verify_file", lambda *_: None),
    ):
        monkeypatch.setattr(module, name, stand_in)
    onnx = SimpleNamespace(warm_up=lambda _: None, precisions=("int8",))
    monkeypatch.setattr(OnnxLoader, "load", lambda *_, **__: onnx)
    return found


def stored(store: Path, *manifests: Manifest) -> Path:
    """Put adapters into a store, each without files; the first one is current."""
    for manifest in manifests:
        (store / manifest.digest).mkdir(parents=True, exist_ok=True)
        write_manifest(store / manifest.digest, manifest)
    first = manifests[0]
    write_pointer(
        store, Pointer(first.digest, first.name, SINCE, None, "ann@desk", None, "publish")
    )
    return store


def start(store: Path, *, watch: bool = True, **adapters: Any) -> None:
    """Open the adapter like a starting worker, or like a command, which does not watch."""
    settings = Settings(model=ModelSettings(adapter=store), adapters=AdapterSettings(**adapters))
    serving.open_model(settings, watch=watch)


def places(settings: EngineSettings) -> tuple[int, int]:
    """vLLM's number of adapters in a step, and in memory."""
    arguments = vllm_arguments(settings)
    return arguments["max_loras"], arguments["max_cpu_loras"]


def vllm_arguments(settings: EngineSettings) -> dict[str, Any]:
    """vLLM's arguments on a GPU."""
    known = {"disable_log_stats", "max_loras"}
    return engine_arguments(settings, cpu=False, known=known, environment={})


def test_an_adapter_an_arm_and_one_that_comes(
    tmp_path: Path, started: list[EngineSettings]
) -> None:
    start(stored(tmp_path, SMALL))
    start(stored(tmp_path, SMALL, LARGE), shadow=LARGE.digest)
    assert [places(each)[0] for each in started] == [3, 4]


@pytest.mark.parametrize(
    ("stages", "wanted"),
    [
        ((ENCODER, LARGE), [3]),
        ((SMALL, LARGE), [6]),
        ((ENCODER, SMALL, LARGE), [6]),
        ((ELSEWHERE, LARGE), [3, 3]),
        ((SMALL, ELSEWHERE, LARGE), [6, 6]),
    ],
)
def test_stages_that_share_an_engine_have_a_place_each(
    tmp_path: Path, started: list[EngineSettings], stages: Sequence[Manifest], wanted: list[int]
) -> None:
    start(stored(tmp_path, cascade_of(*stages), *stages))
    assert [places(each)[0] for each in started] == wanted


def test_a_command_that_follows_nothing_has_a_place_for_each_stage(
    tmp_path: Path, started: list[EngineSettings]
) -> None:
    """Otherwise vLLM would copy weights for nearly every message."""
    start(stored(tmp_path, cascade_of(SMALL, LARGE), SMALL, LARGE), watch=False)
    assert [places(each)[0] for each in started] == [2]


def test_an_engine_holds_the_largest_of_its_stages(
    tmp_path: Path, started: list[EngineSettings]
) -> None:
    """The engine is started for the last stage; the first stage's rank, prompt and answer may be
    larger."""
    words = toy_manifest(name="words", prompt=toy_spec(500), lora=LARGE.lora)
    start(stored(tmp_path, cascade_of(words, SMALL), words, SMALL))
    (settings,) = started
    assert settings.manifest.digest == SMALL.digest, "the last one is loaded first"
    built = vllm_arguments(settings)
    assert built["max_lora_rank"] == 64
    assert built["max_model_len"] > 500


def test_an_engine_holds_the_canary_that_is_there_when_it_starts(
    tmp_path: Path, started: list[EngineSettings]
) -> None:
    """A restart must fix the refusal of a canary with a higher rank."""
    store = stored(tmp_path, SMALL, LARGE)
    write_canary(store, CanaryPointer(LARGE.digest, LARGE.name, 0.1, SINCE, "ann@desk", None))
    start(store)
    stored(store, cascade_of(ENCODER, SMALL), ENCODER)
    start(store)
    assert [each.manifest.digest for each in started] == [SMALL.digest, SMALL.digest]
    assert [vllm_arguments(each)["max_lora_rank"] for each in started] == [64, 64]
