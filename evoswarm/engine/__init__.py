"""Engines run a model: install weights, generate text, score options.

Importing this package imports no torch, transformers or vllm.
"""

from evoswarm.engine.base import AdaptersNotSupported, Engine, MultiAdapterEngine, Reply, answer
from evoswarm.engine.config import EngineConfig
from evoswarm.engine.errors import EngineDied
from evoswarm.engine.fake import FakeEngine
from evoswarm.engine.transformers_config import TransformersEngine
from evoswarm.engine.vllm_config import VllmEngine

ENGINES: dict[str, type[EngineConfig]] = {
    "transformers": TransformersEngine,
    "vllm": VllmEngine,
    "fake": FakeEngine,
}
"""Config classes of engines by their `type`. To add an engine, write its file and add one line here."""

__all__ = [
    "ENGINES",
    "Engine",
    "EngineConfig",
    "EngineDied",
    "FakeEngine",
    "AdaptersNotSupported",
    "MultiAdapterEngine",
    "Reply",
    "TransformersEngine",
    "VllmEngine",
    "answer",
]
