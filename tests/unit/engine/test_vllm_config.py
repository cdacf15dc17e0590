"""vLLM's configuration on a GPU, with replaced modules: without vLLM and without a GPU."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from tests.support.toy_adapter import toy_manifest
from worker.engine import vllm_config as module
from worker.engine.arguments import EngineSettings
from worker.errors import SettingsError

SETTINGS = EngineSettings(Path("/base"), toy_manifest())


class UsageContext(Enum):
    OPENAI_API_SERVER = "server"


class AsyncEngineArgs:
    __dataclass_fields__: ClassVar[dict[str, Any]] = {}
    contexts: ClassVar[list[Any]] = []

    def __init__(self, **arguments: Any) -> None:
        pass

    def create_engine_config(self, usage_context: Any = None) -> Any:
        self.contexts.append(usage_context)
        return SimpleNamespace(load_config=SimpleNamespace())


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM as it would be where it is built for a GPU."""
    monkeypatch.setattr(module, "vllm_runs_on_cpu", lambda: False)
    monkeypatch.setattr(module, "_is_built_for_cpu", lambda: False)
    monkeypatch.setattr(module, "_set_environment", lambda **_: None)
    monkeypatch.setattr(module, "executor_in_core", lambda: None)
    monkeypatch.setattr(AsyncEngineArgs, "contexts", [])
    stand_ins: dict[str, dict[str, Any]] = {
        "vllm.engine.arg_utils": {"AsyncEngineArgs": AsyncEngineArgs},
        "vllm.usage.usage_lib": {"UsageContext": UsageContext},
    }
    for name, found in stand_ins.items():
        stand_in = ModuleType(name)
        vars(stand_in).update(found)
        monkeypatch.setitem(sys.modules, name, stand_in)


def test_batches_are_as_large_as_vllms_server_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a usage context, 2,048 tokens and 128 messages on every GPU."""
    monkeypatch.setattr(module, "check_gpu", lambda *_: None)
    module.vllm_config(SETTINGS)
    assert AsyncEngineArgs.contexts == [UsageContext.OPENAI_API_SERVER]


def test_missing_tools_are_reported_before_vllm_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        raise SettingsError("no driver")

    monkeypatch.setattr(module, "check_gpu", refuse)
    with pytest.raises(SettingsError, match="no driver"):
        module.vllm_config(SETTINGS)
    assert AsyncEngineArgs.contexts == []
