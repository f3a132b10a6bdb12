"""Check that the Ray node in this container, if any, is healthy: healthcheck.py [port of the dashboard agent]."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path


def has_raylet() -> bool:
    """Whether a raylet runs in this container."""
    for name in Path("/proc").glob("[0-9]*/comm"):
        try:
            if name.read_text().strip() == "raylet":
                return True
        except OSError:  # the process has exited
            continue
    return False


def healthy(port: int) -> bool:
    """Whether the raylet reports that it is healthy. This endpoint needs no token, for Kubernetes' probes."""
    try:
        url = f"http://127.0.0.1:{port}/api/local_raylet_healthz"
        with urllib.request.urlopen(url, timeout=4) as answer:  # nosec
            return b"success" in answer.read()
    except OSError:
        return False


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 52365
    sys.exit(0 if not has_raylet() or healthy(port) else 1)
