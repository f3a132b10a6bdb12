"""Several models in vLLM: it runs the first one, and this logits processor runs the others next to it.

A request has the coefficients of all models under `extra_args`; a request without them is answered by the first model
alone. vLLM knows nothing of the other models: what it returns of prompts (prompt_logprobs) is of the first one, and
speculative decoding is not possible.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from evoswarm.engine.combined.combination import Member
from evoswarm.engine.combined.load import load_members
from evoswarm.engine.combined.rules import combined
from evoswarm.engine.combined.running import Batch, Running, Text
from evoswarm.engine.combined.settings import KEY
from evoswarm.engine.load import load_model
from evoswarm.engine.loading import ModelLoading
from evoswarm.engine.network import SingleNetwork


class CombiningProcessor(LogitsProcessor):
    """Replaces the logits of the first model by those of the combination."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        """Load the other models; vLLM's `additional_config` says which; see `combining`."""
        settings = vllm_config.additional_config[KEY]
        loading = ModelLoading.model_validate(settings["loading"])
        members = [Member(model, adapter and Path(adapter)) for model, adapter in settings["members"]]
        self._rule = settings["rule"]
        models = load_members(members[1:], lambda name: load_model(name, loading).to(device).eval())
        self._running = Running({i: SingleNetwork(model) for i, model in enumerate(models, start=1)})
        self._texts: dict[int, Text] = {}

    def is_argmax_invariant(self) -> bool:
        """See `LogitsProcessor`."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """See `LogitsProcessor`."""
        process_dict_updates(self._texts, batch_update, _text)

    @torch.inference_mode()
    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """See `LogitsProcessor`."""
        rows = {text: row for row, text in self._texts.items() if row < len(logits)}
        for batch in self._running.step([text for text in rows if text.active]):
            own = [rows[text] for text in batch.texts]
            self._replace(logits, own, batch)
        return logits

    def _replace(self, logits: torch.Tensor, rows: list[int], batch: Batch) -> None:
        """Write the combined scores of a batch into its rows."""
        coefficients = torch.from_numpy(np.stack([text.coefficients for text in batch.texts])).to(logits.device)
        used, parts = list(batch.active), list(batch.logits)
        if bool(coefficients[:, 0].any()):
            used, parts = [0, *used], [logits[rows][:, None], *parts]
        scores = combined(self._rule, parts, coefficients[:, used])[:, 0]
        logits[rows] = torch.nn.functional.pad(scores, (0, logits.shape[1] - scores.shape[1]), value=-torch.inf).to(
            logits.dtype
        )


def _text(params: SamplingParams, prompt: list[int] | None, output: list[int]) -> Text | None:
    """What is known of a request; None if it is for the first model alone."""
    coefficients = (params.extra_args or {}).get(KEY)
    if coefficients is None:
        return None
    return Text(np.array(coefficients, np.float32), prompt or [], output)
