"""Settings of every utility that asks a service."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from evoswarm.errors import UserError, not_installed
from evoswarm.section import MAY_CHANGE, NonNegative, Positive, Rate, Section
from evoswarm.utility.config import Grading, Task


def _template(text: str) -> str:
    if not Template(text).is_valid():
        raise ValueError(f"{text!r} has a $ without the name of an environment variable; write a literal $ as $$")
    return text


FromEnvironment = Annotated[str, Field(min_length=1), AfterValidator(_template)]
"""Text in which `$NAME` stands for the value of an environment variable."""


def filled(text: str, *, key: str) -> str:
    """Text with the values of its environment variables. `key` names the setting in messages.

    Raises:
        UserError: a variable is not set.
    """
    for name in Template(text).get_identifiers():
        if not os.environ.get(name):
            raise UserError(
                f"{key} needs the environment variable {name}, which is not set in the process that grades answers; "
                "export it before the run (and the Ray cluster) starts"
            )
    return Template(text).substitute(os.environ)


def filled_url(text: str, *, key: str) -> str:
    """The URL of a service, with the values of its environment variables.

    Raises:
        UserError: a variable is not set, or it is no URL.
    """
    url = filled(text, key=key)
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{key} {text} must start with http:// or https://")
    return url


class Prices(Section):
    """What a service costs, in any currency."""

    input: NonNegative = 0.0
    """Per million tokens of prompts."""
    output: NonNegative = 0.0
    """Per million generated tokens."""
    request: NonNegative = 0.0
    """Per request."""


class Budget(Section):
    """What a run may spend at a service, over all its sessions. If it is spent, the run stops and can be resumed."""

    requests: int | None = Field(None, ge=1)
    """Most requests, repeated ones included."""
    tokens: int | None = Field(None, ge=1)
    """Most tokens that the service reports, of prompts and answers."""
    money: Positive | None = None
    """Most money, in the currency of `prices`."""


class Limits(Section):
    """How a service is used, for the whole run."""

    concurrency: int = Field(16, ge=1)
    """Requests at the same time."""
    requests_per_minute: Positive | None = None
    """Requests are sent at this pace at most; null: as fast as `concurrency` allows."""
    timeout: Positive = 60.0
    """Seconds until a request without a complete answer counts as failed."""
    retries: int = Field(6, ge=0)
    """How often a request is repeated that timed out, was answered by 408, 409, 425, 429 or 5xx, or not in JSON. Waits
    between them double, from 1 to 60 seconds."""
    longest_wait: NonNegative = 600.0
    """If the service says how long to wait (Retry-After), requests wait up to this many seconds in all, without a
    repetition being counted. If it asks for more, the run stops and can be resumed later."""
    budget: Budget = Budget()
    """What the run may spend."""


class ServiceTask(Task):
    """The settings of every utility that asks a service about answers."""

    grading: ClassVar[Grading | None] = "service"
    packages: ClassVar[tuple[str, ...]] = ("httpx2",)
    """What has to be installed, all in the extra `judge`."""
    empty_score: Rate | None = None
    """Score of an empty answer, which is then not sent; null: send it."""
    limits: Annotated[Limits, MAY_CHANGE] = Limits()
    """How the service is used."""

    def check(self, root: Path) -> None:
        """See `UtilityConfig.check`."""
        for package in self.packages:
            if find_spec(package) is None:
                raise not_installed(f"utility.type: {self.type}", package, extra="judge")
