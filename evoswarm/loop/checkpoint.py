"""Checkpoints: the complete state of a search between two generations. Kilobytes, one file per generation."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory, generation_name, generation_of
from evoswarm.search import Search


def checkpoint_path(generation: int) -> str:
    """The checkpoint of a generation, relative to the run directory."""
    return f"checkpoints/{generation_name(generation)}.safetensors"


def save_checkpoint(directory: RunDirectory, search: Search) -> None:
    """Write the state of a search that has just finished a generation."""
    metadata = {"search": json.dumps(search.scalars(), sort_keys=True)}
    directory.write(checkpoint_path(search.generation), save(search.arrays(), metadata))


def load_checkpoint(path: Path, search: Search) -> None:
    """Restore a search from a checkpoint.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 it is no dictionary
            scalars = dict(json.loads(file.metadata()["search"]))
    except (SafetensorError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    search.restore(arrays, scalars)


def generations_saved(directory: RunDirectory) -> list[int]:
    """The generations that have a checkpoint, in order."""
    found = (generation_of(path.name) for path in directory.checkpoints.glob("gen_*.safetensors"))
    return sorted(generation for generation in found if generation is not None)


def restore_newest(directory: RunDirectory, search: Search, *, last: int) -> list[str]:
    """Restore a fresh search from the newest readable checkpoint, if there is one.

    Args:
        directory: the run directory.
        search: a fresh search.
        last: the generation up to which all other records are complete.

    Returns:
        One line for each newer checkpoint that could not be used.
    """
    problems: list[str] = []
    saved = generations_saved(directory)
    if saved and saved[-1] > last:
        problems.append(f"the records of generation {last + 1} are missing or damaged; going back to an earlier one")
    for generation in reversed([generation for generation in saved if generation <= last]):
        try:
            load_checkpoint(directory.path / checkpoint_path(generation), search)
            return problems
        except UserError:
            raise
        except (OSError, ValueError) as error:
            problems.append(f"the checkpoint of generation {generation} cannot be read, going back one ({error})")
    return problems
