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

from worker.contract.records import FormatName
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
    tombstones: Literal["dead", "skip", "forward"] = Field(
        "dead",
        description="Records without a value: dead letters, left out, or passed on to the output.",
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
    when_too_large: Literal["refuse", "restart"] = Field(
        "refuse",
        description="For a new adapter whose engine has no room in memory next to the one that "
        "serves: refuse it, or drain, end with code 7 and start again with it.",
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


class LoopSettings(Section):
    """How many records are in flight, and for how long."""

    max_in_flight: int = Field(
        512, ge=1, description="Records fetched and not yet published; one partition takes half."
    )
    deadline_s: Seconds = Field(
        60.0,
        description="Time in the engine after which a message is rejected if later ones have been "
        "answered; an engine that answers nothing for two thirds of it ends the worker.",
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
    max_dead_letter_ratio: float | None = Field(
        None,
        gt=0,
        le=0.95,  # above it not even a window of dead letters alone would prove anything
        description="Above this share of dead letters the worker stops; empty: it never does.",
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


class LogSettings(Section):
    """What is logged; never message text."""

    format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, JSON elsewhere."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe events that are logged."
    )


class HttpSettings(Section):
    """The server of health checks and metrics: /livez /readyz /startupz /metrics /info."""

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
