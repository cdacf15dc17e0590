"""Generate the chart's schema and table of values from values.yaml and the programs' settings.

    python helm/generate.py            write values.schema.json and the README's table of values
    python helm/generate.py --check    exit 1 and name the file if one is out of date

The comment above a value is its description. A comment line ``@schema {...}`` adds keywords to the
JSON Schema that is derived from the default. Four keywords are not JSON Schema's:
``worker-settings: true`` and ``desk-settings: true`` (the schemas of worker/settings.py and
desk/settings.py), ``volume-source: true`` (one kind of Kubernetes volume) and ``free: true``
(anything that Kubernetes accepts). All other objects are closed: an unknown key is an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from desk.settings import Settings as DeskSettings
from worker.settings import Settings

CHART = Path(__file__).parent / "filing-clerk"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
VOLUMES = (
    "configMap", "csi", "emptyDir", "ephemeral", "hostPath", "image", "nfs",
    "persistentVolumeClaim", "projected", "secret",
)  # fmt: skip
FREE: dict[str, Any] = {"type": "object", "additionalProperties": True}
Schema = dict[str, Any]


class Refused(Exception):
    """values.yaml is incomplete or has an unknown name; the message says where."""


@dataclass(frozen=True)
class Value:
    """One key of values.yaml: its comment, keywords from ``@schema``, and the keys below it."""

    path: str
    description: str
    extra: Schema
    default: Any
    children: tuple[Value, ...]

    @property
    def name(self) -> str:
        """The last step of the path."""
        return self.path.rpartition(".")[2]


def read_values(text: str) -> tuple[Value, ...]:
    """Read all values with their comments. Raises Refused if a comment is missing."""
    return _read(yaml.compose(text), text.splitlines(), "")


def _read(node: yaml.MappingNode, lines: list[str], at: str) -> tuple[Value, ...]:
    values = []
    for key, value in node.value:
        path = f"{at}.{key.value}" if at else key.value
        description, extra = _comment(lines, key.start_mark.line, path)
        inner: tuple[Value, ...] = ()
        if isinstance(value, yaml.MappingNode) and value.value and not extra.keys() & {
            "free", "additionalProperties",
        }:  # fmt: skip
            inner = _read(value, lines, path)
        default = yaml.safe_load(yaml.serialize(value))
        values.append(Value(path, description, extra, default, inner))
    return tuple(values)


def _comment(lines: list[str], at: int, path: str) -> tuple[str, Schema]:
    words: list[str] = []
    extra: Schema = {}
    while at and (line := lines[at - 1].strip()).startswith("#"):
        comment = line.removeprefix("#").strip()
        if comment.startswith("@schema"):
            extra |= yaml.safe_load(comment.removeprefix("@schema"))
        else:
            words.insert(0, comment)
        at -= 1
    if not words:
        raise Refused(f"values.yaml: {path} has no comment. Write one above it")
    return " ".join(words), extra


def schema_of(value: Value) -> Schema:
    """Return a value's JSON Schema. Raises Refused if its default does not determine a type."""
    extra = dict(value.extra)
    base: Schema = {"description": value.description}
    if extra.pop("worker-settings", False):
        return base | _settings_schema(value, Settings)
    if extra.pop("desk-settings", False):
        return base | _settings_schema(value, DeskSettings)
    if extra.pop("volume-source", False):
        kinds: Schema = {kind: {"type": "object"} for kind in VOLUMES}
        return base | {"type": "object", "properties": kinds, "additionalProperties": False,
                       "maxProperties": 1}  # fmt: skip
    if extra.pop("free", False):
        return base | FREE | extra
    if value.children:
        return base | _values_schema(value.children) | extra
    return base | _type_of(value) | extra


def _type_of(value: Value) -> Schema:
    if "type" in value.extra:
        return {}
    if isinstance(value.default, list) and "items" in value.extra:
        return {"type": "array"}
    if isinstance(value.default, dict) and "additionalProperties" in value.extra:
        return {"type": "object"}
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value.default, kind):
            return {"type": name}
    raise Refused(f"values.yaml: {value.path}: the type is unclear from its default. Add @schema")


def _values_schema(values: tuple[Value, ...]) -> Schema:
    # Values are required because Helm removes a value that a user sets to null, and a template
    # would then crash without naming it. Values without a default, and those passed to Kubernetes
    # unchanged, may be removed.
    required = [v.name for v in values if v.default is not None and not v.extra.get("free")]
    return _closed({value.name: schema_of(value) for value in values}) | {"required": required}


def _closed(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _settings_schema(value: Value, settings: Any) -> Schema:
    """A program's settings, described by the comments of values.yaml or else by the program."""
    commented = {
        child.path: child.description
        for section in value.children
        for child in (section, *section.children)
    }
    sections: Schema = {}
    for name, field in settings.model_fields.items():
        model: Any = field.annotation
        keys = {
            key: {
                "description": commented.get(
                    f"{value.path}.{name}.{key}", setting.get("description", "")
                )
            }
            | _setting(setting)
            for key, setting in model.model_json_schema()["properties"].items()
        }
        about = commented.get(f"{value.path}.{name}", (model.__doc__ or "").strip())
        sections[name] = {"description": about} | _closed(keys)
    known = {f"{value.path}.{name}" for name in sections}
    known |= {
        f"{value.path}.{name}.{key}"
        for name, section in sections.items()
        for key in section["properties"]
    }
    if unknown := sorted(commented.keys() - known):
        raise Refused(f"values.yaml: {unknown[0]} is not a setting")
    return _closed(sections)


def _setting(found: Schema) -> Schema:
    """One setting's schema. ``null`` means the program's default, as in Helm."""
    options = [option for option in found.get("anyOf", [found]) if option.get("type") != "null"]
    if len(options) > 1 and all(set(option) <= {"type"} for option in options):
        return {"type": [*(option["type"] for option in options), "null"]}
    if len(options) != 1:
        raise Refused(f"_setting in helm/generate.py does not know this kind of setting: {found}")
    kept = {keyword: value for keyword, value in options[0].items() if keyword not in _NOT_KEPT}
    if isinstance(kept.get("additionalProperties"), dict):
        # Properties of librdkafka: a flat map.
        kept["additionalProperties"] = {"type": ["string", "number", "boolean"]}
    if "enum" in kept:
        kept["enum"] = [*kept["enum"], None]
    if "const" in kept:
        kept["enum"] = [kept.pop("const"), None]
    return kept | {"type": [kept["type"], "null"]}


_NOT_KEPT = {"title", "default", "description", "format", "writeOnly"}


def make_schema(values: tuple[Value, ...]) -> str:
    """Return values.schema.json."""
    schema = _values_schema(values)
    # Helm gives every subchart this key.
    schema["properties"]["global"] = {
        "description": "For charts that include this one.", "type": "object",
    }  # fmt: skip
    top = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of filing-clerk"}
    return json.dumps(top | schema, indent=2) + "\n"


def make_table(values: tuple[Value, ...]) -> str:
    """Return the README's table."""
    rows = ["| value | default | description |", "|---|---|---|"]
    for value in _walk(values):
        default = "" if value.children else _escape(f"`{json.dumps(value.default)}`")
        if len(default) > 70:
            default = "see values.yaml"
        rows.append(f"| `{value.path}` | {default} | {_escape(value.description)} |")
    return "\n".join(rows) + "\n"


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")


def _walk(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        yield value
        yield from _walk(value.children)


def main(arguments: list[str]) -> int:
    """Write the files, or compare them (--check)."""
    try:
        values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
        schema = make_schema(values)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    before, _, rest = readme.partition(BEGIN)
    table = f"{before}{BEGIN}\n\n{make_table(values)}\n{END}{rest.partition(END)[2]}"
    outdated = 0
    for path, text in (
        (CHART / "values.schema.json", schema),
        (CHART / "README.md", table),
    ):
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if arguments == ["--check"]:
            print(f"{path} is out of date: make chart", file=sys.stderr)
            outdated = 1
        else:
            path.write_text(text, encoding="utf-8")
    return outdated


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
