"""A folder that is being written has its name only when it is complete."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evoswarm.place import replacing_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from evoswarm.place import replacing_folder

with replacing_folder(Path(sys.argv[1])) as new:
    (new / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with replacing_folder(tmp_path / "deep" / "folder") as new:
            (new / text).write_text(text)
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["folder", "new"]


def test_a_failure_leaves_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), replacing_folder(tmp_path / "folder"):
        raise OSError("disk full")
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


def test_after_a_kill_there_is_no_folder_and_the_next_try_succeeds(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert done.returncode == -9 and not folder.exists()
    with replacing_folder(folder) as new:
        (new / "whole").write_text("whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "whole"]
