"""What a task's YAML file says, and what of it cannot work here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError, first_line
from evoswarm.utility.lm_eval.config import LmEval
from evoswarm.utility.lm_eval.splits import split_names

Settings = dict[str, Any]
HONORED = {"until", "do_sample", "temperature", "max_gen_toks", "top_p", "top_k"}
"""Settings of generation that greedy decoding uses, or that mean nothing without sampling."""


def read_settings(path: Path, config: LmEval) -> Settings:
    """The settings in a YAML file and in those that it includes; functions are imported.

    Raises:
        UserError: the file cannot be read, is no task, or asks for what cannot work.
    """
    given = {"validation_split": config.validation_split, "test_split": config.test_split}
    own = {key: name for key, name in given.items() if name is not None}
    plain = _read(path, resolve_func=False) | own
    _refuse(plain, path)
    if "class" not in plain:  # before a data set is downloaded
        names = {kind: plain.get(f"{kind}_split") for kind in ("validation", "test", "training")}
        split_names(config, where=str(plain["task"]), **names)
    settings = _read(path, resolve_func=True) | own
    settings["dataset_kwargs"] = _located(settings.get("dataset_kwargs"), path.parent)
    return settings | _data_set(settings.get("dataset_path"), path.parent)


def _read(path: Path, *, resolve_func: bool) -> Settings:
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        return dict(load_yaml(path, resolve_func=resolve_func))
    except ImportError as error:
        raise UserError(f"{path}: the task's code needs a package ({first_line(error)}); install it") from None
    except Exception as error:  # reading runs the task's code, which may raise anything
        raise UserError(f"{path}: cannot be read as a task of lm-eval ({first_line(error)}); correct it") from None


def _refuse(settings: Settings, path: Path) -> None:
    if "group" in settings and isinstance(settings.get("task"), list):
        raise UserError(f"{path}: is a group of tasks; give one task, or combine several with type: multi_task")
    if not isinstance(settings.get("task"), str):
        raise UserError(f"{path}: has no name under `task`, so it is no task; give the file of a task")
    repeats = settings.get("repeats") or 1
    if repeats > 1:
        raise UserError(
            f"{path}: repeats: {repeats} asks for several answers, and decoding is greedy; {_own('repeats: 1')}"
        )
    if settings.get("unsafe_code"):
        raise UserError(f"{path}: runs generated code without a sandbox (unsafe_code); use type: code")
    for name in ("doc_to_image", "doc_to_audio"):
        if settings.get(name):
            raise UserError(f"{path}: {name} needs a model of images or sound; give a task of texts")
    _refuse_sampling(settings.get("generation_kwargs"), path)


def _refuse_sampling(given: Any, path: Path) -> None:
    if not isinstance(given, Mapping):
        return
    from lm_eval.models.utils import normalize_gen_kwargs

    used = dict(normalize_gen_kwargs(dict(given)))
    if used.get("do_sample"):
        raise UserError(
            f"{path}: generation_kwargs ask for sampling, and decoding is greedy; "
            + _own("generation_kwargs: {do_sample: false, until: [...]}")
        )
    for name in used.keys() - HONORED:
        if used[name] is not None and (name, used[name]) != ("num_beams", 1):
            raise UserError(
                f"{path}: generation_kwargs.{name} has no effect on greedy decoding here; "
                + _own("other generation_kwargs")
            )


def _own(change: str) -> str:
    return f"write a YAML file that includes this one and has {change}"


def _located(kwargs: Any, folder: Path) -> Any:
    """`data_files` and `data_dir` that are next to the YAML file, wherever this process runs."""
    if not isinstance(kwargs, Mapping):
        return kwargs
    return {k: _beside(value, folder) if k in ("data_files", "data_dir") else value for k, value in kwargs.items()}


def _beside(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {key: _beside(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_beside(item, folder) for item in value]
    there = folder / value if isinstance(value, str) else None
    return str(there) if there is not None and there.exists() else value


def _data_set(path: Any, folder: Path) -> Settings:
    local = isinstance(path, str) and "/" in path and (folder / path).is_dir()
    return {"dataset_path": str(folder / path)} if local else {}
