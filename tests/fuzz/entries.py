"""What is fuzzed: each entry takes any bytes, and raises where the code does what it must not.

A coverage-guided fuzzer drives them (``make fuzz``), and hypothesis in the unit tests.
"""

from __future__ import annotations

import os
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from worker.contract import MANIFEST_NAME, AdapterRefused, read_manifest
from worker.contract.errors import MessageRejected, RejectReason
from worker.contract.records import DECODERS, InputFormat, decode_value
from worker.errors import SettingsError
from worker.settings import effective, load_settings

SECRET = "planted-secret-4711"
_REASONS = typing.get_args(RejectReason)
LAYOUTS = [
    InputFormat(name, fields)
    for name in DECODERS
    for fields in (("message",), ("subject", "ticket.body", "parts.0.text"), ("message.0",))
]


def fuzz_decode(data: bytes) -> str:
    """A record's value, read in each format: a message, or a rejection with a reason and none of
    its text. Returns the result."""
    outcome = ""
    for layout in LAYOUTS:
        reason = _decoded(data, layout)
        assert reason in _REASONS or reason == "message"
        outcome += f"{reason} "
    return outcome


def _decoded(data: bytes, layout: InputFormat) -> str:
    try:
        message = decode_value(data, layout)
    except MessageRejected as rejected:
        return rejected.reason
    assert message.text.strip()
    return "message"


def fuzz_manifest(data: bytes) -> str:
    """A manifest's file: an adapter, or a refusal."""
    with tempfile.TemporaryDirectory(prefix="filing-clerk-fuzz-") as folder:
        (Path(folder) / MANIFEST_NAME).write_bytes(data)
        try:
            read_manifest(Path(folder))
        except AdapterRefused:
            return "refused"
    return "read"


def fuzz_settings(data: bytes) -> str:
    """A settings file, then flags and variables, separated by NUL: settings that can be shown,
    or a SettingsError; neither contains a secret."""
    file, _, rest = data.partition(b"\0")
    flags, _, variables = rest.partition(b"\0")
    environment = {}
    for line in variables.decode("utf-8", "surrogateescape").split("\n"):
        name, sign, value = line.replace("\0", "").partition("=")
        if sign and name:
            environment[f"CLERK_{name}"] = value
    given = [line for line in flags.decode("utf-8", "surrogateescape").split("\n") if line]
    return read_settings(file, given, environment)


def read_settings(file: bytes, flags: list[str], environment: Mapping[str, str]) -> str:
    """Read settings from these sources; return the result. Raises anything that the worker must
    not raise."""
    with tempfile.TemporaryDirectory(prefix="filing-clerk-fuzz-") as folder:
        path = Path(folder) / "worker.toml"
        path.write_bytes(file)
        with _environment(environment):
            message = _loaded(path, flags)
    # Messages quote names, which may be anything, but never values.
    if message is not None:
        assert SECRET not in message
        return "refused"
    return "read"


def _loaded(path: Path, flags: list[str]) -> str | None:
    """Load and show settings; return the worker's message if it refuses."""
    try:
        loaded = load_settings(path, flags)
    except SettingsError as error:
        return str(error)
    assert all(name and origin for name, _, origin in effective(loaded))
    return None


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if name.startswith("CLERK_")}
    for name in before:
        del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(before)


ENTRIES: Mapping[str, Callable[[bytes], str]] = {
    "decode": fuzz_decode,
    "manifest": fuzz_manifest,
    "settings": fuzz_settings,
}
