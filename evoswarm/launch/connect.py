"""Connecting to a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import ray
from ray.exceptions import AuthenticationError

from evoswarm.config.run import RayBackend
from evoswarm.errors import UserError
from evoswarm.launch.auth import silent_refusal, token_trouble

CONNECT_SECONDS = 5.0
"""How long an address may take to accept a connection."""


@contextlib.contextmanager
def connected(config: RayBackend, message: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Use the cluster of the config; one that was started or joined here is left again at the end.

    Raises:
        UserError: nothing answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    message(f"connecting to Ray at {address}" if address else "starting a local Ray cluster")
    if address and address not in ("auto", "local"):
        _answers(address)
    # Token authentication is what is wanted; it is no news to the user.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    with _own_sigterm():
        try:
            context = ray.init(address=address or "local", log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # of many kinds, plain `Exception` among them
            reason = _reason(error)
            raise UserError(f"Ray at {address or 'this machine'} cannot be used: {reason}") from None
    if url := getattr(context, "dashboard_url", None):
        message(f"Ray dashboard: http://{url}")
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep who handles SIGTERM: `ray.init` takes it for itself, and would end the run at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _reason(error: BaseException) -> str:
    """Why a cluster cannot be joined, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "Version mismatch" in text:
        return f"{text}; install the cluster's versions of Ray and Python here, or `evoswarm submit` to its dashboard"
    if isinstance(error, AuthenticationError):
        return f"it {token_trouble(text)}"
    if "Failed to connect" in text:  # although something answered at the address
        return f"it {silent_refusal()}"
    return text


def _answers(address: str) -> None:
    """Ray itself waits for minutes where nobody answers."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    hint = "check backend.address, and that the cluster is up (`ray status`)"
    if not host or not port.isdigit():
        raise UserError(f"backend.address {address!r} is not host:port, ray://host:port or auto; {hint}")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:  # the last two: no port or host name of this form exists
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Ray at {address} does not answer ({reason}); {hint}") from None
