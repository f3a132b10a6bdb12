"""Check the pinned versions for known vulnerabilities: audit.py [--strict]

Prints one line: no known vulnerabilities, the vulnerable packages (exit status 1), or that nothing was audited because
the advisory service did not answer. With `--strict`, the last case fails too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--format=json", "--timeout=10"]


def ask(requirements: str) -> list[dict[str, Any]]:
    """pip-audit's result for each pinned package; empty if pip-audit failed."""
    command = [*COMMAND, "--no-deps", "--disable-pip", "--requirement=/dev/stdin"]
    done = subprocess.run(command, input=requirements, capture_output=True, text=True)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return []
    return found


def summary(found: list[dict[str, Any]], pins: int) -> tuple[str, bool, bool]:
    """The line to print, whether any package is vulnerable, and whether all packages were audited."""
    audited = [item for item in found if "skip_reason" not in item]
    bad = [f"{i['name']} {i['version']} ({', '.join(v['id'] for v in i['vulns'])})" for i in audited if i["vulns"]]
    if not audited:
        return f"audit: NOT AUDITED: the advisory service did not answer for any of {pins} packages", False, False
    partly = "" if len(audited) == pins else f"; {pins - len(audited)} of {pins} packages NOT AUDITED"
    text = (
        f"known vulnerabilities in {'; '.join(bad)}" if bad else f"no known vulnerabilities in {len(audited)} packages"
    )
    return f"audit: {text}{partly}", bool(bad), len(audited) == pins


def main() -> int:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    first = ask(lines[0])  # try one package first: if the service is down, auditing all of them takes minutes to fail
    answered = any("skip_reason" not in item for item in first)
    text, vulnerable, whole = summary(ask("\n".join(lines)) if answered else [], len(lines))
    print(text)
    return int(vulnerable or ("--strict" in sys.argv[1:] and not whole))


if __name__ == "__main__":
    sys.exit(main())
