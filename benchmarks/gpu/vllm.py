"""vLLM and Ray on a GPU, in parts with a process and a time limit each: `python -m benchmarks.gpu.vllm --out DIR`.

Prints and saves each part's figures (DIR/figures.json) and output (DIR/log.txt) as they come. Needs vLLM and Ray, which
`benchmarks.gpu.carry` takes to a machine without a network; evoswarm need not be installed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.gpu import ray_parts, vllm_parts
from benchmarks.gpu.served import Notes, Served

Part = Callable[[Notes, Path, bool], None]


def model(note: Notes, folder: Path, tiny: bool) -> None:
    """Make the 7B model, which takes longest to write."""
    Served(folder, tiny, large=True).base()


PARTS: dict[str, tuple[Part, int]] = {
    "merged": (vllm_parts.merged, 180),
    "actors": (ray_parts.actors, 60),
    "deterministic": (partial(vllm_parts.repeated, deterministic=True), 120),
    "side by side": (vllm_parts.beside, 120),
    "run": (ray_parts.whole_run, 200),
    "particles on the GPU": (ray_parts.particles_on_gpu, 200),
    "model 7B": (model, 90),
    "merged 7B": (partial(vllm_parts.merged, large=True), 180),
    "side by side 7B": (partial(vllm_parts.beside, large=True), 180),
}
"""Each part, and the seconds after which it is stopped."""
LEAST = 20
"""Seconds that a part needs at least."""


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.vllm", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--folder", type=Path, help="folder for models, kept; default: a temporary one")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the parts without a GPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--seconds", type=float, default=600, help="start no part later, and stop the last one then")
    parser.add_argument("--part", choices=PARTS, help="run this part in this process")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        if given.part:
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
            try:
                PARTS[given.part][0](Notes(given.out / "figures.json", given.part), folder, given.tiny)
            except Exception as error:
                if error.__context__ is not None:  # what an error for users hides
                    traceback.print_exception(error.__context__)
                raise
            return
        end = time.perf_counter() + given.seconds
        for part in given.parts:
            if (left := end - time.perf_counter()) < LEAST:
                break
            works = alone(part, given.out, folder, tiny=given.tiny, limit=min(PARTS[part][1], left))
            if not works and part == "merged":
                break  # nothing else would work


def alone(part: str, out: Path, folder: Path, *, tiny: bool, limit: float) -> bool:
    """Run one part in its own process; print what it found, or the end of its output. Whether it ended well."""
    command = [sys.executable, "-m", "benchmarks.gpu.vllm", "--out", str(out), "--folder", str(folder), "--part", part]
    start, began, note = time.perf_counter(), time.time(), Notes(out / "figures.json", part)
    with (out / "log.txt").open("a") as log:
        print(f"\n===== {part}", file=log, flush=True)
        begin = log.tell()
        process = subprocess.Popen(
            command + ["--tiny"] * tiny, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            ended = f"exit status {process.wait(limit)}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    note(seconds=round(time.perf_counter() - start, 1), ended=ended)
    print(json.dumps(json.loads((out / "figures.json").read_text())[part]), flush=True)
    works = ended == "exit status 0"
    own = (out / "log.txt").read_bytes()[begin:].decode(errors="replace")
    if not works:
        print(end_of(own, 40), flush=True)
    with (out / "log.txt").open("a") as log:
        for path in others(process.pid, since=began):
            text = path.read_text(errors="replace")
            print(f"\n----- {path.name}\n{end_of(text, 200)}", file=log)
            if not works and path.name.startswith("evoswarm"):
                print(f"----- {path.name}\n{end_of(text, 15)}", flush=True)
    return works


def others(process: int, *, since: float) -> list[Path]:
    """Logs of what a part started: vLLM's, and those of Ray's actors."""
    ray = Path("/tmp/ray/session_latest/logs")
    actors = [path for path in ray.glob("worker-*.[eo]*") if path.stat().st_size and path.stat().st_mtime >= since]
    return [*Path(tempfile.gettempdir()).glob(f"evoswarm-vllm-{process}.log"), *actors[:60]]


def end_of(text: str, count: int) -> str:
    """The last lines."""
    return "\n".join(line[:400] for line in text.splitlines()[-count:])


if __name__ == "__main__":
    main()
