"""A certificate authority of a test's own, and the certificates that it signs, as PEM files."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """A certificate with its private key, each in a file, and both in one as Kafka reads them."""

    certificate: Path
    key: Path
    both: Path


class CertificateAuthority:
    """Signs certificates for names and addresses; its own certificate is ``certificate``."""

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
        """Make a key and a certificate, for a host where there is an ``address`` (a name or an
        IP). ``expired``: since an hour; ``password``: of the key's own file."""
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
