"""Errors that reach a user."""

from __future__ import annotations


class UserError(ValueError):
    """The user's mistake: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """


class Stopped(Exception):
    """The run was asked to stop; everything measured is kept, and `--resume auto` goes on from there."""


class ClusterError(RuntimeError):
    """Workers or nodes were lost more often than is bearable; the run can be resumed."""
