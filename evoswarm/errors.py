"""Errors that are shown to the user."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG}
"""Errors of the operating system that mean a disk the user has to fix. A write that fails names no file."""


class UserError(ValueError):
    """A mistake by the user: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class Stopped(Exception):
    """The run was asked to stop. All measurements are kept, and `--resume auto` continues from there."""


class ClusterError(RuntimeError):
    """The run lost too many workers or nodes. It can be resumed."""


def did_you_mean(name: object, known: Iterable[str], *, kind: str) -> str:
    """The closest known name, or all of them, to end an error message: `did you mean ...?` or `known types: ...`."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known {kind}: {', '.join(names)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def not_installed(who: str, package: str, *, extra: str) -> UserError:
    """The error for a package of one of evoswarm's extras."""
    return UserError(f"{who} needs {package}: pip install '.[{extra}]' in the checkout")
