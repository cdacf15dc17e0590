"""Any settings are read, or refused with SettingsError."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.entries import SECRET, fuzz_settings, read_settings
from worker.settings import Settings

pytestmark = pytest.mark.slow

SHIPPED = (Path(__file__).parents[3] / "config" / "worker.toml").read_text(encoding="utf-8")
# As it ships every default is a comment.
LINES = [line.removeprefix("# ").removeprefix("#") for line in SHIPPED.splitlines()]

NAMES = [
    f"{section}.{key}"
    for section, field in Settings.model_fields.items()
    for key in getattr(field.annotation, "model_fields", {})
]
names = st.sampled_from(
    [*NAMES, *Settings.model_fields, "kafka.client.sasl.password", "x", "", "."]
)
values = st.text(max_size=20) | st.sampled_from(
    [
        "1", "-1", "1e400", "nan", "true", "[]", "{}", "[1, 2", "{a = 1", '"', "'''", "2024-01-01",
        "9" * 5000, "[" * 2000, "{a=" * 2000, '["^["]', "\ud800", "\0", '{"a": {"b": 1}}', '["x"]',
        SECRET, f'"{SECRET}"', f'["{SECRET}"]', f'{{"sasl.password": "{SECRET}"', f"'{SECRET}",
    ]
)  # fmt: skip
ended = {"read", "refused"}


@given(st.binary(max_size=200))
@example(b"\xff")
@example(b"\r")
@example(b"x = " + b"[" * 100_000)
@example(b"x = " + b"{a = " * 100_000)
@example(b"x." * 5000 + b"x = 1")
@example(b"loop.max_in_flight = " + b"9" * 5000)
def test_any_file(content: bytes) -> None:
    assert fuzz_settings(content.replace(b"\0", b"")) in ended


@settings(max_examples=200)
@given(st.data())
def test_a_file_with_anything_anywhere(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.integers(0, 2))
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, data.draw(st.sampled_from(lines)))
        else:
            name = lines[at].partition("=")[0]
            lines[at] = f"{name}= {data.draw(values)}"
    assert read_settings("\n".join(lines).encode("utf-8", "surrogatepass"), [], {}) in ended


@settings(max_examples=200)
@given(st.lists(st.tuples(names, values), max_size=3), st.lists(st.text(max_size=12), max_size=2))
@example([("loop.max_in_flight", "9" * 5000)], [])
@example([("loop.max_in_flight", "[" * 100_000)], [])
@example([("kafka.client", "[" * 100_000)], [])
@example([("kafka.input_topics", "[" * 100_000)], [])
def test_any_flags(pairs: list[tuple[str, str]], more: list[str]) -> None:
    assert read_settings(b"", [f"{name}={value}" for name, value in pairs] + more, {}) in ended


@settings(max_examples=200)
@given(st.dictionaries(names, values, max_size=3))
@example({"kafka.client": "[" * 100_000})
@example({"kafka.input_topics": "[" * 100_000})
@example({"kafka.input_topics": "["})
@example({"loop.max_in_flight": "9" * 5000})
@example({"kafka.client": '{"sasl.password": "' + SECRET})
@example({"kafka": '{"sasl_password": ["' + SECRET + '"]}'})
def test_any_environment(given_values: dict[str, str]) -> None:
    environment = {
        f"CLERK_{name.upper().replace('.', '__')}": value.replace("\0", "").replace("\ud800", "?")
        for name, value in given_values.items()
    }
    assert read_settings(b"", [], environment) in ended


@pytest.mark.parametrize("name", ["kafka.sasl_password", "kafka.client.sasl.password"])
@pytest.mark.parametrize("form", ["{}", "['{}']", "{{a = '{}'}}", "'{}", '"{}"x'])
def test_no_mistake_with_a_secret_shows_it(name: str, form: str) -> None:
    written = form.format(SECRET)
    assert read_settings(f"{name} = {written}".encode(), [], {}) in ended
    for flag in (
        f"{name}={written}",
        f"{name}:{written}",
        f"{name} {written}",
        f"{name}.x={SECRET}",
    ):
        assert read_settings(b"", [flag], {}) in ended
    assert read_settings(b"", [], {f"CLERK_{name.upper().replace('.', '__')}": written}) in ended
