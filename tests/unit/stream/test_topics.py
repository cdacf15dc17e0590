"""Input topics: names, and patterns that begin with ^."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from tests.support.rig import make_kafka_config
from worker.errors import SettingsError, StreamFailed
from worker.policies import kafka_config
from worker.settings import KafkaSettings, Settings, load_settings
from worker.stream.kafka_topics import check_rights
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
    [("^a(", "is not a regular expression"), ("^[[:alpha:]]+$", "write a class of characters out")],
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


# The retry topic: read and written by the same worker, and nobody else's.


def with_retry(shadow: str | None = None, **changes: Any) -> Topics:
    return kafka_config(KafkaSettings(**{"retry_topic": "retry", **changes}), shadow).topics


def test_it_is_off_by_default() -> None:
    """A message that fails is a dead letter at once, and nothing more is read or written."""
    for off in (KafkaSettings(), KafkaSettings(retry_topic="")):
        found = kafka_config(off).topics
        assert found.retry is None
        assert found.subscribed == found.inputs
        assert found.sinks == ("support.labels", "support.labels.review", "support.labels.dead")


def test_it_is_read_and_written() -> None:
    """By the same group, next to inputs by name and by pattern."""
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
def test_it_is_no_other_topic(changes: dict[str, str], setting: str) -> None:
    """The error says which two settings, and what to do."""
    with pytest.raises(SettingsError) as caught:
        with_retry(**changes)
    said = str(caught.value)
    assert "kafka.retry_topic" in said
    assert setting in said
    assert "name another" in said


@pytest.mark.parametrize("inputs", [("retry",), ("a", "^ret.*"), ("^.*",), ("^retry$",)])
def test_it_is_no_input(inputs: tuple[str, ...]) -> None:
    """By name or by pattern: a message would be labelled before its time, as another message."""
    with pytest.raises(SettingsError, match=r"kafka\.retry_topic.*kafka\.input_topics"):
        with_retry(input_topics=inputs)


@pytest.mark.parametrize("name", ["^retry.*", "a topic", "x" * 250])
def test_it_is_a_name_and_no_pattern(name: str) -> None:
    """Messages are written to it."""
    with pytest.raises(SettingsError, match=r"kafka\.retry_topic.*is not the name of a topic"):
        with_retry(retry_topic=name)


def test_commands_that_look_at_an_input_refuse_it() -> None:
    """What it holds has its place in the input topic."""
    with pytest.raises(SettingsError, match=r"--topic retry.*retry topic.*support\.messages"):
        with_retry().one_input("retry")
    assert with_retry().one_input(None) == "support.messages"


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
    config = make_kafka_config(topics=with_retry(), consumer={"group.protocol": "classic"})
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
        with_retry(consumer=consumer)
    assert kafka_config(KafkaSettings(consumer=consumer))
    assert with_retry(consumer={"auto.offset.reset": "smallest"})


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
