"""Errors that are shown to the user."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake by the user: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class Stopped(Exception):
    """The run was asked to stop. All measurements are kept, and `--resume auto` continues from there."""


class ClusterError(RuntimeError):
    """The run lost too many workers or nodes. It can be resumed."""
