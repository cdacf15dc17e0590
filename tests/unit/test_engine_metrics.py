"""Only a worker that shows metrics lets the engine record its own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from worker import serving
from worker.settings import ModelSettings, Settings


class Opened(Exception):
    """The engine would be opened now, with these arguments."""


@pytest.fixture(autouse=True)
def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_engine(**given: Any) -> None:
        raise Opened(given["engine_args"])

    monkeypatch.setattr(serving, "open_engine", open_engine)
    found = SimpleNamespace(pointer=None, directory=Path("adapter"))
    monkeypatch.setattr(serving, "find_adapter", lambda _: found)


def engine_args(metrics: bool | None = None, **wishes: Any) -> Any:
    model = ModelSettings(base=Path("base"), adapter=Path("adapter"), engine_args=wishes)
    settings = Settings(model=model)
    with pytest.raises(Opened) as opened:
        serving.open_model(settings, **({} if metrics is None else {"metrics": metrics}))
    return opened.value.args[0]


def test_a_worker_that_shows_metrics_has_the_engine_keep_them() -> None:
    """They cost a little per message."""
    assert engine_args(metrics=True)["disable_log_stats"] is False
    assert engine_args(metrics=False)["disable_log_stats"] is True
