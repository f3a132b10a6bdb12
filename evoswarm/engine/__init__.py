"""Engines run a model: install weights, generate text, score options."""

from evoswarm.engine.base import Engine, NotBeside, Together, answer
from evoswarm.engine.errors import EngineDied
from evoswarm.engine.make import make_engine

__all__ = ["Engine", "EngineDied", "NotBeside", "Together", "answer", "make_engine"]
