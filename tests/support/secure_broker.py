"""Apache Kafka on loopback with TLS, client certificates, passwords and rights, for tests.

One broker with a listener for each kind of login. The plain listener belongs to its super user, who
creates topics, users and rights; everybody else has only the rights they were given.
"""

from __future__ import annotations

import ipaddress
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from worker.demo.broker import LocalBroker
from worker.demo.kafka_files import HOST, PropertyValue, free_port

# A test's own certificate authority and the certificates it signs, as PEM files.


_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """A certificate and its private key, as files and in one file as Kafka reads them."""

    certificate: Path
    key: Path
    both: Path


class CertificateAuthority:
    """Signs certificates for names and addresses."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        self._own = (
            _builder(self._name, self._key, now - _DAY, now + _DAY)
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = folder / f"{name}.pem"
        self.certificate.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def sign(
        self,
        common_name: str,
        *,
        address: str | None = None,
        expired: bool = False,
        password: str | None = None,
    ) -> SignedCertificate:
        """Make a key and a certificate, for a host if there is an ``address`` (a name or an IP).
        ``expired``: an hour ago; ``password``: of the key's file."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        end = now - timedelta(hours=1) if expired else now + _DAY
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = _builder(name, key, now - _DAY, end).issuer_name(self._name)
        if address is not None:
            known_as = x509.SubjectAlternativeName([_general_name(address)])
            builder = builder.add_extension(known_as, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        made = SignedCertificate(
            *(self._folder / f"{common_name}.{kind}.pem" for kind in ("crt", "key", "both"))
        )
        made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(_key_pem(key, password))
        made.both.write_bytes(_key_pem(key, None) + made.certificate.read_bytes())
        return made


def _builder(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _key_pem(key: ec.EllipticCurvePrivateKey, password: str | None) -> bytes:
    hidden: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        hidden = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)


PLAIN_PASSWORD = "planted-plain-password"
SCRAM_PASSWORD = "planted-scram-password"
KEY_PASSWORD = "planted-key-password"

LISTENERS = {
    "TLS": "SSL",
    "MTLS": "SSL",
    "SASL": "SASL_SSL",
    "EXPIRED": "SSL",  # its certificate is
    "RENAMED": "SSL",  # its certificate is another host's
}
_ANY: Any = None  # which the client's types do not allow
_JAAS = "org.apache.kafka.common.security"

_COORDINATOR_S = 30.0
_NOT_YET = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}

Right = tuple[str, str, str]
"""Kind of resource, its name (a final * matches every name that begins so), and the operation."""


@dataclass(frozen=True, slots=True)
class SecureBroker:
    """The running broker, and what its clients need."""

    broker: LocalBroker
    ports: Mapping[str, int]
    """By listener."""
    ca: CertificateAuthority
    other_ca: CertificateAuthority
    client: SignedCertificate
    expired_client: SignedCertificate
    admin: AdminClient

    @property
    def servers(self) -> str:
        """The address for the super user."""
        return self.broker.bootstrap_servers

    def address_of(self, listener: str) -> str:
        """The address of a listener, as the broker is known by it."""
        return f"{self.servers.rpartition(':')[0]}:{self.ports[listener]}"

    def create_topics(self, names: Iterable[str]) -> None:
        new = [NewTopic(name, 1, 1) for name in names]
        for future in self.admin.create_topics(new).values():
            future.result(30)

    def allow(self, principal: str, rights: Iterable[Right]) -> None:
        """Give rights to a principal (``User:CN=clerk``)."""
        for future in self.admin.create_acls(
            [AclBinding(*_parts(principal, r)) for r in rights]
        ).values():
            future.result(30)

    def forbid(self, principal: str) -> None:
        """Remove every right of a principal."""
        whose = AclBindingFilter(
            ResourceType.ANY, _ANY, ResourcePatternType.ANY, principal, _ANY,
            AclOperation.ANY, AclPermissionType.ANY,
        )  # fmt: skip
        self._delete(whose)

    def take_away(self, principal: str, right: Right) -> None:
        """Remove one right of a principal and keep the others."""
        self._delete(AclBindingFilter(*_parts(principal, right)))

    def _delete(self, whose: AclBindingFilter) -> None:
        for future in self.admin.delete_acls([whose]).values():
            future.result(30)

    def add_scram_user(self, name: str, password: str) -> None:
        made = UserScramCredentialUpsertion(
            name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), password.encode()
        )
        for future in self.admin.alter_user_scram_credentials([made]).values():
            future.result(30)


@contextmanager
def secure_broker(folder: Path, host: str = HOST) -> Iterator[SecureBroker]:
    """Start a broker with its certificates in ``folder`` and the SASL users plain-clerk and
    scram-clerk. It listens on ``host`` and is known by it."""
    ca = CertificateAuthority(folder, "planted-ca")
    other_ca = CertificateAuthority(folder, "other-ca")
    keys = {
        "TLS": ca.sign("kafka", address=host),
        "EXPIRED": ca.sign("kafka-expired", address=host, expired=True),
        "RENAMED": ca.sign("kafka-renamed", address="kafka.elsewhere.example"),
    }
    properties: dict[str, PropertyValue] = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    for name in LISTENERS:
        place = f"listener.name.{name.lower()}"
        properties |= {
            f"{place}.ssl.keystore.type": "PEM",
            f"{place}.ssl.keystore.location": str(keys.get(name, keys["TLS"]).both),
            f"{place}.ssl.truststore.type": "PEM",
            f"{place}.ssl.truststore.location": str(ca.certificate),
            f"{place}.ssl.client.auth": "required" if name == "MTLS" else "none",
        }
    properties |= {
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.sasl.plain.sasl.jaas.config": (
            f'{_JAAS}.plain.PlainLoginModule required user_plain-clerk="{PLAIN_PASSWORD}";'
        ),
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": (
            f"{_JAAS}.scram.ScramLoginModule required;"
        ),
        # Accepts tokens without a signature (tests/support/unsigned_token.py); only for tests.
        "listener.name.sasl.oauthbearer.sasl.jaas.config": (
            f"{_JAAS}.oauthbearer.OAuthBearerLoginModule required;"
        ),
    }
    client = ca.sign("clerk", password=KEY_PASSWORD)
    expired_client = ca.sign("clerk-expired", expired=True)
    ports: dict[str, int] = {}
    for name in LISTENERS:
        ports[name] = free_port(*ports.values(), host=host)
    listeners = {name: (ports[name], protocol) for name, protocol in LISTENERS.items()}
    client_port = free_port(*ports.values(), host=host)
    with LocalBroker(
        port=client_port, host=host, properties=properties, listeners=listeners
    ) as broker:
        quiet: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers, "log_level": 0}
        running = SecureBroker(
            broker, ports, ca, other_ca, client, expired_client, AdminClient(quiet)
        )
        running.add_scram_user("scram-clerk", SCRAM_PASSWORD)
        _await_coordinator(running.admin)
        yield running


def _await_coordinator(admin: AdminClient) -> None:
    """Wait until the broker answers for groups: the topic of their offsets is created on first
    use, and until it is loaded nobody learns their rights on a group."""
    until = time.monotonic() + _COORDINATOR_S
    while True:
        try:
            admin.describe_consumer_groups(["nobody"])["nobody"].result(_COORDINATOR_S)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.GROUP_ID_NOT_FOUND:
                return
            if code not in _NOT_YET or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def fresh_topics() -> dict[str, str]:
    run = f"secure.{uuid.uuid4().hex[:8]}"
    return {name: f"{run}.{name}" for name in ("in", "out", "review", "dead")}


def _parts(principal: str, right: Right) -> tuple[Any, ...]:
    """The parts of an ACL, in the order of the client's classes."""
    kind, name, operation = right
    begins = name.endswith("*")
    return (
        ResourceType[kind],
        name.removesuffix("*"),
        ResourcePatternType.PREFIXED if begins else ResourcePatternType.LITERAL,
        principal,
        "*",
        AclOperation[operation],
        AclPermissionType.ALLOW,
    )
