"""What a run is. Imports none of ray, torch, transformers or vllm."""

from evoswarm.config.load import dump_config, load_config
from evoswarm.config.run import RunConfig

__all__ = ["RunConfig", "dump_config", "load_config"]
