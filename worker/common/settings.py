"""Load a program's settings: one frozen object from a file, the environment and flags.

The sources of pydantic-settings are a TOML file, environment variables
(``CLERK_KAFKA__GROUP_ID``), and flags (``kafka.group_id=...``). Later ones override earlier ones,
and an unknown key is an error in each. Each is wrapped here, because pydantic-settings merges
tables by their nested keys, keeps no value's origin, and ignores an unknown variable.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import string
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

REDACTED = "********"

_NAME_CHARACTERS = string.ascii_letters + string.digits + "._-"
_TOO_DEEP = "lists and tables are nested too deeply"

# "token" only as the last word: sasl_token_callback and sasl.oauthbearer.token.endpoint.url only
# say where a token comes from, and are needed to find a mistake.
_SECRET = re.compile(r"password|passphrase|secret|jaas|key\.pem|user\.info|(^|[._-])token$")

S = TypeVar("S", bound="ProgramSettings")


class Section(BaseModel):
    """A frozen section of the settings in which unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProgramSettings(BaseSettings):
    """All settings of a program. One that is made directly reads nothing: see SettingsLoader."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        case_sensitive=True,
        env_nested_delimiter="__",
        enable_decoding=False,  # a list of one is written as plain text
        hide_input_in_errors=True,  # it may be a secret
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the library's signature)
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the arguments as the only source."""
        return (init_settings,)


def flatten(value: Any, prefix: str = "") -> Any:
    """Join nested keys with dots: TOML reads an unquoted ``fetch.min.bytes = 1`` as nested."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            flat.update(flatten(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


Seconds = Annotated[float, Field(gt=0)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Property = str | int | float | bool
Properties = Annotated[dict[str, Property], BeforeValidator(flatten)]
"""librdkafka's properties, by their names with dots."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """The effective settings, and the origin of each key that was set."""

    settings: S
    origins: Mapping[str, str]


class SettingsLoader(Generic[S]):
    """Reads the settings of one program into ``model``.

    ``error`` creates the exception for a mistake from a line with the key and its origin.
    Environment variables begin with ``prefix``; those that begin with one of ``elsewhere`` are not
    settings.
    """

    def __init__(
        self,
        model: type[S],
        error: Callable[[str], Exception],
        *,
        prefix: str,
        elsewhere: tuple[str, ...] = (),
    ) -> None:
        self._model = model
        self._error = error
        self._prefix = prefix
        self._elsewhere = (f"{prefix}CONFIG", *elsewhere)

    def load(self, config: Path | None = None, flags: Sequence[str] = ()) -> Loaded[S]:
        """Read all sources. Raises ``error`` with key, origin and problem.

        ``config`` defaults to the file in the variable ``<prefix>CONFIG``; ``flags`` are
        ``path.to.key=value``.
        """
        in_environment = os.environ.get(f"{self._prefix}CONFIG")
        file = config or (Path(in_environment) if in_environment else None)
        in_file = {} if file is None else read_toml(file, self._error)
        return self.combine(in_file, file, self._read_flags(flags))

    def combine(
        self, in_file: Mapping[str, Any], file: Path | None, flags: Mapping[str, Any]
    ) -> Loaded[S]:
        """Combine the values from ``file``, the environment, and ``flags``. Raises ``error``."""
        origins: dict[str, str] = {}
        self._check_environment()
        sources = {  # the highest priority first
            "flag": InitSettingsSource(self._model, dict(flags)),
            "environment": EnvSettingsSource(
                self._model, case_sensitive=False, env_prefix=self._prefix
            ),
            # Its own source for TOML takes a file that is missing, or a pipe, for an empty one.
            f"file {file}": InitSettingsSource(self._model, dict(in_file)),
        }
        wrapped = [
            _Source(self._model, source, origin, origins, self._error)
            for origin, source in sources.items()
        ]
        try:
            return Loaded(self._model(_build_sources=(tuple(wrapped), {})), origins)
        except RecursionError:
            raise self._error(f"settings: {_TOO_DEEP}") from None
        except ValidationError as error:
            # Without the input, which may be a secret.
            problems = error.errors(include_url=False, include_input=False)
            raise self._error(self._explain(problems, origins)) from None

    def effective(self, loaded: Loaded[S]) -> Iterator[tuple[str, str, str]]:
        """Yield each setting as (path, value as JSON, origin), with secrets redacted."""
        values = {
            name: {key: getattr(value, key) for key in type(value).model_fields}
            if isinstance(value := getattr(loaded.settings, name), BaseModel)
            else value
            for name in type(loaded.settings).model_fields
        }
        for path, value in _leaves(values, self._model, ()):
            name = ".".join(path)
            safe = redact(name, value)
            shown = safe if safe == REDACTED else json.dumps(safe, default=str)
            yield name, shown, loaded.origins.get(name, "default")

    def _check_environment(self) -> None:
        """Refuse variables that pydantic-settings would ignore."""
        names = [name for name in os.environ if name.startswith(self._prefix)]
        for name in names:
            if name.startswith(self._elsewhere):
                continue
            path = name[len(self._prefix) :].lower().split("__")
            if _kind_of(self._model, path) is None:
                raise self._error(f"environment variable {name}: {self._unknown('.'.join(path))}")
            if part := next((other for other in names if other.startswith(f"{name}__")), None):
                raise self._error(f"environment variables {name} and {part}: set one of them only")

    def _read_flags(self, flags: Sequence[str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for flag in flags:
            name, text = split_assignment(
                flag, "--set", form="path.to.key=value", error=self._error
            )
            path = name.split(".")
            if len(path) > 3:  # dots in a property's name: kafka.consumer.fetch.min.bytes
                path = [*path[:2], ".".join(path[2:])]
            table = values
            for step in path[:-1]:
                table = table.setdefault(step, {})
                if not isinstance(table, dict):
                    raise self._error(f"{name}: {step} is a value, not a section (flag)")
            value = _parse(text, _kind_of(self._model, path))
            before = table.get(path[-1])
            if isinstance(before, dict) and isinstance(value, dict):
                value = {**before, **value}
            table[path[-1]] = value
        return values

    def _unknown(self, name: str) -> str:
        known = list(self._model.model_fields)
        known += [
            f"{section}.{key}"
            for section, field in self._model.model_fields.items()
            for key in getattr(field.annotation, "model_fields", ())
        ]
        close = difflib.get_close_matches(name, known, 1)
        return f"no setting is named {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")

    def _explain(self, problems: Iterable[Any], origins: Mapping[str, str]) -> str:
        """Convert pydantic's errors to one line with settings, problems and origins."""
        lines = []
        for problem in problems:
            name = ".".join(str(step) for step in problem["loc"])
            origin = next((o for key, o in origins.items() if f"{name}.".startswith(f"{key}.")), "")
            unknown = problem["type"] == "extra_forbidden"
            # A problem of several settings together has no name.
            described = ": ".join(filter(None, (name, problem["msg"])))
            what = self._unknown(name) if unknown else described
            lines.append(f"{what} ({origin})" if origin else what)
        return "; ".join(dict.fromkeys(lines))


class _Source(PydanticBaseSettingsSource):
    """One source, with the origin of each value. Its lists and tables are what the settings take,
    so that those of several sources can be merged."""

    def __init__(
        self,
        model: type[ProgramSettings],
        source: PydanticBaseSettingsSource,
        origin: str,
        origins: dict[str, str],
        error: Callable[[str], Exception],
    ) -> None:
        super().__init__(model)
        self._source, self._origin, self._origins, self._error = source, origin, origins, error

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Not called, because ``__call__`` returns all values."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        """Return the values, nested by section. Raises the loader's error."""
        values: dict[str, Any] = {}
        for path, value in _leaves(self._source(), self.settings_cls, ()):
            table = values
            for step in path[:-1]:
                table = table.setdefault(step, {})
            table[path[-1]] = self._decode(".".join(path), value, _kind_of(self.settings_cls, path))
            self._origins.setdefault(".".join(path), self._origin)  # the highest priority is first
        return values

    def _decode(self, name: str, value: Any, kind: Any) -> Any:
        """Return a list of one for plain text, and what JSON says for a list or a table in text."""
        if _is_section(kind):
            raise self._error(f"{name} is a section, not a value ({self._origin})")
        is_list = typing.get_origin(kind) is tuple
        if not isinstance(value, str) or not (is_list or _is_table(kind)):
            return value
        if is_list and not value.startswith("["):
            return [value]
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):  # from None: its text may quote a secret
            form = "a list as JSON, or one item as it is" if is_list else "a table as JSON"
            raise self._error(f"{name} ({self._origin}): write {form}") from None
        return flatten(found) if kind == dict[str, Property] else found


def redact(name: str, value: Any) -> Any:
    """Return a setting's value for display: values typed as a secret or named like one are hidden,
    also inside of tables."""
    if value is not None and (isinstance(value, SecretStr) or _SECRET.search(name.lower())):
        return REDACTED
    if isinstance(value, Mapping):
        return {key: redact(str(key), inner) for key, inner in value.items()}
    return value


def read_toml(path: Path, error: Callable[[str], Exception]) -> dict[str, Any]:
    """Read a settings file. Raises ``error``."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}") from problem
    except RecursionError:
        raise error(f"{path}: {_TOO_DEEP}") from None
    except ValueError as problem:  # TOMLDecodeError, invalid UTF-8, a number of 5,000 digits
        raise error(f"{path}: not valid TOML: {problem}") from problem


def read_secret(
    name: str, given: str | None, file: Path | None, error: Callable[[str], Exception]
) -> str | None:
    """Return a secret that is ``given`` or in a ``file``, whose final line end is dropped. Raises
    ``error`` if both are set, or the file is unreadable or empty."""
    if file is None:
        return given
    if given is not None:
        raise error(f"{name} and {name}_file are both set: remove one")
    try:
        secret = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        why = getattr(problem, "strerror", None) or "it is not UTF-8"
        raise error(f"{name}_file: {file} cannot be read: {why}") from None
    if not (secret := secret.removesuffix("\n").removesuffix("\r")).strip():
        raise error(f"{name}_file: {file} is empty")
    return secret


def split_assignment(
    text: str,
    option: str,
    *,
    form: str = "key=value",
    needs_value: bool = False,
    error: Callable[[str], Exception] = ValueError,
) -> tuple[str, str]:
    """Split ``text`` at its first equals sign; blanks around the key are dropped.

    The value is unchanged: it may contain equals signs and blanks, and be empty unless
    ``needs_value``. Otherwise raises ``error`` with the ``option`` and its ``form``.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip() or (needs_value and not value.strip()):
        # Show only the name: the rest may be a password.
        name = text[: len(text) - len(text.lstrip(_NAME_CHARACTERS))]
        shown = text if text in {name, f"{name}="} else f"{name}..."
        raise error(f"{option} {shown}: write it as {form}")
    return key.strip(), value


def toml_value(text: str) -> Any:
    """Parse a value as TOML (``3``, ``true``, ``[1, 2]``); anything else is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # also a number of 5,000 digits, 1,000 open brackets
        return text


def _parse(text: str, kind: Any) -> Any:
    """Parse a flag's value as TOML, or otherwise as text.

    For a setting that takes text, only a plain integer is a number: the password ``1e5`` is not a
    number, and ``12#34`` is not a number with a comment.
    """
    value = toml_value(text)
    kinds = _kinds(kind)
    if typing.get_origin(kind) is tuple:  # a topic may be named 2024
        return value if isinstance(value, list | str) else text
    if isinstance(value, str) or not kinds & {str, SecretStr, Path}:
        return value
    plain = int in kinds and isinstance(value, int) and json.dumps(value) == text
    return value if plain else text


def _is_table(kind: Any) -> bool:
    """Whether an environment variable of this type is JSON: tables and sections."""
    return any(typing.get_origin(one) is dict or _is_section(one) for one in _kinds(kind))


def _kinds(kind: Any) -> set[Any]:
    is_union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return set(typing.get_args(kind)) if is_union else {kind}


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kind_of(model: Any, path: Sequence[str]) -> Any:
    """Return the annotation at a path (None: no such setting)."""
    kind = model
    for step in path:
        if typing.get_origin(kind) is dict:
            return typing.get_args(kind)[1]
        field = kind.model_fields.get(step) if _is_section(kind) else None
        if field is None:
            return None
        kind = field.annotation
    return kind


def _leaves(
    values: Mapping[str, Any], model: Any, at: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each setting with its path; a table of properties is one setting."""
    for key, value in values.items():
        field = model.model_fields.get(key)
        inner = field.annotation if field else None
        if _is_section(inner) and isinstance(value, Mapping):
            yield from _leaves(value, inner, (*at, key))
        else:  # written with dots or nested: the same
            yield (*at, key), flatten(value) if inner == dict[str, Property] else value
