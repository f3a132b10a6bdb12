"""Every use of Ray's private API. The public calls for these facts need the dashboard."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import grpc
import ray
import ray._private.worker
import requests
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import WORKER_CRASH_PUSH_ERROR, WORKER_DIED_PUSH_ERROR
from ray._private.state import available_resources_per_node, state
from ray.core.generated.common_pb2 import ErrorType
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.job_submission import JobSubmissionClient

ANSWER_SECONDS = 10.0
"""How long a head may take to answer a question about itself."""


def actors_of_job(job: str) -> list[dict[str, Any]]:
    """Ray's entries on the actors of a Ray job, with Name, State and NumRestarts."""
    return list(state.actor_table(None, ray.JobID(bytes.fromhex(job))).values())


def is_worker() -> bool:
    """Whether this process is a worker of a Ray cluster, not its driver."""
    return bool(ray._private.worker.global_worker.mode == ray._private.worker.WORKER_MODE)


def free_resources() -> dict[str, dict[str, float]]:
    """Free resources of each node, by node id."""
    free: dict[str, dict[str, float]] = available_resources_per_node()
    return free


def silence_authentication() -> None:
    """Do not announce that token authentication is on: the user asked for it."""
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)


def use_token() -> None:
    """Send the token of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, unless RAY_AUTH_MODE says otherwise.

    By itself, Ray looks for a token only when it starts a cluster or joins one on this machine.

    Raises:
        AuthenticationError: RAY_AUTH_TOKEN_PATH names no file with a token.
    """
    silence_authentication()
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def refuses(address: str) -> bool:
    """Whether the head at host:port refuses this process's token, or wants one. `ray.init` would not say so."""
    with init_grpc_channel(address) as channel:
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


_OF_LOST_WORKERS = {WORKER_CRASH_PUSH_ERROR, WORKER_DIED_PUSH_ERROR, *ErrorType.keys()}
"""Types of published errors: a process has died, or why Ray repeats a call."""
_listen = ray._private.worker.listen_error_messages


class _Errors:
    """The errors that Ray publishes for drivers to print: one line each, and none about lost workers."""

    def __init__(self, subscriber: Any) -> None:
        self._subscriber = subscriber
        self.subscribe, self.close = subscriber.subscribe, subscriber.close

    def poll(self) -> tuple[Any, dict[str, Any] | None]:
        """The next error, or None."""
        key, error = self._subscriber.poll()
        if error is None or error["type"] in _OF_LOST_WORKERS:
            return key, None
        return key, error | {"error_message": error["error_message"].strip().partition("\n")[0]}


def print_errors_in_one_line() -> None:
    """From the next `ray.init` on. The run itself reports the actors that it has lost."""

    def listen(worker: Any, stopped: threading.Event) -> None:
        worker.gcs_error_subscriber = _Errors(worker.gcs_error_subscriber)
        _listen(worker, stopped)

    ray._private.worker.listen_error_messages = listen


def submission_id() -> str | None:
    """The id under which this driver was submitted as a job; None if it was not."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    found: str | None = (config.get("metadata") or {}).get("job_submission_id")
    return found


def log_folder() -> Path | None:
    """The folder of this node's logs, which the dashboard serves; None if this process is not on a node."""
    node = ray._private.worker._global_node
    return Path(node.get_logs_dir_path()) if node is not None else None


def get(client: JobSubmissionClient, path: str, **query: Any) -> requests.Response:
    """The dashboard's answer to a GET request, with the client's token and certificates."""
    answer: requests.Response = client._do_request("GET", path, params=query)
    return answer
