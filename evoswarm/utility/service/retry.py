"""What a response means: an answer, something to try again, or an error."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

AGAIN = {408, 409, 425, 429}
"""Statuses below 500 after which the same request can succeed."""
STOP = {
    401: "the key is wrong or missing; set its environment variable",
    402: "the account has to be paid",
    404: "correct the URL or the model in the config",
    407: "the proxy needs a login",
}
"""Statuses that every other request would get too, and what to do."""
LONGEST_BACKOFF = 60.0


class Trouble(NamedTuple):
    """Why a request has no answer yet.

    Attributes:
        reason: what the service did, to follow its URL in a sentence.
        wait: the seconds that it asked to wait; 0: it did not.
        everyone: whether every other request would fare the same.
    """

    reason: str
    wait: float = 0.0
    everyone: bool = False


def backoff(failures: int) -> float:
    """Seconds to wait after this many failures, with up to 25 % taken off at random so that requests spread out."""
    return min(LONGEST_BACKOFF, 2.0 ** (failures - 1)) * random.uniform(0.75, 1)  # nosec B311  not for security


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds of the header Retry-After, a number or a date (RFC 9110, 10.2.3); 0 without a valid one."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text, headers.get("date", ""))
    return max(1.0, seconds) if 0 < seconds < math.inf else 0.0


def _until(date: str, now: str) -> float:
    """Seconds to a date by the service's own clock, which its responses show (RFC 9110, 6.6.1)."""
    try:
        return (_utc(date) - _utc(now)).total_seconds()
    except ValueError:
        return 0.0


def _utc(date: str) -> datetime:
    when = parsedate_to_datetime(date)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def said(status: str, body: Any, text: str) -> str:
    """One line for an error: the status, and what the service says about it, which may be JSON."""
    message = _message(body) if body is not None else text
    line = " ".join(message.split())[:300]
    return status + (f": {line}" if line else "")


def _message(body: Any) -> str:
    """The text of an error in JSON: of its `error`, `message` or `detail`; else all of it."""
    for key in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(key):
            return _message(body[key])
    return str(body)
