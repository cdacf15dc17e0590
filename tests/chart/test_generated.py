"""The files generated from values.yaml, and the worker's settings that values.yaml repeats."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import jsonschema
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


def test_the_defaults_are_valid(schema: dict[str, Any], values: dict[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema, jsonschema.Draft7Validator)


def test_the_schema_is_open_only_for_kubernetes_fields(
    schema: dict[str, Any],
) -> None:
    """An unknown key is an error everywhere else; the open places are listed here."""

    def is_open(part: dict[str, Any], path: str) -> Any:
        kinds = part.get("type")
        if "object" in (kinds if isinstance(kinds, list) else [kinds]):
            inner = part.get("additionalProperties", True)
            if inner is True:
                yield path
            elif isinstance(inner, dict):
                yield from is_open(inner, f"{path}.*")
        for key, child in part.get("properties", {}).items():
            yield from is_open(child, f"{path}.{key}".strip("."))
        if isinstance(part.get("items"), dict):
            yield from is_open(part["items"], f"{path}[]")

    found = {path for path in is_open(schema, "") if ".volume." not in path}
    kinds = ("trainer.data.", "trainer.work.", "trainer.propose.decisions.",
             "trainer.propose.proposals.", "desk.database.volume.", "desk.exports.")  # fmt: skip
    volumes = {path for path in found if path.startswith(kinds)}
    assert found - volumes == {
        "affinity", "autoscaling.behavior", "autoscaling.hpa.metrics[]", "config.model.engine_args",
        "desk.affinity", "desk.httpRoute.parentRefs[]",
        "desk.networkPolicy.databasePeers[]", "desk.networkPolicy.extraEgress[]",
        "desk.networkPolicy.ingressPeers[]", "desk.networkPolicy.oidcPeers[]", "desk.resources",
        "desk.tolerations[]", "dnsConfig", "download.resources", "extraObjects[]",
        "extraContainers[]", "extraVolumeMounts[]", "metrics.metricRelabelings[]",
        "metrics.relabelings[]", "networkPolicy.tokenPeers[]",
        "extraVolumes[]", "global", "initContainers[]",
        "lifecycle", "networkPolicy.downloadPeers[]", "networkPolicy.extraEgress[]",
        "networkPolicy.kafkaPeers[]", "networkPolicy.scrapePeers[]", "networkPolicy.tracingPeers[]",
        "podSecurityContext", "resources", "rollback.resources", "securityContext",
        "tolerations[]", "topics.resources", "topologySpreadConstraints[]", "trainer.resources",
    }  # fmt: skip


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
    """The default tag is an image of this code."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    from worker import __version__

    assert chart["appVersion"] == __version__
