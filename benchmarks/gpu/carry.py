"""Carry installed packages to a machine without a network, where one transfer takes only so many bytes.

Here:   pip install --no-deps --target site PACKAGE ...
        python benchmarks/gpu/carry.py pack site --into pieces --drop '*/_vllm_fa2_C*' --capability 90
        then transfer pieces/0, pieces/1, ... one by one.
There:  python benchmarks/gpu/carry.py unpack pieces --into site
        then PYTHONPATH=site.

`--drop` leaves files out: flash-attention 2's library (305 MB), for example, which an H100 does not use. `--capability`
blanks the code for other GPUs in what is left. This file needs only the standard library, so it can run by itself.
"""

from __future__ import annotations

import argparse
import io
import struct
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

TRANSFER = 52 << 20
"""Bytes of one transfer: 64 MiB, less the checkout that travels along."""
ARCHIVES = 16
"""Archives are packed and unpacked side by side."""
FATBIN = struct.pack("<I", 0xBA55ED50)
HEADER = 16
PTX, SASS = 1, 2


def pack(
    site: Path,
    into: Path,
    *,
    size: int = TRANSFER,
    drop: Sequence[str] = (),
    capability: int | None = None,
    archives: int = ARCHIVES,
) -> int:
    """Compress a folder and cut it into numbered folders of at most `size` bytes; return how many."""
    bins: list[list[Path]] = [[] for _ in range(archives)]
    room = [0] * archives
    for path in sorted(kept(site, drop), key=lambda path: path.stat().st_size, reverse=True):
        smallest = room.index(min(room))
        bins[smallest].append(path)
        room[smallest] += path.stat().st_size
    into.mkdir(parents=True)
    with ProcessPoolExecutor() as processes:
        packed = list(processes.map(archive, bins, [site] * archives, [capability] * archives))
    count, free = 0, 0
    for number, whole in enumerate(packed):
        data, part = io.BytesIO(whole), 0
        while data.tell() < len(whole):
            if not free:
                count, free = count + 1, size
                (into / str(count - 1)).mkdir()
            piece = data.read(free)
            (into / str(count - 1) / f"{number}-of-{archives}.{part}-of-{len(whole)}").write_bytes(piece)
            part, free = part + 1, free - len(piece)
    return count


def kept(site: Path, drop: Sequence[str]) -> Iterator[Path]:
    """The files of a folder that match no pattern."""
    for path in site.rglob("*"):
        name = path.relative_to(site).as_posix()
        if path.is_file() and "__pycache__" not in path.parts and not any(fnmatch(name, one) for one in drop):
            yield path


def archive(paths: Sequence[Path], site: Path, capability: int | None) -> bytes:
    """A .tar.xz of files."""
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w:xz", preset=6) as target:
        for path in paths:
            info = target.gettarinfo(path, path.relative_to(site).as_posix())
            content = path.read_bytes()
            if capability is not None and ".so" in path.suffixes:
                content = for_gpu(content, capability)
            target.addfile(info, io.BytesIO(content))
    return result.getvalue()


def for_gpu(library: bytes, capability: int) -> bytes:
    """A library of the same size with zeros in place of code for other GPUs.

    The machine code for this capability stays; where a kernel has none, its PTX for this capability and older ones.
    """
    data = bytearray(library)
    for entries in fat_binaries(library):
        native = any(kind == SASS and number == capability for _, _, kind, number in entries)
        for start, length, kind, number in entries:
            wanted = number == capability if kind == SASS else number <= capability and not native
            if not wanted:
                data[start : start + length] = bytes(length)
    return bytes(data)


def fat_binaries(library: bytes) -> Iterator[list[tuple[int, int, int, int]]]:
    """Start, length, kind and capability of each piece of GPU code, by the fat binary that holds it."""
    start = library.find(FATBIN)
    while 0 <= start <= len(library) - HEADER:
        version, header, size = struct.unpack_from("<HHQ", library, start + 4)
        place = start + header
        end = place + size
        if version != 1 or end > len(library):
            start = library.find(FATBIN, start + 4)
            continue
        entries = []
        while place < end:
            kind, _, header, length = struct.unpack_from("<HHIQ", library, place)
            (number,) = struct.unpack_from("<I", library, place + 28)
            entries.append((place + header, length, kind, number))
            place += header + length
        yield entries
        start = library.find(FATBIN, end)


def unpack(pieces: Sequence[Path], into: Path) -> None:
    """Put a folder together again.

    Raises:
        ValueError: a piece is missing or damaged.
    """
    parts: dict[str, list[tuple[int, int, Path]]] = {}
    for path in (path for folder in pieces for path in folder.rglob("*-of-*.*-of-*")):
        archive_name, _, part = path.name.partition(".")
        number, _, size = part.partition("-of-")
        parts.setdefault(archive_name, []).append((int(number), int(size), path))
    expected = {int(name.partition("-of-")[2]) for name in parts}
    if expected != {len(parts)}:
        raise ValueError(f"{len(parts)} archives, expected {sorted(expected)}; transfer all pieces")
    into.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as processes:
        list(processes.map(extract, parts.values(), [into] * len(parts)))


def extract(parts: Sequence[tuple[int, int, Path]], into: Path) -> None:
    """Unpack one archive from its parts."""
    data = b"".join(path.read_bytes() for _, _, path in sorted(parts))
    if len(data) != parts[0][1]:
        raise ValueError(f"{parts[0][2]}: a part of this archive is missing or damaged; transfer its pieces again")
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:xz") as source:
        for member in source:
            (into / member.name).parent.mkdir(parents=True, exist_ok=True)  # other processes make the same folders
            source.extract(member, into, filter="tar")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("pack", "unpack"):
        one = commands.add_parser(command)
        one.add_argument("paths", nargs="+", type=Path, help="the folder to pack, or the folders of pieces")
        one.add_argument("--into", required=True, type=Path)
        one.add_argument("--drop", action="append", default=[], help="pattern of files to leave out")
        one.add_argument("--capability", type=int, help="of the GPU there: 90 for an H100")
    given = parser.parse_args()
    if given.command == "pack":
        count = pack(given.paths[0], given.into, drop=given.drop, capability=given.capability)
        print(f"{count} transfers: {given.into}/0 to {given.into}/{count - 1}")
    else:
        unpack(given.paths, given.into)


if __name__ == "__main__":
    main()
