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
from pydantic_settings import EnvSettingsSource

from worker.contract.assignments import split_assignment, toml_value
from worker.contract.settings_tree import REDACTED, TOO_DEEP, SettingsTree, read_toml, redact
from worker.errors import SettingsError
from worker.settings import Settings

__all__ = ["REDACTED", "LoadedSettings", "effective", "load_settings"]

ENV_PREFIX = "CLERK_"
CONFIG_ENV = "CLERK_CONFIG"
# Variables of this prefix that are read elsewhere, each where it is used.
_OTHER_ENV = {CONFIG_ENV, "CLERK_CACHE"}
_OTHER_PREFIXES = ("CLERK_TEST_", "CLERK_DESK_")
_TREE = SettingsTree(Settings, SettingsError)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The effective settings, and for each key that was set, where."""

    settings: Settings
    origins: Mapping[str, str]


def load_settings(config: Path | None = None, flags: Sequence[str] = ()) -> LoadedSettings:
    """Read and merge all sources. Raises SettingsError: which key, from where, what is wrong.

    ``config`` defaults to the file that CLERK_CONFIG names; ``flags`` are ``path.to.key=value``.
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
    sources.append(("environment", _read_environment()))
    sources.append(("flag", _read_flags(flags)))
    merged, origins = _TREE.merge(sources)
    try:
        return LoadedSettings(Settings(**merged), origins)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise SettingsError(_TREE.explain(problems, origins)) from None


def effective(loaded: LoadedSettings) -> Iterator[tuple[str, str, str]]:
    """Yield each setting as (path, value as JSON, origin), with secrets redacted."""
    for path, value in _TREE.leaves(dict(_sections(loaded.settings))):
        name = ".".join(path)
        safe = redact(name, value)
        shown = safe if safe == REDACTED else json.dumps(safe, default=str)
        yield name, shown, loaded.origins.get(name, "default")


def _sections(settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        yield name, {key: getattr(section, key) for key in type(section).model_fields}


def _read_environment() -> dict[str, Any]:
    for name in os.environ:
        if not name.startswith(ENV_PREFIX) or name in _OTHER_ENV:
            continue
        if name.startswith(_OTHER_PREFIXES):
            continue
        path = name[len(ENV_PREFIX) :].lower().split("__")
        if _TREE.kind_at(path) is None:
            raise SettingsError(f"environment variable {name}: {_TREE.unknown('.'.join(path))}")
    try:
        return dict(EnvSettingsSource(Settings)())
    except RecursionError:
        raise SettingsError(f"environment: {TOO_DEEP}") from None
    except ValueError as error:
        raise SettingsError(f"environment: {error} (lists and tables are given as JSON)") from error


def _read_flags(flags: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for flag in flags:
        name, text = split_assignment(flag, "--set", form="path.to.key=value", error=SettingsError)
        path = name.split(".")
        if len(path) > 3:  # a property's own dots: kafka.consumer.fetch.min.bytes
            path = [*path[:2], ".".join(path[2:])]
        _TREE.put(values, path, _parse(text, _TREE.kind_at(path)))
    return values


def _parse(text: str, kind: Any) -> Any:
    """Parse a flag's value as TOML where it is TOML, else take it as text.

    Where the setting takes text, only a plainly written integer is a number: a password of ``1e5``
    or ``12#34`` is neither a number nor a number with a comment.
    """
    value = toml_value(text)
    kinds = set(typing.get_args(kind)) if isinstance(kind, types.UnionType) else {kind}
    if isinstance(value, str) or not kinds & {str, SecretStr, Path}:
        return value
    plain = int in kinds and isinstance(value, int) and json.dumps(value) == text
    return value if plain else text
