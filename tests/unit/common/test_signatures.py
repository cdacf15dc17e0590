"""An adapter's signature: what is refused, and what is said of it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from worker.common.signatures import (
    BadKey,
    check_signature,
    key_id,
    read_private_key,
    read_public_key,
    sign,
    signature_path,
)
from worker.contract import AdapterRefused

DIGEST = "ab" * 32
STATEMENT = {"digest": DIGEST, "gate": "passed", "by": "Ärger & Söhne"}
# Of fixed bytes, so that the parameters are the same in every process.
OURS, THEIRS = (Ed25519PrivateKey.from_private_bytes(bytes([at]) * 32) for at in (1, 2))
PUBLIC = [OURS.public_key()]


def _changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    envelope = json.loads(sign(STATEMENT, OURS))
    change(envelope)
    return json.dumps(envelope).encode()


def _payload(statement: object) -> str:
    return b64encode(json.dumps(statement).encode()).decode()


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        (None, "unsigned; publish it with --sign-key"),
        (b"", "is not a signature"),
        (b"[]", "is not a signature"),
        (b'{"payload": "e30=", "signatures": [1]}', "is not a signature"),
        (_changed(lambda each: each["signatures"].clear()), "none of adapters.public_keys"),
        (sign(STATEMENT, THEIRS), f"signed with the key {key_id(THEIRS.public_key())}, which"),
        (_changed(lambda each: each.update(payload=_payload({"digest": DIGEST}))), "was altered"),
        (_changed(lambda each: each["signatures"][0].update(sig="AAAA")), "was altered"),
        (sign({**STATEMENT, "digest": "cd" * 32}, OURS), "but of another adapter"),
        (sign([DIGEST], OURS), "but of another adapter"),  # type: ignore[arg-type]
    ],
)
def test_what_is_refused(envelope: bytes | None, said: str, tmp_path: Path) -> None:
    adapter = tmp_path / DIGEST
    if envelope is not None:
        signature_path(adapter).write_bytes(envelope)
    with pytest.raises(AdapterRefused, match=said):
        check_signature(adapter, DIGEST, PUBLIC)


def test_either_key_of_a_rotation_is_accepted(tmp_path: Path) -> None:
    for key in (OURS, THEIRS):
        signature_path(tmp_path / DIGEST).write_bytes(sign(STATEMENT, key))
        both = [OURS.public_key(), THEIRS.public_key()]
        assert check_signature(tmp_path / DIGEST, DIGEST, both) == STATEMENT


def test_keys_come_from_files_of_openssl(tmp_path: Path) -> None:
    def private(key: Any, *password: bytes) -> bytes:
        scheme = pem.BestAvailableEncryption(*password) if password else pem.NoEncryption()
        written = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, scheme)
        assert isinstance(written, bytes)
        return written

    file = tmp_path / "key.pem"
    file.write_bytes(private(OURS))
    assert key_id(read_private_key(file).public_key()) == key_id(PUBLIC[0])
    with pytest.raises(BadKey, match=r"key.pem: is not such a key in PEM: openssl pkey"):
        read_public_key(file)
    for content, said in (
        (private(OURS, b"secret"), "is protected by a password"),
        (private(ec.generate_private_key(ec.SECP256R1())), "is not a key for Ed25519"),
        (b"", "is not such a key in PEM: openssl genpkey"),
    ):
        file.write_bytes(content)
        with pytest.raises(BadKey, match=said):
            read_private_key(file)
    form = pem.PublicFormat.SubjectPublicKeyInfo
    file.write_bytes(PUBLIC[0].public_bytes(pem.Encoding.PEM, form))
    assert key_id(read_public_key(file)) == key_id(PUBLIC[0])
    with pytest.raises(BadKey, match="none: cannot be read: No such file"):
        read_public_key(tmp_path / "none")
