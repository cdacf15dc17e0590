"""Errors at start-up: properties that the client refuses, logins, certificates, outages."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import structlog
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import LogCapture, capture_logs

from tests.support.mock_kafka import MockKafka
from tests.support.rig import make_kafka_config
from worker.errors import EXIT_STREAM, SettingsError, StreamFailed
from worker.stream import kafka_reach
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_reach import (
    broker_note,
    check_clients,
    explain,
    is_refusal,
    peer_kind,
    reach,
    why_not_verified,
)

NOWHERE = "127.0.0.1:1"


def check(**changes: Any) -> None:
    check_clients(make_kafka_config(**{"bootstrap_servers": NOWHERE, **changes}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"producer": {"linger.msx": 1}}, r"^kafka\.producer\.linger\.msx: .*No such config"),
        ({"consumer": {"fetch.min.byte": 1}}, r"^kafka\.consumer\.fetch\.min\.byte: .*No such"),
        ({"client": {"socket.timeout": 1}}, r"^kafka\.client\.socket\.timeout: .*No such"),
        # The client's message has another name for this property.
        ({"producer": {"linger.ms": "soon"}}, r"^kafka\.producer\.linger\.ms: .*Invalid value"),
        ({"consumer": {"stats_every": True}}, r"^kafka\.consumer\.stats_every: "),
        ({"consumer": {"on_commit": "x"}}, r"^kafka\.consumer\.on_commit: .*callable"),
        # Valid alone, but not together with the default of max.poll.interval.ms.
        (
            {"consumer": {"session.timeout.ms": 400_000}},
            r"^kafka\.consumer\.session\.timeout\.ms: .*max\.poll\.interval\.ms",
        ),
        (
            {"security": {"security.protocol": "ssl", "ssl.ca.location": "/nowhere/ca.pem"}},
            r"^kafka\.ssl_ca_location: .*ssl\.ca\.location failed",
        ),
    ],
)
def test_a_property_that_the_client_refuses_is_named_by_its_setting(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        check(**changes)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_secret_is_not_repeated() -> None:
    security = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN"}
    with pytest.raises(SettingsError, match=r"sasl\.username and sasl\.password") as caught:
        check(security={**security, "sasl.password": "hush-hush"})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("consumer", [{}, {"group.protocol": "consumer"}])
def test_good_properties_pass_without_a_broker(delivery: str, consumer: dict[str, Any]) -> None:
    started = time.monotonic()
    check(delivery=delivery, consumer=consumer, client={"socket.keepalive.enable": True})
    assert time.monotonic() - started < 5


SASL = {
    "security.protocol": "sasl_ssl",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "clerk",
    "sasl.password": "hush-hush",
}


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("_AUTHENTICATION", "SASL authentication error: Authentication failed", "'clerk' (PLAIN)"),
        ("_AUTHENTICATION", "Broker: Unsupported SASL mechanism: supported: X", "sasl_mechanism"),
        ("_AUTHENTICATION", "Broker: Request not valid in current SASL state", "not accept SASL"),
        ("_TRANSPORT", "tlsv13 alert certificate required: SSL alert number 116", "demands"),
        (
            "_TRANSPORT",
            "ssl/tls alert certificate expired: SSL alert number 45",
            "client certificate has expired",
        ),
        ("_SSL", "SSL routines::tlsv1 alert unknown ca", "authority of the client certificate"),
    ],
)
def test_a_refusal_is_explained_with_the_setting_to_change(
    name: str, said: str, expected: str
) -> None:
    assert is_refusal(name, said)
    hint = explain(name, said, "127.0.0.1:1", SASL)
    assert expected in hint
    assert "hush" not in hint


@pytest.mark.parametrize("name", ["_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT"])
def test_an_unreachable_broker_is_not_a_refusal(name: str) -> None:
    assert not is_refusal(name, "Connect to ipv4#127.0.0.1:1 failed: Connection refused")
    hint = explain(name, "Connection refused", "127.0.0.1:1", SASL)
    assert hint.endswith("check kafka.bootstrap_servers and that the broker is up")


def test_a_host_name_with_alert_in_it_is_not_a_refusal() -> None:
    assert not is_refusal("_TRANSPORT", "Connect to alert-kafka:9092 failed: Connection refused")


def test_a_missing_token_callback_is_explained() -> None:
    given = {"security.protocol": "sasl_ssl", "sasl.mechanism": "OAUTHBEARER"}
    assert "sasl.oauthbearer.*" in explain("_TRANSPORT", "", "127.0.0.1:1", given)
    given["sasl.oauthbearer.method"] = "oidc"
    assert "sasl.oauthbearer.*" not in explain("_TRANSPORT", "", "127.0.0.1:1", given)


@pytest.mark.parametrize("servers", ["", "nonsense", "127.0.0.1:1", "127.0.0.1:x,127.0.0.1:1"])
def test_looking_closer_at_invalid_servers_does_not_fail(servers: str) -> None:
    assert peer_kind(servers) == ("refused" if servers.endswith(":1") else "unreachable")
    assert why_not_verified(servers, {}) is None
    assert why_not_verified(servers, {"ssl.ca.location": "/nowhere"}) is None


@pytest.mark.parametrize("protocol", ["ssl", "sasl_ssl"])
def test_a_server_that_hangs_up_does_not_speak_tls(protocol: str) -> None:

    def hang_up() -> None:
        for _ in range(3):
            server.accept()[0].close()

    said = "SSL connection closed by peer (after 1ms in state SSL_HANDSHAKE)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        threading.Thread(target=hang_up, daemon=True).start()
        servers = f"127.0.0.1:{server.getsockname()[1]}"
        assert peer_kind(servers) == "no_tls"
        hint = explain("_TRANSPORT", said, servers, {"security.protocol": protocol})
        plain = explain("_TRANSPORT", "Disconnected", servers, {})
    assert "does not speak TLS at this address: set kafka.security_protocol" in hint
    assert "if it demands a login, set kafka.security_protocol to sasl_plaintext" in plain


def speak_tls(server: socket.socket) -> None:
    """Answer each handshake as a TLS server does that wants another version."""
    while True:
        with suppress(OSError), server.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(bytes([21, 3, 3, 0, 2, 2, 70]))


def hang_up(server: socket.socket) -> None:
    while True:
        with suppress(OSError):
            server.accept()[0].close()


Serve = Callable[[socket.socket], None]
WRONG: dict[str, tuple[Serve | None, dict[str, str], str]] = {
    "refused": (None, {}, "nothing listens there"),
    "unresolvable": (None, {}, "the name cannot be resolved"),
    "silent": (lambda _: time.sleep(60), {}, "accepts the connection and does not answer"),
    "silent, by TLS": (
        lambda _: time.sleep(60),
        {"security.protocol": "ssl"},
        "accepts the connection and does not answer",
    ),
    "TLS": (speak_tls, {}, "the broker speaks TLS and kafka.security_protocol is plaintext"),
    "no TLS": (hang_up, {"security.protocol": "ssl"}, "does not speak TLS at this address"),
}
"""What listens at the address, the client's protocol, and what the report says."""


@pytest.fixture
def listening() -> Iterator[Callable[[str], tuple[str, dict[str, str], str]]]:
    """Return a function that opens one of ``WRONG`` and returns its address, with the rest."""
    with ExitStack() as stack:

        def listen(name: str) -> tuple[str, dict[str, str], str]:
            serve, security, says = WRONG[name]
            if serve is None:
                address = "no-such-host.invalid:9092" if name == "unresolvable" else NOWHERE
                return address, security, says
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=serve, args=(server,), daemon=True).start()
            return f"127.0.0.1:{server.getsockname()[1]}", security, says

        yield listen


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "silent" else pytest.mark.long) for name in WRONG],
)
def test_a_wrong_broker_is_reported_within_three_seconds_and_then_every_few(
    name: str, listening: Any
) -> None:
    """By its address, the attempt, the time that is left, and what to do; the deadline stays."""
    address, security, says = listening(name)
    config = make_kafka_config(bootstrap_servers=address, security=security, start_timeout_s=9.0)
    times: list[float] = []
    begin = time.monotonic()

    class Timed(LogCapture):
        def __call__(self, *given: Any) -> NoReturn:
            times.append(time.monotonic() - begin)
            super().__call__(*given)

    logs = Timed()
    with structlog_to(logs), pytest.raises(StreamFailed, match=says) as caught:
        reach(config)
    waited = time.monotonic() - begin
    found = [entry for entry in logs.entries if entry["event"] == "stream.unreachable"]
    assert (len(found), len(times)) in {(1, 1), (2, 2)}
    assert times[0] < 3
    first = found[0]
    assert (first["servers"], first["attempt"], first["log_level"]) == (address, 1, "warning")
    assert 5 < first["left_s"] <= 8
    assert says in first["hint"]
    refused_early = is_refusal_in(caught.value)
    assert 4.5 < waited < 13 if refused_early else 8.5 < waited < 13
    assert len(found) == (1 if refused_early and waited < 6 else 2)
    assert caught.value.exit_code == EXIT_STREAM


@pytest.mark.parametrize(
    ("known_after_s", "start_timeout_s", "expected_s"),
    [(0.0, 60.0, 5.0), (0.0, 3.0, 3.0), (2.0, 60.0, 5.0)],
)
def test_a_refusal_is_waited_for_5_s_however_long_an_attempt_takes(
    monkeypatch: pytest.MonkeyPatch,
    known_after_s: float,
    start_timeout_s: float,
    expected_s: float,
) -> None:
    clock = [0.0]

    class Client:
        def __init__(self, *_: object, error_cb: Callable[[KafkaError], None], **__: object):
            self._error_cb = error_cb

        def list_topics(self, timeout: float) -> NoReturn:
            clock[0] += timeout
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "no answer"))

        def poll(self, _: float) -> None:
            if clock[0] >= known_after_s:
                self._error_cb(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(kafka_reach, "AdminClient", Client)
    monkeypatch.setattr(
        kafka_reach, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
    )
    with pytest.raises(StreamFailed, match="wrong password"):
        reach(make_kafka_config(bootstrap_servers=NOWHERE, start_timeout_s=start_timeout_s))
    assert clock[0] == pytest.approx(expected_s, abs=0.15)


def is_refusal_in(error: StreamFailed) -> bool:
    return "(_SSL: " in str(error)


@contextmanager
def structlog_to(capture: LogCapture) -> Iterator[None]:
    before = structlog.get_config()["processors"]
    try:
        structlog.configure(processors=[capture])
        yield
    finally:
        structlog.configure(processors=before)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_check_config_says_within_three_seconds_what_is_wrong_with_the_broker(
    name: str, listening: Any
) -> None:
    """As a note: the settings may be right for another place."""
    address, security, says = listening(name)
    begin = time.monotonic()
    note = broker_note(make_kafka_config(bootstrap_servers=address, security=security))
    assert time.monotonic() - begin < 3
    assert note is not None
    assert address in note
    assert says in note
    assert "\n" not in note


@pytest.mark.slow
def test_a_broker_that_answers_is_not_noted(
    broker: MockKafka, configured: Callable[..., KafkaConfig]
) -> None:
    with capture_logs() as logs:
        assert broker_note(configured()) is None
        reach(configured())
    assert logs == []
