"""Backends measure rows: all in this process, or on a Ray cluster."""

from evoswarm.backend.base import Backend, Evaluation, Job

__all__ = ["Backend", "Evaluation", "Job"]
