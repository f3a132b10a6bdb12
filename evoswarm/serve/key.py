"""The key that clients of a server must send."""

from __future__ import annotations

import hmac
import os


def key_in(variable: str) -> str:
    """The key that an environment variable holds; "" if it has none. A secret made from a file ends in a line end."""
    return os.environ.get(variable, "").strip()


def has_key(authorization: bytes, key: str) -> bool:
    """Whether a header `Authorization: Bearer KEY` has the key."""
    scheme, _, given = authorization.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), key.encode())
