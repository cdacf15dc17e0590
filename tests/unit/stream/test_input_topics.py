"""Input topics: names, and patterns that begin with ^."""

from typing import Any

import pytest

from worker.errors import SettingsError
from worker.policies import kafka_config
from worker.settings import KafkaSettings, load_settings
from worker.stream.topics import Topics


def topics(*inputs: str, **changes: Any) -> Topics:
    return kafka_config(KafkaSettings(input_topics=inputs, **changes)).topics


def test_names_and_patterns_are_told_apart() -> None:
    """A pattern begins with ^, as the client has it."""
    found = topics("chat", r"^mail\.[a-z]+$")
    assert found.named_inputs == ("chat",)
    matched = [
        name for name in ("chat", "chat2", "mail.de", "mail.2", "x.mail.de") if found.is_input(name)
    ]
    assert matched == ["chat", "mail.de"]


@pytest.mark.parametrize(
    "inputs",
    [
        ("support.labels",),
        ("chat", "support.labels.review"),
        (r"^support\.",),  # in the client's dialect it may match in front only
        (r"^support\.labels\.dead$",),
        ("^.*",),
        (r"^(?!x)",),
    ],
)
def test_a_worker_does_not_feed_itself(inputs: tuple[str, ...]) -> None:
    """By name or by pattern, whichever of its topics it is."""
    with pytest.raises(SettingsError, match=r"is read \(kafka\.input_topics\) and written"):
        topics(*inputs)
    assert topics(r"^support\.messages.*", "support")


def test_a_shadows_topic_is_one_of_those() -> None:
    """Where there is a shadow."""
    settings = KafkaSettings(input_topics=("^shadow.*",))
    assert kafka_config(settings)
    with pytest.raises(SettingsError, match=r"'shadow\.labels' is read"):
        kafka_config(settings, "shadow.labels")


@pytest.mark.parametrize(
    ("pattern", "says"),
    [("^a(", "is no regular expression"), ("^[[:alpha:]]+$", "write a class of characters out")],
)
def test_a_pattern_that_cannot_be_judged_is_refused(pattern: str, says: str) -> None:
    """Else nobody knew whether the worker feeds itself."""
    with pytest.raises(SettingsError, match=says):
        topics(pattern)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in", ("in",)),
        ("^in.{1,3}$", ("^in.{1,3}$",)),
        ('["a", "^b"]', ("a", "^b")),
    ],
)
def test_one_topic_needs_no_brackets(
    text: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a flag or in the environment; a list is JSON there, as others are."""
    assert load_settings(None, [f"kafka.input_topics={text}"]).settings.kafka.input_topics == (
        expected
    )
    monkeypatch.setenv("CLERK_KAFKA__INPUT_TOPICS", text)
    assert load_settings().settings.kafka.input_topics == expected


@pytest.mark.parametrize("text", ["[]", '[""]', "[1", ""])
def test_no_topic_at_all_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the setting's name and where it came from."""
    monkeypatch.setenv("CLERK_KAFKA__INPUT_TOPICS", text)
    with pytest.raises(SettingsError, match=r"kafka\.input_topics.*\(environment\)"):
        load_settings()


def test_of_several_topics_one_has_to_be_chosen() -> None:
    """For the commands that look at one: `compare`, `verify`."""
    assert topics("a").one_input(None) == "a"
    assert topics("a", "b").one_input("b") == "b"
    for inputs in (("a", "b"), ("^a$",)):
        with pytest.raises(SettingsError, match=r"choose a topic by --topic"):
            topics(*inputs).one_input(None)
