"""The files generated from values.yaml, and the worker's settings that values.yaml repeats."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.chart.render import CHART, ROOT
from worker.settings import Settings

GENERATOR = ROOT / "helm" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return dict(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return dict(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")))


def test_the_schema_and_the_table_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, GENERATOR, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_settings_repeated_in_the_chart_are_the_workers_defaults(values: dict[str, Any]) -> None:
    """The chart computes with these settings, so their defaults must be the worker's, except the
    listed ones."""
    differ = {
        f"{section}.{key}"
        for section, keys in values["config"].items()
        for key, value in keys.items()
        if getattr(getattr(Settings(), section), key)
        != (tuple(value) if isinstance(value, list) else value)
    }
    assert differ == {
        "kafka.bootstrap_servers",  # required
        # Named after the release, so that no two releases share them.
        "kafka.group_id",
        "kafka.output_topic",
        "kafka.review_topic",
        "kafka.dead_letter_topic",
        "kafka.topic_partitions",  # unknown, not 1
        "model.base",  # required
        "model.adapter",  # required
        "http.host",  # the kubelet is outside
    }


def test_the_chart_and_the_worker_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert chart["appVersion"] == project["version"]
