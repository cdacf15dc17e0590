"""What a decision looks like on its way to a web address, and by what its receiver knows it."""

from __future__ import annotations

import base64
import hashlib
import hmac

from desk.errors import SettingsError

EVENT = "decision.published"
_PREFIX = "whsec_"


def read_key(secret: str) -> bytes:
    """Return the key of a secret: the base64 after ``whsec_``, else its UTF-8. Raises
    SettingsError for one that anybody could guess."""
    try:
        key = (
            base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
            if secret.startswith(_PREFIX)
            else secret.encode()
        )
    except ValueError:
        raise SettingsError(f"webhook.secret: what follows {_PREFIX} is not base64") from None
    if len(key) < 16:
        raise SettingsError("webhook.secret has fewer than 16 bytes: anybody could guess it")
    return key


def body(correction: bytes) -> bytes:
    """Return the request's body about a correction (the JSON of its record)."""
    return b'{"type":"' + EVENT.encode() + b'","data":' + correction + b"}"


def headers(key: bytes, delivery_id: str, sent_s: int, content: bytes) -> dict[str, str]:
    """Return the request's headers: id, time (Unix seconds) and signature, by
    https://www.standardwebhooks.com (HMAC-SHA256 over "id.time.body")."""
    signed = f"{delivery_id}.{sent_s}.".encode() + content
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode("ascii")
    return {
        "Content-Type": "application/json",
        "Webhook-Id": delivery_id,
        "Webhook-Timestamp": str(sent_s),
        "Webhook-Signature": f"v1,{signature}",
    }
