"""Workers on a Kafka with TLS and client certificates: a correct setup works, a wrong one is
explained.

Real broker. The workers' output is searched for secrets and messages.
"""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.support.secure_broker import SecureBroker
from tests.support.secure_desk import PAGE, WRONG_PASSWORD, Desk, Refused, mostly_long, ways


@pytest.mark.parametrize("way", ["tls", "mutual tls"])
def test_a_worker_labels_with_each_login(desk: Desk, way: str) -> None:
    """With only the rights that the page lists."""
    desk.label_by(way, "exactly_once")


def test_the_documented_settings_were_the_tested_ones(kafka: SecureBroker) -> None:
    """The same keys, and the same values except addresses, paths and names."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## TLS and logins\n")[2]
    blocks = re.findall(r"```toml\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    written = [tomllib.loads(block)["kafka"] for block in blocks]
    for given, way in zip(written, ("tls", "mutual tls", "scram", "token"), strict=True):
        run = ways(kafka)[way]
        assert given.keys() == {name for name in run if not name.endswith("password")}
        for name in ("security_protocol", "sasl_mechanism"):
            assert given.get(name) == run.get(name)


def wrong(kafka: SecureBroker) -> dict[str, Refused]:
    at, good = kafka.address_of, ways(kafka)
    mutual, tls = good["mutual tls"], good["tls"]
    expired = {
        **mutual,
        "ssl_certificate_location": str(kafka.expired_client.certificate),
        "ssl_key_location": str(kafka.expired_client.key),
    }
    return {
        "an unknown authority": Refused(
            {**tls, "ssl_ca_location": str(kafka.other_ca.certificate)},
            4, at("TLS"), "unknown authority: set kafka.ssl_ca_location",
        ),
        "another host's certificate": Refused(
            {**tls, "bootstrap_servers": at("RENAMED")},
            4, at("RENAMED"), "for another host: connect by a name in it (kafka.bootstrap",
        ),
        "an expired certificate": Refused(
            {**tls, "bootstrap_servers": at("EXPIRED")},
            4, at("EXPIRED"), "the broker's certificate has expired",
        ),
        "no client certificate": Refused(
            {**tls, "bootstrap_servers": at("MTLS")},
            4, at("MTLS"), "demands a client certificate: set kafka.ssl_certificate_location",
        ),
        "an expired client certificate": Refused(
            expired, 4, at("MTLS"), "check kafka.ssl_certificate_location",
        ),
        "a wrong key password": Refused(
            {**mutual, "ssl_key_password": WRONG_PASSWORD},
            2, "kafka.ssl_key", "kafka.ssl_key_password is wrong or missing",
        ),
        "plaintext to a TLS port": Refused(
            {"bootstrap_servers": at("TLS")},
            4, at("TLS"), "speaks TLS and kafka.security_protocol is plaintext",
        ),
        "TLS to a plaintext port": Refused(
            {**tls, "bootstrap_servers": kafka.servers},
            4, kafka.servers, "does not speak TLS at this address: set kafka.security_protocol",
        ),
    }  # fmt: skip


_OFTEN = {"an unknown authority", "no client certificate"}
_WRONG = (
    "an unknown authority", "another host's certificate", "an expired certificate",
    "no client certificate", "an expired client certificate", "a wrong key password",
    "plaintext to a TLS port", "TLS to a plaintext port",
)  # fmt: skip


@pytest.mark.parametrize("what", mostly_long(_WRONG, _OFTEN))
def test_a_wrong_login_is_explained(desk: Desk, what: str) -> None:
    """Before the model is loaded, in a bounded time, in one line with the address and the fix."""
    cases = wrong(desk.kafka)
    assert set(cases) == set(_WRONG)
    desk.assert_explained(cases[what], soon=what not in _OFTEN)
