"""The status file: written atomically, and a file that cannot be used is one clear line."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from echo import echo_config

import evoswarm
from evoswarm.callbacks import Callbacks, Event
from evoswarm.errors import Stopped, UserError
from evoswarm.launch.signals import StopRequest
from evoswarm.launch.status import FILE, Status, StatusWriter, read_status, status_of_directory


def generation(number: int) -> Event:
    """The event of a generation of 100 examples in 2 seconds."""
    return {"kind": "generation", "generation": number, "best": 0.5, "examples": 100, "seconds": {"total": 2.0}}


def writer(folder: Path, **settings: Any) -> StatusWriter:
    return StatusWriter(folder / FILE, generations=10, callbacks=Callbacks(), **settings)


def test_a_run_writes_how_far_it_is(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    during: list[Status] = []

    def look(event: Event) -> None:
        if event["kind"] == "generation":
            during.append(status_of_directory(str(config.run_dir)))

    summary = evoswarm.run(config, callbacks=Callbacks(notify=look))
    assert [(status.state, status.generation, status.generations) for status in during] == [
        ("running", number, 4) for number in range(5)
    ]
    end = status_of_directory(str(config.run_dir))
    assert (end.state, end.generation, end.error) == ("finished", 4, None)
    assert end.best == summary["best"]["validation"]
    assert (end.host, end.pid) == (socket.gethostname(), os.getpid())
    assert str(end).startswith(f"finished, generation 4/4, best {end.best:.4f}, ")


def test_a_failed_and_a_stopped_run_say_so_and_continue(tmp_path: Path) -> None:
    (tmp_path / "judge_fails.py").write_text("def judge(example, response):\n    raise RuntimeError('no')\n")
    failing = echo_config(tmp_path, "utility={type: custom, function: 'judge_fails:judge', data: echo.json}", "name=f")
    with pytest.raises(UserError) as caught:
        evoswarm.run(failing)
    status = status_of_directory(str(failing.run_dir))
    assert (status.state, status.error) == ("failed", str(caught.value))
    config, ended = echo_config(tmp_path, "name=s"), []
    with pytest.raises(Stopped):
        evoswarm.run(
            config, callbacks=Callbacks(notify=lambda e: ended.append(e["kind"]), stop=lambda: "generation" in ended)
        )
    status = status_of_directory(str(config.run_dir))
    assert (status.state, status.generation, status.error) == ("stopped", 0, None)
    evoswarm.run(config)
    assert status_of_directory(str(config.run_dir)).state == "finished"


def test_pace_and_time_left_are_those_of_recent_generations(tmp_path: Path) -> None:
    with writer(tmp_path) as callbacks:
        assert read_status(tmp_path / FILE).state == "starting"
        for number in range(8):
            callbacks.notify(generation(number))
        status = read_status(tmp_path / FILE)
    assert (status.examples_per_second, status.seconds_left) == (50, 6)
    assert str(status) == "running, generation 7/10, best 0.5000, 50 examples/s, at most 6 s left"
    with writer(tmp_path):  # a resumed run knows what was before
        again = read_status(tmp_path / FILE)
    assert (again.state, again.generation, again.best, again.error) == ("starting", 7, 0.5, None)


def test_a_run_whose_process_has_died_is_stopped(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"state": "running", "generation": 3, "best": 0.25, "generations": 9}))
    assert str(status_of_directory(str(tmp_path))) == "stopped, generation 3/9, best 0.2500"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    done, seen = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            seen.append(read_status(tmp_path / FILE).state)

    with writer(tmp_path) as callbacks:
        thread = threading.Thread(target=read)
        thread.start()
        for number in range(300):
            callbacks.notify(generation(number))
        done.set()
        thread.join()
    assert seen and set(seen) <= {"starting", "running"}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"state": "running", "gener', "Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "object"),
        ("\udcff", "Invalid JSON"),
        ('{"state": "on its way"}', "state: Input should be 'pending', 'starting'"),
        ('{"generation": 3}', "state: Field required"),
        ('{"state": "running", "epoch": 3}', "epoch: Unexpected keyword argument"),
    ],
)
def test_a_torn_an_old_and_a_foreign_file_are_one_clear_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as caught:
        status_of_directory(str(tmp_path))
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / FILE}: is damaged, or from another version of evoswarm (") and problem in line
    assert "\n" not in line and line.endswith("resume the run to write it again")
    with writer(tmp_path):
        assert read_status(tmp_path / FILE).generation is None
    assert read_status(tmp_path / FILE).state == "finished"


def test_a_folder_without_a_run_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no status\.json; give the directory or URL of a run"):
        status_of_directory(str(tmp_path))


def test_a_status_that_cannot_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    heard: list[Event] = []
    callbacks = Callbacks(notify=heard.append)
    (tmp_path / "file").touch()
    with StatusWriter(tmp_path / "file" / FILE, generations=1, callbacks=callbacks) as watched:
        watched.notify(generation(0))
    assert heard == [generation(0) | {"seconds_left": 2.0}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_the_second_ends(number: signal.Signals) -> None:
    before, announced = signal.getsignal(number), []
    with StopRequest(lambda: announced.append(1)) as stop:
        assert not stop.received
        signal.raise_signal(number)
        assert stop.received and announced == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
