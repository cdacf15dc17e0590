"""The retry topic: read and written by the same worker, and nobody else's."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from tests.support.policies import make_kafka_config
from worker.errors import SettingsError, StreamFailed
from worker.policies import kafka_config
from worker.settings import KafkaSettings, Settings, load_settings
from worker.stream.kafka_rights import check_rights
from worker.stream.topics import Topics


def topics(shadow: str | None = None, **changes: Any) -> Topics:
    return kafka_config(KafkaSettings(**{"retry_topic": "retry", **changes}), shadow).topics


def test_it_is_off_by_default() -> None:
    """A message that fails is a dead letter at once, and nothing more is read or written."""
    for off in (KafkaSettings(), KafkaSettings(retry_topic="")):
        found = kafka_config(off).topics
        assert found.retry is None
        assert found.subscribed == found.inputs
        assert found.sinks == ("support.labels", "support.labels.review", "support.labels.dead")


def test_it_is_read_and_written() -> None:
    """By the same group, beside inputs by name and by pattern."""
    found = topics(input_topics=("^a$", "b"))
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
def test_it_is_no_other_topic(changes: dict[str, str], setting: str) -> None:
    """The error says which two settings, and what to do."""
    with pytest.raises(SettingsError) as caught:
        topics(**changes)
    said = str(caught.value)
    assert "kafka.retry_topic" in said
    assert setting in said
    assert "name another" in said


@pytest.mark.parametrize("inputs", [("retry",), ("a", "^ret.*"), ("^.*",), ("^retry$",)])
def test_it_is_no_input(inputs: tuple[str, ...]) -> None:
    """By name or by pattern: a message would be labelled before its time, as another message."""
    with pytest.raises(SettingsError, match=r"kafka\.retry_topic.*kafka\.input_topics"):
        topics(input_topics=inputs)


@pytest.mark.parametrize("name", ["^retry.*", "a topic", "x" * 250])
def test_it_is_a_name_and_no_pattern(name: str) -> None:
    """Messages are written to it."""
    with pytest.raises(SettingsError, match=r"kafka\.retry_topic.*is not the name of a topic"):
        topics(retry_topic=name)


def test_commands_that_look_at_an_input_refuse_it() -> None:
    """What it holds has its place in the input topic."""
    with pytest.raises(SettingsError, match=r"--topic retry.*retry topic.*support\.messages"):
        topics().one_input("retry")
    assert topics().one_input(None) == "support.messages"


class Answer(Future[Any]):
    """What a broker says may be done."""

    def __init__(self, *operations: AclOperation) -> None:
        super().__init__()
        self.set_result(SimpleNamespace(authorized_operations=set(operations)))


class Admin:
    """Describes topics and a group: everything may be done, but for one thing with the topic."""

    def __init__(self, missing: AclOperation) -> None:
        every = {AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE}
        self._some = Answer(*every - {missing})
        self._every = Answer(*every)

    def describe_topics(self, asked: Any, **_: Any) -> dict[str, Answer]:
        names = ("support.messages", "support.labels", "support.labels.dead")
        return dict.fromkeys(names, self._every) | {"retry": self._some}

    def describe_consumer_groups(self, groups: list[str], **_: Any) -> dict[str, Answer]:
        return dict.fromkeys(groups, self._every)


@pytest.mark.parametrize(
    ("missing", "verb"), [(AclOperation.READ, "read"), (AclOperation.WRITE, "write")]
)
def test_both_rights_on_it_are_asked_for(missing: AclOperation, verb: str) -> None:
    """Before the model is loaded, with the setting that names it."""
    config = make_kafka_config(topics=topics(), consumer={"group.protocol": "classic"})
    admin: Any = Admin(missing)
    with pytest.raises(StreamFailed, match=rf"may not {verb} the topic 'retry' \(kafka\.retry_t"):
        check_rights(admin, config)
    admin = Admin(AclOperation.ALTER)
    check_rights(admin, config)


@pytest.mark.parametrize("reset", ["error", "ERROR"])
def test_what_waits_is_not_passed_over(reset: str) -> None:
    """A partition without a committed offset is read from its beginning, or not at all."""
    consumer = {"auto.offset.reset": reset}
    with pytest.raises(SettingsError, match=r"auto\.offset\.reset.*kafka\.retry_topic"):
        topics(consumer=consumer)
    assert kafka_config(KafkaSettings(consumer=consumer))
    assert topics(consumer={"auto.offset.reset": "smallest"})


@pytest.mark.parametrize(
    "flag",
    [
        "loop.retry_delay_s=0",
        "loop.retry_delay_s=0.5",
        "loop.retry_delay_s=86401",
        "loop.retry_max_attempts=-1",
        "loop.retry_max_attempts=101",
    ],
)
def test_delay_and_attempts_have_bounds(flag: str) -> None:
    """The error names the setting and where it was set."""
    name = flag.partition("=")[0].replace(".", r"\.")
    with pytest.raises(SettingsError, match=rf"{name}.*\(flag\)"):
        load_settings(None, [flag])


def test_no_attempts_at_all_is_allowed() -> None:
    """For the way out: what waits is tried, nothing new is put there."""
    assert load_settings(None, ["loop.retry_max_attempts=0"]).settings.loop.retry_max_attempts == 0
    assert Settings().loop.retry_max_attempts == 3
    assert Settings().loop.retry_delay_s == 60.0
