"""Finds helm and the tools of .venv-chart, which `make chart-tools` installs.

Without them the tests are skipped; in CI (CI=true) they fail.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chart.get_helm import find_helm
from tests.chart.render import ROOT

TOOLS = ROOT / ".venv-chart" / "bin"


def _missing(what: str) -> None:
    message = f"no {what}: make chart-tools"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(autouse=True, scope="session")
def _helm() -> None:
    if find_helm() is None:
        _missing("helm 4")


@pytest.fixture(scope="session")
def tools() -> Path:
    if not (TOOLS / "checkov").exists():
        _missing("linters")
    return TOOLS
