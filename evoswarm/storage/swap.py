"""Conditional writes: S3, Google and Azure replace a file only if it is still the one that the writer has read."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any

from evoswarm.storage.remote import other_s3_server

PROTOCOLS = ("s3", "gs", "gcs", "az", "abfs", "abfss")
_OPTIONS: Any = {"allow_http": True, "connect_timeout": "3s", "timeout": "10s"}
_RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}


def swap(url: str, name: str, data: bytes, *, expected: bytes | None) -> bool | None:
    """Write a small file below `url` if it still holds `expected` (None: if it does not exist). Atomic.

    Returns:
        Whether it was written; None if this storage, or these credentials, cannot be used for conditional writes.
    """
    from obstore import exceptions

    try:
        store = _store(url)
        if expected is None:
            store.put(name, data, mode="create")
            return True
        found = store.get(name)
        if bytes(found.bytes()) != expected:
            return False
        version = {key: found.meta[key] for key in ("e_tag", "version") if found.meta.get(key)}
        store.put(name, data, mode=version)
        return True
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        return False
    except FileNotFoundError:
        return None if expected is None else False  # None: there is no such bucket
    except (exceptions.BaseError, ValueError, OSError):
        return None


@cache
def _store(url: str) -> Any:
    from obstore.store import from_url

    protocol, _, path = url.partition("://")
    if protocol not in PROTOCOLS:
        raise ValueError(f"{protocol} has no conditional writes")
    url = f"{'gs' if protocol == 'gcs' else protocol}://{path}"
    config: Any = other_s3_server() if protocol == "s3" else None
    return from_url(url, config=config, client_options=_OPTIONS, retry_config=_RETRIES)
