"""From the client's words for a connection that fails to what is wrong and how to mend it.

The words are librdkafka's and OpenSSL's; ``tests/ports/security`` holds them to real
brokers. What is not known here is passed on as it is.
"""

from __future__ import annotations

import re

from worker.stream.kafka_promises import Properties
from worker.stream.tls_probe import peer_kind, why_not_verified

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
    """Tell whether an error means that the broker or we refuse the other, and not that nobody
    answers: trying on does not mend it."""
    return (
        name in {"_AUTHENTICATION", "_SSL"}
        or "SSL alert number" in said
        or "certificate verify" in said
    )


def explain(name: str, said: str, servers: str, properties: Properties) -> str:
    """Return what is wrong and how to mend it, of an error's name and words.

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
