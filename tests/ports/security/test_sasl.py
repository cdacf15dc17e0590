"""Workers on a Kafka with passwords: a correct login works, a wrong one is explained.

Real broker. The workers' output is searched for secrets and messages.
"""

from __future__ import annotations

import pytest

from tests.support.secure_broker import SecureBroker
from tests.support.secure_desk import WRONG_PASSWORD, Desk, Refused, mostly_long, ways


@pytest.mark.parametrize(
    ("way", "delivery"),
    [
        ("plain", "at_least_once"),
        ("scram", "exactly_once"),
        pytest.param("token", "exactly_once", marks=pytest.mark.long),
        pytest.param("scram", "at_least_once", marks=pytest.mark.long),
    ],
)
def test_a_worker_labels_with_each_login(desk: Desk, way: str, delivery: str) -> None:
    """With only the rights that the runbook lists; at least once without transactional ids."""
    desk.label_by(way, delivery)


def wrong(kafka: SecureBroker) -> dict[str, Refused]:
    at, good = kafka.address_of, ways(kafka)
    plain, scram, tls = good["plain"], good["scram"], good["tls"]
    return {
        "a wrong password (PLAIN)": Refused(
            {**plain, "sasl_password": WRONG_PASSWORD},
            4, at("SASL"), "refuses the user 'plain-clerk' (PLAIN): check kafka.sasl_username",
        ),
        "a wrong password (SCRAM)": Refused(
            {**scram, "sasl_password": WRONG_PASSWORD},
            4, at("SASL"), "refuses the user 'scram-clerk' (SCRAM-SHA-512): check kafka.sasl_",
        ),
        "a token that has expired": Refused(
            {**good["token"], "sasl_token_callback": "tests.support.unsigned_token:expired"},
            4, at("SASL"), "refuses the token: check kafka.sasl_token_callback",
        ),
        "a token service that fails": Refused(
            {**good["token"], "sasl_token_callback": "tests.support.unsigned_token:broken"},
            4, at("SASL"), "unsigned_token:broken raised OSError; check kafka.sasl_token_callback",
        ),
        "a mechanism that is not offered": Refused(
            {**scram, "sasl_mechanism": "SCRAM-SHA-256"},
            4, at("SASL"), "set kafka.sasl_mechanism to one that it supports",
        ),
        "no login": Refused(
            {**tls, "bootstrap_servers": at("SASL")},
            4, at("SASL"), "if it demands a login, set kafka.security_protocol to sasl_ssl",
        ),
        "a login where there is none": Refused(
            {**plain, "bootstrap_servers": at("TLS")},
            4, at("TLS"), "does not accept SASL at this address: set kafka.security_protocol",
        ),
    }  # fmt: skip


_OFTEN = {"a wrong password (SCRAM)"}
_WRONG = (
    "a wrong password (PLAIN)", "a wrong password (SCRAM)", "a token that has expired",
    "a token service that fails", "a mechanism that is not offered",
    "no login", "a login where there is none",
)  # fmt: skip


@pytest.mark.parametrize("what", mostly_long(_WRONG, _OFTEN))
def test_a_wrong_login_is_explained(desk: Desk, what: str) -> None:
    """Before the model is loaded, in a bounded time, in one line with the address and the fix."""
    cases = wrong(desk.kafka)
    assert set(cases) == set(_WRONG)
    desk.assert_explained(cases[what], soon=what not in _OFTEN)
