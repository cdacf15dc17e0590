"""Builds a desk from its settings. The only module that imports every part."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from desk import __version__
from desk.auth.rules import ProviderConfig, check_provider, check_sign_in, is_loopback
from desk.clock import now_ms
from desk.core.keys import wrong_keys
from desk.errors import ProviderUnavailable, ProviderWrong, SettingsError
from desk.inbox import InboxReader, Sampling, TextFetcher
from desk.outbox import OutboxPublisher, WebhookSender, make_post, read_key
from desk.service import upkeep
from desk.service.context import Desk, Policy, open_desk
from desk.service.loading import UploadLoader
from desk.settings import KafkaSettings, OidcSettings, Settings, WebhookSettings
from desk.store.database import Database
from desk.stream.config import KafkaConfig, Properties, build_config
from desk.stream.port import CorrectionSink, ResultSource, TextSource
from desk.work import BackgroundWork, Shift
from worker.common.kafka import login_properties
from worker.common.process import start_up_frozen
from worker.common.schema_registry import SchemaRegistry
from worker.common.settings import read_secret
from worker.contract.errors import TaxonomyError
from worker.contract.records import InputFormat
from worker.contract.taxonomy import Taxonomy

if TYPE_CHECKING:
    from desk.auth.provider import Provider
    from desk.web.visit import WebOptions


_log = structlog.get_logger("desk.app")

_RETENTION_EVERY_S = 600.0


def run_desk(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises DeskStopped."""
    from desk.web.server import serve

    options = web_options(settings)
    provider = sign_in_provider(settings)
    database = open_database(settings)
    try:
        desk = open_settings_desk(settings, database)
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        with background(settings, desk) as shift, serve(desk, options, provider) as address:
            _log.info(
                "desk.started",
                version=__version__,
                installation=desk.project.installation,
                address=address,
            )
            with start_up_frozen():
                while not stopping.is_set() and not shift.wait(0.2):
                    pass
        _log.info("desk.stopped")
    finally:
        database.close()


def open_database(settings: Settings) -> Database:
    """Return the settings' database, not yet connected. Raises SettingsError."""
    given = settings.database
    url = given.url.get_secret_value() if "url" in given.model_fields_set else None
    read = read_secret("database.url", url, given.url_file, SettingsError)
    return Database(read or given.url.get_secret_value())


def read_taxonomy(settings: Settings) -> Taxonomy:
    """Read the settings' taxonomy. Raises SettingsError, also for keys of other labels."""
    try:
        taxonomy = Taxonomy.from_toml(settings.project.taxonomy)
    except TaxonomyError as error:
        raise SettingsError(f"project.taxonomy: {error}") from error
    if wrong := list(wrong_keys(taxonomy, settings.review.keys)):
        raise SettingsError(f"review.keys: {'; '.join(wrong)}")
    return taxonomy


def open_settings_desk(settings: Settings, database: Database) -> Desk:
    """Open the desk that the settings describe. Raises as ``open_desk``."""
    policy = Policy(
        claim_ms=int(settings.review.claim_s * 1000),
        publish_delay_ms=int(settings.review.publish_delay_s * 1000),
        masked_roles=frozenset(settings.texts.masked_for),
        double_share=settings.review.double_share,
        audit_double_share=settings.review.audit_double_share,
        keys=settings.review.keys,
        goal=settings.review.goal,
    )
    taxonomy = read_taxonomy(settings)
    return open_desk(database, taxonomy=taxonomy, policy=policy)


def settings_problems(settings: Settings) -> list[str]:
    """Return every problem that would keep a desk from starting with these settings and that can be
    found without the database, Kafka and the OpenID provider."""
    checks: tuple[Callable[[], object], ...] = (
        lambda: read_taxonomy(settings),
        lambda: web_options(settings),
        lambda: open_database(settings).close(),
        # With any installation: its name is in the database.
        lambda: kafka_config(settings, "x"),
        lambda: webhook_key(settings.webhook) if settings.webhook.url else None,
    )
    problems = []
    for check in checks:
        try:
            check()
        except SettingsError as error:
            problems.append(str(error))
    return problems


def web_options(settings: Settings) -> WebOptions:
    """Return the options of the pages. Raises SettingsError, also for an unsafe sign-in method."""
    from desk.web.visit import WebOptions

    web, sign_in = settings.web, settings.sign_in
    check_sign_in(sign_in.method, web.host, sign_in.proxy_addresses)
    if sign_in.method == "oidc":
        provider_config(settings)
    if web.metrics_port == web.port != 0:
        raise SettingsError("web.metrics_port and web.port are the same: set another metrics_port")
    secure = web.secure_cookies
    return WebOptions(
        host=web.host,
        port=web.port,
        metrics_port=web.metrics_port,
        hostnames=web.hostnames,
        secure=not is_loopback(web.host) if secure is None else secure,
        method=sign_in.method,
        proxy_header=sign_in.proxy_header,
        proxy_addresses=sign_in.proxy_addresses,
        owners=sign_in.owners,
        longest_ms=int(sign_in.session_hours * 3_600_000),
        idle_ms=int(sign_in.idle_minutes * 60_000),
    )


def sign_in_provider(settings: Settings) -> Provider | None:
    """Return the OpenID provider, None for other sign-in methods. If it does not answer now, the
    desk starts anyway and asks again later. Raises SettingsError."""
    if settings.sign_in.method != "oidc":
        return None
    from desk.auth.provider import Provider

    provider = Provider(provider_config(settings), now_ms)
    try:
        provider.check()
    except ProviderUnavailable as error:
        _log.warning("oidc.unreachable", reason=str(error))
    except ProviderWrong as error:
        raise SettingsError(f"oidc.issuer: {error}") from error
    return provider


def provider_config(settings: Settings) -> ProviderConfig:
    """Return the provider's configuration. Raises SettingsError."""
    oidc = settings.oidc
    config = ProviderConfig(
        issuer=oidc.issuer,
        client_id=oidc.client_id,
        public_url=oidc.public_url,
        client_secret=_client_secret(oidc),
        scopes=oidc.scopes,
        name_claim=oidc.name_claim,
        role_claim=oidc.role_claim,
        roles={
            "reviewer": oidc.reviewers,
            "adjudicator": oidc.adjudicators,
            "owner": oidc.owners,
        },
        ends_session=oidc.end_session,
        ca_file=oidc.ca_file,
    )
    return check_provider(config, settings.web.hostnames)


def _client_secret(oidc: OidcSettings) -> str | None:
    given = oidc.client_secret.get_secret_value() if oidc.client_secret else None
    return read_secret("oidc.client_secret", given, oidc.client_secret_file, SettingsError)


def kafka_config(settings: Settings, installation: str) -> KafkaConfig:
    """Return the Kafka configuration of an installation. Raises SettingsError."""
    kafka = settings.kafka
    for name in ("output_topic", "review_topic"):
        if getattr(kafka, name) == kafka.corrections_topic:
            raise SettingsError(
                f"kafka.corrections_topic and kafka.{name} are both {kafka.corrections_topic!r}: "
                "routers would read corrections as labels. Set another corrections_topic"
            )
    return build_config(
        bootstrap_servers=kafka.bootstrap_servers,
        name=f"{kafka.name}.{installation}",
        corrections_topic=kafka.corrections_topic,
        security=kafka_security(kafka),
        client=kafka.client,
        consumer=kafka.consumer,
        producer=kafka.producer,
        create_partitions=1 if kafka.create_topics else 0,
        registry=SchemaRegistry(kafka.registry, SettingsError) if kafka.registry else None,
    )


@contextmanager
def background(settings: Settings, desk: Desk) -> Iterator[Shift]:
    """Run the background work: inbox, outbox, uploads, webhook, retention. Stopped at the end.

    Raises SettingsError.
    """
    from desk.stream.kafka import KafkaCorrections, KafkaResults, KafkaTexts

    config = kafka_config(settings, desk.project.installation)
    results, found, sink = KafkaResults(config), KafkaTexts(config), KafkaCorrections(config)
    works = [
        inbox_work(settings, desk, results, found),
        outbox_work(desk, sink),
        upload_work(desk),
        retention_work(settings, desk),
    ]
    if settings.webhook.url:
        works.append(webhook_work(settings.webhook, desk))
    shift = Shift(desk.database, works, desk.clock)
    shift.start()
    try:
        yield shift
    finally:
        shift.stop()
        for client in (results, found, sink):
            client.close()


def inbox_work(
    settings: Settings, desk: Desk, results: ResultSource, found: TextSource
) -> BackgroundWork:
    """Store results in the database, and fetch their messages."""
    kafka, records = settings.kafka, settings.records
    topics = list(dict.fromkeys(filter(None, (kafka.output_topic, kafka.review_topic))))
    reader = InboxReader(
        desk.database,
        results,
        topics,
        Sampling(
            seed=desk.project.installation,
            audit_share=settings.audit.share,
            double_share=settings.review.double_share,
            audit_double_share=settings.review.audit_double_share,
        ),
        desk.clock,
        from_end=kafka.start_from == "latest",
    )
    layout = InputFormat(records.format, records.text_fields, records.id_field)
    fetcher = TextFetcher(desk.database, found, layout, desk.clock)
    # No pause between the turns: polling itself waits for records.
    return BackgroundWork(
        "inbox", lambda: reader.run_once() + fetcher.run_once(), reader.reset, idle_s=0.0
    )


def outbox_work(desk: Desk, sink: CorrectionSink) -> BackgroundWork:
    """Publish corrections to Kafka."""
    publisher = OutboxPublisher(desk.database, sink, desk.clock)
    return BackgroundWork("outbox", publisher.run_once, publisher.reset)


def upload_work(desk: Desk) -> BackgroundWork:
    """Load large uploads."""
    loader = UploadLoader(desk)
    return BackgroundWork("uploads", loader.run_once, loader.reset)


def webhook_work(webhook: WebhookSettings, desk: Desk) -> BackgroundWork:
    """Post published decisions to the webhook. Raises SettingsError."""
    sender = WebhookSender(
        desk.database,
        make_post(webhook.url, ca_file=webhook.ca_file),
        desk.clock,
        name=desk.project.installation,
        key=webhook_key(webhook),
    )
    return BackgroundWork("webhook", sender.run_once, sender.reset)


def webhook_key(webhook: WebhookSettings) -> bytes:
    """Return the key that signs posts. Raises SettingsError."""
    given = webhook.secret.get_secret_value() if webhook.secret else None
    secret = read_secret("webhook.secret", given, webhook.secret_file, SettingsError)
    if secret is None:
        raise SettingsError(
            "webhook.url is set and webhook.secret is not: set a secret to sign with"
        )
    return read_key(secret)


def retention_work(settings: Settings, desk: Desk) -> BackgroundWork:
    """Delete old messages."""
    texts = settings.texts

    def run_once() -> int:
        purged = upkeep.apply_retention(desk, texts.keep_days, texts.log_days)
        if purged:
            _log.info("retention.purged", items=purged)
        # Nothing is left to do, however much it was: apply_retention goes on until it is done.
        return 0

    return BackgroundWork("retention", run_once, lambda: None, idle_s=_RETENTION_EVERY_S)


def kafka_security(kafka: KafkaSettings) -> Properties:
    """Return librdkafka's login properties. Raises SettingsError."""
    return login_properties(kafka, _report_no_token, SettingsError)


def _report_no_token(why: str) -> None:
    _log.error("stream.no_token", error=why)
