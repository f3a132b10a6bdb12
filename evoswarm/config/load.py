"""From a YAML file and `--set key=value` to a checked configuration. Every mistake is reported in one clear line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError

from evoswarm.config.recipe import start_of
from evoswarm.config.run import RunConfig
from evoswarm.config.secrets import secrets_in
from evoswarm.config.training import TrainingConfig
from evoswarm.errors import UserError
from evoswarm.place import check_url, is_url
from evoswarm.search.config import STARTS
from evoswarm.section import Section
from evoswarm.weights.hub import is_hub_name


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key that is given twice in one section."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise ConstructorError(None, None, f"the key {key.value} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


Config = TypeVar("Config", bound=Section)
Parsed = TypeVar("Parsed")


def load_config(path: Path | str, *, overrides: Sequence[str] = ()) -> RunConfig:
    """Read, override and check the config of a run; see `load_file`."""
    return load_file(path, parse_config, overrides=overrides)


def load_file(
    path: Path | str,
    parse: Callable[..., Parsed],
    *,
    overrides: Sequence[str] = (),
    needs: str = "model, pool and utility",
) -> Parsed:
    """Read a YAML file, apply overrides, and hand the data to one of the `parse_...` functions.

    Args:
        path: YAML file; relative paths in it are taken from its folder.
        parse: called with the data, and `root` and `source` by name.
        overrides: `key=value` strings; the key is a dotted path, the value is YAML.
        needs: what the file must at least contain, for the error message.

    Raises:
        UserError: the file cannot be read, or its content is wrong; every problem is named.
    """
    path = Path(path)
    data = apply_overrides(_read_yaml(path, needs=needs), overrides)
    return parse(data, root=path.resolve().parent, source=str(path))


def split_section(
    data: dict[str, Any], name: str, model: type[Config], *, source: str
) -> tuple[Config, dict[str, Any]]:
    """Take the section `name` out of a run's config: the checked section, and the rest."""
    section = data.get(name) or {}
    if not isinstance(section, dict):
        raise UserError(f"{source}: {name}: must be a section")
    return check_section(section, model, source=f"{source}: {name}"), {k: v for k, v in data.items() if k != name}


def check_section(data: dict[str, Any], model: type[Config], *, source: str) -> Config:
    """Check plain data against a model."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error)}") from None


def check_shared_folder(run: RunConfig, what: str, *, source: str) -> None:
    """Refuse a URL as output."""
    if run.place.url is not None:
        raise UserError(f"{source}: output {run.output}: {what} needs a folder that all nodes share")


def parse_config(data: dict[str, Any], *, root: Path, source: str = "config") -> RunConfig:
    """Check a configuration given as plain data; `root` is what relative paths start from."""
    return _parse(RunConfig, data, root=root, source=source)


def load_training(path: Path | str, *, overrides: Sequence[str] = ()) -> TrainingConfig:
    """`load_config` for a training of experts."""
    return load_file(path, parse_training, overrides=overrides, needs="model, pool and experts")


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
    return check_section(_absolute(data, root, model), model, source=source)


def dump_config(config: Section) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def apply_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`data` with each `a.b=value` set; `data` itself is left as it is."""
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(data, sort_keys=False)) or {}
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


def _read_yaml(path: Path, *, needs: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML config") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    try:
        data = yaml.load(text, _Loader)  # nosec B506
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{where}: is not valid YAML ({getattr(error, 'problem', None) or 'syntax error'})"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{path}: holds a date or number that cannot be read ({error}); put text into quotes") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: must be a mapping with at least {needs}")
    return data


def _absolute(data: dict[str, Any], root: Path, model: type[Section]) -> dict[str, Any]:
    """Paths of the config relative to `root` made absolute, so that any worker in any folder reads the same files."""
    start = data.get("root", ".")
    if not isinstance(start, str | Path):
        raise UserError(f"root: must be the path of a folder, not {start!r}")
    root = Path(resolved(str(start), root))
    result = _walk_paths(data, root) | {"root": str(root)}
    if "output" in model.model_fields:
        result.setdefault("output", "runs")
    if isinstance(output := result.get("output"), str):
        result["output"] = resolved(output, root)
    if isinstance(name := result.get("model"), str):
        result["model"] = resolved_model(name, root)
    if isinstance(pool := result.get("pool"), dict) and isinstance(small := pool.get("small_model"), str):
        result["pool"] = pool | {"small_model": resolved_model(small, root)}
    if isinstance(search := result.get("search"), dict) and "start" in search:
        result["search"] = search | {"start": _start(search["start"], root)}
    return result


def _start(start: Any, root: Path) -> Any:
    """Where a search starts, with a recipe in place of its path: the resolved config does not depend on the file."""
    if not isinstance(start, str | Path) or start in STARTS:
        return start
    if is_url(str(start)):
        raise UserError(f"search.start: {start} is a URL; copy the recipe.json to a file and give its path")
    return start_of(Path(resolved(str(start), root)))


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


def local_model(model: str) -> str:
    """A base model given to a command: a folder as an absolute path, because files will name it; else its name."""
    return resolved_model(model, Path.cwd())


def resolved_model(model: str, root: Path) -> str:
    """The folder of a model made absolute; a name on the hub stays as it is."""
    return resolved(model, root) if _is_local(model, root) else model


def _is_local(model: str, root: Path) -> bool:
    if model.startswith((".", "/", "~")):
        return True
    return model != "" and not is_url(model) and Path(resolved(model, root)).is_dir()


def _is_on_hub(expert: Any, root: Path) -> bool:
    return isinstance(expert, str) and is_hub_name(expert) and not (root / expert).exists()


def _walk_paths(node: Any, root: Path, key: str = "") -> Any:
    if isinstance(node, dict):
        inner = {k: "data" if key == "experts" and isinstance(v, str) else k for k, v in node.items()}
        return {k: v if k == "columns" else _walk_paths(v, root, inner[k]) for k, v in node.items()}
    if isinstance(node, list) and key in ("experts", "pool"):
        return [item if _is_on_hub(item, root) else _walk_paths(item, root, key) for item in node]
    if isinstance(node, str) and key in ("experts", "pool", "path", "data"):
        return resolved(node, root)
    return node


def explain(error: ValidationError) -> str:
    """All problems of a validation error in one line, joined by `; `."""
    return "; ".join(map(_explain_one, error.errors()))


def _explain_one(problem: Any) -> str:
    # pydantic adds parts to a location for members of a union.
    internal = ("lax-or-strict[", "list[", "function-", "tag-")
    where = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(internal))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "unknown_key":
        return f"unknown key {where}; {message}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] == "model_type":
        message = "must be a section"
    given = problem.get("input")
    shown = f", got {given!r}" if isinstance(given, str | int | float | bool | None) else ""
    return f"{where}: {message[:1].lower()}{message[1:]}{shown}" if where else message
