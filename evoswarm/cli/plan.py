"""`plan`: what a run needs, before anything starts."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from evoswarm.cli.progress import console, print_json, results_only
from evoswarm.cli.run import ConfigFile, Json, Overrides
from evoswarm.config import load_config
from evoswarm.config.backend import LocalBackend, RayBackend
from evoswarm.plan.hardware import Hardware, described


def plan(
    config: ConfigFile,
    set_: Overrides = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs per node.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Number of nodes.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(min=1, help="Memory of a GPU in GB.")] = None,
    node_memory: Annotated[float | None, typer.Option(min=1, help="Memory of a node in GB.")] = None,
    json_: Json = False,
) -> None:
    """Show where a run's actors go, whether they fit into memory, and about how long a generation takes.

    Starts no actors and loads no weights. Without options it looks at the cluster of the config, or at this machine.
    """
    from evoswarm.loop.inputs import read_inputs
    from evoswarm.plan.inspect import this_machine
    from evoswarm.plan.run import plan_run
    from evoswarm.plan.text import plan_lines

    checked = load_config(config, overrides=set_ or ())
    with results_only():
        there = this_machine() if gpus is not None else _found(checked.backend)
        hardware = described(there, gpus=gpus, nodes=nodes, gpu_memory_gb=gpu_memory, node_memory_gb=node_memory)
        found = plan_run(checked, read_inputs(checked), hardware)
    if json_:
        print_json(asdict(found) | {"fits": found.fits, "hardware": asdict(hardware)})
    else:
        print("\n".join(plan_lines(found, hardware)))
    if not found.fits:
        raise typer.Exit(2)


def _found(backend: LocalBackend | RayBackend) -> Hardware:
    """The hardware of the cluster that the config names, or of this machine."""
    from evoswarm.launch.connect import connected
    from evoswarm.plan.inspect import hardware_of

    if isinstance(backend, RayBackend) and (backend.address or os.environ.get("RAY_ADDRESS")):
        with connected(backend, console.print):
            return hardware_of(backend)
    return hardware_of(backend)
