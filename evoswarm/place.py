"""Where things lie: a path, or a URL of storage."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator

from evoswarm.errors import UserError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")


def is_url(text: str) -> bool:
    """Whether `text` names storage rather than a folder; `file://` is a folder."""
    return bool(_URL.match(text)) and not text.startswith("file://")


def check_url(url: str) -> str:
    """The URL without a slash at its end.

    Raises:
        UserError: it holds credentials, or names no place. (It is not repeated where it may hold a secret.)
    """
    scheme, _, rest = url.partition("://")
    if "@" in rest or "?" in rest:
        raise UserError(
            f"{scheme}://...: credentials and options do not belong into a URL, which is written down with the run; "
            "set them in the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, ...)"
        )
    if not rest.strip("/"):
        raise UserError(f"{url}: names no bucket; give for example s3://bucket/runs")
    return url.rstrip("/")


def _place(value: Any) -> Path | str:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError("input is not a valid path")
    return value if is_url(value) else Path(value.removeprefix("file://"))


Place = Annotated[Path | str, PlainValidator(_place, json_schema_input_type=str)]
"""A path; or a URL, which stays a string."""


def cache_folder() -> Path:
    """Where this node keeps copies of what lies at URLs: EVOSWARM_CACHE, else ~/.cache/evoswarm."""
    return Path(os.environ.get("EVOSWARM_CACHE") or "~/.cache/evoswarm").expanduser().absolute()


def working_folder(url: str) -> Path:
    """The folder of this node in which the run at a URL works."""
    return cache_folder() / "runs" / hashlib.sha256(url.encode()).hexdigest()[:16] / url.rpartition("/")[2]
