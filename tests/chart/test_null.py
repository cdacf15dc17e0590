"""null, by which Helm removes a value: a clear refusal or a sound release, never a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from tests.chart.references import broken
from tests.chart.render import CHART, Refused, at, find, merge, render_minimal
from tests.chart.test_desk import DESK
from tests.chart.test_refused import PROPOSE

VALUES: Mapping[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: Mapping[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
BROUGHT = frozenset({"models", "adapters", "data", "decisions", "proposals"})
# What a template says when it meets nothing instead of a value.
CRASHES = ("nil pointer", "error calling", 'executing "', "wrong type", "YAML parse error",
           "invalid value", "can't evaluate")  # fmt: skip


def paths(values: Mapping[str, Any], part: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Yield the path of every value, maps included, but not inside Kubernetes' own maps."""
    for key, inner in values.items():
        path = f"{at}.{key}" if at else key
        yield path
        schema = part["properties"][key]
        if isinstance(inner, Mapping) and "properties" in schema:
            yield from paths(inner, schema, path)


# With all parts on, to render every template.
ALL: dict[str, Any] = merge(merge(PROPOSE, DESK), {
    "trainer": {"enabled": True},
    "rollback": {"enabled": True},
    "topics": {"create": True},
    "autoscaling": {"kind": "keda"},
    "metrics": {"monitor": "pod", "rules": {"enabled": True}, "dashboard": {"enabled": True}},
    "download": {"enabled": True, "image": "registry.example/s3:1"},
})  # fmt: skip


def outcome(path: str) -> str | None:
    """The problem when a value is removed, or None."""
    try:
        documents = render_minimal(merge(ALL, at(path, None)))
    except Refused as refused:
        message = str(refused)
        if any(crash in message for crash in CRASHES):
            return f"{path}: {message.strip()[:300]}"
        if path.rpartition(".")[2] not in message:
            return f"{path} is not named: {message.strip()[:300]}"
        return None
    return "; ".join(f"{path}: {line}" for line in broken(documents, BROUGHT)) or None


def is_required(path: str) -> bool:
    """Whether the schema requires this value."""
    *maps, name = path.split(".")
    part = SCHEMA
    for key in maps:
        part = part["properties"][key]
    return name in part.get("required", ())


def test_no_removed_value_crashes_a_template() -> None:
    """Each alone: the schema requires it, the chart works without it, or it says why not."""
    rest = [path for path in paths(VALUES, SCHEMA) if not is_required(path)]
    assert 20 < len(rest) < 80
    with ThreadPoolExecutor(4) as pool:
        found = [line for line in pool.map(outcome, rest) if line]
    assert found == []


@pytest.mark.parametrize("path", ["auth", "auth.tls", "storage.models", "metrics.rules", "probes"])
def test_a_removed_map_is_named(path: str) -> None:
    with pytest.raises(Refused) as caught:
        render_minimal(at(path, None))
    assert path.rpartition(".")[2] in str(caught.value)


def test_sections_of_settings_may_be_removed() -> None:
    documents = render_minimal(merge(at("config.loop", None), at("config.http", None)))
    assert "[loop]" not in find(documents, "ConfigMap")["data"]["worker.toml"]
