"""A disk that fills in mid-run: one line that says so, nothing lost, and the same bytes once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from echo import echo_config, result_bytes

import evoswarm
from evoswarm.callbacks import Callbacks, Event
from evoswarm.errors import UserError
from evoswarm.loop.checkpoint import generations_saved
from evoswarm.loop.directory import RunDirectory


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "evoswarm-test", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs; tests/cli/test_cli.py limits the size of files instead")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> None:
    (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bfree * os.statvfs(disk).f_bsize))


@pytest.mark.parametrize(
    "written",
    [
        "outcomes/gen_0002.partial.jsonl",
        pytest.param("outcomes/gen_0002.jsonl", marks=pytest.mark.slow),
        pytest.param("outcomes/gen_0002.rows.safetensors", marks=pytest.mark.slow),
        "checkpoints/gen_0002.safetensors",
    ],
)
def test_whichever_file_a_full_disk_cuts_short_the_run_continues_from_its_last_checkpoint(
    tmp_path: Path, small_disk: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = echo_config(tmp_path, "name=whole")
    evoswarm.run(whole)
    config = echo_config(tmp_path, f"output={small_disk}")

    def notify(event: Event) -> None:
        if event["kind"] == "generation" and event["generation"] == 1 and "partial" in written:
            fill(small_disk)

    def write(directory: RunDirectory, name: str | Path, data: bytes) -> None:
        if str(name) == written:
            fill(small_disk)
        write_file(directory, name, data)

    write_file = RunDirectory.write
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write", write)
        with pytest.raises(UserError, match=r"No space left on device; results up to generation 1 are kept\. Fix"):
            evoswarm.run(config, callbacks=Callbacks(notify=notify))
    assert generations_saved(RunDirectory(config.run_dir)) == [0, 1]
    (small_disk / "filler").unlink()
    assert evoswarm.run(config)["generations"] == 4
    assert result_bytes(config.run_dir) == result_bytes(whole.run_dir)
    assert not [path for path in config.run_dir.rglob("*") if path.name.endswith((".tmp", ".partial.jsonl"))]
