"""The sources of settings: file, environment and flags, with origins."""

from pathlib import Path
from typing import get_origin

import pytest

from tests.unit.settings.conftest import Write, shown
from worker.settings import Settings, load_settings


def test_the_environment_wins_over_the_file_and_flags_over_both(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write('[kafka]\ngroup_id = "file"\ninput_topics = ["file"]\noutput_topic = "file"\n')
    monkeypatch.setenv("CLERK_KAFKA__INPUT_TOPICS", "env")
    monkeypatch.setenv("CLERK_KAFKA__OUTPUT_TOPIC", "env")
    loaded = load_settings(path, ["kafka.output_topic=flag"])
    kafka = loaded.settings.kafka
    assert (kafka.group_id, kafka.input_topics, kafka.output_topic) == ("file", ("env",), "flag")
    values = shown(loaded)
    assert values["kafka.group_id"] == ('"file"', f"file {path}")
    assert values["kafka.input_topics"] == ('["env"]', "environment")
    assert values["kafka.output_topic"] == ('"flag"', "flag")
    assert values["kafka.delivery"] == ('"exactly_once"', "default")


def test_values_of_every_kind_come_from_every_source(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write('[records]\ntext_fields = ["a.b", "c"]\n[model]\nbase = "/base"\n')
    monkeypatch.setenv("CLERK_RECORDS__TEXT_FIELDS", '["x", "y"]')
    monkeypatch.setenv("CLERK_KAFKA__CREATE_TOPICS", "true")
    monkeypatch.setenv("CLERK_LOOP__DEADLINE_S", "1.5")
    flags = ["records.id_field=meta.id", "loop.max_in_flight=9", "adapters.watch=false"]
    settings = load_settings(path, flags).settings
    assert settings.records.text_fields == ("x", "y")
    assert settings.records.id_field == "meta.id"
    assert settings.kafka.create_topics is True
    assert (settings.loop.deadline_s, settings.loop.max_in_flight) == (1.5, 9)
    assert settings.model.base == Path("/base")
    assert settings.adapters.watch is False
    assert load_settings(None, ['records.text_fields=["p"]']).settings.records.text_fields == ("p",)


LISTS = [
    (section, name)
    for section, field in Settings.model_fields.items()
    for name, inner in field.annotation.model_fields.items()  # type: ignore[union-attr]
    if get_origin(inner.annotation) is tuple
]


@pytest.mark.parametrize(("section", "name"), LISTS)
@pytest.mark.parametrize("source", ["file", "environment", "flag"])
def test_a_list_of_one_can_be_written_as_plain_text(
    section: str, name: str, source: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = []
    path = None
    if source == "file":
        path = write(f'[{section}]\n{name} = "2024"\n')
    elif source == "environment":
        monkeypatch.setenv(f"CLERK_{section.upper()}__{name.upper()}", "2024")
    else:
        flags.append(f"{section}.{name}=2024")
    found = getattr(getattr(load_settings(path, flags).settings, section), name)
    assert tuple(map(str, found)) == ("2024",)


@pytest.mark.parametrize("text", ["123", "true", "2024-01-01", "1e5", "12#34", "[x]", "a=b", "x y"])
@pytest.mark.parametrize("name", ["kafka.group_id", "kafka.sasl_password", "kafka.instance_id"])
def test_a_flag_for_text_is_taken_as_the_text_it_is(name: str, text: str) -> None:
    """A password of digits is text, and a # in it does not begin a comment."""
    section, key = name.split(".")
    found = getattr(getattr(load_settings(None, [f"{name}={text}"]).settings, section), key)
    assert (found if isinstance(found, str) else found.get_secret_value()) == text
