"""Test the Dockerfile's commands without a container engine: docker/prove.py cpu|gpu [--keep FOLDER] [--plan]

Runs every RUN of the image's stages in a fresh folder that stands for the root file system, with the preceding ENV, ARG
and COPY. Then runs the image's CMD, and the toy world in one process. Skips and prints the steps that install Debian
packages, because they need a real root file system. (tests/cluster runs the health check.) Takes minutes; gpu also
downloads gigabytes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOVED = ("/src", "/opt/evoswarm", "/etc/profile.d", "/home/ray")
TRY = """
from evoswarm.config.load import parse_config
from evoswarm.toy.config import target_config
import evoswarm, pathlib
data = target_config("trio", algorithm="random_search") | {"backend": {"type": "local"}}
data["search"] |= {"population": 2, "max_generations": 0}
print(evoswarm.run(parse_config(data, root=pathlib.Path.cwd()))["best"]["test"])
"""


@dataclass
class Step:
    """One instruction with its environment and working directory."""

    word: str
    text: str
    env: dict[str, str]
    folder: str


@dataclass
class Stage:
    """A stage: the name or image of its parent, and its instructions."""

    parent: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages(text: str, build: str) -> dict[str, Stage]:
    """The stages of a Dockerfile by name, for one value of the argument BUILD."""
    found: dict[str, Stage] = {}
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    stage = Stage("")
    for line in lines.splitlines():
        word, _, rest = re.sub(r"\s+", " ", line).strip().partition(" ")
        if word == "FROM":
            parent, _, name = rest.replace("${BUILD}", build).partition(" AS ")
            stage = found.setdefault(name, Stage(parent))
        elif word and stage.parent:
            stage.steps.append((word, rest))
    return found


def plan(text: str, build: str, target: str = "evoswarm") -> list[Step]:
    """The instructions that build the target, in an order in which they can run in one folder."""
    found, done, steps = stages(text, build), set[str](), list[Step]()
    state: dict[str, tuple[dict[str, str], str]] = {}

    def make(name: str) -> None:
        if name in done or name not in found:
            return
        done.add(name)
        stage = found[name]
        make(stage.parent)
        env, folder = state.get(stage.parent, ({}, "/"))
        for word, rest in stage.steps:
            for source in re.findall(r"(?:--from=|,from=)([\w-]+)", rest):
                make(source)
            if word == "WORKDIR":
                folder = rest
            elif word in ("ENV", "ARG"):
                env = env | {k: v.strip('"') for k, _, v in (item.partition("=") for item in rest.split(" ") if item)}
            else:
                steps.append(Step(word, re.sub(r"--mount=\S+ ", "", rest), env, folder))
        state[name] = env, folder

    make(target)
    return steps


def prove(steps: list[Step], root: Path) -> None:
    """Run the steps with `root` as the root file system."""
    for path in MOVED:
        (root / path[1:]).mkdir(parents=True, exist_ok=True)
    env = os.environ | {"PATH": f"{Path(sys._base_executable).parent}:{os.environ['PATH']}"}  # type: ignore[attr-defined]
    for step in steps:
        here = {name: _moved(value, root).replace("$PATH", env["PATH"]) for name, value in step.env.items()}
        folder = Path(_moved(step.folder, root))
        if step.word == "COPY":
            _copy(step.text, folder, root)
        elif step.word == "RUN" and "apt-get" in step.text:
            print(f"SKIPPED (Debian packages): {step.text}", flush=True)
        elif step.word in ("RUN", "CMD"):
            _run(_command(step, root), folder, env | here)
            last = folder, env | here
    python = root / "opt/evoswarm/bin/python"
    _run([str(python), "-c", TRY], last[0], last[1] | {"HF_HUB_OFFLINE": "1"})


def _command(step: Step, root: Path) -> list[str]:
    if step.word == "RUN":
        return ["/bin/sh", "-c", _moved(step.text, root)]
    words: list[str] = json.loads(step.text)
    return [_moved(word, root) for word in words]


def _moved(text: str, root: Path) -> str:
    for path in MOVED:
        text = re.sub(rf"(?<![\w/.]){re.escape(path)}\b", f"{root}{path}", text)
    return text


def _copy(text: str, folder: Path, root: Path) -> None:
    if text.startswith("--from="):
        return  # all stages share one folder
    *sources, target = text.split(" ")
    place = folder / _moved(target, root)
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, place)


def _run(command: list[str], folder: Path, env: dict[str, str]) -> None:
    print("RUN", " ".join(command), flush=True)
    path = shutil.which(command[0], path=env["PATH"]) or command[0]
    subprocess.run([path, *command[1:]], cwd=folder, env=env, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("build", choices=["cpu", "gpu"])
    parser.add_argument("--keep", type=Path, help="use this folder and keep it")
    parser.add_argument("--plan", action="store_true", help="only print the steps")
    arguments = parser.parse_args()
    steps = plan((ROOT / "docker/Dockerfile").read_text(encoding="utf-8"), arguments.build)
    if arguments.plan:
        print(*(f"{step.word} {step.text}" for step in steps), sep="\n")
        return
    if arguments.keep:
        prove(steps, arguments.keep.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="evoswarm-image-") as folder:
        prove(steps, Path(folder))


if __name__ == "__main__":
    main()
