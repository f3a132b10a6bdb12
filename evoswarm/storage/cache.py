"""Local copies of files at URLs: each is downloaded once per node, by one process, however many need it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from evoswarm.place import cache_folder, is_url
from evoswarm.storage.remote import Remote, Stamp

STAMPS = ".stamps.json"
"""File in a copy that lists what was downloaded, by name."""


def cached_folder(url: str) -> Path:
    """A local folder with the files below a URL. It is named by their content and never changes.

    Nothing is downloaded again while names, sizes and times at the URL stay the same. Equal content from several URLs
    is stored once.
    """
    remote = Remote(url)
    stamps = remote.stamps()
    cache = cache_folder() / "experts"
    seen = hashlib.sha256(json.dumps([remote.url, sorted(stamps.items())]).encode()).hexdigest()
    with _locked(cache / "index" / seen) as index:
        known = index.read_text() if index.exists() else ""
        if known and (cache / known).is_dir():
            return cache / known
        temporary = cache / f".{seen}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        for name in stamps:
            remote.get(name, temporary / name)
        content = _content(temporary, sorted(stamps))
        with contextlib.suppress(OSError):  # the same content may be there from another URL
            temporary.replace(cache / content)
        shutil.rmtree(temporary, ignore_errors=True)
        index.write_text(content)
        return cache / content


def children(url: str) -> list[str]:
    """Names of the direct subfolders of a URL that contain files."""
    names = {name.partition("/")[0] for name in Remote(url).stamps() if "/" in name}
    return sorted(name for name in names if not name.startswith("."))


def local_copy(place: str | Path, *, light: bool = False) -> Path:
    """The folder of a path, or an updated copy of a URL; `light` leaves out the weights in `best/` and `basis/`."""
    if not is_url(str(place)):
        return Path(str(place).removeprefix("file://"))
    remote = Remote(str(place))
    name = remote.url.rpartition("/")[2]
    folder = cache_folder() / "copies" / hashlib.sha256(remote.url.encode()).hexdigest()[:16] / name
    with _locked(folder):
        now = remote.stamps()
        before = _read_stamps(folder)
        for old in set(before) - set(now):
            (folder / old).unlink(missing_ok=True)
        wanted = {file: stamp for file, stamp in now.items() if not (light and _is_weights(file))}
        for file, stamp in wanted.items():
            if before.get(file) != stamp or not (folder / file).exists():
                remote.get(file, folder / file)
        folder.mkdir(parents=True, exist_ok=True)
        kept = {file: stamp for file, stamp in now.items() if file in wanted or before.get(file) == stamp}
        (folder / STAMPS).write_text(json.dumps(kept))
    return folder


def _is_weights(name: str) -> bool:
    return name.startswith(("best/", "basis/")) and name.endswith(".safetensors")


def _read_stamps(folder: Path) -> dict[str, Stamp]:
    try:
        return {name: (size, time) for name, (size, time) in json.loads((folder / STAMPS).read_text()).items()}
    except (OSError, ValueError):
        return {}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Lock `path` against other processes of this node."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def _content(folder: Path, names: list[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            digest.update(f"{name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
