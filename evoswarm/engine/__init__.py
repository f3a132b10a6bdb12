"""Engines run a model: install weights, generate text, score options."""

from evoswarm.engine.base import Engine, answer
from evoswarm.engine.make import make_engine

__all__ = ["Engine", "answer", "make_engine"]
