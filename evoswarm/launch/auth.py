"""What is wrong with a cluster's token, in one line."""

from __future__ import annotations

import os

HINT = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with the cluster's token"
_UNREADABLE = "cannot be opened or is empty"
_MISSING = ("no authentication token", "couldn't find an authentication token", "Missing authentication token")


def token_trouble(text: str) -> str:
    """Which of missing, unreadable and wrong an authentication error of Ray means; continues "the cluster at X ..."."""
    if _UNREADABLE in text:
        path = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
        return f"wants a token, and the file {path} (RAY_AUTH_TOKEN_PATH) is missing or empty; {HINT}"
    if any(words in text for words in _MISSING):
        return f"wants a token, and none was sent; {HINT}"
    return f"does not accept the token that was sent; {HINT}"


def silent_refusal() -> str:
    """Why a head that accepts connections lets nobody in: Ray's own error does not say."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return (
            f"lets nobody in; most likely it wants a token, and RAY_AUTH_MODE=disabled sends none; unset it and {HINT}"
        )
    return f"lets nobody in; most likely the token that was sent is not its own; {HINT}"
