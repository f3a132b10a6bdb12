"""Which folders are the experts of a pool: newest checkpoints, the hub's cache, and what is not used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evoswarm.errors import UserError
from evoswarm.place import Place
from evoswarm.weights.adapter import ADAPTER_CONFIG
from evoswarm.weights.expert import is_expert_folder
from evoswarm.weights.hub import expert_folder, is_hub_name

_NUMBERED = re.compile(r"(?:checkpoint|epoch|step|iter|global_step|ckpt)[-_]?(\d+)")
"""Folders that a training writes one after another."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth", "*.ckpt")
_HUB = "models--"
"""How the hub's cache names the folder of a model."""
DEPTH = 3
"""How many levels below the folder of an expert its files are looked for."""


@dataclass
class Found:
    """The folders of a pool's experts by name, and messages about what was chosen and what is not used."""

    folders: dict[str, Path] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def find_experts(places: Place | list[Place], *, model: str) -> Found:
    """The experts in a folder of folders (sorted by name), or in a list of folders.

    Args:
        places: the folder or the list; each may be a URL or a name on the hub.
        model: the base model; its own folder is not an expert.

    Raises:
        UserError: there are none, or two have one name.
    """
    found = Found()
    if isinstance(places, list):
        if not places:
            raise UserError("pool: the list of experts is empty; give at least two expert folders")
        chosen = {place: _chosen(place, found) for place in _once(places)}
    else:
        chosen = _children(places, found, model)
    names = _names(list(chosen))
    found.folders = dict(zip(names, chosen.values(), strict=True))
    return found


def _once(places: Sequence[Place]) -> Sequence[Place]:
    twice = [place for i, place in enumerate(places) if place in places[:i]]
    if twice:
        raise UserError(f"pool: {'/'.join(_parts(twice[0]))} is listed twice; list every expert once")
    return places


def _names(places: Sequence[Place]) -> list[str]:
    """The folder's name, with its parent if names repeat."""
    parts = [_parts(place) for place in places]
    names = [part[-1] for part in parts]
    for name in names:
        if name.encode(errors="ignore").decode() != name:
            raise UserError(f"pool: the name of the expert folder {name!r} is not UTF-8; rename it")
    if len(set(names)) < len(names):
        names = ["/".join(part) for part in parts]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"pool: {twice} is listed twice; list every expert once")
    return names


def _parts(place: Place) -> list[str]:
    """The last two parts of a place; in the hub's cache, those of the name on the hub."""
    parts = str(place).split("/")
    hub = next((part for part in parts[-3:] if part.startswith(_HUB)), None)
    return hub.removeprefix(_HUB).split("--")[-2:] if hub else parts[-2:]


def _local(place: Place) -> Path:
    """The folder, or this node's copy of a folder at a URL or on the hub."""
    if isinstance(place, Path):
        hub = not place.is_absolute() and not place.exists() and is_hub_name(str(place))
        return expert_folder(str(place), complete=holds_expert) if hub else place
    from evoswarm.storage.cache import cached_folder

    return cached_folder(place)


def _children(place: Place, found: Found, model: str) -> dict[Place, Path]:
    """The experts in a folder of folders."""
    if isinstance(place, str):
        from evoswarm.storage.cache import children

        if not (names := children(place)):
            raise UserError(f"pool: {place} has no folders with files; give the URL of a folder of experts, or a list")
        return {url: _chosen(url, found) for url in (f"{place}/{name}" for name in names)}
    folder = _local(place)
    if not folder.is_dir():
        raise UserError(f"pool: {folder} is not a folder; give a folder of expert folders, or a list of them")
    base = [child for child in _subfolders(folder) if child.resolve() == Path(model).resolve()]
    candidates = [child for child in _subfolders(folder) if child not in base]
    chosen: dict[Place, Path] = {child: path for child in candidates if (path := choose(child, child.name, found))}
    _skip_bases(chosen, found)
    if not chosen:
        hint = "; it is itself an expert: give its parent folder" if is_expert_folder(folder) else ""
        raise UserError(f"pool: {folder} contains no expert folders (with adapter_config.json or config.json){hint}")
    left = [child.name for child in base] + _weights_in(folder)
    if left:
        found.notices.append(f"not used: {_listed(left)} in {folder}: every expert is a folder, and not the base model")
    return chosen


def _chosen(place: Place, found: Found) -> Path:
    folder = _local(place)
    return choose(folder, _parts(place)[-1], found) or folder


def _skip_bases(chosen: dict[Place, Path], found: Found) -> None:
    """The hub's cache holds base models beside adapters."""
    bases = [
        place
        for place, path in chosen.items()
        if Path(place).name.startswith(_HUB) and not (path / ADAPTER_CONFIG).exists()
    ]
    if bases and len(bases) < len(chosen):
        found.notices.append(f"not used: {_listed(['/'.join(_parts(base)) for base in bases])}, full checkpoints")
        for base in bases:
            del chosen[base]


def choose(path: Path, name: str, found: Found) -> Path | None:
    """The folder that holds the expert of `path`: itself, the newest checkpoint in it, or the only expert in it."""
    if path.name.startswith(_HUB) or path.name == "snapshots":
        path = _snapshot(path)
    below = list(_experts_below(path)) if path.is_dir() else []
    numbered = sorted((number, folder) for folder in below if (number := _number(folder)) is not None)
    plain = [folder for folder in below if _number(folder) is None]
    if is_expert_folder(path):
        chosen = path
    elif len(plain) == 1 or (not plain and numbered and len({folder.parent for _, folder in numbered}) == 1):
        chosen = plain[0] if plain else numbered[-1][1]
        found.notices.append(f"{name}: {chosen.relative_to(path)} is used{_why(chosen, below)}")
    else:
        _say_unused(path, name, below, found)
        return None
    others = [str(folder.relative_to(path)) for folder in below if folder != chosen]
    if others:
        found.notices.append(f"{name}: not used: {_listed(others)}; list them in pool.experts to use them")
    return chosen


def _why(chosen: Path, below: Sequence[Path]) -> str:
    return ", the newest checkpoint" if len(below) > 1 and _number(chosen) is not None else ""


def _say_unused(path: Path, name: str, below: Sequence[Path], found: Found) -> None:
    """Say that a folder is no expert, if it looks like one."""
    if below:
        inside = _listed([str(folder.relative_to(path)) for folder in below])
        found.notices.append(f"not used: {name}, which holds several experts ({inside}); list them in pool.experts")
    elif left := [*_weights_in(path), *(file for child in _subfolders(path) for file in _weights_in(child))]:
        found.notices.append(
            f"not used: {name}, which has {_listed(left)} but neither {ADAPTER_CONFIG} nor config.json"
        )


def _weights_in(path: Path) -> list[str]:
    """Files that look like weights."""
    return [file.name for pattern in _WEIGHTS for file in sorted(path.glob(pattern))]


def _snapshot(path: Path) -> Path:
    """The files of a model in the hub's cache: its main revision, or the newest one."""
    root = path if path.name != "snapshots" else path.parent
    main = root / "refs" / "main"
    if main.is_file() and (snapshot := root / "snapshots" / main.read_text().strip()).is_dir():
        return snapshot
    snapshots = sorted(_subfolders(root / "snapshots"), key=lambda folder: folder.stat().st_mtime)
    return snapshots[-1] if snapshots else path


def _experts_below(path: Path, depth: int = DEPTH) -> Iterator[Path]:
    for child in _subfolders(path) if depth else ():
        if holds_expert(child):
            yield child
        else:
            yield from _experts_below(child, depth - 1)


def holds_expert(path: Path) -> bool:
    """Whether a folder has the files of an expert, not only a config.json that may be anything's."""
    if (path / ADAPTER_CONFIG).exists():
        return True
    return (path / "config.json").exists() and any(any(path.glob(f"*{end}")) for end in (".safetensors", ".bin"))


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.name[0] != "." and child.is_dir())


def _number(folder: Path) -> int | None:
    match = _NUMBERED.fullmatch(folder.name)
    return int(match[1]) if match else None


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
