"""From a YAML file and `--set key=value` to a checked configuration; every mistake is one clear line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from evoswarm.config.place import check_url, is_url
from evoswarm.config.run import RunConfig
from evoswarm.config.secrets import secrets_in
from evoswarm.config.training import TrainingConfig
from evoswarm.errors import UserError

Config = TypeVar("Config", bound=BaseModel)


def load_config(path: Path | str, *, overrides: Sequence[str] = ()) -> RunConfig:
    """Read, override and check a configuration; relative paths are taken from the file's folder.

    Args:
        path: YAML file.
        overrides: `key=value` strings; the key is a dotted path, the value is YAML.

    Raises:
        UserError: the file cannot be read or does not describe a run; every problem is named.
    """
    path = Path(path)
    return parse_config(apply_overrides(_read_yaml(path), overrides), root=path.resolve().parent, source=str(path))


def parse_config(data: dict[str, Any], *, root: Path, source: str = "config") -> RunConfig:
    """Check a configuration given as plain data; `root` is what relative paths start from."""
    return _parse(RunConfig, data, root=root, source=source)


def load_training(path: Path | str, *, overrides: Sequence[str] = ()) -> TrainingConfig:
    """`load_config` for a training of experts."""
    path = Path(path)
    data = apply_overrides(_read_yaml(path, needs="model, pool and experts"), overrides)
    return parse_training(data, root=path.resolve().parent, source=str(path))


def parse_training(data: dict[str, Any], *, root: Path, source: str = "config") -> TrainingConfig:
    """`parse_config` for a training of experts."""
    return _parse(TrainingConfig, data, root=root, source=source)


def _parse(model: type[Config], data: dict[str, Any], *, root: Path, source: str) -> Config:
    try:
        places = secrets_in(data)
    except RecursionError:  # an alias of YAML that holds itself
        raise UserError(f"{source}: a section contains itself; write it out without the alias (*)") from None
    if places:
        raise UserError(
            f"{source}: {', '.join(places)} holds a secret, and a config is written to the run directory and shown; "
            "take it out, revoke it, and give it to the processes by the environment or a file (HF_TOKEN, ~/.aws, ...)"
        )
    try:
        return model.model_validate(_absolute(data, root, model))
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, model)}") from None


def dump_config(config: BaseModel) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def apply_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`data` with each `a.b=value` set; `data` itself is left as it is."""
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(data)) or {}
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UserError(f"--set {text}: expected key=value, for example --set search.population=40")
        _set(result, key.strip().split("."), value, text)
    return result


def _set(data: dict[str, Any], keys: list[str], value: str, text: str) -> None:
    for depth, key in enumerate(keys[:-1]):
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {text}: {'.'.join(keys[: depth + 1])} is a single value and has no keys of its own")
    try:
        parsed = yaml.safe_load(value)
        if keys[-1] == "type" and data.get("type", parsed) != parsed:
            data.clear()  # the other keys of the section belong to the type it had
        data[keys[-1]] = parsed
    except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
        raise UserError(f"--set {text}: the value is not YAML") from None


def _read_yaml(path: Path, *, needs: str = "model, pool and utility") -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML config") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: is not YAML ({getattr(error, 'problem', None) or 'syntax error'})") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{path}: holds a date that does not exist ({error}); put text into quotes") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: must be a mapping with at least {needs}")
    return data


def _absolute(data: dict[str, Any], root: Path, model: type[BaseModel]) -> dict[str, Any]:
    """Paths of the config relative to `root` made absolute, so that any worker in any folder reads the same files."""
    start = data.get("root", ".")
    if not isinstance(start, str | Path):
        raise UserError(f"root: must be the path of a folder, not {start!r}")
    root = Path(resolved(str(start), root))
    result = _walk_paths(data, root) | {"root": str(root)}
    if "output" in model.model_fields:
        result.setdefault("output", "runs")
    for key in ("model", "output"):
        value = result.get(key)
        if isinstance(value, str) and (key == "output" or _is_local(value, root)):
            result[key] = resolved(value, root)
    return result


def resolved(path: str, root: Path) -> str:
    """A path made absolute; a URL stays as it is.

    Raises:
        UserError: it is neither.
    """
    if is_url(path):
        return check_url(path)
    path = path.removeprefix("file://")
    try:
        return str((root / Path(path).expanduser()).resolve())
    except (RuntimeError, ValueError) as error:  # ~nobody, a null character
        raise UserError(f"{path!r} is no path ({error}); correct it in the config") from None


def _is_local(model: str, root: Path) -> bool:
    return model.startswith((".", "/", "~")) or not is_url(model) and Path(resolved(model, root)).is_dir()


def _walk_paths(node: Any, root: Path, key: str = "") -> Any:
    if isinstance(node, dict):
        inner = {k: "data" if key == "experts" and isinstance(v, str) else k for k, v in node.items()}
        return {k: v if k == "columns" else _walk_paths(v, root, inner[k]) for k, v in node.items()}
    if isinstance(node, list) and key in ("experts", "pool"):
        return [_walk_paths(item, root, key) for item in node]
    if isinstance(node, str) and key in ("experts", "pool", "path", "data"):
        return resolved(node, root)
    return node


def explain(error: ValidationError, model: type[BaseModel] = RunConfig) -> str:
    """Every problem of a validation error in one line each, joined by `; `, with the nearest right name for typos."""
    return "; ".join(_explain_one(problem, model) for problem in error.errors())


def _explain_one(problem: Any, root: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"]]
    names = _field_names(location, root)
    where = ".".join(_readable(location, root))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(names))}"
        return f"unknown key {where}; {hint}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] == "union_tag_not_found":
        return f"{where}: needs a type ({problem['ctx']['discriminator']})"
    given = problem.get("input")
    shown = f", got {given!r}" if isinstance(given, str | int | float | bool | None) else ""
    return f"{where}: {message[:1].lower()}{message[1:]}{shown}" if where else message


def _readable(location: list[str], root: type[BaseModel]) -> list[str]:
    """The location without the names that pydantic adds for the member of a union."""
    model: type[BaseModel] | None = root
    path = []
    for part in location:
        models = _models_of(model, part) if model else []
        tagged = [m for m in _siblings(model, root) if _tag(m) == part] if model else []
        if tagged and part not in (model.model_fields if model else {}):
            model = tagged[0]
            continue
        if not part.startswith(
            ("lax-or-strict[", "list[", "function-")
        ):  # pydantic's names for the members of other unions
            path.append(part)
        model = models[0] if models else model
    return path


def _field_names(location: list[str], root: type[BaseModel]) -> list[str]:
    """Field names of the section that holds the last part of `location`."""
    model = root
    for part in location[:-1]:
        tagged = [m for m in _siblings(model, root) if _tag(m) == part]
        inner = _models_of(model, part)
        model = tagged[0] if tagged else inner[0] if inner else model
    return list(model.model_fields)


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    return field.default if field else None


def _siblings(model: type[BaseModel] | None, root: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that share a union with `model`, itself included."""
    if model is None or _tag(model) is None:
        return []
    return next((group for group in _unions(root) if model in group), [model])


def _unions(root: type[BaseModel]) -> list[list[type[BaseModel]]]:
    groups: list[list[type[BaseModel]]] = []
    todo: list[type[BaseModel]] = [root]
    seen: set[type[BaseModel]] = set()
    while todo:
        model = todo.pop()
        if model in seen:
            continue
        seen.add(model)
        for name in model.model_fields:
            group = _models_of(model, name)
            groups += [group] if len(group) > 1 else []
            todo += group
    return groups


def _models_of(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    field = model.model_fields.get(name)
    return _models_in(field.annotation) if field else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is None:
        return []
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
