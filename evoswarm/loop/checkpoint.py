"""Checkpoints: the whole state of a search between two generations, kilobytes, one file each."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.search import Search

_NAME = re.compile(r"gen_(\d+)\.safetensors")


def checkpoint_path(generation: int) -> str:
    """Where the checkpoint of a generation lies, relative to the run directory."""
    return f"checkpoints/gen_{generation:04}.safetensors"


def save_checkpoint(directory: RunDirectory, search: Search) -> None:
    """Write the state of a search that has just finished a generation."""
    metadata = {"search": json.dumps(search.scalars(), sort_keys=True)}
    directory.write(checkpoint_path(search.generation), save(search.arrays(), metadata))


def load_checkpoint(path: Path, search: Search) -> None:
    """Put a search into the state of a checkpoint.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 it is no dictionary
            scalars = json.loads(file.metadata()["search"])
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error})") from None
    search.restore(arrays, scalars)


def generations_saved(directory: RunDirectory) -> list[int]:
    """Generations that have a checkpoint, in order."""
    matches = (_NAME.fullmatch(path.name) for path in directory.checkpoints.glob("gen_*.safetensors"))
    return sorted(int(match[1]) for match in matches if match)


def restore_newest(directory: RunDirectory, search: Search, *, last: int) -> list[str]:
    """Put a search into the state of the newest readable checkpoint; leave it fresh if there is none.

    Args:
        directory: the run directory.
        search: a fresh search.
        last: the generation up to which everything else is on record.

    Returns:
        One line for each newer checkpoint that could not be read, or used.
    """
    problems: list[str] = []
    saved = generations_saved(directory)
    if saved and saved[-1] > last:
        problems.append(f"the records of generation {last + 1} are missing or damaged, going back before it")
    for generation in reversed([generation for generation in saved if generation <= last]):
        try:
            load_checkpoint(directory.path / checkpoint_path(generation), search)
            return problems
        except UserError:
            raise
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"checkpoint of generation {generation} cannot be read, going back one ({error})")
    return problems
