"""Runs as jobs of a Ray cluster, through its dashboard. Knows HTTP only: nothing here joins a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from evoswarm.config import RunConfig, dump_config
from evoswarm.config.run import RayBackend
from evoswarm.errors import UserError
from evoswarm.launch.auth import token_trouble
from evoswarm.launch.state import State, state_of_log

STOP_SECONDS = 120
"""How long a run that was asked to stop may take before Ray kills it."""
AGENT_SECONDS = 60
CONFIG_FILE = "config.yaml"
_STATES = {
    JobStatus.PENDING: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.SUCCEEDED: "finished",
    JobStatus.STOPPED: "stopped",
    JobStatus.FAILED: "failed",
}


class Jobs:
    """The jobs of evoswarm on one cluster."""

    def __init__(self, address: str | None = None, *, ca_file: Path | None = None) -> None:
        """
        Args:
            address: `http://HEAD:8265` or `https://...`; None: RAY_API_SERVER_ADDRESS, or RAY_ADDRESS if it is such.
            ca_file: certificates to trust for https, besides the system's.

        Raises:
            UserError: nothing usable is there; or the token is missing or wrong.
        """
        self.address = _dashboard(address)
        if ca_file is not None and not ca_file.is_file():
            raise UserError(f"--ca-file {ca_file}: no such file; give the certificate of the cluster's authority (PEM)")
        for name in ("ray", "ray.dashboard.modules.dashboard_sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)  # what goes wrong is said below, in one line
        with self._explained(), _no_address_but_ours():
            self._client = JobSubmissionClient(self.address, verify=str(ca_file) if ca_file else True)
        self.warnings = self._other_version()

    def submit(self, config: RunConfig, *, resume: str = "auto", python: str = "python") -> str:
        """Start a run as a job; only its config travels.

        Args:
            config: the run; its paths must mean the same on the cluster's nodes.
            resume: "auto", "never" or "must".
            python: the interpreter on the head that has evoswarm.

        Returns:
            The submission id.
        """
        assert isinstance(config.backend, RayBackend)
        # The job's own environment says which cluster it is in.
        config = config.model_copy(update={"backend": config.backend.model_copy(update={"address": None})})
        name = f"{config.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        with tempfile.TemporaryDirectory() as folder, self._explained():
            (Path(folder) / CONFIG_FILE).write_text(dump_config(config), encoding="utf-8")
            environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
            entrypoint = f"exec {shlex.quote(python)} -m evoswarm run {CONFIG_FILE} --resume {resume}"
            submitted = self._submit(
                entrypoint=entrypoint,
                submission_id=name,
                runtime_env={"working_dir": folder, "env_vars": environment},
                metadata={"evoswarm": config.name, "run_dir": config.run_place},
            )
        return submitted

    def _submit(self, **request: Any) -> str:
        """A head that has just started takes a while to have an agent for jobs."""
        deadline = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                return str(self._client.submit_job(**request))
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def state(self, job: str) -> State:
        """How far a job's run is."""
        details = self._details(job)
        with self._explained():
            log = self._client.get_job_logs(job)
        return state_of_log(_STATES[details.status], log)

    def message(self, job: str) -> str:
        """What Ray says about a job, in one line."""
        lines = (self._details(job).message or "").strip().splitlines()
        return lines[0] if lines else ""

    def logs(self, job: str) -> str:
        """Everything that a job has printed so far."""
        self._details(job)
        with self._explained():
            text: str = self._client.get_job_logs(job)
        return text

    def follow(self, job: str) -> Iterator[str]:
        """What a job prints, as it comes, to its end."""
        self._details(job)
        loop = asyncio.new_event_loop()
        lines = self._client.tail_job_logs(job)
        try:
            while True:
                with self._explained():
                    try:
                        text = loop.run_until_complete(anext(lines))
                    except StopAsyncIteration:
                        return
                yield text
        finally:
            loop.run_until_complete(lines.aclose())
            loop.close()

    def stop(self, job: str, *, wait: float = STOP_SECONDS) -> State:
        """Ask a run to stop and wait until it has; what is measured is kept.

        Returns:
            The state; still running where it took longer than `wait` seconds.
        """
        if not self._details(job).status.is_terminal():
            with self._explained():
                self._client.stop_job(job)
        deadline = time.monotonic() + wait
        while not self._details(job).status.is_terminal() and time.monotonic() < deadline:
            time.sleep(0.5)
        return self.state(job)

    def all(self) -> list[dict[str, Any]]:
        """Every job of evoswarm, oldest first: id, name, state, run directory, start and end in seconds since 1970."""
        with self._explained():
            details = self._client.list_jobs()
        ours = [entry for entry in details if entry.submission_id and "evoswarm" in (entry.metadata or {})]
        return [
            {
                "job": entry.submission_id,
                "name": entry.metadata["evoswarm"],
                "state": _STATES[entry.status],
                "run_dir": entry.metadata.get("run_dir"),
                "start": entry.start_time / 1000 if entry.start_time else None,
                "end": entry.end_time / 1000 if entry.end_time else None,
            }
            for entry in sorted(ours, key=lambda entry: entry.start_time or 0)
        ]

    def _details(self, job: str) -> JobDetails:
        with self._explained(job):
            return self._client.get_job_info(job)

    def _other_version(self) -> list[str]:
        with self._explained():
            found = self._client._do_request("GET", "/api/version").json().get("ray_version", "unknown")
        if found == ray.__version__:
            return []
        return [
            f"the head at {self.address} has Ray {found}, this machine {ray.__version__}; the job runs with {found}"
        ]

    @contextlib.contextmanager
    def _explained(self, job: str | None = None) -> Iterator[None]:
        """What goes wrong on the way to the cluster, in one line."""
        where = f"the cluster at {self.address}"
        try:
            yield
        except AuthenticationError as error:
            raise UserError(f"{where} {token_trouble(str(error))}") from None
        except (requests.exceptions.RequestException, ConnectionError, OSError, ValueError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in _reason(error):
                hint = "give its authority's certificate with --ca-file"
                raise UserError(f"{where}: its certificate is not trusted; {hint}") from None
            hint = "check --address: the dashboard's, as `ray start` prints it, for example http://HEAD:8265"
            raise UserError(f"{where} does not answer as Ray does ({_reason(error)}); {hint}") from None
        except RuntimeError as error:
            text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if job is not None and "404" in text:
                raise UserError(f"{where} has no job {job}; `evoswarm list` shows those there are") from None
            if "404" in text:
                raise UserError(f"{where} does not answer as Ray does ({text}); check --address") from None
            raise UserError(f"{where} refused: {text}") from None


@contextlib.contextmanager
def _no_address_but_ours() -> Iterator[None]:
    """Ray prefers the address in the environment to the one that it is given."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _dashboard(address: str | None) -> str:
    found = address or os.environ.get("RAY_API_SERVER_ADDRESS") or ""
    if not found and os.environ.get("RAY_ADDRESS", "").startswith("http"):
        found = os.environ["RAY_ADDRESS"]
    if not found:
        raise UserError("give --address http://HEAD:8265 (the dashboard's), or set RAY_API_SERVER_ADDRESS")
    try:
        parts = urlsplit(found)
    except ValueError as error:
        raise UserError(f"--address {_bare(found)}: {error}; give the dashboard's, as http://HEAD:8265") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.path.strip("/"):
        raise UserError(f"--address {_bare(found)}: give the dashboard's, for example http://HEAD:8265")
    return found.rstrip("/")


def _bare(address: str) -> str:
    """An address without a password that it may hold."""
    return address.rpartition("@")[2]


def _reason(error: BaseException) -> str:
    """The innermost reason of a failed request, short."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return "".join(c for c in str(text).splitlines()[0][:120] if c.isprintable()).strip()
