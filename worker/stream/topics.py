"""The topics of a worker by their purpose, and the checks of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from worker.errors import SettingsError

# Kafka's own rule (org.apache.kafka.common.internals.Topic).
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of a worker.

    Without a review topic, doubtful labels go to the output. Without a shadow topic there is no
    shadow, and without a retry topic no delayed retry. Inputs that begin with ^ are patterns:
    regular expressions that the client or the broker matches with existing and later topics.
    """

    inputs: tuple[str, ...]
    output: str
    review: str | None
    dead_letter: str
    shadow: str | None = None
    retry: str | None = None
    urgent: tuple[str, ...] = ()
    """Those of ``inputs`` whose messages go first."""

    @property
    def sinks(self) -> tuple[str, ...]:
        """All topics that the worker writes to."""
        return _distinct(self.output, self.review, self.dead_letter, self.shadow, self.retry)

    @property
    def results(self) -> tuple[str, ...]:
        """The topics in which each message has exactly one result."""
        return _distinct(self.output, self.review, self.dead_letter)

    @property
    def subscribed(self) -> tuple[str, ...]:
        """The topics that the worker's group reads: the inputs and the retry topic."""
        return self.inputs if self.retry is None else (*self.inputs, self.retry)

    @property
    def named_inputs(self) -> tuple[str, ...]:
        """The inputs that are names, not patterns."""
        return tuple(topic for topic in self.inputs if not topic.startswith("^"))

    def is_input(self, topic: str) -> bool:
        """Return whether a topic is an input. Raises SettingsError for an invalid pattern."""
        return _names(self.inputs, topic)

    def is_urgent(self, topic: str) -> bool:
        """Return whether an input's messages go first."""
        return _names(self.urgent, topic)

    def setting_of(self, topic: str) -> str:
        """Return the setting that names a topic."""
        if topic in self.inputs:
            return "kafka.input_topics"
        return next(setting for setting, named in self._settings if named == topic)

    def one_input(self, chosen: str | None) -> str:
        """Return the chosen topic, or the only input. Raises SettingsError."""
        if chosen is not None and chosen == self.retry:
            raise SettingsError(
                f"--topic {chosen}: this is the retry topic. Choose the input topic of its "
                f"messages: {', '.join(self.inputs)}"
            )
        if chosen is not None:
            return chosen
        if len(self.inputs) > 1 or not self.named_inputs:
            raise SettingsError(
                f"kafka.input_topics are {', '.join(self.inputs)}: choose a topic by --topic"
            )
        return self.inputs[0]

    def check(self) -> None:
        """Check names, that the worker does not read its own results, and that topics which must
        differ do. Raises SettingsError with every problem."""
        problems = [*self._misnamed(), *self._not_read(), *self._read_and_written(), *self._mixed()]
        if problems:
            raise SettingsError(*problems)

    @property
    def _settings(self) -> tuple[tuple[str, str | None], ...]:
        """The setting and topic of each purpose; None if it is unused."""
        return (
            ("kafka.output_topic", self.output),
            ("kafka.review_topic", self.review),
            ("kafka.dead_letter_topic", self.dead_letter),
            ("adapters.shadow_topic", self.shadow),
            ("kafka.retry_topic", self.retry),
        )

    def _misnamed(self) -> Iterator[str]:
        inputs = (("kafka.input_topics", topic) for topic in self.named_inputs)
        for setting, topic in (*inputs, *self._settings):
            if topic is not None and not _is_name(topic):
                raw = " (a pattern begins with ^)" if setting == "kafka.input_topics" else ""
                yield (
                    f"{setting}: {topic!r} is not the name of a topic: use letters, digits, '.', "
                    f"'_' and '-', at most 249{raw}"
                )

    def _not_read(self) -> Iterator[str]:
        for topic in self.urgent:
            if topic not in self.inputs:
                yield (
                    f"kafka.urgent_topics: {topic!r} is not in kafka.input_topics: write it there "
                    "too, in the same way"
                )

    def _read_and_written(self) -> Iterator[str]:
        for setting, topic in self._settings:
            if topic is None or not self.is_input(topic):
                continue
            if setting == "kafka.retry_topic":
                yield (
                    f"kafka.retry_topic {topic!r} is one of kafka.input_topics: waiting messages "
                    "would be read as new ones. Choose another topic, or narrow the pattern"
                )
            else:
                yield (
                    f"{topic!r} is read (kafka.input_topics) and written ({setting}): the worker "
                    "would read its own results. Choose another topic, or narrow the pattern"
                )

    def _mixed(self) -> Iterator[str]:
        labels = (("kafka.output_topic", self.output), ("kafka.review_topic", self.review))
        for setting, topic in labels:
            if topic == self.dead_letter:
                yield (
                    f"kafka.dead_letter_topic and {setting} are both {topic!r}: dead letters need "
                    "their own topic"
                )
        for setting, topic in (*labels, ("kafka.dead_letter_topic", self.dead_letter)):
            if topic is not None and topic == self.shadow:
                yield (
                    f"adapters.shadow_topic and {setting} are both {topic!r}: a shadow's labels "
                    "need their own topic"
                )
        for setting, topic in self._settings:
            if topic is not None and topic == self.retry and setting != "kafka.retry_topic":
                yield (
                    f"kafka.retry_topic and {setting} are both {topic!r}: the worker would read "
                    "its own results. Choose another retry topic"
                )


def _names(given: tuple[str, ...], topic: str) -> bool:
    """Return whether a topic is among names and patterns. Raises SettingsError for a wrong one."""
    return topic in given or any(
        _pattern(each).search(topic) for each in given if each.startswith("^")
    )


def _is_name(topic: str) -> bool:
    return _TOPIC.fullmatch(topic) is not None and topic not in {".", ".."}


def _distinct(*topics: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(topic for topic in topics if topic is not None))


def _pattern(text: str) -> re.Pattern[str]:
    """Compile a topic pattern.

    Client and broker have other dialects than Python, so only a common subset is allowed.
    """
    if "[[:" in text or "[[." in text or "[[=" in text:
        raise SettingsError(
            f"kafka.input_topics: {text!r} has a POSIX character class: write it as in [a-z]"
        )
    try:
        return re.compile(text)
    except re.error as error:
        raise SettingsError(
            f"kafka.input_topics: {text!r} is not a regular expression: {error}"
        ) from None


@dataclass(frozen=True, slots=True)
class RecordRange:
    """A selection of a topic's records, by one of three criteria.

    - ``last``: the newest records over all partitions.
    - ``since_ms``, ``until_ms``: timestamps (Unix time); the latter is exclusive.
    - ``offsets``: by partition, the first and the last offset, inclusive; None for the end.
    """

    last: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    offsets: Mapping[int, tuple[int, int | None]] | None = None
