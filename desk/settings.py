"""The desk's settings: one frozen object, read in one place.

Defaults, then a TOML file, then environment variables (``CLERK_DESK_KAFKA__OUTPUT_TOPIC``), then
flags (``--set kafka.output_topic=...``); later sources override earlier ones. An unknown key is an
error, whichever source it comes from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from desk.errors import SettingsError
from worker.common.kafka import ConnectionSettings
from worker.common.settings import (
    Loaded,
    ProgramSettings,
    Ratio,
    Seconds,
    Section,
    SettingsLoader,
)
from worker.contract.records import FormatName

Roles = tuple[Literal["reviewer", "adjudicator", "owner"], ...]
Paths = Annotated[tuple[str, ...], Field(min_length=1)]


class ProjectSettings(Section):
    """The labels that reviewers choose from."""

    taxonomy: Path = Field(
        Path("config/taxonomy.toml"), description="File with the labels that reviewers choose from."
    )


class DatabaseSettings(Section):
    """The database of items and decisions."""

    url: SecretStr = Field(
        SecretStr("sqlite:///desk.db"),
        description="sqlite:///PATH, or postgresql://USER:PASSWORD@HOST/NAME for several replicas.",
    )
    url_file: Path | None = Field(
        None, description="File with the URL, instead of url: a mounted Secret."
    )


class KafkaSettings(ConnectionSettings):
    """The topics that the desk reads and writes."""

    output_topic: str = Field("support.labels", description="Topic that workers write labels to.")
    review_topic: str = Field(
        "support.labels.review",
        description="Topic of labels to review; empty: the output topic, where they are marked.",
    )
    corrections_topic: str = Field(
        "support.labels.corrections", description="Where decisions are written."
    )
    name: str = Field(
        "clerk-desk",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Prefix of the desk's consumer group and transactional.id.",
    )
    create_topics: bool = Field(
        False,
        description="Create the corrections topic if it is missing, with one partition and the "
        "broker's default replication factor.",
    )
    start_from: Literal["earliest", "latest"] = Field(
        "earliest", description="Where to start in a topic that is new to the database."
    )


class RecordSettings(Section):
    """How to find the text in an input record: the same as the worker's ``[records]``."""

    format: FormatName = Field(
        "json", description="json: an object with text fields; text: the value is the message."
    )
    text_fields: Paths = Field(
        ("message",),
        description="Dotted paths of the message's text; several are joined with a line break.",
    )
    id_field: str | None = Field("id", description="Dotted path of the sender's message id.")


class ReviewSettings(Section):
    """How reviewers work."""

    claim_s: Seconds = Field(
        900.0, description="Time for which an item is reserved for the reviewer who has it open."
    )
    double_share: Ratio = Field(
        0.05, description="Share of items that two reviewers decide; 0 if one works alone."
    )
    audit_double_share: Ratio = Field(
        0.2, description="The same for the audit sample: it measures how often reviewers err."
    )
    keys: dict[str, str] = Field(
        default_factory=dict,
        description='Labels\' own keys, as in keys.refund = "r"; the others get theirs in order.',
    )
    goal: int = Field(
        0, ge=0, description="Decisions a person means to make in a day, to show progress; 0: none."
    )
    publish_delay_s: float = Field(
        5.0,
        ge=0,
        description="Time before a decision is published, in which undo keeps it unpublished.",
    )


class AuditSettings(Section):
    """The random sample that measures accuracy."""

    share: Ratio = Field(
        0.02, description="Share of all labels, by hash of the result id; 0.01 to 0.05 is usual."
    )


class TextSettings(Section):
    """The messages' texts, and the log of who saw them."""

    keep_days: float = Field(
        90.0, gt=0, description="Age at which a message's text is deleted, decided or not."
    )
    masked_for: Roles = Field(
        (),
        description="Roles that see mail addresses, phone numbers, IBANs and cards masked: "
        "reviewer, adjudicator, owner.",
    )
    log_days: float = Field(
        730.0, gt=0, description="Age at which an entry of the log (who saw what) is deleted."
    )


class WebSettings(Section):
    """Where the pages are served."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on; 127.0.0.1: this machine only."
    )
    port: int = Field(8090, ge=0, le=65535, description="Port to listen on.")
    metrics_port: int = Field(
        8091, ge=0, le=65535, description="Port of /metrics. Do not expose it to users."
    )
    hostnames: Paths = Field(
        ("*",),
        description="Host names that are answered; others are refused. *: any (on loopback "
        "addresses without sign-in: this machine's own).",
    )
    secure_cookies: bool | None = Field(
        None, description="Cookies only over HTTPS; unset: unless web.host is a loopback address."
    )


class SignInSettings(Section):
    """How users sign in."""

    method: Literal["none", "proxy", "local", "oidc"] = Field(
        "none",
        description="none: everyone on this machine, only on a loopback address; oidc: an OpenID "
        "provider (section oidc); proxy: a trusted proxy's header; local: passwords (clerk-desk "
        "people add).",
    )
    proxy_header: str = Field(
        "X-Forwarded-User",
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header in which the proxy names the user.",
    )
    proxy_addresses: tuple[str, ...] = Field(
        (),
        description="Addresses or networks of proxies. Only these are believed: with method proxy "
        "who the user is, with every method X-Forwarded-For.",
    )
    owners: tuple[str, ...] = Field(
        (),
        description="User names (with oidc: the claim sub) that become owners at their first "
        "sign-in; others become reviewers.",
    )
    session_hours: float = Field(
        12.0, gt=0, description="Time after which users must sign in again."
    )
    idle_minutes: float = Field(
        120.0, gt=0, description="Time without activity after which they must, too."
    )


class OidcSettings(Section):
    """The OpenID provider, for sign_in.method = "oidc"."""

    issuer: str = Field(
        "", description="The issuer, exactly as the provider names itself: https://id.example.com"
    )
    client_id: str = Field("", description="The desk's name at the provider.")
    client_secret: SecretStr | None = Field(
        None,
        description="Its secret; best set as CLERK_DESK_OIDC__CLIENT_SECRET, or in a file. "
        "Unset: a public client, with PKCE only.",
    )
    client_secret_file: Path | None = Field(None, description="File with the secret.")
    public_url: str = Field(
        "",
        description="The desk's address: https://desk.example.com. Register it with the provider, "
        "with /sign-in/callback, and with /signed-out for signing out.",
    )
    scopes: Paths = Field(("openid", "profile"), description="Scopes to request.")
    name_claim: str = Field("name", description="Claim with the user's display name.")
    role_claim: str = Field(
        "",
        description="Claim that roles are read from at each sign-in, with dots for nested names: "
        "groups, realm_access.roles. Empty: everyone whom the provider admits; owners give roles.",
    )
    reviewers: tuple[str, ...] = Field((), description="Values of that claim for reviewers.")
    adjudicators: tuple[str, ...] = Field((), description="The same for adjudicators.")
    owners: tuple[str, ...] = Field((), description="The same for owners.")
    end_session: bool = Field(
        True, description="Signing out of the desk also signs out of the provider, if supported."
    )
    ca_file: Path | None = Field(
        None, description="PEM file with CA certificates, instead of the system's."
    )


class WebhookSettings(Section):
    """A web address that receives each published decision."""

    url: str = Field("", description="The address; empty: none.")
    secret: SecretStr | None = Field(
        None,
        description="Secret that signs requests; best set as CLERK_DESK_WEBHOOK__SECRET.",
    )
    secret_file: Path | None = Field(None, description="File with it, instead of secret.")
    ca_file: Path | None = Field(
        None, description="PEM file with CA certificates, instead of the system's."
    )


class LogSettings(Section):
    """The log."""

    format: Literal["auto", "console", "json"] = Field("auto", description="Format of the log.")
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )


class Settings(ProgramSettings):
    """All settings, by section."""

    project: ProjectSettings = ProjectSettings()
    database: DatabaseSettings = DatabaseSettings()
    kafka: KafkaSettings = KafkaSettings()
    records: RecordSettings = RecordSettings()
    review: ReviewSettings = ReviewSettings()
    audit: AuditSettings = AuditSettings()
    texts: TextSettings = TextSettings()
    web: WebSettings = WebSettings()
    sign_in: SignInSettings = SignInSettings()
    oidc: OidcSettings = OidcSettings()
    webhook: WebhookSettings = WebhookSettings()
    log: LogSettings = LogSettings()


LoadedSettings = Loaded[Settings]

_LOADER = SettingsLoader(Settings, SettingsError, prefix="CLERK_DESK_")
load_settings = _LOADER.load
effective = _LOADER.effective
