"""Embeddings of prompts: the mean of the base model's last hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from evoswarm.config import RunConfig
from evoswarm.engine.config import ModelEngine
from evoswarm.engine.dtype import device_of
from evoswarm.engine.encode import Ids
from evoswarm.engine.load import load_model
from evoswarm.engine.loading import ModelLoading
from evoswarm.errors import UserError, first_line
from evoswarm.utility import Split, Utility
from evoswarm.utility.types import Choose, Prompt
from evoswarm.weights.pool import Pool


class Embedder:
    """The base model of a run in transformers, with the run's tokenizer.

    Prompts are embedded one by one, without padding, so that an embedding does not depend on what else is asked.
    """

    def __init__(
        self, config: RunConfig, *, pool: Pool, utility: Utility, device: str | None = None, dtype: str | None = None
    ) -> None:
        """Load the base model.

        Args:
            config: of a run.
            pool: of the run, whose experts may bring a tokenizer.
            utility: of the run.
            device: torch device; None: the GPU if there is one.
            dtype: torch name; None: that of the run's engine.

        Raises:
            UserError: it cannot be loaded.
        """
        engine = config.engine
        assert isinstance(engine, ModelEngine)
        tokenizer = engine.tokenizer(model=config.model, experts=pool.experts, utility=utility)
        loading = ModelLoading(threads=engine.threads, trust_remote_code=engine.trust_remote_code)
        loading = loading.with_(dtype=dtype or engine.dtype)
        torch.set_num_threads(engine.threads)
        self._model = _on(device_of(device), load_model(config.model, loading, device=device)).eval()
        text = self._model.config.get_text_config()
        longest, self._rows = getattr(text, "max_position_embeddings", None), text.vocab_size
        self._encoder = tokenizer.encoder(longest=longest, rows=self._rows)

    @property
    def dtype(self) -> str:
        """The data type that it computes in."""
        return str(self._model.dtype).removeprefix("torch.")

    def ids(self, prompt: Prompt) -> Ids:
        """The token ids of a prompt.

        Raises:
            UserError: the prompt cannot be rendered, or is too long for the model.
        """
        return self.checked(self._encoder.prompt(prompt))

    def checked(self, ids: Ids) -> Ids:
        """Token ids that the model can take.

        Raises:
            UserError: they are too many, or not in its vocabulary.
        """
        self._encoder.check(len(ids))
        if not all(0 <= number < self._rows for number in ids):
            raise UserError(f"a prompt has a token outside of the model's vocabulary, which has {self._rows}")
        return ids

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """The mean over tokens of the last hidden states [D], float32.

        Raises:
            UserError: they are not finite.
        """
        inputs = torch.tensor([list(ids)], device=self._model.device)
        output = self._model(input_ids=inputs, output_hidden_states=True, logits_to_keep=1, use_cache=False)
        found: np.ndarray = output.hidden_states[-1][0].float().mean(dim=0).cpu().numpy()
        if not np.isfinite(found).all():
            raise UserError(f"the base model's hidden states overflow in {self.dtype}; set engine.dtype: float32")
        return found

    def close(self) -> None:
        """Release the model."""
        self._model.to("meta")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _on(device: str, model: Any) -> Any:
    """
    Raises:
        UserError: the device does not exist or is too small.
    """
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"{device} cannot hold the base model, which embeds the prompts ({first_line(error)}); use another device: "
            "engine.device of the run, --router-device of the server"
        ) from None


def prompts_of(utility: Utility, split: Split) -> list[Prompt]:
    """The prompts of a split.

    Raises:
        UserError: the task has texts to score, and no prompts.
    """
    requests = utility.requests(split)
    if any(isinstance(request, Choose) and request.rolling for request in requests):
        raise UserError("this utility scores whole texts without prompts, so there is nothing to route by")
    return [request.prompt for request in requests]
