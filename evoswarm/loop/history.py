"""Earlier positions: any particle of any generation, from its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evoswarm.config import RunConfig, load_config
from evoswarm.config.load import parse_config
from evoswarm.config.recipe import read_recipe
from evoswarm.errors import UserError
from evoswarm.loop.checkpoint import checkpoint_path, generations_saved, load_checkpoint
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.records import read_outcomes
from evoswarm.rows import ExpertPart, Row
from evoswarm.search import Search, make_search
from evoswarm.weights.expert import read_json
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.save import save_expert


def written_config(run_dir: Path, *, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a run as it was written. Its directory may have been moved or renamed since.

    Raises:
        UserError: there is no run, or another version of evoswarm wrote it.
    """
    directory = RunDirectory(run_dir)
    directory.require()
    try:
        config = load_config(directory.config)
    except UserError as error:
        raise UserError(
            f"{error}. The file is damaged, or from another version of evoswarm; use that version, or start a new run "
            "with another `name`"
        ) from None
    return load_config(directory.config, overrides=overrides) if overrides else config


def run_config(run_dir: Path, *, overrides: Sequence[str] = (), url: str | None = None) -> RunConfig:
    """The config to resume a run: with the `output` and `name` that its directory, or its URL, has now.

    Raises:
        UserError: there is no run, or its directory's name is not a name of a run.
    """
    config = written_config(run_dir, overrides=overrides)
    output, _, name = (url or str(run_dir.resolve())).rstrip("/").rpartition("/")
    data = config.model_dump(mode="json") | {"output": output, "name": name}
    return parse_config(data, root=config.root, source=url or str(run_dir))


def run_pool(config: RunConfig) -> Pool:
    """The pool of a run, without checks."""
    return open_pool(config.pool, model=config.model, check=False)


def search_at(run_dir: Path, generation: int | None) -> Search:
    """The search of a run after a generation (None: the last one).

    Raises:
        UserError: no such generation.
    """
    config, directory = written_config(run_dir), RunDirectory(run_dir)
    saved = generations_saved(directory)
    if not saved:
        raise UserError(f"{run_dir}: no generation is finished yet")
    wanted = saved[-1] if generation is None else generation
    if wanted not in saved:
        raise UserError(f"{run_dir}: there is no generation {wanted}, only {saved[0]} to {saved[-1]}")
    search = make_search(config.search, experts=run_pool(config).names, seed=config.seed)
    try:
        load_checkpoint(directory.path / checkpoint_path(wanted), search)
    except (OSError, ValueError) as error:
        raise UserError(f"{run_dir}: the checkpoint of generation {wanted} cannot be read ({error})") from None
    return search


def position(run_dir: Path, *, generation: int | None = None, particle: int | None = None) -> Row:
    """The row of a particle (None: of the global best) after a generation.

    Raises:
        UserError: no such generation or particle.
    """
    search = search_at(run_dir, generation)
    if particle is None:
        best = search.global_best
        assert best is not None
        return Row.of(search.basis, best.row)
    members = {member.particle: member for member in search.population}
    if particle not in members:
        last = max(members)
        raise UserError(f"{run_dir}: generation {search.generation} has no particle {particle}, only 0 to {last}")
    return Row.of(search.basis, members[particle].row)


def best_rows(run_dir: Path) -> Sequence[Row]:
    """The best rows of a run, the winner first: the members of its ensemble, or of the front.

    Raises:
        UserError: no generation is finished yet.
    """
    directory = RunDirectory(run_dir)
    if directory.finished:
        lines = read_outcomes(directory.outcomes / "final.jsonl")
        found = {line["who"]: Row.from_list(line["row"]) for line in lines if line["who"].startswith("ensemble:")}
        return [found[name] for name in sorted(found, key=lambda name: int(name.partition(":")[2]))]
    search = search_at(run_dir, None)
    return [Row.of(search.basis, best.row) for best in search.ranking(search.config.ensemble_size)]


def row_of_recipe(run_dir: Path, recipe: Path) -> Row:
    """The row of a recipe over the pool of a run. A name without a folder is a file in the run's `front/`.

    Raises:
        UserError: there is no run, the recipe cannot be read, or it belongs to another pool.
    """
    directory = RunDirectory(run_dir)
    directory.require()
    inside = directory.front / recipe
    row, data = read_recipe(inside if recipe.name == str(recipe) and inside.exists() else recipe)
    pool, given = read_json(directory.inputs)["pool"], data.get("pool", {})
    named = {vector.name for vector, _ in row.terms if isinstance(vector, ExpertPart)}
    if wrong := sorted(name for name in named if name not in pool or given.get(name, pool[name]) != pool[name]):
        raise UserError(f"{recipe}: the pool of {run_dir} has no expert {wrong[0]}, or another one of that name")
    return row


def save_position(run_dir: Path, row: Row, output: Path) -> None:
    """Write the weights of a row of a run as an expert folder.

    Raises:
        UserError: the output exists and is not an empty folder.
    """
    require_free(output)
    config = written_config(run_dir)
    save_expert(Materializer(run_pool(config), root=run_dir), row, output, base=config.model)


def require_free(output: Path) -> None:
    """Check that an output folder is empty or missing.

    Raises:
        UserError: it is not.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; choose another folder")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output}: is not empty; choose another folder")
