"""From the client's words to what is wrong: told apart, with the setting, and without a secret."""

from __future__ import annotations

import socket
import threading

import pytest

from worker.stream.connection_hints import explain, is_refusal
from worker.stream.tls_probe import peer_kind, why_not_verified

SASL = {
    "security.protocol": "sasl_ssl",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "clerk",
    "sasl.password": "hush-hush",
}


@pytest.mark.parametrize(
    ("name", "said", "tells"),
    [
        ("_AUTHENTICATION", "SASL authentication error: Authentication failed", "'clerk' (PLAIN)"),
        ("_AUTHENTICATION", "Broker: Unsupported SASL mechanism: supported: X", "sasl_mechanism"),
        ("_AUTHENTICATION", "Broker: Request not valid in current SASL state", "takes no SASL"),
        ("_TRANSPORT", "tlsv13 alert certificate required: SSL alert number 116", "demands"),
        (
            "_TRANSPORT",
            "ssl/tls alert certificate expired: SSL alert number 45",
            "client certificate has expired",
        ),
        ("_SSL", "SSL routines::tlsv1 alert unknown ca", "authority of the client certificate"),
    ],
)
def test_a_refusal_is_told_with_the_setting_that_mends_it(name: str, said: str, tells: str) -> None:
    """It does not pass by itself, and the password is not repeated."""
    assert is_refusal(name, said)
    told = explain(name, said, "127.0.0.1:1", SASL)
    assert tells in told
    assert "hush" not in told


@pytest.mark.parametrize("name", ["_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT"])
def test_nobody_there_is_no_refusal(name: str) -> None:
    """A broker may be starting: it is waited for."""
    assert not is_refusal(name, "Connect to ipv4#127.0.0.1:1 failed: Connection refused")
    told = explain(name, "Connection refused", "127.0.0.1:1", SASL)
    assert told == "check kafka.bootstrap_servers and that the broker is up"


def test_a_host_named_for_alerts_is_no_refusal() -> None:
    """What is looked for are TLS's own words."""
    assert not is_refusal("_TRANSPORT", "Connect to alert-kafka:9092 failed: Connection refused")


def test_a_token_that_nobody_fetches_is_told() -> None:
    """The client only says that it has no connection."""
    given = {"security.protocol": "sasl_ssl", "sasl.mechanism": "OAUTHBEARER"}
    assert "sasl.oauthbearer.*" in explain("_TRANSPORT", "", "127.0.0.1:1", given)
    given["sasl.oauthbearer.method"] = "oidc"
    assert "sasl.oauthbearer.*" not in explain("_TRANSPORT", "", "127.0.0.1:1", given)


@pytest.mark.parametrize("servers", ["", "nonsense", "127.0.0.1:1", "127.0.0.1:x,127.0.0.1:1"])
def test_servers_that_are_none_are_looked_at_in_vain(servers: str) -> None:
    """Looking closer at a failure must not fail."""
    assert peer_kind(servers) == "unreachable"
    assert why_not_verified(servers, {}) is None
    assert why_not_verified(servers, {"ssl.ca.location": "/nowhere"}) is None


@pytest.mark.parametrize("protocol", ["ssl", "sasl_ssl"])
def test_a_server_that_hangs_up_speaks_no_tls(protocol: str) -> None:
    """As a plain listener does; the client says no more than that, when the other was quick."""

    def hang_up() -> None:
        for _ in range(2):
            server.accept()[0].close()

    said = "SSL connection closed by peer (after 1ms in state SSL_HANDSHAKE)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        threading.Thread(target=hang_up, daemon=True).start()
        servers = f"127.0.0.1:{server.getsockname()[1]}"
        assert peer_kind(servers) == "no_tls"
        told = explain("_TRANSPORT", said, servers, {"security.protocol": protocol})
    assert "speaks no TLS at this address: set kafka.security_protocol" in told


def test_a_server_that_refuses_the_handshake_speaks_tls() -> None:
    """An alert is TLS too: fatal, handshake_failure (RFC 8446, 6)."""

    def refuse() -> None:
        with server.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(bytes([21, 3, 3, 0, 2, 2, 40]))

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        threading.Thread(target=refuse, daemon=True).start()
        assert peer_kind(f"127.0.0.1:{server.getsockname()[1]}") == "tls"
