"""Reading the settings: each source on its own, so that each value's origin is known."""

from __future__ import annotations

import json
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from desk.errors import SettingsError
from desk.settings import Property, Settings
from worker.contract.assignments import split_assignment, toml_value
from worker.contract.settings_tree import (
    PROPERTIES,
    REDACTED,
    TOO_DEEP,
    SettingsTree,
    read_toml,
    redact,
)

ENV_PREFIX = "CLERK_DESK_"
CONFIG_ENV = "CLERK_DESK_CONFIG"
_TREE = SettingsTree(Settings, SettingsError)


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
    try:
        return _load(named, flags)
    except RecursionError:
        raise SettingsError(f"settings: {TOO_DEEP}") from None


def _load(named: Path | None, flags: Sequence[str]) -> LoadedSettings:
    sources: list[tuple[str, dict[str, Any]]] = []
    if named is not None:
        sources.append((f"file {named}", read_toml(named, SettingsError)))
    sources += [("environment", _read_environment()), ("flag", _read_flags(flags))]
    merged, origins = _TREE.merge(sources)
    try:
        return LoadedSettings(Settings(**merged), origins)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise SettingsError(_TREE.explain(problems, origins)) from None


def effective(loaded: LoadedSettings) -> Iterator[tuple[str, str, str]]:
    """Yield each setting as (path, value as JSON, origin), with secrets redacted."""
    sections = {
        name: {key: getattr(section, key) for key in type(section).model_fields}
        for name in Settings.model_fields
        if (section := getattr(loaded.settings, name)) is not None
    }
    for path, value in _TREE.leaves(sections):
        name = ".".join(path)
        safe = redact(name, value)
        shown = safe if safe == REDACTED else json.dumps(safe, default=str)
        yield name, shown, loaded.origins.get(name, "default")


def _read_environment() -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in os.environ.items():
        if not name.startswith(ENV_PREFIX) or name == CONFIG_ENV:
            continue
        path = name[len(ENV_PREFIX) :].lower().split("__")
        kind = _TREE.kind_at(path)
        if kind is None:
            raise SettingsError(f"environment variable {name}: {_TREE.unknown('.'.join(path))}")
        if kind == PROPERTIES:  # properties are JSON here
            try:
                _TREE.put(values, path, json.loads(text))
            except ValueError as error:
                raise SettingsError(f"environment variable {name}: is not JSON: {error}") from None
        else:
            _TREE.put(values, path, text)
    return values


def _read_flags(flags: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for flag in flags:
        name, text = split_assignment(flag, "--set", form="path.to.key=value", error=SettingsError)
        path = name.split(".")
        if len(path) > 3:  # a property's own dots: kafka.consumer.fetch.min.bytes
            path = [*path[:2], ".".join(path[2:])]
        kind = _TREE.kind_at(path)
        kinds = set(typing.get_args(kind)) if isinstance(kind, types.UnionType) else {kind}
        # Where the setting takes text, a password of ``1e5`` is no number.
        plain = kinds & {str, SecretStr, Path} and Property != kind
        _TREE.put(values, path, text if plain else toml_value(text))
    return values
