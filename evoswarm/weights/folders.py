"""Which folders are the experts of a pool, and how they are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evoswarm.errors import UserError
from evoswarm.place import Place
from evoswarm.weights.adapter import ADAPTER_CONFIG
from evoswarm.weights.checkpoints import HUB, Found, choose, holds_expert, subfolders, weights_in
from evoswarm.weights.expert import is_expert_folder
from evoswarm.weights.hub import expert_folder, is_hub_name
from evoswarm.weights.words import listed


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
    hub = next((part for part in parts[-3:] if part.startswith(HUB)), None)
    return hub.removeprefix(HUB).split("--")[-2:] if hub else parts[-2:]


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
    if not is_expert_folder(folder) and any((folder / "hub").glob(f"{HUB}*")):
        found.notices.append(f"{folder}: its folder hub is used, the hub's cache")
        folder = folder / "hub"
    base = [child for child in subfolders(folder) if child.resolve() == Path(model).resolve()]
    candidates = [child for child in subfolders(folder) if child not in base]
    chosen: dict[Place, Path] = {child: path for child in candidates if (path := choose(child, child.name, found))}
    _skip_bases(chosen, found)
    if not chosen:
        hint = "; it is itself an expert: give its parent folder" if is_expert_folder(folder) else ""
        why = f"{folder} contains no expert folders (with adapter_config.json or config.json){hint}"
        raise UserError("; ".join([f"pool: {why}", *found.notices]))
    left = [child.name for child in base] + weights_in(folder)
    if left:
        found.notices.append(f"not used: {listed(left)} in {folder}: every expert is a folder, and not the base model")
    return chosen


def _chosen(place: Place, found: Found) -> Path:
    folder = _local(place)
    return choose(folder, _parts(place)[-1], found) or folder


def _skip_bases(chosen: dict[Place, Path], found: Found) -> None:
    """The hub's cache holds base models beside adapters."""
    bases = [
        place
        for place, path in chosen.items()
        if Path(place).name.startswith(HUB) and not (path / ADAPTER_CONFIG).exists()
    ]
    if bases and len(bases) < len(chosen):
        found.notices.append(f"not used: {listed(['/'.join(_parts(base)) for base in bases])}, full checkpoints")
        for base in bases:
            del chosen[base]
