"""What a run is. Imports none of ray, torch, transformers or vllm."""

from evoswarm.config.load import dump_config, load_config
from evoswarm.config.run import RunConfig
from evoswarm.config.search import (
    CmaEs,
    EvolMerge,
    Genome,
    GenomePlus,
    LoraHub,
    ModelSwarms,
    RandomSearch,
    SearchConfig,
)
from evoswarm.config.utility import Custom, ExactMatch, MultipleChoice, MultiTask, UtilityConfig

__all__ = [
    "CmaEs",
    "Custom",
    "EvolMerge",
    "ExactMatch",
    "Genome",
    "GenomePlus",
    "LoraHub",
    "ModelSwarms",
    "MultiTask",
    "MultipleChoice",
    "RandomSearch",
    "RunConfig",
    "SearchConfig",
    "UtilityConfig",
    "dump_config",
    "load_config",
]
