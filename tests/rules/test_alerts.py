"""The alerts: valid, each proven to fire and to stay silent, each explained in the runbook."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rules.live import RULES, UNIT_TESTS, alerts, rules

RUNBOOK = Path("docs/operations.md")
_FIRING = re.compile(r'^ALERTS{alertname="(\w+)", alertstate="firing"}$')
_NAMED = re.compile(r'alertname="(\w+)"')


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid(promtool: str) -> None:
    assert f"{len(rules())} rules found" in _run(
        promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES
    )


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(promtool: str, path: Path) -> None:
    assert "SUCCESS" in _run(promtool, "test", "rules", path)


def _expectations() -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    for path in UNIT_TESTS:
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for expected in case["promql_expr_test"]:
                yield path, case, expected


def test_every_alert_is_proven_both_ways() -> None:
    """Each alert has a scenario in which it fires and a near miss in which it does not."""
    fires, silent = set(), set()
    for _, _, expected in _expectations():
        if (found := _FIRING.match(expected["expr"])) and expected["exp_samples"]:
            fires.add(found[1])
        if (named := _NAMED.search(expected["expr"])) and not expected["exp_samples"]:
            silent.add(named[1])
    assert fires == set(alerts())
    assert silent == set(alerts())


def test_every_alert_has_its_section_in_the_runbook() -> None:
    """No section is for an alert that is gone."""
    headings = re.findall(r"^### (Clerk\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"


def test_every_alert_has_a_severity_and_texts() -> None:
    """Three severities; a summary that begins with the install."""
    for name, rule in alerts().items():
        assert rule["labels"].keys() == {"severity"}, name
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["summary"].startswith("{{ $labels.job }}: "), name


def test_several_installs_on_one_prometheus_do_not_mix() -> None:
    """Everything is grouped by namespace and job, or by pod."""
    for rule in rules():
        grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"])
        for labels in grouped:
            named = set(labels.split(", "))
            assert {"namespace", "job"} <= named or {"namespace", "pod"} <= named, rule


def test_an_alerts_text_reads_well(promtool: str, tmp_path: Path) -> None:
    summaries = {}
    for number, (path, case, expected) in enumerate(_expectations()):
        found = _FIRING.match(expected["expr"])
        if not found or not expected["exp_samples"] or found[1] in summaries:
            continue
        asked = {"eval_time": expected["eval_time"], "alertname": found[1], "exp_alerts": []}
        only = {key: case[key] for key in ("name", "interval", "input_series")}
        document = yaml.safe_load(path.read_text(encoding="utf-8")) | {
            "rule_files": [str(RULES.absolute())],
            "tests": [only | {"alert_rule_test": [asked]}],
        }
        asking = tmp_path / f"{number}.yaml"
        asking.write_text(yaml.safe_dump(document), encoding="utf-8")
        done = subprocess.run(
            [promtool, "test", "rules", asking], capture_output=True, text=True, check=False
        )
        # It expected no alert, so the failure says what fired instead.
        fired = re.search(r'summary="((?:[^"\\]|\\.)*)"', done.stdout + done.stderr)
        assert fired is not None, done.stdout + done.stderr
        summaries[found[1]] = fired[1]
    assert summaries.keys() == alerts().keys()
    for name, summary in summaries.items():
        print(f"{name:30} {summary}")
        assert not re.search(r"error|no value|NaN|Inf|{{|}}|%!|  |worker  ", summary), summary
        assert len(summary) < 120, summary
