"""Reading the settings: each source on its own, so that each value's origin is known."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from worker.contract.assignments import split_assignment, toml_value
from worker.contract.renamed import explain_renamed
from worker.errors import SettingsError
from worker.settings import RENAMED, Settings
from worker.settings_types import Property, flatten

ENV_PREFIX = "CLERK_"
CONFIG_ENV = "CLERK_CONFIG"
# Variables of this prefix that are read elsewhere, each where it is used.
_OTHER_ENV = {CONFIG_ENV, "CLERK_CACHE"}
_OTHER_PREFIXES = ("CLERK_TEST_", "CLERK_DESK_")
_SECRET = re.compile(r"password|passphrase|secret|jaas|key\.pem|(^|[._-])token($|[._-])")
REDACTED = "********"
_TOO_DEEP = "lists and tables are nested too deeply"


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
        raise SettingsError(f"settings: {_TOO_DEEP}") from None


def _load(named: Path | None, flags: Sequence[str]) -> LoadedSettings:
    sources: list[tuple[str, dict[str, Any]]] = []
    if named is not None:
        sources.append((f"file {named}", _read_file(named)))
    sources.append(("environment", _read_environment()))
    sources.append(("flag", _read_flags(flags)))
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
    for path, value in _leaves(dict(_sections(loaded.settings)), Settings):
        name = ".".join(path)
        safe = _redact(name, value)
        shown = safe if safe == REDACTED else json.dumps(safe, default=str)
        yield name, shown, loaded.origins.get(name, "default")


def _redact(name: str, value: Any) -> Any:
    if value is not None and (isinstance(value, SecretStr) or _SECRET.search(name.lower())):
        return REDACTED
    if isinstance(value, Mapping):
        return {key: _redact(str(key), inner) for key, inner in value.items()}
    return value


def _sections(settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        yield name, {key: getattr(section, key) for key in type(section).model_fields}


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
        return dict(TomlConfigSettingsSource(Settings, path)())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except RecursionError:
        raise SettingsError(f"{path}: {_TOO_DEEP}") from None
    except ValueError as error:  # a TOMLDecodeError, no UTF-8, a number of 5,000 digits
        raise SettingsError(f"{path}: is not TOML: {error}") from error


def _read_environment() -> dict[str, Any]:
    for name in os.environ:
        if not name.startswith(ENV_PREFIX) or name in _OTHER_ENV:
            continue
        if name.startswith(_OTHER_PREFIXES):
            continue
        path = name[len(ENV_PREFIX) :].lower().split("__")
        if _type_at(path) is None:
            raise SettingsError(f"environment variable {name}: {_unknown('.'.join(path))}")
    try:
        return dict(EnvSettingsSource(Settings)())
    except RecursionError:
        raise SettingsError(f"environment: {_TOO_DEEP}") from None
    except ValueError as error:
        raise SettingsError(f"environment: {error} (lists and tables are given as JSON)") from error


def _read_flags(flags: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for flag in flags:
        name, text = split_assignment(flag, "--set", form="path.to.key=value", error=SettingsError)
        path = name.split(".")
        if len(path) > 3:  # a property's own dots: kafka.consumer.fetch.min.bytes
            path = [*path[:2], ".".join(path[2:])]
        _put(values, tuple(path), _parse(text, _type_at(path)))
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
    if renamed := explain_renamed(name, RENAMED):
        return renamed
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
