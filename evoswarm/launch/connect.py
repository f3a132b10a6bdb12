"""Connects to a Ray cluster, or starts one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError

from evoswarm.backend.ray.private import print_errors_in_one_line, refuses, silence_authentication, use_token
from evoswarm.config.run import RayBackend
from evoswarm.errors import UserError
from evoswarm.launch.signals import sigterm_kept

CONNECT_SECONDS = 5.0
"""How long an address may take to accept a connection."""
TASK_RECORDS = ("RAY_task_events_max_num_task_in_gcs", "5000")
"""How many calls the GCS of a cluster that starts here keeps for the dashboard, 3 kB each. Ray's default is 100,000."""
TOKEN_HINT = "put the cluster's token into RAY_AUTH_TOKEN, the file named by RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


@contextlib.contextmanager
def connected(config: RayBackend, message: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Use the cluster of the config. Leaves it at the end if it was started or joined here.

    Raises:
        UserError: no cluster answers at the address, or it cannot be joined.
    """
    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    message(f"connecting to Ray at {address}" if address else "starting a local Ray cluster")
    silence_authentication()
    if address and address not in ("auto", "local"):
        _answers(address)
        _accepts(address)
    print_errors_in_one_line()
    os.environ.setdefault(*TASK_RECORDS)
    with sigterm_kept():
        try:
            context = ray.init(address=address or "local", log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # Ray raises many kinds, including plain `Exception`
            reason = _reason(error)
            raise UserError(f"Ray at {address or 'this machine'} cannot be used: {reason}") from None
    if url := getattr(context, "dashboard_url", None):
        message(f"Ray dashboard: http://{url}")
    try:
        yield
    finally:
        ray.shutdown()


def _reason(error: BaseException) -> str:
    """Why a cluster cannot be joined, in one line. Ray has no types for two of the reasons."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "Version mismatch" in text:
        return f"{text}; install the cluster's versions of Ray and Python here, or use `evoswarm submit`"
    if isinstance(error, AuthenticationError):
        return f"it {token_problem()}"
    if "Failed to connect" in text:  # address auto: a head of this machine refuses the token
        return f"it {token_problem()}"
    return text


def _answers(address: str) -> None:
    """Check that the port is open. Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    hint = "check backend.address, and that the cluster is up (`ray status`)"
    if not host or not port.isdigit():
        raise UserError(f"backend.address {address!r} is not host:port, ray://host:port or auto; {hint}")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:  # the last two: not a valid port or host name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Ray at {address} does not answer ({reason}); {hint}") from None


def _accepts(address: str) -> None:
    """Use a token if the head wants one. Not otherwise: with a token, this process could not work with its nodes."""
    problem = f"Ray at {address} cannot be used: it "
    try:
        if address.startswith("ray://"):
            return use_token()
        if not refuses(address):
            return
        use_token()
        if refuses(address):
            raise UserError(problem + token_problem())
    except AuthenticationError:
        raise UserError(problem + token_problem()) from None


def token_problem() -> str:
    """What is wrong with the token, in a phrase that continues "the cluster at X ..."."""
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        return f"needs a token, but RAY_AUTH_MODE={mode} sends none; unset it and {TOKEN_HINT}"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return f"does not accept the token in RAY_AUTH_TOKEN; {TOKEN_HINT}"
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        if not _has_text(Path(path)):
            return f"needs a token, but the file {path} (RAY_AUTH_TOKEN_PATH) is missing or empty; {TOKEN_HINT}"
        return f"does not accept the token in {path} (RAY_AUTH_TOKEN_PATH); {TOKEN_HINT}"
    if not _has_text(Path("~/.ray/auth_token").expanduser()):
        return f"needs a token, but none was sent; {TOKEN_HINT}"
    return f"does not accept the token in ~/.ray/auth_token; {TOKEN_HINT}"


def _has_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return False
