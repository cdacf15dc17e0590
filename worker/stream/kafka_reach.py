"""Reach the cluster at start-up within a bound, or say in one line what is in the way.

The client's own words for a connection that fails are librdkafka's and OpenSSL's. Those that are
known are explained (``tests/ports/security`` checks them on real brokers); others are passed on.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from worker.common.kafka import require_token
from worker.errors import SettingsError, StreamFailed
from worker.stream.kafka_config import KafkaConfig, Properties
from worker.stream.kafka_types import client_log

# A login or a certificate that is refused is given so long: one broker of several may be at fault
# alone, and a user that was just made needs a moment to be known to all.
_REFUSED_S = 5.0


def reach(config: KafkaConfig) -> tuple[AdminClient, Iterable[str]]:
    """Return a client that has reached the cluster, and the topics that it may see.

    Raises StreamFailed in one line: where, what is wrong, how to fix it. What passes by itself is
    waited for as long as the settings say, a refusal for 5 s.
    """
    errors: list[KafkaError] = []
    require_token(config.common, StreamFailed)
    admin = AdminClient(
        # Its log would repeat, a line for each attempt, what the error below says once.
        {"log_level": 2, **config.common},
        error_cb=errors.append,
        logger=client_log,
    )
    begin = time.monotonic()
    attempt_s = _REFUSED_S
    while True:
        left_s = begin + config.start_timeout_s - time.monotonic()
        try:
            return admin, admin.list_topics(timeout=max(0.1, min(attempt_s, left_s))).topics
        except KafkaException as error:
            admin.poll(0)
            last: KafkaError = error.args[0]
        waited_s = time.monotonic() - begin
        refusal = next(
            (each for each in reversed(errors) if is_refusal(each.name(), each.str())), None
        )
        if (refusal and waited_s >= min(_REFUSED_S, config.start_timeout_s)) or (
            waited_s >= config.start_timeout_s - 0.1
        ):
            raise _unreached(config, refusal or _telling(errors) or last, waited_s)
        # Also ends at once, without having waited, when every broker hangs up.
        time.sleep(0.2)
        attempt_s = max(attempt_s, waited_s)  # a large cluster may take longer to answer


def _telling(errors: list[KafkaError]) -> KafkaError | None:
    """Return the last error that says more than "all brokers are down"."""
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
    "the broker speaks no TLS at this address: set kafka.security_protocol to plaintext or "
    "sasl_plaintext, or use its TLS listener"
)
_CERTIFICATE = "check kafka.ssl_certificate_location and kafka.ssl_key_location"
# By a part of what the client says. An alert is what the broker sends before it hangs up.
_SAID = {
    "Unsupported SASL mechanism": "the broker does not offer this mechanism: set "
    "kafka.sasl_mechanism to one that it supports",
    "Request not valid in current SASL state": "the broker takes no SASL at this address: set "
    "kafka.security_protocol to ssl or plaintext, or use its SASL listener",
    "alert certificate required": "the broker demands a client certificate: set "
    "kafka.ssl_certificate_location and kafka.ssl_key_location",
    "alert handshake failure": "the broker refuses the handshake, for want of a client "
    f"certificate or of a common cipher: {_CERTIFICATE}",
    "alert certificate expired": f"the client certificate has expired: {_CERTIFICATE}",
    "alert unknown ca": "the broker does not know the authority of the client certificate: "
    f"{_CERTIFICATE}",
    "alert certificate unknown": "the broker does not trust the client certificate (expired, or of "
    f"an authority that it does not know): {_CERTIFICATE}",
    "alert bad certificate": f"the broker refuses the client certificate: {_CERTIFICATE}",
    "connecting to a PLAINTEXT broker listener": _NO_TLS,
}
_SPEAKER = re.compile(r"://([^/\s]+)/")
_UNTRUSTED = {
    "expired": "the broker's certificate has expired: have it renewed",
    "not yet valid": "the broker's certificate is not valid yet: check both clocks",
    "mismatch": "the broker's certificate is another host's: connect by a name that it has "
    "(kafka.bootstrap_servers and the broker's advertised.listeners)",
    "issuer": "the broker's certificate is of an authority that is not known: set "
    "kafka.ssl_ca_location to the one that signed it",
    "self-signed": "the broker's certificate is of an authority that is not known: set "
    "kafka.ssl_ca_location to the one that signed it",
}


def is_refusal(name: str, said: str) -> bool:
    """Return whether an error means that the broker or we refuse the other, and not that nothing
    answers: another try does not help."""
    return (
        name in {"_AUTHENTICATION", "_SSL"}
        or "SSL alert number" in said
        or "certificate verify" in said
    )


def explain(name: str, said: str, servers: str, properties: Properties) -> str:
    """Return what is wrong and how to fix it, of an error's name and words.

    May connect once more to see. No value of a secret property is repeated.
    """
    for part, hint in _SAID.items():
        if part in said:
            return hint
    speaker = _SPEAKER.search(said)  # of several servers, the one that it is about
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
            "OAUTHBEARER has no way to a token: set kafka.sasl_token_callback, or "
            "sasl.oauthbearer.* in [kafka.client]"
        )
    return _of_protocol(servers, protocol)


def _of_protocol(servers: str, protocol: str) -> str:
    peer = peer_kind(servers)
    if peer == "tls" and not protocol.endswith("ssl"):
        return (
            f"the broker speaks TLS and kafka.security_protocol is {protocol}: set it to ssl or "
            "sasl_ssl, and kafka.ssl_ca_location"
        )
    if peer == "no_tls" and protocol.endswith("ssl"):
        return _NO_TLS
    if peer == "unreachable":
        return "check kafka.bootstrap_servers and that the broker is up"
    if not protocol.startswith("sasl"):
        return (
            "the broker answers at this address and ends the connection: if it demands a login, "
            f"set kafka.security_protocol to sasl_{protocol}, kafka.sasl_mechanism, "
            "kafka.sasl_username and kafka.sasl_password"
        )
    return "check kafka.bootstrap_servers, kafka.security_protocol and that the broker is up"


_PROBE_S = 3.0

Peer = Literal["tls", "no_tls", "unreachable"]


def why_not_verified(servers: str, properties: Properties) -> str | None:
    """Return OpenSSL's reason for not trusting the first server that answers; None: it does.

    The client says "certificate verify failed" of an unknown authority, of another host's name and
    of an expired certificate alike, so one more handshake is made to see.

    The authorities and the check of the name are those that the client was given.
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
        except OSError:  # ssl.SSLError is one: it wants our certificate, or speaks no TLS
            continue
    return None


def peer_kind(servers: str) -> Peer:
    """Return whether the first server that answers speaks TLS, anyone who it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent or believed: only asked
    for host, port in _addresses(servers):
        try:
            plain = socket.create_connection((host, port), timeout=_PROBE_S)
        except OSError:
            continue
        with plain:
            try:
                context.wrap_socket(plain, server_hostname=host).close()
            except OSError as error:  # an alert is TLS too
                return "tls" if "ALERT" in (getattr(error, "reason", None) or "") else "no_tls"
            return "tls"
    return "unreachable"


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


# They begin to connect by themselves; whether a broker answers does not matter yet.
_SILENT = {"log_level": 0}


def check_clients(config: KafkaConfig) -> None:
    """Make both clients and close them again: the library judges its own properties.

    It needs no broker and takes some milliseconds. Raises SettingsError in one line, naming the
    setting that is to blame: the one without which the library would be content.
    """
    for try_out, properties in (
        (_try_consumer, config.consumer),
        (_try_producer, config.producer),
    ):
        problem = _problem(try_out, properties)
        if problem is None:
            continue
        given = [name for name in config.origins if name in properties]
        to_blame = [
            name
            for name in given
            if _problem(try_out, {key: properties[key] for key in properties if key != name})
            is None
        ]
        named = next((name for name in to_blame if name in problem), None)
        names = [named] if named else to_blame or given
        where = ", ".join(config.origins[name] for name in names) or "the worker's own properties"
        raise SettingsError(f"{where}: the Kafka client refuses this: {problem}{_hint(problem)}")


def _problem(try_out: Callable[[Properties], None], properties: Properties) -> str | None:
    try:
        try_out(properties)
    except KafkaException as error:
        return " ".join(str(error.args[0].str()).split())
    except (TypeError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def _hint(problem: str) -> str:
    """OpenSSL says of a key that it cannot decrypt that something is wrong with PEM."""
    if "ssl.key" in problem and "PEM lib" in problem:
        return " (kafka.ssl_key_password is wrong or missing, or this is not a key in PEM)"
    return ""


def _try_consumer(properties: Properties) -> None:
    Consumer({**_without_login(properties), **_SILENT}, error_cb=_ignore, logger=client_log).close()


def _try_producer(properties: Properties) -> None:
    Producer({**_without_login(properties), **_SILENT}, error_cb=_ignore, logger=client_log).purge()


def _without_login(properties: Properties) -> dict[str, Any]:
    """Give the client a made-up token: a real one is requested when a broker is asked."""
    if "oauth_cb" not in properties:
        return dict(properties)
    return {**properties, "oauth_cb": lambda _: ("none", time.time() + 3600)}


def _ignore(_: object) -> None:
    """Ignore that nothing answers: ``reach`` reports it."""
