"""An engine that routes every token to the experts whose LoRA answers it most (peft's arrow)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from evoswarm.engine.tokenizer import RunTokenizer
from evoswarm.engine.transformers import HfEngine
from evoswarm.engine.transformers_config import TransformersEngine
from evoswarm.errors import UserError, first_line
from evoswarm.weights.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from evoswarm.weights.device import to_torch
from evoswarm.weights.expert import Expert

TEMPERATURE = 1.0
"""Of the softmax over experts: peft's default, and that of the authors' library (mttl)."""
_SEED = 0
"""Of the start of the power iteration; without one, peft's result differs from run to run."""


class ArrowEngine(HfEngine):
    """Each LoRA layer gives each token a softmax over the `top_k` experts with the largest |x v|, v the expert's
    direction: the first right singular vector of B A.

    Source: Arrow (arXiv 2405.11157, section 4), as peft implements it. All experts are in memory, and peft computes all
    of them for each token.
    """

    def __init__(
        self,
        config: TransformersEngine,
        *,
        model: str,
        experts: Sequence[Expert],
        tokenizer: RunTokenizer | None = None,
    ) -> None:
        """Load the base model and add the experts; all experts have the same LoRA modules and ranks.

        Raises:
            UserError: the model cannot be loaded, or peft refuses an expert.
        """
        super().__init__(config, model=model, adapter=None, tokenizer=tokenizer)
        try:
            self._routers = _add_routers(self.model, experts)
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            raise UserError(f"arrow: peft cannot route to these experts ({first_line(error)})") from None
        self.model.eval()

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """Does nothing: all experts are installed."""

    def route(self, top_k: int) -> None:
        """Mix this many experts per token from now on."""
        self._shared = None
        for router in self._routers:
            router.top_k = top_k


def _add_routers(model: Any, experts: Sequence[Expert]) -> list[Any]:
    """Add experts and routers to the layers of a model; returns the routers."""
    from peft.tuners.lora import ArrowConfig, create_arrow_model
    from peft.tuners.lora.arrow import TASK_ADAPTER_PREFIX, ArrowLoraLinearLayer

    settings = ArrowConfig(top_k=1, router_temperature=TEMPERATURE, rng_seed=_SEED)
    with tempfile.TemporaryDirectory() as work:
        folders = [_saved(expert, Path(work) / str(number)) for number, expert in enumerate(experts)]
        create_arrow_model(model, folders, settings)
    routers = {name: module for name, module in model.named_modules() if isinstance(module, ArrowLoraLinearLayer)}
    for name in routers:
        layer = name.removesuffix(".lora_arrow.arrow_router")
        if f"{TASK_ADAPTER_PREFIX}0" not in model.get_submodule(layer).lora_A:
            raise UserError(
                f"arrow: the experts do not adapt {layer}, and peft's arrow routes in every {layer.rpartition('.')[2]} "
                "of the model; train them on all layers"
            )
    return list(routers.values())


def _saved(expert: Expert, folder: Path) -> str:
    """An expert as peft reads it, whatever wrote it."""
    folder.mkdir()
    (folder / ADAPTER_CONFIG).write_text(json.dumps(expert.config))
    tensors = {name: to_torch(np.ascontiguousarray(array), read_only=True) for name, array in expert.tensors().items()}
    save_file(tensors, folder / ADAPTER_FILE)
    return str(folder)
