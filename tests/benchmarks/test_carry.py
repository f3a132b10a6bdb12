"""Wheels arrive whole, however small a transfer is."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu.carry import join, split


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    paths = []
    for name, size in (("large", 5000), ("small", 10), ("other", 2048)):
        path = tmp_path / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "x = 1")
            wheel.writestr(f"{name}/big.so", random.Random(size).randbytes(size))
        paths.append(path)
    return paths


@pytest.mark.parametrize("size", [100, 1000, 1 << 20])
def test_wheels_are_split_into_transfers_and_joined_byte_by_byte(tmp_path: Path, wheels: list[Path], size: int) -> None:
    pieces = tmp_path / "pieces"
    count = split(wheels, pieces, size=size)
    folders = sorted(pieces.iterdir())
    assert len(folders) == count
    assert all(sum(p.stat().st_size for p in f.iterdir() if p.suffix != ".json") <= size for f in folders)
    joined = join(pieces, tmp_path / "there")
    assert sorted(path.name for path in joined) == sorted(path.name for path in wheels)
    assert all((tmp_path / "there" / path.name).read_bytes() == path.read_bytes() for path in wheels)


def test_files_can_be_left_out_of_wheels(tmp_path: Path, wheels: list[Path]) -> None:
    split(wheels, tmp_path / "pieces", size=1000, drop=["large/*.so"])
    joined = {path.name.partition("-")[0]: path for path in join(tmp_path / "pieces", tmp_path / "there")}
    assert zipfile.ZipFile(joined["large"]).namelist() == ["large/__init__.py"]
    assert zipfile.ZipFile(joined["large"]).read("large/__init__.py") == b"x = 1"
    assert zipfile.ZipFile(joined["other"]).namelist() == ["other/__init__.py", "other/big.so"]


def test_a_missing_part_is_an_error(tmp_path: Path, wheels: list[Path]) -> None:
    split(wheels, tmp_path / "pieces", size=1000)
    part = next((tmp_path / "pieces").rglob("large*.002"))
    part.write_bytes(b"")
    with pytest.raises(ValueError, match="large.*a part is missing or damaged"):
        join(tmp_path / "pieces", tmp_path / "there")
