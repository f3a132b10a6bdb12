"""`submit`, `status`, `logs`, `stop`, `list`: runs as jobs of a Ray cluster."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoswarm.cli.progress import print_json, print_warning, results_only
from evoswarm.cli.run import ConfigFile, Json, Overrides, ResumeOption
from evoswarm.config import RunConfig, load_config
from evoswarm.config.run import RayBackend
from evoswarm.errors import UserError
from evoswarm.place import is_url

if TYPE_CHECKING:
    from evoswarm.launch.jobs import Jobs

Address = Annotated[
    str | None,
    typer.Option(help="Address of the dashboard, http://HEAD:8265. Default: RAY_API_SERVER_ADDRESS."),
]
CaFile = Annotated[Path | None, typer.Option(help="CA certificate to trust for https (PEM).")]
JobId = Annotated[str, typer.Argument(help="Id of the job, as printed by `submit` and `list`.", show_default=False)]


def submit(
    config: ConfigFile,
    address: Address = None,
    set_: Overrides = None,
    resume: ResumeOption = "auto",
    python: Annotated[str, typer.Option(help="Python interpreter on the head that has evoswarm.")] = "python",
    ca_file: CaFile = None,
    json_: Json = False,
) -> None:
    """Start a run as a job of a Ray cluster. Only the config is sent; its paths must exist on the cluster's nodes."""
    checked = load_config(config, overrides=set_ or ())
    if not isinstance(checked.backend, RayBackend):
        raise UserError(f"{config}: backend.type {checked.backend.type} runs only on this machine; set it to ray")
    warnings = _check_here(checked)
    jobs = _jobs(address, ca_file)
    for warning in [*warnings, *jobs.warnings]:
        print_warning(warning)
    job = jobs.submit(checked, resume=resume, python=python)
    where = f"{job} --address {shlex.quote(jobs.address)}"
    commands = {name: f"evoswarm {name} {where}" for name in ("status", "stop")}
    commands |= {"logs": f"evoswarm logs {where} --follow"}
    dashboard = f"{jobs.address}/#/jobs/{job}"
    if json_:
        return print_json({"job": job, "dashboard": dashboard, "run_dir": str(checked.place), **commands})
    print(f"submitted {job}\ndashboard {dashboard}\nrun directory {checked.place}")
    for command in commands.values():
        print(f"  {command}")


def _check_here(config: RunConfig) -> list[str]:
    """Check model, data and pool if they are on this machine; returns warnings."""
    from evoswarm.loop.inputs import read_inputs
    from evoswarm.weights.hub import is_path

    experts = config.pool.experts if isinstance(config.pool.experts, list) else [config.pool.experts]
    model = [Path(config.model)] if is_path(config.model) else []
    places = [path for path in (*experts, config.root, *model) if isinstance(path, Path)]
    missing = [str(path) for path in places if not path.exists()]
    if missing:
        return [f"{missing[0]} is not on this machine; model, data and pool are checked on the cluster"]
    with results_only():
        return read_inputs(config).warnings


def status(
    run: Annotated[str, typer.Argument(help="Id of a job, or the directory or URL of a run.", show_default=False)],
    address: Address = None,
    ca_file: CaFile = None,
    json_: Json = False,
) -> None:
    """Show the state of a run: generation, best utility, examples per second, time left."""
    from evoswarm.launch.status import status_of_directory

    if address is None and (is_url(run) or "/" in run or Path(run).is_dir()):
        found = status_of_directory(run)
    else:
        found = _jobs(address, ca_file).status(run)
    if json_:
        return print_json({"run": run, **asdict(found)})
    print(f"{run}: {found}" + (f" ({found.error})" if found.error else ""))


def logs(
    job: JobId,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    ca_file: CaFile = None,
) -> None:
    """Print the output of a job."""
    jobs = _jobs(address, ca_file)
    for text in jobs.follow(job) if follow else [jobs.logs(job)]:
        sys.stdout.write(text)
        sys.stdout.flush()


def stop(
    job: JobId,
    address: Address = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the job to stop.", min=0)] = 120,
    ca_file: CaFile = None,
    json_: Json = False,
) -> None:
    """Stop the run of a job. Results so far are kept, and the run can be resumed."""
    found = _jobs(address, ca_file).stop(job, wait=wait)
    if json_:
        return print_json({"run": job, **asdict(found)})
    hint = "; submit its config again to resume" if found.state in ("stopped", "failed") else ""
    print(f"{job}: {found}{hint}")


def list_(address: Address = None, ca_file: CaFile = None, json_: Json = False) -> None:
    """List the evoswarm jobs on a cluster."""
    entries = _jobs(address, ca_file).all()
    if json_:
        return print_json(entries)
    for entry in entries:
        start = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["start"])) if entry["start"] else "-"
        print(f"{entry['job']}  {entry['state']:<8}  {start}  {entry['run_dir']}")


def _jobs(address: str | None, ca_file: Path | None) -> Jobs:
    from evoswarm.launch.jobs import Jobs

    return Jobs(address, ca_file=ca_file)
