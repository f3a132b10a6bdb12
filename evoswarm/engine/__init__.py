"""Engines run a model: install weights, generate text, score options."""

from evoswarm.engine.base import Engine, Together, answer
from evoswarm.engine.make import make_engine

__all__ = ["Engine", "Together", "answer", "make_engine"]
