"""Settings as a tree of sections: the rules that every program's loader follows.

A section is whatever has ``model_fields`` with an ``annotation`` each, as pydantic's models do; so
the rules know no library. Each source (file, environment, flags) is read on its own, so that each
value's origin is known and an unknown key is told with its near name.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REDACTED = "********"
TOO_DEEP = "lists and tables are nested too deeply"
PROPERTIES = dict[str, str | int | float | bool]
"""The type of a setting that holds librdkafka's properties, by names with dots."""

# A token by its last word: sasl_token_callback and sasl.oauthbearer.token.endpoint.url only say
# where one comes from, and whoever looks for a mistake needs to see them.
_SECRET = re.compile(r"password|passphrase|secret|jaas|key\.pem|(^|[._-])token$")


def flatten(value: Any, prefix: str = "") -> Any:
    """Join nested keys with dots: unquoted in TOML, ``fetch.min.bytes = 1`` is nested."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            flat.update(flatten(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def redact(name: str, value: Any) -> Any:
    """Return a setting's value as it may be shown: what is typed as a secret, or named like one,
    also within, is hidden."""
    if value is not None and (hasattr(value, "get_secret_value") or _SECRET.search(name.lower())):
        return REDACTED
    if isinstance(value, Mapping):
        return {key: redact(str(key), inner) for key, inner in value.items()}
    return value


def read_toml(path: Path, error: Callable[[str], Exception]) -> dict[str, Any]:
    """Read a settings file. Raises ``error``: which file, and what is wrong with it."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))  # a carriage return stays one
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}") from problem
    except RecursionError:
        raise error(f"{path}: {TOO_DEEP}") from None
    except ValueError as problem:  # a TOMLDecodeError, no UTF-8, a number of 5,000 digits
        raise error(f"{path}: is not TOML: {problem}") from problem


def read_secret(
    name: str, given: str | None, file: Path | None, error: Callable[[str], Exception]
) -> str | None:
    """Return a secret that is given itself or by the name of a file (``name`` with ``_file``),
    without the line's end. Raises ``error`` where both are given, or the file holds none."""
    if file is None:
        return given
    if given is not None:
        raise error(f"{name} and {name}_file are both given")
    try:
        secret = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        why = getattr(problem, "strerror", None) or "it is not UTF-8"
        raise error(f"{name}_file: {file} cannot be read: {why}") from None
    if not (secret := secret.removesuffix("\n").removesuffix("\r")).strip():
        raise error(f"{name}_file: {file} is empty")
    return secret


class SettingsTree:
    """The sections of one program. ``error`` makes what is raised for a mistake."""

    def __init__(self, model: Any, error: Callable[[str], Exception]) -> None:
        self._model = model
        self._error = error

    def merge(
        self, sources: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Lay sources (origin, values) over one another, the last one uppermost; return the values
        and each one's origin by its path."""
        merged: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for origin, values in sources:
            for path, value in self.leaves(values):
                self.put(merged, path, value)
                origins[".".join(path)] = origin
        return merged, origins

    def leaves(self, values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Give each setting with its path; properties are one setting."""
        return _leaves(values, self._model, ())

    def put(self, values: dict[str, Any], path: Sequence[str], value: Any) -> None:
        """Set a value at a path; properties of several sources are merged."""
        for depth, step in enumerate(path[:-1], start=1):
            values = values.setdefault(step, {})
            if not isinstance(values, dict):
                name = ".".join(path[:depth])
                raise self._error(f"{name} already has a value: it is no section")
        last = path[-1]
        if isinstance(value, dict) and isinstance(values.get(last), dict):
            values[last] = {**values[last], **value}
        else:
            values[last] = value

    def kind_at(self, path: Sequence[str]) -> Any:
        """Return the annotation of a setting; None where there is no such setting."""
        kind: Any = self._model
        for step in path:
            if typing.get_origin(kind) is dict:
                return typing.get_args(kind)[1]
            field = kind.model_fields.get(step) if _is_section(kind) else None
            if field is None:
                return None
            kind = field.annotation
        return kind

    def unknown(self, name: str) -> str:
        """Say that no setting is named so, and which name is near."""
        known = list(self._model.model_fields)
        known += [
            f"{section}.{key}"
            for section, field in self._model.model_fields.items()
            for key in field.annotation.model_fields
        ]
        close = difflib.get_close_matches(name, known, 1)
        return f"no setting is named {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")

    def explain(self, problems: Iterable[Mapping[str, Any]], origins: Mapping[str, str]) -> str:
        """Say what is wrong with which setting from where. A problem has ``loc``, ``type`` and
        ``msg`` as pydantic's errors do, and nothing of the input."""
        lines = []
        for problem in problems:
            name = ".".join(str(step) for step in problem["loc"])
            origin = next((o for key, o in origins.items() if f"{name}.".startswith(f"{key}.")), "")
            unknown = problem["type"] == "extra_forbidden"
            what = self.unknown(name) if unknown else f"{name}: {problem['msg']}"
            lines.append(f"{what} ({origin})" if origin else what)
        return "; ".join(dict.fromkeys(lines))


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_fields")


def _leaves(
    values: Mapping[str, Any], model: Any, at: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        field = model.model_fields.get(key)
        inner = field.annotation if field else None
        if _is_section(inner) and isinstance(value, Mapping):
            yield from _leaves(value, inner, (*at, key))
        else:  # written with dots or nested: the same
            yield (*at, key), flatten(value) if inner == PROPERTIES else value
