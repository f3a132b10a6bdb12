"""Why a cluster refuses this process, from the settings of token authentication: Ray's errors are texts only."""

from __future__ import annotations

import os
from pathlib import Path

HINT = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with the cluster's token"


def token_problem() -> str:
    """What is wrong with the token, in a phrase that continues "the cluster at X ..."."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return f"needs a token, but RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']} sends none; unset it and {HINT}"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return f"does not accept the token in RAY_AUTH_TOKEN; {HINT}"
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        if not _has_text(Path(path)):
            return f"needs a token, but the file {path} (RAY_AUTH_TOKEN_PATH) is missing or empty; {HINT}"
        return f"does not accept the token in {path} (RAY_AUTH_TOKEN_PATH); {HINT}"
    if not _has_text(Path("~/.ray/auth_token").expanduser()):
        return f"needs a token, but none was sent; {HINT}"
    return f"does not accept the token in ~/.ray/auth_token; {HINT}"


def _has_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return False
