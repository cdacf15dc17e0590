"""The worker's settings: one frozen object, read in one place.

Defaults, then a TOML file, then environment variables (``CLERK_KAFKA__GROUP_ID``), then flags
(``--set kafka.group_id=...``); the later wins. A key that nothing knows is an error, whichever
of them it came from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from worker.contract.records import FormatName, HeaderStyle

Property = str | int | float | bool
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def flatten(value: Any, prefix: str = "") -> Any:
    """Let ``fetch.min.bytes = 1`` stand in TOML without quotes, where it nests."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            flat.update(flatten(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


Properties = Annotated[dict[str, Property], BeforeValidator(flatten)]


class Section(BaseModel):
    """A frozen part of the settings in which unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    """Where messages come from and labels go to."""

    bootstrap_servers: str = Field("localhost:9092", description="host:port[,host:port...]")
    group_id: str = Field("filing-clerk", description="Consumer group; workers share it.")
    input_topic: str = Field("support.messages", description="Where messages are read from.")
    output_topic: str = Field("support.labels", description="Where labels are written.")
    review_topic: str | None = Field(
        "support.labels.review",
        description="Where doubtful labels are written; empty: to the output topic, marked.",
    )
    dead_letter_topic: str = Field(
        "support.labels.dead", description="Where records without a label go."
    )
    create_topics: bool = Field(False, description="Create missing topics at start-up.")
    topic_partitions: int = Field(1, ge=1, description="Partitions of a topic created so.")
    topic_replication_factor: int = Field(
        -1, ge=-1, description="Replicas of a topic created so; -1: the broker's default."
    )
    delivery: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once",
        description="Transactions, or plain commits after the results are written.",
    )
    instance_id: str | None = Field(
        None, description="A name that stays with this worker over restarts (a pod's name)."
    )
    transactional_id: str | None = Field(
        None, description="Set it whole; else made of group and instance, or unique a process."
    )
    publish_timeout_s: Seconds = Field(10.0, description="Longest time one publish may take.")
    start_timeout_s: Seconds = Field(30.0, description="Longest wait for the cluster at start.")
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    ssl_ca_location: str | None = Field(None, description="PEM file with the CA.")
    ssl_certificate_location: str | None = Field(None, description="PEM file, for mutual TLS.")
    ssl_key_location: str | None = Field(None, description="PEM file, for mutual TLS.")
    ssl_key_password: SecretStr | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    client: Properties = Field({}, description="librdkafka properties for both sides.")
    consumer: Properties = Field({}, description="librdkafka properties for the consumer.")
    producer: Properties = Field({}, description="librdkafka properties for the producer.")


class RecordSettings(Section):
    """How an input record is read."""

    format: FormatName = "json"
    text_fields: tuple[str, ...] = Field(
        ("message",),
        min_length=1,
        description="Dotted paths; texts found are joined by a line end.",
    )
    id_field: str | None = Field("id", description="Dotted path of the sender's own id.")
    dead_letter_headers: HeaderStyle = "clerk"


class ModelSettings(Section):
    """Which adapter on which base, and how the engine runs them."""

    base: Path | None = Field(None, description="Directory of the base model.")
    adapter: Path | None = Field(
        None,
        description="Directory of a published adapter, or a store: then its current adapter.",
    )
    serving: Literal["auto", "runtime", "merged"] = Field(
        "auto",
        description="Adapter beside a frozen base, or folded into a copy; auto: merged on a CPU.",
    )
    verify_weights: bool = Field(
        True, description="Read and compare the base's weights at start-up (1 s a gigabyte)."
    )
    cache_dir: Path | None = Field(None, description="Where merged models are kept.")
    engine_args: dict[str, Any] = Field({}, description="vLLM engine arguments, by their names.")


class AdapterSettings(Section):
    """How a running worker follows its store: taking up, trying and comparing adapters."""

    watch: bool = Field(True, description="Take up what becomes current, without a restart.")
    poll_interval_s: Seconds = Field(5.0, description="Time between two looks at the store.")
    max_probe_error_rate: Share = Field(
        0.1,
        description="Largest share of the serving adapter's probes that a new one may misclassify.",
    )
    canary_min_messages: int = Field(
        200, ge=1, description="A canary is not stopped for its answers before so many messages."
    )
    canary_false_stops: float = Field(
        0.01, ge=0, lt=1, description="Chance that a canary as good is stopped; 0: never stop one."
    )
    shadow: str | None = Field(
        None, description="Directory of an adapter, or the beginning of a stored one's digest."
    )
    shadow_share: Share = Field(0.1, description="Share of the records that it labels too.")
    shadow_topic: str = Field("support.labels.shadow", description="Where its labels are written.")
    shadow_max_in_flight: int = Field(
        32, ge=1, description="More at a time are left out, and counted."
    )


class LoopSettings(Section):
    """How much is held at once, and for how long."""

    max_in_flight: int = Field(256, ge=1, description="Records fetched and not yet published.")
    max_in_flight_bytes: int = Field(64 * 1024 * 1024, ge=1)
    resume_ratio: Share = Field(0.5, description="Fetching resumes below this share of both.")
    deadline_s: Seconds = Field(
        60.0, description="A message without an answer by then is rejected."
    )
    max_attempts: int = Field(
        2, ge=1, description="Tries in the engine before a message is rejected."
    )
    publish_interval_s: Seconds = Field(0.05, description="Finished results wait at most so long.")
    publish_max_records: int = Field(500, ge=1, description="Records in one transaction.")
    publish_attempts: int = Field(10, ge=1, description="Failed publishes in a row before the end.")
    publish_backoff_s: Seconds = Field(0.2, description="Wait after the first failure; doubles.")
    revoke_drain_s: float = Field(2.0, ge=0, description="Time to finish work before letting go.")
    drain_s: Seconds = Field(30.0, description="Time to finish work after SIGTERM.")


class ReviewSettings(Section):
    """When a human should look. Empty: what the adapter's manifest says."""

    confidence: Share | None = Field(None, description="Below it a label goes to review.")
    off_label_mass: Share | None = Field(None, description="Above it a label goes to review.")


class DriftSettings(Section):
    """When what is labelled no longer looks like what the adapter was made from (docs/drift.md)."""

    enabled: bool = Field(True, description="Off anyhow where the adapter has no reference.")
    window: int = Field(1000, ge=100, le=100_000, description="Messages judged at once.")
    false_alarm_share: float = Field(
        0.01, gt=0, le=0.5, description="Windows without drift that may be called drifted."
    )
    label_psi: float | None = Field(
        None, gt=0, description="Drift above this PSI; empty: worked out from the two above."
    )
    off_label_share: float | None = Field(
        None, gt=0, le=1, description="Drift from this share on; empty: worked out likewise."
    )
    sample_ids: int = Field(
        5, ge=0, le=100, description="Ids of records told with a drifted window; 0: none."
    )


class LogSettings(Section):
    """What is logged, never with message text."""

    format: Literal["auto", "console", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    progress_interval_s: Seconds = 10.0


class HttpSettings(Section):
    """Where probes and scrapes are answered: /livez /readyz /startupz /metrics /info."""

    enabled: bool = True
    host: str = Field("127.0.0.1", description="0.0.0.0 to be asked from other machines.")
    port: int = Field(8080, ge=0, le=65535, description="0: any free one, told in the log.")


class TracingSettings(Section):
    """OpenTelemetry spans; where they go is said by the standard OTEL_* variables."""

    enabled: bool = Field(False, description="Needs the extra 'tracing'.")


class Settings(BaseSettings):
    """All of it."""

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
