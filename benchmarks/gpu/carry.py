"""Carry wheels to a machine without a network, where one transfer takes only so many bytes.

Here:   python -m benchmarks.gpu.carry split WHEEL ... --into pieces --drop '*/_vllm_fa2_C*'
        then transfer pieces/0, pieces/1, ... one by one.
There:  python -m benchmarks.gpu.carry join pieces --into wheels
        then pip install --no-index --no-deps wheels/*.whl.

`--drop` leaves files out of wheels, for example flash-attention 2's library (130 MB), which an H100 does not use. This
file needs only the standard library, so it can run by itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

TRANSFER = 60 << 20
"""Bytes of one transfer, somewhat below 64 MiB."""
MANIFEST = "carry.json"


def split(wheels: Sequence[Path], into: Path, *, size: int = TRANSFER, drop: Sequence[str] = ()) -> int:
    """Cut wheels into numbered folders of at most `size` bytes, each with a manifest; return how many."""
    into.mkdir(parents=True)
    folder, room = -1, 0
    for wheel in wheels:
        slim = without(wheel, drop, into / wheel.name) if drop else wheel
        digest, number, left = checksum(slim), 0, slim.stat().st_size
        with slim.open("rb") as file:
            while left:
                if room == 0:
                    folder, room = folder + 1, size
                    (into / str(folder)).mkdir()
                data = file.read(min(room, left))
                entry = {"wheel": wheel.name, "part": number, "sha256": digest}
                name = f"{wheel.name}.{number:03}"
                (into / str(folder) / name).write_bytes(data)
                (into / str(folder) / f"{name}.{MANIFEST}").write_text(json.dumps(entry))
                number, room, left = number + 1, room - len(data), left - len(data)
        if slim != wheel:
            slim.unlink()
    return folder + 1


def join(pieces: Path, into: Path) -> list[Path]:
    """Put the wheels together again.

    Raises:
        ValueError: a part is missing or damaged.
    """
    into.mkdir(parents=True, exist_ok=True)
    entries = [(json.loads(path.read_text()), path) for path in pieces.rglob(f"*.{MANIFEST}")]
    joined = []
    for name in sorted({entry["wheel"] for entry, _ in entries}):
        parts = sorted((entry["part"], path) for entry, path in entries if entry["wheel"] == name)
        with (into / name).open("wb") as target:
            for _, path in parts:
                with path.with_name(path.name.removesuffix(f".{MANIFEST}")).open("rb") as source:
                    shutil.copyfileobj(source, target, 1 << 24)
        digest = next(entry["sha256"] for entry, _ in entries if entry["wheel"] == name)
        if checksum(into / name) != digest:
            raise ValueError(f"{name}: a part is missing or damaged; transfer its parts again")
        joined.append(into / name)
    return joined


def without(wheel: Path, drop: Sequence[str], target: Path) -> Path:
    """A copy of a wheel without the files that match a pattern; the wheel itself if there are none."""
    with zipfile.ZipFile(wheel) as source:
        kept = [info for info in source.infolist() if not any(fnmatch(info.filename, pattern) for pattern in drop)]
        if len(kept) == len(source.infolist()):
            return wheel
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as result:
            for info in kept:
                with source.open(info) as data, result.open(info.filename, "w", force_zip64=True) as copy:
                    shutil.copyfileobj(data, copy, 1 << 24)
    return target


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            yield block


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("split", "join"):
        one = commands.add_parser(command)
        one.add_argument("paths", nargs="+", type=Path, help="wheels to split, or the folder of all pieces")
        one.add_argument("--into", required=True, type=Path)
        one.add_argument("--drop", action="append", default=[], help="pattern of files to leave out of wheels")
    given = parser.parse_args()
    if given.command == "split":
        count = split(given.paths, given.into, drop=given.drop)
        print(f"{count} transfers: {given.into}/0 to {given.into}/{count - 1}")
    else:
        print("\n".join(str(path) for folder in given.paths for path in join(folder, given.into)))


if __name__ == "__main__":
    main()
