"""Installed packages arrive whole, however small a transfer is."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from benchmarks.gpu.carry import FATBIN, PTX, SASS, for_gpu, pack, unpack


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    for name, size in (("large", 5000), ("small", 10), ("other", 2048)):
        (site / name / "__pycache__").mkdir(parents=True)
        (site / name / "__init__.py").write_text("x = 1")
        (site / name / "__pycache__" / "old.pyc").write_text("old")
        (site / name / "big.so").write_bytes(random.Random(size).randbytes(size))
    (site / "small" / "tool").write_text("#!/bin/sh")
    (site / "small" / "tool").chmod(0o755)
    return site


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_folder_is_cut_into_transfers_and_arrives_byte_by_byte(tmp_path: Path, site: Path, size: int) -> None:
    pieces, there = tmp_path / "pieces", tmp_path / "there"
    count = pack(site, pieces, size=size, archives=2)
    folders = sorted(pieces.iterdir())
    assert len(folders) == count
    assert all(sum(path.stat().st_size for path in folder.iterdir()) <= size for folder in folders)
    unpack([pieces], there)
    assert files(there) == files(site)
    assert (there / "small" / "tool").stat().st_mode & 0o111 and not list(there.rglob("*.pyc"))


def test_files_can_be_left_out(tmp_path: Path, site: Path) -> None:
    pack(site, tmp_path / "pieces", drop=["large/*.so"], archives=2)
    unpack([tmp_path / "pieces"], tmp_path / "there")
    assert files(site).keys() - files(tmp_path / "there").keys() == {"large/big.so"}


def test_a_missing_piece_is_an_error(tmp_path: Path, site: Path) -> None:
    count = pack(site, tmp_path / "pieces", size=1000, archives=2)
    for number in range(count):
        others = [tmp_path / "pieces" / str(other) for other in range(count) if other != number]
        with pytest.raises(ValueError, match="missing|transfer all pieces"):
            unpack(others, tmp_path / "there")


def test_code_for_other_gpus_is_blanked_and_nothing_moves() -> None:
    def entry(kind: int, capability: int, code: bytes) -> bytes:
        return (
            struct.pack("<HHIQ", kind, 0, 64, len(code)) + bytes(12) + struct.pack("<I", capability) + bytes(32) + code
        )

    def fatbin(*entries: bytes) -> bytes:
        content = b"".join(entries)
        return FATBIN + struct.pack("<HHQ", 1, 16, len(content)) + content

    def library(old: bytes, other: bytes) -> bytes:
        native = fatbin(entry(SASS, 80, old), entry(SASS, 90, b"native"), entry(PTX, 80, old))
        portable = fatbin(entry(SASS, 80, other), entry(PTX, 80, b"portable"), entry(PTX, 100, other))
        return b"host" + native + b"between" + portable + b"end" + FATBIN + b"no header"

    assert for_gpu(library(b"old", b"other"), 90) == library(bytes(3), bytes(5))
