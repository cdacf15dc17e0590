"""Connect to the cluster at start-up, or explain in one line why that fails.

The client reports a failed connection in librdkafka's and OpenSSL's words. Known ones are explained
(``tests/ports/security`` checks them on real brokers); others are passed on.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ClusterMetadata  # type: ignore[attr-defined]

from worker.common.kafka import require_token
from worker.errors import SettingsError, StreamFailed
from worker.stream.kafka_config import KafkaConfig, Properties
from worker.stream.kafka_types import client_log

# A refused login or certificate is retried for this long: only one of several brokers may be at
# fault, and a new user is not known to all brokers at once.
_REFUSED_S = 5.0

# The first report comes after the first attempt and a probe, so within 3 s.
_FIRST_S = 0.8
_PROBE_S = 0.8
_REPORT_EVERY_S = 5.0

_log = structlog.get_logger("worker.stream")


def reach(config: KafkaConfig) -> tuple[AdminClient, ClusterMetadata]:
    """Return a connected client, and the cluster with the topics that it may see.

    Retries an outage for ``start_timeout_s`` and a refusal for 5 s, and logs what it tries: within
    3 s, then every few seconds. Raises StreamFailed in one line: where, what is wrong, and how to
    fix it.
    """
    errors: list[KafkaError] = []
    require_token(config.common, StreamFailed)
    admin = AdminClient(
        # Otherwise its log would repeat the error below for each attempt.
        {"log_level": 2, **config.common},
        error_cb=errors.append,
        logger=client_log,
    )
    begin = time.monotonic()
    attempt_s, limit_s = _FIRST_S, config.start_timeout_s
    with _Reports(config, begin) as reports:
        while True:
            left_s = begin + limit_s - time.monotonic()
            try:
                return admin, admin.list_topics(timeout=max(0.1, min(attempt_s, left_s)))
            except KafkaException as error:
                admin.poll(0)
                last: KafkaError = error.args[0]
            waited_s = time.monotonic() - begin
            refusal = next(
                (each for each in reversed(errors) if is_refusal(each.name(), each.str())), None
            )
            last = refusal or _most_specific(errors) or last
            if refusal:
                limit_s = min(_REFUSED_S, config.start_timeout_s)
            if waited_s >= limit_s - 0.1:
                raise _unreached(config, last, waited_s)
            reports.failed(last)
            time.sleep(0.2)  # list_topics returns at once when every broker closes the connection
            attempt_s = max(attempt_s, waited_s)  # a large cluster may take longer to answer


class _Reports:
    """Logs what is being tried: after the first failed attempt, then every few seconds. In a
    thread, because an attempt and the search for the cause both block."""

    def __init__(self, config: KafkaConfig, begin: float) -> None:
        self._config = config
        self._end = begin + config.start_timeout_s
        self._failed: list[KafkaError] = []
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def failed(self, error: KafkaError) -> None:
        """Note a failed attempt."""
        self._failed.append(error)
        if len(self._failed) == 1:
            threading.Thread(target=self._run, name="kafka-reports", daemon=True).start()

    def _run(self) -> None:
        while not self._over.is_set():
            attempt, error = len(self._failed), self._failed[-1]
            servers, said = self._config.bootstrap_servers, " ".join(error.str().split())
            hint = explain(error.name(), said, servers, self._config.common)
            if self._over.is_set():
                return
            _log.warning(
                "stream.unreachable",
                servers=servers,
                attempt=attempt,
                left_s=max(0, round(self._end - time.monotonic())),
                hint=hint,
                error=f"{error.name()}: {said}",
            )
            self._over.wait(_REPORT_EVERY_S)


def broker_note(config: KafkaConfig) -> str | None:
    """Return what is wrong with the brokers' address or the login, as seen from here, in less than
    3 s; None if the cluster answers."""
    try:
        reach(replace(config, start_timeout_s=_FIRST_S))
    except StreamFailed as error:
        return str(error)
    return None


def _most_specific(errors: list[KafkaError]) -> KafkaError | None:
    """Return the last error other than "all brokers are down", if there is one."""
    general = KafkaError._ALL_BROKERS_DOWN
    return next((each for each in reversed(errors) if each.code() != general), None) or (
        errors[-1] if errors else None
    )


def _unreached(config: KafkaConfig, error: KafkaError, waited_s: float) -> StreamFailed:
    said = " ".join(error.str().split())
    where = config.bootstrap_servers
    hint = explain(error.name(), said, where, config.common)
    return StreamFailed(
        f"no access to Kafka at {where} within {waited_s:.0f} s: {hint} ({error.name()}: {said})"
    )


_NO_TLS = (
    "the broker does not speak TLS at this address: set kafka.security_protocol to plaintext or "
    "sasl_plaintext, or use its TLS listener"
)
_CERTIFICATE = "check kafka.ssl_certificate_location and kafka.ssl_key_location"
# By a part of the client's message. A TLS alert is what the broker sends before it hangs up.
_SAID = {
    "Unsupported SASL mechanism": "the broker does not offer this mechanism: set "
    "kafka.sasl_mechanism to one that it supports",
    "Request not valid in current SASL state": "the broker does not accept SASL at this address: "
    "set kafka.security_protocol to ssl or plaintext, or use its SASL listener",
    "alert certificate required": "the broker demands a client certificate: set "
    "kafka.ssl_certificate_location and kafka.ssl_key_location",
    "alert handshake failure": "the broker refuses the handshake, because there is no client "
    f"certificate or no common cipher: {_CERTIFICATE}",
    "alert certificate expired": f"the client certificate has expired: {_CERTIFICATE}",
    "alert unknown ca": "the broker does not know the authority of the client certificate: "
    f"{_CERTIFICATE}",
    "alert certificate unknown": "the broker does not trust the client certificate (expired, or "
    f"signed by an unknown authority): {_CERTIFICATE}",
    "alert bad certificate": f"the broker refuses the client certificate: {_CERTIFICATE}",
    "connecting to a PLAINTEXT broker listener": _NO_TLS,
}
_SPEAKER = re.compile(r"://([^/\s]+)/")
_UNKNOWN_AUTHORITY = (
    "the broker's certificate is signed by an unknown authority: set kafka.ssl_ca_location to that "
    "authority's certificate"
)
_UNTRUSTED = {
    "expired": "the broker's certificate has expired: renew it",
    "not yet valid": "the broker's certificate is not valid yet: check both clocks",
    "mismatch": "the broker's certificate is for another host: connect by a name in it "
    "(kafka.bootstrap_servers and the broker's advertised.listeners)",
    "issuer": _UNKNOWN_AUTHORITY,
    "self-signed": _UNKNOWN_AUTHORITY,
}


def is_refusal(name: str, said: str) -> bool:
    """Return whether an error is a refused login or certificate, which retries do not fix."""
    return (
        name in {"_AUTHENTICATION", "_SSL"}
        or "SSL alert number" in said
        or "certificate verify" in said
    )


def explain(name: str, said: str, servers: str, properties: Properties) -> str:
    """Return what is wrong and how to fix it, from an error's name and message.

    May connect once more to find out. Never repeats the value of a secret property.
    """
    for part, hint in _SAID.items():
        if part in said:
            return hint
    speaker = _SPEAKER.search(said)  # the one of several servers that the message is about
    servers = speaker.group(1) if speaker else servers
    if "certificate verify failed" in said:
        why = why_not_verified(servers, properties) or ""
        known = next((text for part, text in _UNTRUSTED.items() if part in why), None)
        return (
            known or f"the broker's certificate is not trusted: check kafka.ssl_ca_location {why}"
        )
    protocol = str(properties.get("security.protocol", "plaintext")).lower()
    mechanism = properties.get("sasl.mechanism") or properties.get("sasl.mechanisms")
    if name == "_AUTHENTICATION" and "oauth_cb" in properties:
        return "the broker refuses the token: check kafka.sasl_token_callback, and both clocks"
    if name == "_AUTHENTICATION":
        user = properties.get("sasl.username")
        return (
            f"the broker refuses {f'the user {user!r}' if user else 'the login'} ({mechanism}): "
            "check kafka.sasl_username, kafka.sasl_password and kafka.sasl_mechanism"
        )
    if mechanism == "OAUTHBEARER" and not any(
        given.startswith("sasl.oauthbearer.") for given in properties
    ):
        return (
            "OAUTHBEARER needs a token: set kafka.sasl_token_callback, or sasl.oauthbearer.* in "
            "[kafka.client]"
        )
    return _of_protocol(servers, protocol)


_UNREACHED: Mapping[Peer, str] = {
    "silent": "something accepts the connection and does not answer: check the host and port in "
    "kafka.bootstrap_servers, and whether a proxy or another service is there",
    "refused": "nothing listens there: check kafka.bootstrap_servers and that the broker is up",
    "unresolved": "the name cannot be resolved: check kafka.bootstrap_servers and the DNS of this "
    "machine",
    "unreachable": "check kafka.bootstrap_servers and that the broker is up",
}


def _of_protocol(servers: str, protocol: str) -> str:
    peer = peer_kind(servers)
    if peer == "tls" and not protocol.endswith("ssl"):
        return (
            f"the broker speaks TLS and kafka.security_protocol is {protocol}: set it to ssl or "
            "sasl_ssl, and kafka.ssl_ca_location"
        )
    if peer == "no_tls" and protocol.endswith("ssl"):
        return _NO_TLS
    if peer in _UNREACHED:
        return _UNREACHED[peer]
    if not protocol.startswith("sasl"):
        return (
            "the broker accepts the connection and closes it: if it demands a login, "
            f"set kafka.security_protocol to sasl_{protocol}, kafka.sasl_mechanism, "
            "kafka.sasl_username and kafka.sasl_password"
        )
    return "check kafka.bootstrap_servers, kafka.security_protocol and that the broker is up"


Peer = Literal["tls", "no_tls", "silent", "refused", "unresolved", "unreachable"]


def why_not_verified(servers: str, properties: Properties) -> str | None:
    """Return OpenSSL's reason for not trusting the first server that answers, None if it does.

    The client says "certificate verify failed" for an unknown authority, another host's name, and
    an expired certificate alike. This makes another handshake with the client's settings to see
    which of them it is.
    """
    for host, port in _addresses(servers):
        try:
            context = _context(properties)
            with (
                socket.create_connection((host, port), timeout=_PROBE_S) as plain,
                context.wrap_socket(plain, server_hostname=host),
            ):
                return None
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        except OSError:  # including ssl.SSLError: it demands our certificate or does not speak TLS
            continue
    return None


def peer_kind(servers: str) -> Peer:
    """Return what the first server that can be connected to speaks, whatever its certificate, or
    why none can be. Takes about a second, also if the network drops packets."""
    found: list[Peer] = []
    # In a thread, because looking up a name has no timeout.
    probe = threading.Thread(target=lambda: found.append(_probe(servers)), daemon=True)
    probe.start()
    probe.join(1.5 * _PROBE_S)
    return found[0] if found else "unreachable"


def _probe(servers: str) -> Peer:
    why: Peer = "unreachable"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # safe: no data is sent over this connection
    for host, port in _addresses(servers):
        try:
            plain = socket.create_connection((host, port), timeout=_PROBE_S)
        except socket.gaierror:
            why = "unresolved"
            continue
        except ConnectionRefusedError:
            why = "refused"
            continue
        except OSError:
            continue
        with plain:
            try:
                context.wrap_socket(plain, server_hostname=host).close()
            except TimeoutError:
                return "silent"
            except OSError as error:  # a TLS alert also shows that it speaks TLS
                return "tls" if "ALERT" in (getattr(error, "reason", None) or "") else "no_tls"
            return "tls"
    return why


def _context(properties: Properties) -> ssl.SSLContext:
    where, pem = properties.get("ssl.ca.location"), properties.get("ssl.ca.pem")
    path = Path(str(where)) if where else None
    context = ssl.create_default_context(
        cafile=str(path) if path and path.is_file() else None,
        capath=str(path) if path and path.is_dir() else None,
        cadata=str(pem) if pem else None,
    )
    if str(properties.get("ssl.endpoint.identification.algorithm", "https")).lower() == "none":
        context.check_hostname = False
    return context


def _addresses(servers: str) -> Iterator[tuple[str, int]]:
    for server in servers.split(","):
        host, _, port = server.strip().rpartition("://")[2].rpartition(":")
        if host and port.isdecimal():
            yield host.strip("[]"), int(port)


def check_clients(config: KafkaConfig) -> None:
    """Create both clients and close them again, to have the library check its properties.

    Needs no broker and takes a few milliseconds. Raises SettingsError in one line, with the setting
    to blame: the one without which the library accepts the others.
    """
    for client, properties in ((Consumer, config.consumer), (Producer, config.producer)):
        problem = _problem(client, properties)
        if problem is None:
            continue
        given = [name for name in config.origins if name in properties]
        to_blame = [
            name
            for name in given
            if _problem(client, {key: properties[key] for key in properties if key != name}) is None
        ]
        named = next((name for name in to_blame if name in problem), None)
        names = [named] if named else to_blame or given
        where = ", ".join(config.origins[name] for name in names) or "the worker's own properties"
        raise SettingsError(f"{where}: the Kafka client refuses this: {problem}{_hint(problem)}")


def _problem(client: type[Consumer | Producer], properties: Properties) -> str | None:
    tried: dict[str, Any] = {**properties, "log_level": 0}
    if "oauth_cb" in tried:  # a dummy: a real token is requested when connecting
        tried["oauth_cb"] = lambda _: ("none", time.time() + 3600)
    try:
        # The client starts to connect by itself. Whether a broker answers does not matter yet.
        made = client(tried, error_cb=lambda _: None, logger=client_log)
    except KafkaException as error:
        return " ".join(str(error.args[0].str()).split())
    except (TypeError, ValueError) as error:
        return " ".join(str(error).split())
    if isinstance(made, Consumer):
        made.close()
    return None


def _hint(problem: str) -> str:
    # OpenSSL reports a key that it cannot decrypt as an error of its PEM library.
    if "ssl.key" in problem and "PEM lib" in problem:
        return " (kafka.ssl_key_password is wrong or missing, or the key is not in PEM format)"
    return ""
