"""Engines run a model: install weights, generate text, score options."""

from evoswarm.engine.base import Engine, Together, answer
from evoswarm.engine.make import make_engine
from evoswarm.engine.trouble import EngineDied

__all__ = ["Engine", "EngineDied", "Together", "answer", "make_engine"]
