"""Which topics a worker may read and write."""

import re
from typing import Any

import pytest

from worker.errors import SettingsError
from worker.policies import kafka_config
from worker.settings import KafkaSettings
from worker.stream.topics import Topics


def topics(*inputs: str, **changes: Any) -> Topics:
    return kafka_config(KafkaSettings(input_topics=inputs, **changes)).topics


def test_a_pattern_begins_with_a_circumflex() -> None:
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
def test_a_worker_may_not_read_its_own_results(inputs: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"is read \(kafka\.input_topics\) and written"):
        topics(*inputs)
    assert topics(r"^support\.messages.*", "support")


def test_a_worker_may_not_read_its_shadows_labels() -> None:
    settings = KafkaSettings(input_topics=("^shadow.*",))
    assert kafka_config(settings)
    with pytest.raises(SettingsError, match=r"'shadow\.labels' is read"):
        kafka_config(settings, "shadow.labels")


@pytest.mark.parametrize(
    ("pattern", "says"),
    [("^a(", "is not a regular expression"), ("^[[:alpha:]]+$", "has a POSIX character class")],
)
def test_a_pattern_that_python_cannot_read_is_refused(pattern: str, says: str) -> None:
    """Otherwise the worker could not check whether it reads its own results."""
    with pytest.raises(SettingsError, match=says):
        topics(pattern)


def test_commands_need_a_choice_between_several_topics() -> None:
    assert topics("a").one_input(None) == "a"
    assert topics("a", "b").one_input("b") == "b"
    for inputs in (("a", "b"), ("^a$",)):
        with pytest.raises(SettingsError, match=r"choose a topic by --topic"):
            topics(*inputs).one_input(None)


def with_retry(shadow: str | None = None, **changes: Any) -> Topics:
    return kafka_config(KafkaSettings(**{"retry_topic": "retry", **changes}), shadow).topics


def test_the_retry_topic_is_read_and_written() -> None:
    found = with_retry(input_topics=("^a$", "b"))
    assert found.subscribed == ("^a$", "b", "retry")
    assert "retry" in found.sinks
    assert found.named_inputs == ("b",)
    assert not found.is_input("retry")
    assert found.results == ("support.labels", "support.labels.review", "support.labels.dead")


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"output_topic": "retry"}, "kafka.output_topic"),
        ({"review_topic": "retry"}, "kafka.review_topic"),
        ({"dead_letter_topic": "retry"}, "kafka.dead_letter_topic"),
        ({"shadow": "retry"}, "adapters.shadow_topic"),
    ],
)
def test_the_retry_topic_differs_from_all_outputs(changes: dict[str, str], setting: str) -> None:
    with pytest.raises(SettingsError) as caught:
        with_retry(**changes)
    said = str(caught.value)
    assert "kafka.retry_topic" in said
    assert setting in said
    assert "Choose another" in said


@pytest.mark.parametrize("inputs", [("retry",), ("a", "^ret.*"), ("^.*",), ("^retry$",)])
def test_the_retry_topic_is_not_an_input(inputs: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"kafka\.retry_topic.*kafka\.input_topics"):
        with_retry(input_topics=inputs)


@pytest.mark.parametrize("name", ["^retry.*", "a topic", "x" * 250])
def test_the_retry_topic_is_a_name_and_not_a_pattern(name: str) -> None:
    with pytest.raises(SettingsError, match=r"kafka\.retry_topic.*is not the name of a topic"):
        with_retry(retry_topic=name)


def test_commands_for_an_input_topic_refuse_the_retry_topic() -> None:
    """Its messages belong to the input topic."""
    with pytest.raises(SettingsError, match=r"--topic retry.*retry topic.*support\.messages"):
        with_retry().one_input("retry")
    assert with_retry().one_input(None) == "support.messages"


def test_urgent_topics_are_inputs() -> None:
    found = kafka_config(
        KafkaSettings(input_topics=("a", "^b.*", "c"), urgent_topics=("^b.*", "c"))
    ).topics
    assert [topic for topic in ("a", "bb", "c", "support.labels") if found.is_urgent(topic)] == [
        "bb",
        "c",
    ]
    with pytest.raises(SettingsError) as caught:
        kafka_config(KafkaSettings(input_topics=("a", "^b.*"), urgent_topics=("b", "d")))
    assert re.findall(r"urgent_topics: '(\w)' is not in", str(caught.value)) == ["b", "d"]


@pytest.mark.parametrize("reset", ["error", "ERROR"])
def test_a_retry_topic_needs_reading_from_the_beginning(reset: str) -> None:
    """Otherwise waiting messages of a partition without a committed offset would be skipped."""
    consumer = {"auto.offset.reset": reset}
    with pytest.raises(SettingsError, match=r"auto\.offset\.reset.*kafka\.retry_topic"):
        with_retry(consumer=consumer)
    assert kafka_config(KafkaSettings(consumer=consumer))
    assert with_retry(consumer={"auto.offset.reset": "smallest"})
