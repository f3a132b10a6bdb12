"""Hugging Face transformers as an engine, on CPU or GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from evoswarm.engine.dtype import device_of
from evoswarm.engine.encode import Ids
from evoswarm.engine.errors import out_of_memory
from evoswarm.engine.install import Installer
from evoswarm.engine.load import end_tokens, load_model, saved_tensors
from evoswarm.engine.network import SingleNetwork
from evoswarm.engine.scoring import PADDING, NetworkEngine
from evoswarm.engine.tokenizer import RunTokenizer, load_tokenizer
from evoswarm.engine.transformers_config import TransformersEngine
from evoswarm.errors import UserError, first_line
from evoswarm.weights.skeleton import auto_class


class HfEngine(NetworkEngine):
    """A causal language model with its tokenizer."""

    def __init__(
        self,
        config: TransformersEngine,
        *,
        model: str,
        adapter: Mapping[str, Any] | None,
        tokenizer: RunTokenizer | None = None,
    ) -> None:
        """Load the model and its tokenizer once.

        Raises:
            UserError: one of them cannot be loaded.
        """
        torch.set_num_threads(config.threads)
        tokenizer = tokenizer or RunTokenizer(load_tokenizer(model, trust_remote_code=config.trust_remote_code))
        self.model = model_on_device(model, config)
        ends = end_tokens(self.model.generation_config, tokenizer.tokenizer)
        # A model's own penalties and beams would make its answers differ from greedy ones.
        self.model.generation_config = GenerationConfig()
        super().__init__(tokenizer, SingleNetwork(self.model), ends=ends, batch_size=config.batch_size)
        self._installer = Installer(self.model, adapter, pristine=config.pristine, saved=saved_tensors(model))

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`."""
        self._shared = None
        self._installer.install(weights)

    @property
    def needs_check(self) -> bool:
        """See `CheckedEngine`."""
        return bool(self.model.device.type == "cuda")

    def wrong_weights(self, weights: Mapping[str, np.ndarray]) -> str | None:
        """See `CheckedEngine`."""
        return self._installer.wrong_weights(weights)

    @property
    def pristine_places(self) -> dict[str, int]:
        """Bytes of the base's copies on each type of device."""
        return self._installer.pristine.places

    def close(self) -> None:
        """See `Engine.close`."""
        self._shared = None
        self._installer.pristine.clear()
        self.model.to("meta")

    def _greedy(self, rows: Mapping[int, Ids], limit: int, stop: Sequence[str]) -> dict[int, list[int]]:
        inputs = self._batch(list(rows.values()))
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=limit,
            pad_token_id=PADDING,
            eos_token_id=list(self._encoder.ends_of(tuple(stop))) or None,
        )
        output = self.model.generate(**inputs, generation_config=settings)
        return dict(zip(rows, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True))


def model_on_device(model: str, config: TransformersEngine, kind: Callable[[Any], Any] = auto_class) -> Any:
    """The model in `eval` mode on the engine's device; `kind` as for `load_model`.

    Raises:
        UserError: it cannot be loaded, or the device does not exist or is too small.
    """
    loaded: Any = load_model(model, config, device=config.device, kind=kind)
    device = device_of(config.device)
    try:
        return loaded.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        what = "choose a smaller model or dtype" if out_of_memory(error) else "set engine.device to cpu or cuda:0"
        raise UserError(f"engine.device: {device} cannot hold the model ({first_line(error)}); {what}") from None
