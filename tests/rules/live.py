"""The shipped rules and dashboard queries, and a real Prometheus on loopback that runs them."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from worker.demo.kafka_files import free_port
from worker.demo.program import ChildProcess

# The rules, the dashboard's queries, and the metrics that both ask for.


FOLDER = Path(__file__).parent
FILES = Path("helm/filing-clerk/files")
RULES = FILES / "rules.yaml"
DASHBOARD = FILES / "dashboard.json"
UNIT_TESTS = sorted(FOLDER.glob("*.yaml"))

# What a viewer chooses and Grafana inserts. "All" is ".*" in this dashboard.
VARIABLES = {
    "$namespace": ".*",
    "$job": ".*",
    "$price": "1",
    "$__rate_interval": "5m",
    "$__range": "1h",
    "$__interval_ms": "15000",
    "$__interval": "15s",
}

_SELECTOR = re.compile(r"\b((?:job:)?(?:clerk|vllm|kube|DCGM)[a-zA-Z0-9_:]+)(?:{([^}]*)})?")


@dataclass(frozen=True)
class Query:
    """A query of a panel or a rule."""

    place: str
    expr: str


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """All panels except the headings of rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard_queries(variables: Mapping[str, str] = VARIABLES) -> Iterator[Query]:
    """Yield all queries of the dashboard with their variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            expr = target["expr"]
            for name, value in sorted(variables.items(), reverse=True):
                expr = expr.replace(name, value)
            # "$1" comes from label_replace, and Grafana does not touch it.
            assert "$" not in expr.replace('"$1"', ""), (
                f"{panel['title']}: a variable nobody fills in: {expr}"
            )
            yield Query(f"{panel['title']} {target['refId']}", expr)


def selectors(expr: str) -> Iterator[tuple[str, str]]:
    """Yield each metric in an expression with its matchers."""
    yield from _SELECTOR.findall(expr)


JOB = "clerk"
NAMESPACE = "live"
_START_S = 30.0


class Prometheus:
    """Queries Prometheus' HTTP API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: str | float) -> Any:
        """The data of an answer. Raises OSError with Prometheus' own words for a 400."""
        asked = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.loads(answer.read())["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        data = self.ask("query", query=expr)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found


@contextmanager
def scraping(
    program: str, folder: Path, targets: Mapping[str, str], *, interval: str = "1s"
) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped rules. ``targets``: pod name to host:port."""
    named = [
        {"targets": [address], "labels": {"namespace": NAMESPACE, "pod": pod}}
        for pod, address in targets.items()
    ]
    config = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(_rules_evaluated_fast(folder, interval, len(targets)))],
        "scrape_configs": [{"job_name": JOB, "static_configs": named}],
    }
    with running(program, folder, config) as found:
        yield found


@contextmanager
def running(program: str, folder: Path, config: Mapping[str, Any]) -> Iterator[Prometheus]:
    """Run Prometheus with ``config`` on loopback, with its data in ``folder``."""
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    child = ChildProcess(
        [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        cwd=folder,
        log_path=folder / "prometheus.log",
        env={},
    )
    try:
        found = Prometheus(port)
        until = time.monotonic() + _START_S
        while not _ready(found):
            log = (folder / "prometheus.log").read_text(encoding="utf-8")
            assert child.exit_code() is None, log
            assert time.monotonic() < until, log
            time.sleep(0.1)
        yield found
    finally:
        child.stop(10)


def tell_targets(folder: Path, job: str, urls: Sequence[str]) -> None:
    """Write a job's targets into a file that Prometheus follows."""
    targets = [
        {
            "targets": [url.removeprefix("http://")],
            "labels": {"namespace": "night", "job": job, "pod": f"{job}-{n}"},
        }
        for n, url in enumerate(urls)
    ]
    (folder / f"{job}.new").write_text(json.dumps(targets))
    (folder / f"{job}.new").replace(folder / f"{job}.json")


def release_group(namespace: str, jobs: Mapping[str, int], interval: str) -> dict[str, Any]:
    """Record how many workers each job should have, as the chart does (templates/_rules.tpl)."""
    rules = [
        {
            "record": "job:clerk_release:workers",
            "expr": f"vector({workers})",
            "labels": {"namespace": namespace, "job": job},
        }
        for job, workers in jobs.items()
    ]
    return {"name": "release", "interval": interval, "rules": rules}


def _rules_evaluated_fast(folder: Path, interval: str, workers: int) -> Path:
    """Copy the rules without their own intervals, so that a test need not wait minutes."""
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in document["groups"]:
        group["interval"] = interval
    document["groups"].insert(0, release_group(NAMESPACE, {JOB: workers}, interval))
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def _ready(prometheus: Prometheus) -> bool:
    try:
        with urllib.request.urlopen(f"{prometheus.url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
