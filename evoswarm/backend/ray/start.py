"""How an actor reports that it has started, or why it could not: as a value, which survives the way to the driver."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from evoswarm.backend.pieces import describe
from evoswarm.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Start:
    """The outcome of a start.

    Attributes:
        error: why the actor cannot be used; None if it can.
        by_user: `error` is the text of a UserError.
        notices: what the user should know about an actor that has started.
        mode: of its engine, see `EngineConfig.mode`.
    """

    error: str | None = None
    by_user: bool = False
    notices: tuple[str, ...] = ()
    mode: str | None = None


def attempt(build: Callable[[], T]) -> tuple[T | None, Start]:
    """Build what an actor needs; a failure is a value, because Ray passes errors of a constructor on as text only."""
    try:
        return build(), Start()
    except UserError as error:
        return None, Start(str(error), by_user=True)
    except Exception as error:  # of any kind: engines and users' functions raise anything
        traceback.print_exc()  # into the actor's log
        return None, Start(describe(error))


def built(value: T | None) -> T:
    """What `attempt` built.

    An actor that fails to start again and receives work before anybody has asked `ready` exits: the work fails as
    lost, Ray restarts the actor, and `ready` then reports why it cannot be used.
    """
    if value is None:
        os._exit(1)
    return value
