"""Runs as jobs of a Ray cluster, through its dashboard. Uses only HTTP and does not join the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import secrets
import shlex
import ssl
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from evoswarm.backend.ray.private import get, use_token
from evoswarm.config import RunConfig, dump_config
from evoswarm.config.run import RayBackend
from evoswarm.errors import UserError
from evoswarm.launch.connect import token_problem
from evoswarm.launch.dashboard import address_variables_unset, dashboard_address, innermost, reason
from evoswarm.launch.status import State, Status, job_file, parse_status

STOP_SECONDS = 120
"""How long a run may take to stop before Ray kills it."""
AGENT_SECONDS = 60
"""How long a new head may take to start its agent for jobs."""
CONFIG_FILE = "config.yaml"
_STATES: dict[JobStatus, State] = {
    JobStatus.PENDING: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.SUCCEEDED: "finished",
    JobStatus.STOPPED: "stopped",
    JobStatus.FAILED: "failed",
}


class Jobs:
    """The evoswarm jobs on one cluster."""

    def __init__(self, address: str | None = None, *, ca_file: Path | None = None) -> None:
        """
        Args:
            address: `http://HEAD:8265` or `https://...`; default: RAY_API_SERVER_ADDRESS, or RAY_ADDRESS if it
                is an HTTP address.
            ca_file: certificates to trust for https, in addition to the system's.

        Raises:
            UserError: no dashboard answers there, or the token is missing or wrong.
        """
        self.address = dashboard_address(address)
        if ca_file is not None and not ca_file.is_file():
            raise UserError(f"--ca-file {ca_file}: no such file; give the certificate of the cluster's CA (PEM)")
        for name in ("ray", "ray.dashboard.modules.dashboard_sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)  # `_explained` reports errors in one line
        with self._explained(), address_variables_unset():
            use_token()
            self._client = JobSubmissionClient(self.address, verify=str(ca_file) if ca_file else True)
        self.warnings = self._other_versions()

    def submit(self, config: RunConfig, *, resume: str = "auto", python: str = "python") -> str:
        """Start a run as a job, with `python` of the head. Only its config is sent; its paths must mean the same there.

        Returns:
            The submission id.
        """
        assert isinstance(config.backend, RayBackend)
        # The environment of the job has the address of its cluster.
        config = config.with_(backend={"address": None})
        name = f"{config.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        with tempfile.TemporaryDirectory() as folder, self._explained():
            (Path(folder) / CONFIG_FILE).write_text(dump_config(config), encoding="utf-8")
            environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
            entrypoint = f"exec {shlex.quote(python)} -m evoswarm run {CONFIG_FILE} --resume {resume}"
            submitted = self._submit(
                entrypoint=entrypoint,
                submission_id=name,
                runtime_env={"working_dir": folder, "env_vars": environment},
                metadata={"evoswarm": config.name, "run_dir": str(config.place)},
            )
        return submitted

    def _submit(self, **request: Any) -> str:
        """Submit, and wait for the agent of a head that has just started. Ray reports it missing in a text only."""
        deadline = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                return str(self._client.submit_job(**request))
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def status(self, job: str) -> Status:
        """How far a job's run is: its state according to Ray, the rest from its status file, if there is one."""
        details = self._details(job)
        state = _STATES[details.status]
        status = self._written(job, details.driver_node_id)
        error = None
        if state == "failed":
            lines = (details.message or "").strip().splitlines()
            error = status.error or (lines[0] if lines else None)
        return replace(status, state=state, error=error)

    def _written(self, job: str, node: str | None) -> Status:
        """What the run has written; nothing before it starts, or after its node is gone."""
        if node is None:
            return Status("pending")
        query: dict[str, Any] = {"node_id": node, "filename": job_file(job), "lines": -1}
        with self._explained():
            answer = get(self._client, "/api/v0/logs/file", **query)
        return parse_status(answer.content, f"the status file of job {job}") if answer.ok else Status("pending")

    def logs(self, job: str) -> str:
        """Everything a job has printed so far."""
        self._details(job)
        with self._explained():
            text: str = self._client.get_job_logs(job)
        return text

    def follow(self, job: str) -> Iterator[str]:
        """What a job prints, as it arrives, until the job ends."""
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

    def stop(self, job: str, *, wait: float = STOP_SECONDS) -> Status:
        """Ask a run to stop, and wait until it has. Results so far are kept.

        Returns:
            The status; still running if the run took longer than `wait` seconds.
        """
        if not self._details(job).status.is_terminal():
            with self._explained():
                self._client.stop_job(job)
        deadline = time.monotonic() + wait
        while not self._details(job).status.is_terminal() and time.monotonic() < deadline:
            time.sleep(0.5)
        return self.status(job)

    def all(self) -> list[dict[str, Any]]:
        """Every evoswarm job, oldest first: id, name, state, run directory, start and end in seconds since 1970."""
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

    def _other_versions(self) -> list[str]:
        """How the head's versions differ from those of this machine; a submitted job runs with the head's."""
        with self._explained():
            ray_version = get(self._client, "/api/version").json().get("ray_version", "unknown")
            metadata = get(self._client, "/api/v0/cluster_metadata")
        found = {"Ray": (ray_version, ray.__version__)}
        if metadata.ok and (python := (metadata.json().get("data") or {}).get("pythonVersion")):
            found["Python"] = (python.rpartition(".")[0], ".".join(platform.python_version_tuple()[:2]))
        return [
            f"the head at {self.address} has {kind} {there}, this machine {here}; the job runs with {there}"
            for kind, (there, here) in found.items()
            if there != here
        ]

    @contextlib.contextmanager
    def _explained(self, job: str | None = None) -> Iterator[None]:
        """Turn errors of the connection to the cluster into one line."""
        where = f"the cluster at {self.address}"
        try:
            yield
        except AuthenticationError:
            raise UserError(f"{where} {token_problem()}") from None
        except (requests.exceptions.RequestException, ConnectionError, OSError, ValueError) as error:
            if isinstance(innermost(error), ssl.SSLCertVerificationError):
                raise UserError(f"{where}: its certificate is not trusted; give its CA with --ca-file") from None
            hint = "check --address: give the dashboard's, as `ray start` prints it, for example http://HEAD:8265"
            raise UserError(f"{where} does not answer like Ray ({reason(error)}); {hint}") from None
        except RuntimeError as error:
            text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if "404" in text:  # Ray's client puts the status code into the text only
                if job is not None:
                    raise UserError(f"{where} has no job {job}; `evoswarm list` shows the existing jobs") from None
                raise UserError(f"{where} does not answer like Ray ({text}); check --address") from None
            raise UserError(f"{where} refused: {text}") from None
