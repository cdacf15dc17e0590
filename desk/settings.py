"""The desk's settings: one frozen object, read in one place.

Defaults, then a TOML file, then environment variables (``CLERK_DESK_KAFKA__OUTPUT_TOPIC``), then
flags (``--set kafka.output_topic=...``); later sources override earlier ones. An unknown key is an
error, whichever source it comes from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from desk.errors import SettingsError
from worker.common.kafka import ConnectionSettings
from worker.common.settings import (
    Loaded,
    Names,
    Ratio,
    Seconds,
    Section,
    SettingsLoader,
    as_list,
)
from worker.contract.records import FormatName

Roles = Annotated[tuple[Literal["reviewer", "adjudicator", "owner"], ...], BeforeValidator(as_list)]
Paths = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(as_list)]


class ProjectSettings(Section):
    """What is decided at this desk."""

    taxonomy: Path = Field(
        Path("config/taxonomy.toml"), description="File with the labels that people decide among."
    )


class DatabaseSettings(Section):
    """Where items and decisions are kept."""

    url: SecretStr = Field(
        SecretStr("sqlite:///desk.db"),
        description="sqlite:///PATH, or postgresql://USER:PASSWORD@HOST/NAME for several replicas.",
    )
    url_file: Path | None = Field(
        None, description="File with the URL, in place of url: a mounted Secret."
    )


class KafkaSettings(ConnectionSettings):
    """Where labels are read from and corrections are written to."""

    output_topic: str = Field("support.labels", description="Where workers write labels.")
    review_topic: str = Field(
        "support.labels.review",
        description="Where they write doubtful ones; empty: to the output topic, marked.",
    )
    corrections_topic: str = Field(
        "support.labels.corrections", description="Where decisions are written."
    )
    name: str = Field(
        "clerk-desk",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="What the desk's consumer group and transactional.id begin with.",
    )
    create_topics: bool = Field(
        False,
        description="Create the corrections topic if it is missing, with one partition and the "
        "broker's default replication factor.",
    )
    start_from: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a topic is read from that this database does not know."
    )


class RecordSettings(Section):
    """How the text is found in an input record: the same as the worker's ``[records]``."""

    format: FormatName = Field(
        "json", description="json: an object with text fields; text: the value is the message."
    )
    text_fields: Paths = Field(
        ("message",),
        description="Dotted paths of the message's text; several are joined with a line break.",
    )
    id_field: str | None = Field("id", description="Dotted path of the sender's message id.")


class ReviewSettings(Section):
    """How people work."""

    claim_s: Seconds = Field(
        900.0, description="For how long an item is held for the person who has it on screen."
    )
    double_share: Ratio = Field(
        0.05, description="Share of the items that two people decide; 0 where one person works."
    )
    audit_double_share: Ratio = Field(
        0.2, description="The same of the audit sample: it shows how often people are mistaken."
    )
    publish_delay_s: float = Field(
        5.0, ge=0, description="Time in which a decision can be undone before it is published."
    )


class AuditSettings(Section):
    """The random sample that accuracy is measured on."""

    share: Ratio = Field(
        0.02, description="Share of all labels, by hash of the result id; 0.01 to 0.05 is usual."
    )


class TextSettings(Section):
    """The messages themselves."""

    keep_days: float = Field(
        90.0, gt=0, description="Age at which a message's text is deleted, decided or not."
    )
    masked_for: Roles = Field(
        (),
        description="Roles that see texts with mail addresses, phone numbers, IBANs and cards "
        "masked: reviewer, adjudicator, owner.",
    )


class WebSettings(Section):
    """Where the pages are served."""

    host: str = Field("127.0.0.1", description="Address to listen on; 127.0.0.1: this machine.")
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
        None, description="Cookies over HTTPS alone; unset: unless web.host is a loopback address."
    )


class SignInSettings(Section):
    """How people prove who they are."""

    method: Literal["none", "proxy", "local", "oidc"] = Field(
        "none",
        description="none: anyone who is at this machine, on loopback addresses alone; oidc: an "
        "OpenID provider (section oidc); proxy: a header of a proxy that is trusted; local: "
        "passwords (clerk-desk people add).",
    )
    proxy_header: str = Field(
        "X-Forwarded-User",
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header in which the proxy says who it is.",
    )
    proxy_addresses: Names = Field(
        (),
        description="Addresses or networks of proxies. Only these are believed: with method proxy "
        "who the user is, with every method X-Forwarded-For.",
    )
    owners: Names = Field(
        (),
        description="User names (with oidc: the claim sub) that arrive as owners for the first "
        "time; others as reviewers.",
    )
    session_hours: float = Field(12.0, gt=0, description="After how long people sign in again.")
    idle_minutes: float = Field(
        120.0, gt=0, description="And after how long in which they did nothing."
    )


class OidcSettings(Section):
    """The OpenID provider that people sign in by."""

    issuer: str = Field(
        "", description="The provider, letter for letter as it names itself: https://id.example.com"
    )
    client_id: str = Field("", description="The desk's name at the provider.")
    client_secret: SecretStr | None = Field(
        None,
        description="Its secret; best given as CLERK_DESK_OIDC__CLIENT_SECRET, or by a file. "
        "Unset: a public client, with PKCE alone.",
    )
    client_secret_file: Path | None = Field(None, description="File with the secret.")
    public_url: str = Field(
        "",
        description="Where people reach the desk: https://desk.example.com. Registered with the "
        "provider: this with /sign-in/callback, and for signing out with /signed-out.",
    )
    scopes: Paths = Field(("openid", "profile"), description="What is asked of the provider.")
    name_claim: str = Field("name", description="Claim with what a person is called.")
    role_claim: str = Field(
        "",
        description="Claim that roles are read from at each sign-in, dots between nested names: "
        "groups, realm_access.roles. Empty: everybody the provider lets in, roles by owners.",
    )
    reviewers: Names = Field((), description="Values of it that stand for a reviewer.")
    adjudicators: Names = Field((), description="And for an adjudicator.")
    owners: Names = Field((), description="And for an owner.")
    end_session: bool = Field(
        True, description="Signing out of the desk also signs out of the provider, where it can."
    )
    ca_file: Path | None = Field(
        None, description="PEM file with the CA certificates to believe instead of the system's."
    )


class WebhookSettings(Section):
    """A web address that is told of each published decision."""

    url: str = Field("", description="Where to; empty: nowhere.")
    secret: SecretStr | None = Field(
        None,
        description="What requests are signed with; best given as CLERK_DESK_WEBHOOK__SECRET.",
    )
    secret_file: Path | None = Field(None, description="File with it, in place of secret.")
    ca_file: Path | None = Field(
        None, description="PEM file with the CA certificates to believe instead of the system's."
    )


class LogSettings(Section):
    """What is logged."""

    format: Literal["auto", "console", "json"] = Field("auto", description="Form of the log.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level.")


class Settings(Section):
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
