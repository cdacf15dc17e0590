"""The demo's options, checked before anything starts: model, settings, topics, messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import get_args

from worker.common.base_model import BASE_NAME, ensure_base_model
from worker.common.settings import split_assignment
from worker.contract.manifest import ENCODER_KINDS, Manifest, read_manifest
from worker.contract.records import SupportMessage
from worker.contract.store import find_adapter
from worker.contract.taxonomy import NO_LABEL
from worker.contract.verify import verify_files
from worker.demo.models import (
    DemoModel,
    ModelName,
    Sample,
    adapter_dir,
    demo_samples,
    ensure_model,
)
from worker.errors import SettingsError
from worker.offline.message_files import MessageFile, read_rows
from worker.serving import record_layout
from worker.settings import RecordSettings, Settings, load_settings

INPUT, OUTPUT = "support.messages", "support.labels"
REVIEW, DEAD = "support.labels.review", "support.labels.dead"
CORRECTIONS = "support.labels.corrections"
PARTITIONS = 4
_DEFAULTS = {
    "kafka.group_id": "'demo'",
    "kafka.input_topics": f"'{INPUT}'",
    "kafka.output_topic": f"'{OUTPUT}'",
    "kafka.review_topic": f"'{REVIEW}'",
    "kafka.dead_letter_topic": f"'{DEAD}'",
    "kafka.create_topics": "true",
    "kafka.topic_partitions": str(PARTITIONS),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """The demo's options.

    At most ``count`` messages, samples or those of ``messages``, are published and labelled by
    ``model``, one that ships or the directory of an adapter or a store. ``sets`` are settings of
    the worker (``key=value``); they may name a cluster to use instead of a local broker. ``keep``:
    everything runs until Ctrl-C. ``desk``: with the desk; implies ``keep``. ``folder`` keeps the
    files of Kafka and desk; None: a temporary one.
    """

    count: int
    model: str = "adapter"
    keep: bool = False
    desk: bool = False
    folder: Path | None = None
    sets: Sequence[str] = ()
    messages: MessageFile | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A wish that was checked. ``settings`` are the worker's, without those that ``flags`` add when
    the broker and the model are known. ``servers``: the cluster to use, if one is named."""

    wish: Wish
    settings: Settings
    manifest: Manifest
    own_model: Path | None
    samples: list[Sample]
    left_out: int
    servers: str | None

    @property
    def topic(self) -> str:
        """The input topic."""
        return self.settings.kafka.input_topics[0]

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of record on each topic of results."""
        kafka = self.settings.kafka
        review = {kafka.review_topic: "review"} if kafka.review_topic else {}
        return {
            **review,
            kafka.output_topic: "output",
            kafka.dead_letter_topic: "dead letter",
            self.corrections: "correction",
        }

    @property
    def corrections(self) -> str:
        """The topic of the desk's corrections."""
        return f"{self.settings.kafka.output_topic}.corrections"

    @property
    def desk_topics(self) -> Mapping[str, str]:
        """The desk's settings for its topics."""
        kafka = self.settings.kafka
        return {
            "output_topic": kafka.output_topic,
            "review_topic": kafka.review_topic or "",
            "corrections_topic": self.corrections,
        }

    def make_model(self, on_event: Callable[[str], None]) -> DemoModel:
        """Return the model, completed if it ships. Raises BaseModelError, ProgramFailed."""
        if self.own_model is None:
            return ensure_model(_shipped(self.wish.model), on_event)
        manifest = self.manifest
        base = None
        if _lacks_base(manifest, self.settings):
            base = ensure_base_model(on_event=on_event)
        engine = "ONNX Runtime" if manifest.kind in ENCODER_KINDS else "vLLM with the base"
        return DemoModel(self.own_model, base, f"{engine} with {manifest.name}")

    def flags(self, bootstrap_servers: str, model: DemoModel) -> Mapping[str, str]:
        """Return the worker's settings that differ from the defaults, in TOML syntax."""
        own = dict(split_assignment(each, "--set") for each in self.wish.sets)
        return {
            **_DEFAULTS,
            # The worker starts before the broker and the topics exist.
            "kafka.start_timeout_s": "120",
            "kafka.client.reconnect.backoff.max.ms": "250",
            "http.port": "0",
            **own,
            **model.settings(),
            "kafka.bootstrap_servers": f"'{bootstrap_servers}'",
            "log.format": "'json'",  # the demo reads the worker's log
            "log.level": "'info'",
        }


def make_plan(wish: Wish) -> Plan:
    """Check a wish. Raises SettingsError and AdapterRefused."""
    defaults = [f"{name}={value}" for name, value in _DEFAULTS.items()]
    loaded = load_settings(None, [*defaults, *wish.sets])
    settings = loaded.settings
    if len(settings.kafka.input_topics) != 1 or settings.kafka.input_topics[0].startswith("^"):
        raise SettingsError("kafka.input_topics: the demo publishes to one topic: name it")
    _check_records(settings.records)
    # Flags only: a variable or a file of another worker does not change what the demo serves.
    flag = loaded.origins.get("model.adapter") == "flag"
    own = settings.model.adapter if flag else None
    if own is None and wish.model not in get_args(ModelName):
        own = Path(wish.model)
        if not own.is_dir():
            raise SettingsError(
                f"--model {wish.model}: choose {', '.join(get_args(ModelName))}, or the directory "
                "of an adapter or a store"
            )
    directory = adapter_dir() if own is None else find_adapter(own).directory
    manifest = read_manifest(directory) if own is None else verify_files(directory)
    if own is not None:
        base = manifest.base.name
        if base != BASE_NAME and _lacks_base(manifest, settings):
            raise SettingsError(f"{directory}: needs its base, {base}: give -s model.base=DIR")
    samples, left_out = _samples(wish, settings.records, manifest.taxonomy.names)
    named = loaded.origins.get("kafka.bootstrap_servers") == "flag"
    servers = settings.kafka.bootstrap_servers if named else None
    return Plan(wish, settings, manifest, own, samples, left_out, servers)


def _shipped(name: str) -> ModelName:
    return next(each for each in get_args(ModelName) if each == name)


def _check_records(records: RecordSettings) -> None:
    plain = records.format == "json" and records.id_field == "id"
    if not plain or "." in records.text_fields[0]:
        raise SettingsError(
            "records: the demo publishes JSON objects with the field id: leave out records.format "
            "and records.id_field, and give records.text_fields a name without a dot"
        )


def _lacks_base(manifest: Manifest, settings: Settings) -> bool:
    """Whether the model may need a base, and the user has named none."""
    named = settings.model.base is not None or settings.model.bases
    return bool(manifest.needs_base or manifest.stages) and not named


def _samples(
    wish: Wish, records: RecordSettings, labels: Sequence[str]
) -> tuple[list[Sample], int]:
    """Return the messages to publish, and how many of the file's have no text."""
    if wish.messages is None:
        samples = demo_samples(wish.count)
        if set(labels) == set(read_manifest(adapter_dir()).taxonomy.names):
            return samples, 0
        return [replace(each, label=None, known=False) for each in samples], 0
    file, found, left_out = wish.messages, list[Sample](), 0
    stem = Path(file.source).stem
    rows = islice(read_rows(file, record_layout(records)), wish.count)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.message, SupportMessage):
            left_out += 1
            continue
        label = row.label or ""
        known = label in labels or label.casefold() == NO_LABEL
        given = label if label in labels else None
        found.append(Sample(f"{stem}-{number}", row.message.text, given, known=known))
    if not found:
        raise SettingsError(f"--input {file.source}: has no message")
    return found, left_out
