"""Generate what the chart derives from values.yaml and from the settings of worker and desk.

    python helm/generate.py            write values.schema.json and the README's table of values
    python helm/generate.py --check    exit 1, naming the file, where one is out of date

A value's description is the comment right above it. A comment line ``@schema {...}`` adds to the
JSON Schema that is derived from the default. It may hold four keywords of our own:
``worker-settings: true`` and ``desk-settings: true`` (the schemas of worker/settings.py and
desk/settings.py), ``volume-source: true`` (one kind of Kubernetes volume) and ``free: true``
(anything that Kubernetes accepts). Whatever is not declared free is closed: a key that the chart
does not know is an error.
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
    """values.yaml is incomplete or names something unknown; the message says where."""


@dataclass(frozen=True)
class Value:
    """One key of values.yaml: its comment, what ``@schema`` adds, and the keys below it."""

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
    """Read every value with its comment. Raises Refused where a comment is missing."""
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
        said = line.removeprefix("#").strip()
        if said.startswith("@schema"):
            extra |= yaml.safe_load(said.removeprefix("@schema"))
        else:
            words.insert(0, said)
        at -= 1
    if not words:
        raise Refused(f"values.yaml: {path} has no comment that says what it is")
    return " ".join(words), extra


def schema_of(value: Value) -> Schema:
    """Return a value's JSON Schema. Raises Refused where its default does not tell the type."""
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
    raise Refused(f"values.yaml: {value.path}: its default does not tell its type; add @schema")


def _values_schema(values: tuple[Value, ...]) -> Schema:
    """A map of values. All of them have to be there: Helm takes away what a user gives as null, and
    a template that met nothing in its place would crash without naming the value. What has no
    default, or is passed on to Kubernetes as it is, may be taken away."""
    required = [v.name for v in values if v.default is not None and not v.extra.get("free")]
    return _closed({value.name: schema_of(value) for value in values}) | {"required": required}


def _closed(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _settings_schema(value: Value, settings: Any) -> Schema:
    """A program's own settings, with the comments of values.yaml where it has them."""
    told = {
        child.path: child.description
        for section in value.children
        for child in (section, *section.children)
    }
    sections: Schema = {}
    for name, field in settings.model_fields.items():
        model: Any = field.annotation
        keys = {
            key: {
                "description": told.get(
                    f"{value.path}.{name}.{key}", setting.get("description", "")
                )
            }
            | _setting(setting)
            for key, setting in model.model_json_schema()["properties"].items()
        }
        about = told.get(f"{value.path}.{name}", (model.__doc__ or "").strip())
        sections[name] = {"description": about} | _closed(keys)
    known = {f"{value.path}.{name}" for name in sections}
    known |= {
        f"{value.path}.{name}.{key}"
        for name, section in sections.items()
        for key in section["properties"]
    }
    if unknown := sorted(told.keys() - known):
        raise Refused(f"values.yaml: {unknown[0]}: there is no such setting")
    return _closed(sections)


def _setting(found: Schema) -> Schema:
    """One setting's schema. ``null`` stands for the worker's default, as Helm's users expect."""
    options = [option for option in found.get("anyOf", [found]) if option.get("type") != "null"]
    if len(options) > 1 and all(set(option) <= {"type"} for option in options):
        return {"type": [*(option["type"] for option in options), "null"]}
    if len(options) != 1:
        raise Refused(f"this kind of setting is new to the chart: {found}")
    kept = {keyword: value for keyword, value in options[0].items() if keyword not in _NOT_KEPT}
    if isinstance(kept.get("additionalProperties"), dict):
        # Properties of librdkafka: flat, as YAML writes them.
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
        "description": "For charts that hold this one.", "type": "object",
    }  # fmt: skip
    top = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of filing-clerk"}
    return json.dumps(top | schema, indent=2) + "\n"


def make_table(values: tuple[Value, ...]) -> str:
    """Return the README's table."""
    rows = ["| value | default | what it is |", "|---|---|---|"]
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
    """Write the files, or with --check compare them."""
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
