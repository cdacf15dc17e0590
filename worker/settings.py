"""The worker's settings: one frozen object, read in one place.

Defaults, then a TOML file, then environment variables (``CLERK_KAFKA__GROUP_ID``), then flags
(``--set kafka.group_id=...``); later sources override earlier ones. An unknown key is an error,
whichever source it comes from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from worker.contract.records import FormatName, HeaderStyle
from worker.contract.records.retry import LONGEST_DELAY_S, MOST_ATTEMPTS
from worker.settings_kafka import KafkaSettings
from worker.settings_types import Ratio, Seconds, Section


class RecordSettings(Section):
    """How an input record is read."""

    format: FormatName = Field(
        "json", description="json: an object with text fields; text: the value is the message."
    )
    text_fields: tuple[str, ...] = Field(
        ("message",),
        min_length=1,
        description="Dotted paths of the message's text; several are joined with a line break.",
    )
    id_field: str | None = Field("id", description="Dotted path of the sender's message id.")
    dead_letter_headers: HeaderStyle = Field(
        "clerk", description="Header style: clerk.*, or Kafka Connect's __connect.errors.*."
    )
    tombstones: Literal["dead", "skip", "forward"] = Field(
        "dead",
        description="Records without a value: dead letters, left out, or passed on to the output.",
    )
    headers_allow: tuple[str, ...] = Field(
        ("*",), description="Patterns of the headers that go along with a label."
    )
    headers_deny: tuple[str, ...] = Field(
        (), description="Patterns of the headers that do not, whatever is allowed."
    )
    timestamp: Literal["now", "input"] = Field(
        "now", description="Timestamp of what is written: of its writing, or the input record's."
    )


class ModelSettings(Section):
    """The base model, the adapter, and how the engine runs them."""

    base: Path | None = Field(None, description="Directory of the base model.")
    bases: tuple[Path, ...] = Field(
        (),
        description="More base models, or folders of them: an adapter's is found by its digests.",
    )
    adapter: Path | None = Field(
        None,
        description="Directory of a published adapter, or of a store, whose current one is used.",
    )
    serving: Literal["auto", "runtime", "merged"] = Field(
        "auto",
        description="Adapter loaded beside the base, or merged into a copy; auto: merged on a CPU.",
    )
    verify_weights: bool = Field(
        True, description="Compare the digest of the base's weights at start-up (1 s per GB)."
    )
    cache_dir: Path | None = Field(None, description="Where merged models are kept.")
    engine_args: dict[str, Any] = Field({}, description="vLLM engine arguments, by name.")
    encoder_precision: Literal["fp32", "bf16", "fp16", "int8"] | None = Field(
        None,
        description="Which of an encoder's ONNX files is served; empty: the one that was judged.",
    )
    encoder_threads: int | None = Field(
        None, ge=1, description="Threads of an encoder; empty: one on each core that may be used."
    )


class AdapterSettings(Section):
    """How a running worker follows its store: swap, canary and shadow."""

    watch: bool = Field(True, description="Swap to a new current adapter without a restart.")
    poll_interval_s: Seconds = Field(5.0, description="Interval at which the store is polled.")
    load_timeout_s: Seconds = Field(
        600.0, description="Longest time to load and try an adapter beside the one that serves."
    )
    when_too_large: Literal["refuse", "restart"] = Field(
        "refuse",
        description="For a new adapter whose engine has no room in memory next to the one that "
        "serves: refuse it, or drain, end with code 7 and start again with it.",
    )
    max_probe_error_rate: Ratio = Field(
        0.1,
        description="Largest share of the serving adapter's probes that a new one may misclassify.",
    )
    canary_min_messages: int = Field(
        200, ge=1, description="Messages that a canary labels before its answers are judged."
    )
    canary_false_positive_rate: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Chance that a canary as good as main is stopped; 0: none is ever stopped.",
    )
    shadow: str | None = Field(
        None, description="Directory of a shadow adapter, or first digits of a stored one's digest."
    )
    shadow_traffic_ratio: Ratio = Field(
        0.1, description="Share of the records that the shadow labels too."
    )
    shadow_topic: str = Field(
        "support.labels.shadow", description="Where the shadow's labels are written."
    )
    shadow_max_in_flight: int = Field(
        32, ge=1, description="Records in flight for the shadow; more are left out, and counted."
    )


class LoopSettings(Section):
    """How many records are in flight, and for how long."""

    max_in_flight: int = Field(
        512, ge=1, description="Records fetched and not yet published; one partition takes half."
    )
    max_in_flight_bytes: int = Field(
        64 * 1024 * 1024, ge=1, description="Their total size in bytes; likewise."
    )
    resume_ratio: Ratio = Field(
        0.5, description="A partition is fetched again below this fraction of what paused it."
    )
    max_in_engine: int = Field(
        256, ge=1, description="Records in the engine at most; a slow engine is given fewer."
    )
    deadline_s: Seconds = Field(
        60.0,
        description="Time in the engine after which a message is rejected if later ones have been "
        "answered; an engine that answers nothing for two thirds of it ends the worker.",
    )
    max_attempts: int = Field(
        2, ge=1, description="Attempts in the engine before a message is rejected."
    )
    retry_delay_s: float = Field(
        60.0, ge=1, le=LONGEST_DELAY_S, description="Wait on kafka.retry_topic before an attempt."
    )
    retry_max_attempts: int = Field(
        3,
        ge=0,
        le=MOST_ATTEMPTS,
        description="Delayed attempts, after the first, before a message is a dead letter; 0: what "
        "waits is tried, and nothing more is put there.",
    )
    crash_isolation: bool = Field(
        True,
        description="Find a message that crashes the engine, and make it a dead letter; off: the "
        "worker ends and reads it again.",
    )
    publish_interval_s: Seconds = Field(
        0.05, description="Longest time that results wait before they are published."
    )
    publish_max_records: int = Field(500, ge=1, description="Largest batch, in records.")
    publish_attempts: int = Field(
        10, ge=1, description="Consecutive refusals to publish before the worker stops."
    )
    max_outage_s: Seconds | None = Field(
        None,
        description="Longest wait for a Kafka that cannot be reached; empty: as long as it takes.",
    )
    publish_backoff_s: Seconds = Field(
        0.2, description="Wait after the first failure to publish; doubles with each further one."
    )
    max_dead_letter_ratio: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Above this share of dead letters the worker stops; empty: it never does.",
    )
    dead_letter_window: int = Field(
        1000, ge=10, le=1_000_000, description="Records over which that share is taken."
    )
    revoke_drain_s: float = Field(
        2.0, ge=0, description="Time to finish work before partitions are revoked."
    )
    drain_s: Seconds = Field(30.0, description="Time to finish work after SIGTERM.")


class ReviewSettings(Section):
    """When a label goes to review. Empty: the thresholds in the adapter's manifest."""

    confidence: Ratio | None = Field(None, description="Below it a label goes to review.")
    off_label_mass: Ratio | None = Field(None, description="Above it a label goes to review.")
    out_of_scope: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Out-of-scope score of an adapter with a head, above which a label goes to "
        "review; its scale is the adapter's own.",
    )
    disagreement: Ratio | None = Field(
        None,
        description="Confidence of an earlier stage of a cascade in another label, from which on a "
        "label goes to review; 0: any.",
    )


class DriftSettings(Section):
    """Detects messages that no longer resemble the adapter's training data (docs/drift.md)."""

    enabled: bool = Field(
        True, description="Detect drift; without effect where the adapter has no reference."
    )
    window: int = Field(1000, ge=100, le=100_000, description="Messages judged together.")
    false_alarm_rate: float = Field(
        0.01, gt=0, le=0.5, description="Share of the windows without drift that may be reported."
    )
    label_psi: float | None = Field(
        None, gt=0, description="Drift above this PSI; empty: derived from the two above."
    )
    off_label_ratio: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Drift from this ratio of off-label messages; empty: derived likewise.",
    )
    sample_ids: int = Field(
        5, ge=0, le=100, description="Record ids reported with a drifted window; 0: none."
    )


class LogSettings(Section):
    """What is logged; never message text."""

    format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, JSON elsewhere."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe events that are logged."
    )
    progress_interval_s: Seconds = Field(10.0, description="Interval of the progress line.")


class HttpSettings(Section):
    """The server of health checks and metrics: /livez /readyz /startupz /metrics /info."""

    enabled: bool = Field(True, description="Run the server.")
    host: str = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0: reachable from other machines."
    )
    port: int = Field(
        8080, ge=0, le=65535, description="Port to listen on; 0: any free one, which is logged."
    )


class TracingSettings(Section):
    """OpenTelemetry spans; the standard OTEL_* variables configure their export."""

    enabled: bool = Field(False, description="Export spans; needs the extra 'tracing'.")


class Settings(BaseSettings):
    """All settings, by section."""

    model_config = SettingsConfigDict(
        env_prefix="CLERK_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what ``settings_load`` has merged, and nothing behind its back."""
        return (init_settings,)
