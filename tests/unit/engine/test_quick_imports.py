"""What is left out while vLLM is imported."""

import importlib
import importlib.util
import sys

import pytest

from worker.engine import quick_imports
from worker.engine.quick_imports import without_optional_libraries


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_imports, "_OPTIONAL", ("this", "json"))
    monkeypatch.delitem(sys.modules, "this", raising=False)


def test_one_that_is_not_imported_yet_is_hidden_for_a_while() -> None:
    with without_optional_libraries():
        assert importlib.util.find_spec("this") is None
        with pytest.raises(ImportError):
            importlib.import_module("this")
    assert importlib.util.find_spec("this") is not None


def test_one_that_is_imported_stays() -> None:
    json = sys.modules["json"]
    with without_optional_libraries():
        assert importlib.import_module("json") is json
    assert sys.modules["json"] is json
