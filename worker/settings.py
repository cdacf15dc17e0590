"""The worker's settings: one frozen object, loaded by ``worker.common.settings``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from worker.common.kafka import ConnectionSettings
from worker.common.mirror import local_path
from worker.common.schema_registry import OutputFormat
from worker.common.settings import (
    Loaded,
    ProgramSettings,
    Ratio,
    Seconds,
    Section,
    SettingsLoader,
)
from worker.contract.records import FormatName
from worker.contract.records.headers import LONGEST_DELAY_S, MOST_ATTEMPTS
from worker.errors import SettingsError


class KafkaSettings(ConnectionSettings):
    """The cluster, the topics, and the delivery guarantee."""

    group_id: str = Field("filing-clerk", description="Consumer group of all workers.")
    input_topics: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("support.messages",),
        min_length=1,
        description="Topics to read messages from: names, and patterns that begin with ^.",
    )
    urgent_topics: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Those of input_topics whose messages go before all others."
    )
    rest_share: Ratio = Field(
        0.1,
        description="Share of the messages that the other topics keep while urgent ones wait.",
    )
    output_topic: str = Field("support.labels", description="Topic for labels.")
    review_topic: str | None = Field(
        "support.labels.review",
        description="Topic for doubtful labels; empty: the output topic, with a mark.",
    )
    dead_letter_topic: str = Field(
        "support.labels.dead", description="Topic for records without a label."
    )
    retry_topic: str = Field(
        "",
        description="Topic on which messages that the engine could not answer wait for another "
        "attempt; empty: they are dead letters at once.",
    )
    create_topics: bool = Field(False, description="Create missing topics at start-up.")
    # A setting because partitions bound the number of workers; the chart compares the two.
    topic_partitions: int = Field(
        1, ge=1, description="Partitions of a created topic; the retry topic always has one."
    )
    source_cluster: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="The cluster's name, if results of two clusters meet: ids begin with it.",
    )
    output_format: OutputFormat = Field(
        "json", description="Values of labels: json; or json-schema or avro, with kafka.registry."
    )
    registry_wait_s: Seconds = Field(
        300.0,
        description="Time that a message waits while the registry does not answer for its schema.",
    )
    delivery: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once",
        description="Transactions, or offset commits after the results have been written.",
    )
    instance_id: str | None = Field(
        None, description="A name that this worker keeps across restarts (a pod's name)."
    )
    publish_timeout_s: Seconds = Field(10.0, description="Timeout for publishing one batch.")
    # A setting because the demo starts its worker before its broker.
    start_timeout_s: Seconds = Field(
        30.0, description="Timeout for reaching the cluster at start-up."
    )


class RecordSettings(Section):
    """The format of input records."""

    format: FormatName = Field(
        "json", description="json: an object with text fields; text: the value is the message."
    )
    text_fields: tuple[str, ...] = Field(
        ("message",),
        min_length=1,
        description="Dotted paths of the message's text; several are joined with a line break.",
    )
    id_field: str | None = Field("id", description="Dotted path of the sender's message id.")
    tombstones: Literal["dead", "skip", "forward"] = Field(
        "dead",
        description="Records without a value: dead letters, skipped, or forwarded to the output.",
    )

    @field_validator("text_fields")
    @classmethod
    def _no_commas(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        # A list of one can be written as plain text, and "a,b" is meant to be two.
        if with_comma := next((field for field in fields if "," in field), None):
            names = json.dumps([part.strip() for part in with_comma.split(",")])
            raise ValueError(f"{with_comma!r} has a comma: write several fields as {names}")
        return fields


class ModelSettings(Section):
    """The base model, the adapter, and how the engine runs them."""

    base: Path | None = Field(None, description="Directory of the base model.")
    bases: tuple[Path, ...] = Field(
        (),
        description="More base models, or folders of them; an adapter's is found by its digests.",
    )
    # In a bucket: the path of its copy here (worker.common.mirror).
    adapter: Annotated[Path | None, BeforeValidator(local_path)] = Field(
        None,
        description="Directory of an adapter, or of a store, whose current adapter is used; or a "
        "store's URL: s3://, gs:// or az://BUCKET/PREFIX (docs/buckets.md).",
    )
    serving: Literal["auto", "runtime", "merged"] = Field(
        "auto",
        description="Adapter loaded into the engine, or merged into a copy; auto: merged on a CPU.",
    )
    engine_args: dict[str, Any] = Field({}, description="vLLM engine arguments, by name.")
    encoder_precision: Literal["fp32", "bf16", "fp16", "int8"] | None = Field(
        None,
        description="Which of an encoder's ONNX files to serve; empty: the one that was evaluated.",
    )
    encoder_threads: int | None = Field(
        None, ge=1, description="Threads of an encoder; empty: one for each usable core."
    )


class AdapterSettings(Section):
    """How a running worker follows its store: swap, canary and shadow."""

    watch: bool = Field(True, description="Swap to a new current adapter without a restart.")
    when_too_large: Literal["refuse", "restart"] = Field(
        "refuse",
        description="If there is no memory for a new adapter's engine next to the current one: "
        "refuse the adapter, or drain and exit with code 7, to be restarted with it.",
    )
    cache_gb: float = Field(
        20.0,
        gt=0,
        description="For a store in a bucket: the most that its copy takes, in GB; those named "
        "longest ago go first, and never those in use.",
    )
    start_from_cache_s: Seconds = Field(
        86_400.0,
        description="A worker that starts while the bucket does not answer uses the copy if its "
        "pointers are at most this old, and waits otherwise.",
    )
    require_signature: bool = Field(
        False, description="Refuse adapters that none of public_keys signed (docs/buckets.md)."
    )
    public_keys: tuple[Path, ...] = Field(
        (), description="Files with the Ed25519 public keys (PEM) of those who may publish."
    )
    shadow: str | None = Field(
        None,
        description="Directory of a shadow adapter, or first digits of its digest in the store.",
    )
    shadow_traffic_ratio: Ratio = Field(
        0.1, description="Share of the records that the shadow labels too."
    )
    shadow_topic: str = Field("support.labels.shadow", description="Topic for the shadow's labels.")


class LoopSettings(Section):
    """Limits on the records in flight, and on failures."""

    max_in_flight: int = Field(
        512, ge=1, description="Records fetched and not yet published; at most half per partition."
    )
    deadline_s: Seconds = Field(
        60.0,
        description="Time in the engine after which a message is rejected if later ones have been "
        "answered; an engine that answers nothing for two thirds of it ends the worker.",
    )
    retry_delay_s: float = Field(
        60.0, ge=1, le=LONGEST_DELAY_S, description="Delay of a message on kafka.retry_topic."
    )
    retry_max_attempts: int = Field(
        3,
        ge=0,
        le=MOST_ATTEMPTS,
        description="Delayed attempts, after the first, before a message is a dead letter; 0: "
        "waiting messages are tried, but no others are delayed.",
    )
    # Can be off for brokers that keep no metadata with committed offsets: notes would be lost.
    crash_isolation: bool = Field(
        True,
        description="Find a message that crashes the engine, and make it a dead letter; off: the "
        "worker exits and reads the message again.",
    )
    drain_s: Seconds = Field(30.0, description="Time to finish work after SIGTERM.")


class ReviewSettings(Section):
    """When a label goes to review. Empty: the thresholds in the adapter's manifest."""

    confidence: Ratio | None = Field(
        None, description="Confidence below which a label is reviewed."
    )
    off_label_mass: Ratio | None = Field(
        None, description="Off-label mass above which a label is reviewed."
    )
    out_of_scope: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Out-of-scope score above which a label is reviewed, for adapters with a head; "
        "each adapter has its own scale.",
    )
    disagreement: Ratio | None = Field(
        None,
        description="A label is reviewed if an earlier stage of a cascade gave another one with at "
        "least this confidence; 0: any.",
    )


class DriftSettings(Section):
    """Detects messages that no longer resemble the adapter's training data (docs/drift.md)."""

    enabled: bool = Field(
        True, description="Detect drift; no effect if the adapter has no reference."
    )


class LogSettings(Section):
    """Logging, which never includes message text."""

    format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, JSON elsewhere."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )


class HttpSettings(Section):
    """The server of health checks and metrics: /livez /readyz /startupz /metrics /info."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0: all interfaces.")
    port: int = Field(
        8080, ge=0, le=65535, description="Port to listen on; 0: a free one, which is logged."
    )


class TracingSettings(Section):
    """OpenTelemetry spans; the standard OTEL_* variables configure their export."""

    enabled: bool = Field(False, description="Export spans; needs the extra 'tracing'.")


class Settings(ProgramSettings):
    """All settings, by section."""

    kafka: KafkaSettings = KafkaSettings()
    records: RecordSettings = RecordSettings()
    model: ModelSettings = ModelSettings()
    adapters: AdapterSettings = AdapterSettings()
    loop: LoopSettings = LoopSettings()
    review: ReviewSettings = ReviewSettings()
    drift: DriftSettings = DriftSettings()
    log: LogSettings = LogSettings()
    http: HttpSettings = HttpSettings()
    tracing: TracingSettings = TracingSettings()


LoadedSettings = Loaded[Settings]

_LOADER = SettingsLoader(
    Settings,
    SettingsError,
    prefix="CLERK_",
    elsewhere=("CLERK_CACHE", "CLERK_TEST_", "CLERK_DESK_", "CLERK_TRAINER_"),
)
load_settings = _LOADER.load
effective = _LOADER.effective
