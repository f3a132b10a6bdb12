"""`run`, `resume`, `validate`, `schema`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from evoswarm.cli.progress import Reporter, interruptible, print_json, print_warning, results_only, resumable
from evoswarm.config import RunConfig, load_config
from evoswarm.errors import UserError
from evoswarm.place import is_url

ConfigFile = Annotated[Path, typer.Argument(help="YAML file that describes the run.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config key, e.g. search.population=40. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


Resume = Literal["auto", "never", "must"]
ResumeOption = Annotated[
    Resume, typer.Option(help="auto: resume an existing run; never: fail on one; must: fail without one.")
]


def run(config: ConfigFile, set_: Overrides = None, resume: ResumeOption = "auto", json_: Json = False) -> None:
    """Evolve a pool of experts."""
    finish(evolve(load_config(config, overrides=set_ or ()), resume=resume, quiet=json_), json_=json_)


def resume(
    run_dir: Annotated[str, typer.Argument(help="Run directory, or its URL.", show_default=False)],
    set_: Overrides = None,
    json_: Json = False,
) -> None:
    """Resume a run from its last checkpoint (like `run --resume must` with the run's own config)."""
    from evoswarm.loop.history import run_config
    from evoswarm.storage.cache import local_copy

    url = run_dir if is_url(run_dir) else None
    config = run_config(local_copy(run_dir, light=True), overrides=set_ or (), url=url)
    finish(evolve(config, resume="must", quiet=json_), json_=json_)


def validate(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file that describes the run; not needed with --k8s.", show_default=False)
    ] = None,
    set_: Overrides = None,
    k8s: Annotated[
        str | None,
        typer.Option(
            metavar="MANIFEST",
            help="Check that the pods of a RayJob or RayCluster have the resources for the run: a rendered file, - for "
            "standard input, or a kustomize folder. Uses CONFIG, or the RayJob's own config. Reads none of its paths.",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Check a config, its data, pool, model and memory without starting a run or loading weights.

    Of each tensor a few values are read, and all of them when the run starts.
    """
    from evoswarm.loop.inputs import check_grading, check_prompts, read_inputs
    from evoswarm.plan.fit import fit_here

    if k8s is not None:
        return _validate_manifest(k8s, config, set_ or (), json_=json_)
    if config is None:
        raise UserError("validate: give CONFIG or --k8s MANIFEST")
    checked = load_config(config, overrides=set_ or ())
    with results_only():
        inputs = read_inputs(checked, samples=True)
        warnings = [*inputs.warnings, *check_prompts(checked, inputs)]
        check_grading(checked, inputs)
        notices = fit_here(checked, inputs)
    sizes = {split: inputs.utility.size(split) for split in ("validation", "test")}
    facts: dict[str, Any] = {
        "experts": inputs.pool.names,
        "kind": inputs.pool.kind,
        "examples": sizes,
        "warnings": warnings,
    }
    facts["space"] = asdict(inputs.pool.space) if inputs.pool.space else None
    if json_:
        return print_json({"valid": True, **facts, "notices": notices})
    for warning in warnings:
        print_warning(warning)
    for notice in notices:
        print(notice)
    print(
        f"{config}: ok; {len(inputs.pool.names)} experts ({inputs.pool.kind}), "
        f"{sizes['validation']} validation and {sizes['test']} test examples, {checked.search.type} "
        f"with {checked.search.population} particles" + (f", {inputs.pool.space}" if inputs.pool.space else "")
    )


def _validate_manifest(manifest: str, config: Path | None, overrides: Sequence[str], *, json_: bool) -> None:
    from evoswarm.launch.k8s.manifest import check_manifest

    if overrides and config is None:
        raise UserError("validate: --set needs CONFIG; a RayJob's overrides are in its entrypoint")
    lines = check_manifest(manifest, None if config is None else load_config(config, overrides=overrides))
    print_json({"valid": True, "manifest": lines}) if json_ else print("\n".join(lines))


def schema() -> None:
    """Print the config's JSON schema, for editors."""
    print(json.dumps(RunConfig.model_json_schema(), indent=2))


def evolve(config: RunConfig, *, resume: str = "auto", quiet: bool = False) -> dict[str, Any]:
    """Run with progress on the terminal, then write the report."""
    import evoswarm
    from evoswarm.report import write_report_at

    stopped = f"stopped; resume with: evoswarm resume {shlex.quote(str(config.place))}"
    with resumable(stopped), Reporter(config, quiet=quiet) as reporter, interruptible(reporter.notify) as callbacks:
        summary: dict[str, Any] = evoswarm.run(config, resume=resume, callbacks=callbacks)
    write_report_at(str(config.place))
    return summary


def finish(summary: dict[str, Any], *, json_: bool) -> None:
    """Print the result of a run."""
    from evoswarm.cli.tables import result_table

    if json_:
        return print_json(summary)
    result_table({summary["algorithm"]: summary})
