"""Signatures of adapters: who published one, of what, and by which verdict of the gate.

``STORE/<digest>.signature.json`` is detached, in the envelope of DSSE 1.0.2
(github.com/secure-systems-lab/dsse): a statement that names the manifest's digest, and so every
file of the adapter, with Ed25519 signatures (RFC 8032).
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.contract import AdapterRefused
from worker.contract.digest import canonical_json, sha256_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PAYLOAD_TYPE = "application/vnd.filing-clerk.adapter+json"


class BadKey(Exception):
    """A file is not the key that is needed; the text says what, and how to make one."""


def signature_path(adapter: Path) -> Path:
    """Return the path of an adapter's signature, beside its directory."""
    return adapter.with_name(f"{adapter.name}.signature.json")


def sign(statement: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
    """Return an envelope with a statement and its signature."""
    payload = canonical_json(statement)
    signature = {
        "keyid": key_id(key.public_key()),
        "sig": b64encode(key.sign(_authenticated(payload))).decode(),
    }
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": b64encode(payload).decode(),
        "signatures": [signature],
    }
    return json.dumps(envelope, indent=1).encode() + b"\n"


def check_signature(
    adapter: Path, digest: str, keys: Sequence[Ed25519PublicKey]
) -> Mapping[str, Any]:
    """Return the statement that one of ``keys`` signed for the adapter with this digest. Raises
    AdapterRefused, which says whether it is unsigned, altered, or signed by another."""
    from cryptography.exceptions import InvalidSignature

    path = signature_path(adapter)
    try:
        envelope = json.loads(path.read_bytes())
        payload = b64decode(envelope["payload"], validate=True)
        signatures = {each["keyid"]: b64decode(each["sig"]) for each in envelope["signatures"]}
    except FileNotFoundError:
        raise AdapterRefused(
            path, "missing: the adapter is unsigned; publish it with --sign-key"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterRefused(path, f"is not a signature: {type(error).__name__}") from None
    known = {key_id(key): key for key in keys}
    ours = [name for name in signatures if name in known]
    if not ours:
        raise AdapterRefused(
            path,
            f"signed with the key {', '.join(map(str, signatures))}, which is none of "
            f"adapters.public_keys ({', '.join(known)})",
        )
    try:
        known[ours[0]].verify(signatures[ours[0]], _authenticated(payload))
        statement = json.loads(payload)
    except (InvalidSignature, ValueError):
        raise AdapterRefused(path, "was altered: the signature does not fit") from None
    if not isinstance(statement, dict) or statement.get("digest") != digest:
        raise AdapterRefused(path, f"is not of {digest[:12]}…, but of another adapter")
    return statement


def key_id(key: Ed25519PublicKey) -> str:
    """Return the first 16 digits of the SHA-256 of a public key's 32 bytes."""
    return sha256_bytes(key.public_bytes_raw())[:16]


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key (PEM). Raises BadKey."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        key = load_pem_public_key(path.read_bytes())
    except (ImportError, OSError, ValueError) as error:
        raise BadKey(_why(path, error, "openssl pkey -in PRIVATE -pubout -out KEY")) from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadKey(f"{path}: is not a key for Ed25519")
    return key


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key (PEM, without a password). Raises BadKey."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(path.read_bytes(), None)
    except (ImportError, OSError, ValueError, TypeError) as error:
        raise BadKey(_why(path, error, "openssl genpkey -algorithm ed25519 -out KEY")) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{path}: is not a key for Ed25519")
    return key


def _authenticated(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _why(path: Path, error: Exception, made_by: str) -> str:
    if isinstance(error, ImportError):
        return "needs the extra signing: pip install 'filing-clerk[signing]'"
    if isinstance(error, OSError):
        return f"{path}: cannot be read: {error.strerror}"
    if isinstance(error, TypeError):
        return f"{path}: is protected by a password: mount a key without one"
    return f"{path}: is not such a key in PEM: {made_by} makes one"
