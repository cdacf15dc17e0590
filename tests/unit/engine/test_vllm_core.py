"""How vLLM's processes start: as forks, or by vLLM itself. Without vLLM."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from worker.engine import fork_server, vllm_core
from worker.engine.vllm_core import executor_in_core, starting_processes


class Core:
    """Stands in for ``EngineCoreProc``."""

    @staticmethod
    def run_engine_core() -> str:
        return "vLLM's own"


Installed = Callable[..., ModuleType]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Install a fake vLLM for CPUs with these names."""

    def install(core: Any = Core, **of_utils: Any) -> ModuleType:
        modules = {
            name: ModuleType(name)
            for name in (
                "vllm", "vllm.platforms", "vllm.v1", "vllm.v1.engine", "vllm.v1.engine.utils",
                "vllm.v1.engine.core",
            )
        }  # fmt: skip
        platform = SimpleNamespace(is_cpu=lambda: True)
        vars(modules["vllm.platforms"])["current_platform"] = platform
        utils = modules["vllm.v1.engine.utils"]
        vars(utils).update(of_utils)
        vars(modules["vllm.v1.engine"])["utils"] = utils
        if core is not None:
            vars(modules["vllm.v1.engine.core"])["EngineCoreProc"] = core
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        return utils

    monkeypatch.setattr(fork_server, "context", lambda *_: "forks")
    monkeypatch.setattr(vllm_core, "computing_environment", lambda _: {"OMP_NUM_THREADS": "7"})
    return install


def test_the_core_is_a_fork_of_the_server(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Core, "run_engine_core", Core.__dict__["run_engine_core"])
    utils = installed(get_mp_context=lambda: "spawns")
    with capture_logs() as logs, starting_processes({}):
        assert utils.get_mp_context() == "forks"
        assert Core.run_engine_core.func is vllm_core.run_engine_core  # type: ignore[attr-defined]
    assert (utils.get_mp_context(), Core.run_engine_core()) == ("spawns", "vLLM's own")
    assert logs == []


@pytest.mark.parametrize(
    ("core", "of_utils"),
    [
        (Core, {}),
        (type("Renamed", (), {}), {"get_mp_context": lambda: "spawns"}),
        (None, {"get_mp_context": lambda: "spawns"}),
    ],
)
def test_a_vllm_with_other_names_starts_its_core_by_itself(
    installed: Installed, core: Any, of_utils: dict[str, Any]
) -> None:
    utils = installed(core, **of_utils)
    with capture_logs() as logs, starting_processes({}):
        assert vars(utils).get("get_mp_context") is of_utils.get("get_mp_context")
        assert os.environ["OMP_NUM_THREADS"] == "7"
    [logged] = logs
    assert (logged["event"], logged["log_level"]) == ("engine.started_by_vllm", "warning")
    assert Core.run_engine_core() == "vLLM's own"


def test_a_missing_executor_is_not_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vllm.v1.executor.uniproc_executor"
    for above in ("vllm", "vllm.v1", "vllm.v1.executor", name):
        monkeypatch.setitem(sys.modules, above, ModuleType(above))
    assert executor_in_core() is None
    vars(sys.modules[name])["UniProcExecutor"] = Core
    assert executor_in_core() == f"{name}.UniProcExecutor"
    monkeypatch.setitem(sys.modules, name, None)
    assert executor_in_core() is None
