"""A night in minutes: workers and desks get into trouble, and a real Prometheus raises alerts.

    python -m tests.rules.night [--json FILE] [SCENE ...]

Each scene is its own install (a job) on a real Kafka: workers with an engine of fixed time that can
be made to hang (``night_scenes``), or a desk (``night_desk``). The rules are the shipped ones, with
every duration divided by 30: a window of ten minutes becomes twenty seconds. Thresholds in seconds
(180 s without Kafka, 60 s of latency) are not divided. Prints which alert fired in which scene and
after how long, and exits with 1 if an expected one did not, or if one fired on a healthy install.
Needs Prometheus and PostgreSQL; alerts on kube-state-metrics cannot fire, since it is not there.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from tests.rules.live import RULES, Prometheus, release_group, running
from tests.rules.night_desk import DeskScene, desk_scenes
from tests.rules.night_scenes import WorkerScene, start_broker, worker_scenes

Scene = WorkerScene | DeskScene

FASTER = 30
LONGEST_S = 480.0
_DURATION = re.compile(r"(?<![\w.])(\d+)(m|h|d)(?!\w)")
_UNIT_S = {"m": 60, "h": 3600, "d": 86400}
_SCRAPE_S = 2


def faster(text: str) -> str:
    """Shorten the durations of an expression: not below three scrapes, and the step of a
    subquery (after a colon) not below one."""

    def shorter(found: re.Match[str]) -> str:
        least = _SCRAPE_S if text[: found.start()].endswith(":") else 3 * _SCRAPE_S
        return f"{max(least, int(found[1]) * _UNIT_S[found[2]] // FASTER)}s"

    return _DURATION.sub(shorter, text)


def fast_rules(jobs: Mapping[str, int]) -> dict[str, object]:
    """The shipped rules for a short night. ``jobs``: how many workers each should have."""
    document: dict[str, list[dict[str, object]]] = yaml.safe_load(RULES.read_text("utf-8"))
    for group in document["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:  # type: ignore[attr-defined]
            rule["expr"] = faster(rule["expr"])
            if "for" in rule:
                rule["for"] = faster(rule["for"])
    document["groups"].insert(0, release_group("night", jobs, "1s"))
    return dict(document)


def scenes(folder: Path, names: Sequence[str] = ()) -> list[Scene]:
    """The scenes with these names; all if none are given."""
    found: list[Scene] = [*worker_scenes(folder), *desk_scenes()]
    unknown = set(names) - {scene.job for scene in found}
    assert not unknown, f"no such scenes: {', '.join(sorted(unknown))}"
    return [scene for scene in found if not names or scene.job in names]


@contextmanager
def watching(folder: Path, jobs: Mapping[str, int]) -> Iterator[Prometheus]:
    """Run Prometheus over the scenes, which write their programs' addresses into ``folder``."""
    program = shutil.which("prometheus")
    assert program is not None, "Prometheus is not installed (Debian: apt-get install prometheus)"
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(fast_rules(jobs)), encoding="utf-8")
    config = {
        "global": {"scrape_interval": f"{_SCRAPE_S}s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {
                "job_name": "night",
                "file_sd_configs": [{"files": [str(folder / "*.json")], "refresh_interval": "1s"}],
            }
        ],
    }
    with running(program, folder, config) as prometheus:
        yield prometheus


def rehearse(names: Sequence[str] = ()) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Play the night, or only these scenes. Return the fired alerts of each scene with their
    time in seconds, and everything unexpected."""
    fired: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        played = scenes(folder, names)
        jobs = {scene.job: scene.workers for scene in played if scene.workers}
        broker = stack.enter_context(start_broker())
        for scene in played:
            scene.begin(stack, broker)
        for scene in played:
            scene.await_ready(folder)
            fired[scene.job] = {}
            print(f"{scene.job}: ready", flush=True)
        prometheus = stack.enter_context(watching(folder, jobs))
        begun = time.monotonic()
        while time.monotonic() - begun < LONGEST_S and _missing(played, fired):
            for scene in played:
                scene.act(time.monotonic() - begun)
            _note_firing(prometheus, time.monotonic() - begun, fired)
            time.sleep(1)
        for scene in played:
            scene.end()
        problems = _missing(played, fired)
    calm = (scene.job for scene in played if not scene.expected)
    return fired, problems + [f"{job}: {alert} fired" for job in calm for alert in fired[job]]


def _note_firing(
    prometheus: Prometheus, at_s: float, fired: Mapping[str, dict[str, float]]
) -> None:
    for series in prometheus.query('ALERTS{alertstate="firing"}'):
        job, alert = series["metric"]["job"], series["metric"]["alertname"]
        if alert not in fired[job]:
            fired[job][alert] = round(at_s, 1)
            print(f"{job}: {alert} after {at_s:.0f} s", flush=True)


def _missing(played: Sequence[Scene], fired: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        f"{scene.job}: {alert} did not fire"
        for scene in played
        for alert in scene.expected
        if alert not in fired[scene.job]
    ]


def main(arguments: Sequence[str]) -> int:
    kept = None
    if arguments[:1] == ["--json"]:
        kept, arguments = Path(arguments[1]), arguments[2:]
    fired, problems = rehearse(arguments)
    if kept is not None:
        kept.write_text(json.dumps(fired, indent=1) + "\n", encoding="utf-8")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
