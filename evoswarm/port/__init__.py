"""Carries the winner of a run, or a whole pool, to another version of the base model."""

from evoswarm.port.config import PortConfig
from evoswarm.port.pool import port_pool
from evoswarm.port.run import port

__all__ = ["PortConfig", "port", "port_pool"]
