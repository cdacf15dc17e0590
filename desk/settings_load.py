"""Reading the settings: each source on its own, so that each value's origin is known."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from desk.errors import SettingsError
from desk.settings import Property, Settings, flatten
from worker.contract.assignments import split_assignment, toml_value

ENV_PREFIX = "CLERK_DESK_"
CONFIG_ENV = "CLERK_DESK_CONFIG"
REDACTED = "********"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The effective settings, and for each key that was set, where."""

    settings: Settings
    origins: Mapping[str, str]


def load_settings(config: Path | None = None, flags: Sequence[str] = ()) -> LoadedSettings:
    """Read and merge all sources. Raises SettingsError: which key, from where, what is wrong.

    ``config`` defaults to the file that CLERK_DESK_CONFIG names; ``flags`` are
    ``path.to.key=value``.
    """
    named = config or (Path(os.environ[CONFIG_ENV]) if os.environ.get(CONFIG_ENV) else None)
    sources: list[tuple[str, dict[str, Any]]] = []
    if named is not None:
        sources.append((f"file {named}", _read_file(named)))
    sources += [("environment", _read_environment()), ("flag", _read_flags(flags))]
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in sources:
        for path, value in _leaves(values, Settings):
            _put(merged, path, value)
            origins[".".join(path)] = origin
    try:
        return LoadedSettings(Settings(**merged), origins)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None


def effective(loaded: LoadedSettings) -> Iterator[tuple[str, str, str]]:
    """Yield each setting as (path, value as JSON, origin), with secrets redacted."""
    sections = {
        name: {key: getattr(section, key) for key in type(section).model_fields}
        for name in Settings.model_fields
        if (section := getattr(loaded.settings, name)) is not None
    }
    for path, value in _leaves(sections, Settings):
        name = ".".join(path)
        secret = isinstance(value, SecretStr)
        shown = REDACTED if secret else json.dumps(_redact(value), default=str)
        yield name, shown, loaded.origins.get(name, "default")


def _redact(value: Any) -> Any:
    """Hide what may be a secret among librdkafka's properties."""
    if not isinstance(value, Mapping):
        return value
    words = ("password", "secret", "jaas", "key.pem", "token")
    return {
        key: REDACTED if any(word in key.lower() for word in words) else inner
        for key, inner in value.items()
    }


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, no UTF-8
        raise SettingsError(f"{path}: is not TOML: {error}") from error


def _read_environment() -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in os.environ.items():
        if not name.startswith(ENV_PREFIX) or name == CONFIG_ENV:
            continue
        path = name[len(ENV_PREFIX) :].lower().split("__")
        kind = _type_at(path)
        if kind is None:
            raise SettingsError(f"environment variable {name}: {_unknown('.'.join(path))}")
        if kind == dict[str, Property]:  # properties are JSON here
            try:
                _put(values, tuple(path), json.loads(text))
            except ValueError as error:
                raise SettingsError(f"environment variable {name}: is not JSON: {error}") from None
        else:
            _put(values, tuple(path), text)
    return values


def _read_flags(flags: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for flag in flags:
        name, text = split_assignment(flag, "--set", form="path.to.key=value", error=SettingsError)
        path = name.split(".")
        if len(path) > 3:  # a property's own dots: kafka.consumer.fetch.min.bytes
            path = [*path[:2], ".".join(path[2:])]
        kind = _type_at(path)
        kinds = set(typing.get_args(kind)) if isinstance(kind, types.UnionType) else {kind}
        # Where the setting takes text, a password of ``1e5`` is no number.
        plain = kinds & {str, SecretStr, Path} and Property != kind
        _put(values, tuple(path), text if plain else toml_value(text))
    return values


def _leaves(
    values: Mapping[str, Any], model: type[BaseModel], at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        field = model.model_fields.get(key)
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, Mapping):
            yield from _leaves(value, inner, (*at, key))
        else:
            properties = inner == dict[str, Property]  # written with dots or nested: the same
            yield (*at, key), flatten(value) if properties else value


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for depth, step in enumerate(path[:-1], start=1):
        values = values.setdefault(step, {})
        if not isinstance(values, dict):
            raise SettingsError(f"{'.'.join(path[:depth])} already has a value: it is no section")
    last = path[-1]
    if isinstance(value, dict) and isinstance(values.get(last), dict):
        values[last] = {**values[last], **value}  # properties of all sources are merged
    else:
        values[last] = value


def _type_at(path: Sequence[str]) -> Any:
    """Return the annotation of a setting; None where there is no such setting."""
    kind: Any = Settings
    for step in path:
        if typing.get_origin(kind) is dict:
            return typing.get_args(kind)[1]
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
        field = kind.model_fields.get(step)
        if field is None:
            return None
        kind = field.annotation
    return kind


def _unknown(name: str) -> str:
    known = list(Settings.model_fields)
    known += [
        f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        for key in typing.cast("type[BaseModel]", field.annotation).model_fields
    ]
    close = difflib.get_close_matches(name, known, 1)
    return f"no setting is named {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(step) for step in problem["loc"])
        origin = next((o for key, o in origins.items() if f"{name}.".startswith(f"{key}.")), None)
        unknown = problem["type"] == "extra_forbidden"
        what = _unknown(name) if unknown else f"{name}: {problem['msg']}"
        lines.append(f"{what} ({origin})" if origin else what)
    return "; ".join(dict.fromkeys(lines))
