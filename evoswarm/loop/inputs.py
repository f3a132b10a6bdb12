"""The inputs of a run, checked before anything starts."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from typing import Any

from evoswarm.backend.mix import Members, asked_apart, naming, require_answers, written_apart
from evoswarm.config import RunConfig, dump_config
from evoswarm.config.backend import LocalBackend
from evoswarm.config.loggers import require
from evoswarm.errors import UserError
from evoswarm.loop.baseline_rows import compared
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.history import written_config
from evoswarm.search import make_search
from evoswarm.utility import Utility, make_utility
from evoswarm.weights.expert import read_json
from evoswarm.weights.pool import Pool, listed, open_pool

MAY_CHANGE = {"backend", "output", "name", "root", "storage_seconds", "loggers", "references"}
"""Settings that a resumed run may change: where it runs and logs and what it is compared with, not what it searches."""
MAY_CHANGE_IN_POOL = {"space", "prefer_product"}
"""The space that they choose is part of a run's identity, and must not change."""
MAY_CHANGE_IN_SEARCH = {"max_generations", "max_evaluations"}
"""A finished run can be extended. (Patience would change restarts, and with them every move.)"""


@dataclass
class Inputs:
    """The checked pool and utility of a run."""

    pool: Pool
    utility: Utility
    compared: dict[str, Any] = field(default_factory=dict)
    """What the utility compares with; see `baseline_rows.compared`."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Hashes of everything; reads all files."""
        found = {"pool": self.pool.hashes, "space": self.pool.space_name, "data": self.utility.sha256}
        return found | self.compared

    def of(self, config: RunConfig) -> Inputs:
        """The same pool with the utility of a config."""
        return Inputs(self.pool, make_utility(config.utility, root=config.root))

    @property
    def warnings(self) -> list[str]:
        """Messages for the user, one line each."""
        return [*self.pool.warnings, *self.utility.warnings]


def read_inputs(config: RunConfig, *, check: bool = True, samples: bool = False) -> Inputs:
    """Read data and pool, and `check` them unless the process that started this one has.

    With `samples`, a few values of each tensor are checked, and not all.

    Raises:
        UserError: a problem in them that the user has to fix, or a logger's package is missing.
    """
    require(config.loggers)
    utility = make_utility(config.utility, root=config.root)
    pool = open_pool(config.pool, model=config.model, check=check, samples=samples)
    if check:
        require_installable(config, pool)
        config.utility.check(config.root)
        if pool.kind == "model":
            require_answers(config, pool, utility)
    if config.export.rank is not None and pool.space is None:
        raise UserError("export.rank: only a mix of LoRA experts can be truncated; omit it")
    make_search(config.search, experts=pool.names, seed=config.seed, layers=pool.layers)
    return Inputs(pool, utility, compared(utility, pool=pool, root=config.root))


def require_installable(config: RunConfig, pool: Pool) -> None:
    """Check that the engine can install the experts of a pool into its model.

    Raises:
        UserError: it cannot, or the model cannot be loaded.
    """
    if pool.kind == "model":
        for member in Members(config, pool):
            with naming(member):
                require_installable(member.config, member.pool(check=True))
        return
    config.engine.check_model(model=config.model)
    if problems := config.engine.misfits(model=config.model, experts=pool.experts):
        raise UserError(f"pool: {listed(problems)}")


def check_prompts(config: RunConfig, inputs: Inputs) -> list[str]:
    """What the user should know about the prompts; the engine says this too when it starts.

    Raises:
        UserError: the model cannot answer a prompt.
    """
    engine, utility = config.engine, inputs.utility
    if asked_apart(config, utility) or written_apart(config, inputs.pool):
        notices: list[str] = []
        for member in Members(config, inputs.pool):
            with naming(member):
                found = check_prompts(member.config, Inputs(member.pool(), utility))
                notices += [f"model {member.name}: {notice}" for notice in found]
        return notices
    tokenizer = engine.tokenizer(model=config.model, experts=inputs.pool.experts, utility=utility)
    return engine.check_prompts(model=config.model, tokenizer=tokenizer, utility=utility)


def check_grading(config: RunConfig, inputs: Inputs) -> None:
    """Check what scoring needs in this process, if that takes neither a network nor a GPU: a sandbox.

    Raises:
        UserError: it cannot work here.
    """
    if isinstance(config.backend, LocalBackend) and config.utility.all_grading == {"cpu"}:
        inputs.utility.open()
        inputs.utility.close()


def claim(directory: RunDirectory, config: RunConfig, identity: dict[str, Any], *, resume: str) -> None:
    """Claim the directory for a run: write its config, or check that it matches the run in the directory.

    Raises:
        UserError: `resume` is "never" and there is a run, or config, pool or data have changed.
    """
    if resume == "never" and directory.exists:
        raise UserError(f"{directory.path}: already holds a run; use --resume auto or another `name`, or remove it")
    if directory.exists:
        require_same_config(directory, config)
        require_same(directory, identity, remedy="give the new run another `name`")
    directory.create()
    directory.write_json(directory.inputs.name, identity)
    directory.write(directory.config.name, dump_config(config).encode())


def require_same_config(directory: RunDirectory, config: RunConfig) -> None:
    """Check that a config is that of the run in a directory, but for what a resumed run may change.

    Raises:
        UserError: it is not.
    """
    if differing := changed_keys(config, written_config(directory.path)):
        raise UserError(
            f"{directory.path}: the run in it has another {', '.join(differing)}; "
            "change it back, or give this run another `name`"
        )


def changed_keys(config: RunConfig, before: RunConfig) -> list[str]:
    """Dotted keys that differ and must not, because results depend on them."""
    return _differing(_settings(config), _settings(before))


def _settings(config: RunConfig) -> dict[str, Any]:
    """What a resumed run must not change."""
    data = config.lasting(exclude=MAY_CHANGE)
    for section, free in (("search", MAY_CHANGE_IN_SEARCH), ("pool", MAY_CHANGE_IN_POOL)):
        data[section] = {key: value for key, value in data[section].items() if key not in free}
    return data


def _differing(now: dict[str, Any], before: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys whose values differ. Of a section with another type, only the type."""
    if now.get("type") != before.get("type"):
        return [f"{prefix}type"]
    found: list[str] = []
    for key in now | before:
        one, other = now.get(key), before.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differing(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}")
    return found


def require_same(directory: RunDirectory, identity: dict[str, Any], *, remedy: str) -> None:
    """Check that pool and data are those of the run in a directory. `remedy` says what to do if they are not.

    Raises:
        UserError: they are not, or their record is damaged.
    """
    if not directory.inputs.exists():
        return
    try:
        before = read_json(directory.inputs)
    except UserError as error:
        raise UserError(f"{error}; restore it, or remove it if pool and data have not changed") from None
    if not isinstance(before.get("pool"), dict) or "data" not in before:
        raise UserError(f"{directory.inputs}: is damaged; restore it, or remove it if pool and data have not changed")
    changed = [name for name, value in identity["pool"].items() if before["pool"].get(name) != value]
    if changed or set(before["pool"]) != set(identity["pool"]):
        what = f"expert {changed[0]}" if changed else "the list of experts"
        raise UserError(f"{directory.path}: {what} has changed since this run started; {remedy}")
    if before.get("space") != identity["space"]:
        raise UserError(
            f"{directory.path}: the run in it mixes its experts in {before.get('space')} space, this one in "
            f"{identity['space']} space; set pool.space, or {remedy}"
        )
    if before["data"] != identity["data"]:
        raise UserError(f"{directory.path}: the data has changed since this run started; {remedy}")


def versions() -> dict[str, str]:
    """Versions of the packages that the result may depend on."""
    packages = ("evoswarm", "ray", "torch", "transformers", "peft", "safetensors", "numpy", "vllm")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
