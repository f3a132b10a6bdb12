"""Scores texts with transformers, on CPU or GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from evoswarm.engine.dtype import computed_dtype, device_of
from evoswarm.engine.errors import out_of_memory
from evoswarm.engine.load import NOT_LOADED, incomplete
from evoswarm.engine.loading import ModelLoading
from evoswarm.errors import UserError, first_line
from evoswarm.reward.check import auto_class, facts_of, no_head, read_config, require_files, require_head
from evoswarm.reward.rows import Rows
from evoswarm.reward.texts import Encoded, TextEncoder
from evoswarm.utility.scoring import Exchange, Scored, ScoringModel
from evoswarm.weights.hub import model_folder


class TransformersScorer:
    """See `TextScorer`. Batches are padded on the right by a token that none of their texts has."""

    def __init__(self, settings: ScoringModel) -> None:
        """Load the model.

        Raises:
            UserError: it cannot be loaded, or its score head is not in its files.
        """
        self._settings = settings
        config = read_config(settings)
        self.facts = facts_of(config)
        self._rows = Rows(settings.model, TextEncoder(settings, config), self._logits)
        self._model = _load(settings, config)
        self._vocabulary: int = self._model.get_input_embeddings().weight.shape[0]

    def score(self, texts: Sequence[Exchange]) -> list[Scored]:
        """See `TextScorer.score`."""
        return self._rows.score(texts)

    def close(self) -> None:
        """See `TextScorer.close`."""
        self._model.to("meta")

    @torch.inference_mode()
    def _logits(self, rows: Sequence[Encoded]) -> list[list[float]]:
        """Logits of each row; longest rows first, so that a batch has little padding."""
        found: dict[int, list[float]] = {}
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
        with _threads(self._settings.threads):
            for start in range(0, len(order), self._settings.batch_size):
                batch = order[start : start + self._settings.batch_size]
                found |= zip(batch, self._batch([rows[i] for i in batch]), strict=True)
        return [found[i] for i in range(len(rows))]

    def _batch(self, rows: Sequence[Encoded]) -> list[list[float]]:
        padding = self._padding(rows)
        # A causal model reads the score at the last token that is not this one.
        self._model.config.get_text_config().pad_token_id = padding
        inputs = {
            "input_ids": self._padded([row.ids for row in rows], padding),
            "attention_mask": self._padded([(1,) * len(row.ids) for row in rows], 0),
        }
        if all(row.types for row in rows):
            inputs["token_type_ids"] = self._padded([row.types for row in rows], 0)
        logits: torch.Tensor = self._model(**inputs).logits
        return logits.float().reshape(len(rows), -1).tolist()

    def _padding(self, rows: Sequence[Encoded]) -> int:
        """A token that no row has."""
        used = {token for row in rows for token in row.ids}
        if (largest := max(used)) >= self._vocabulary:
            raise UserError(
                f"{self._settings.model}: its tokenizer makes token {largest}, and its vocabulary has only "
                f"{self._vocabulary}; use the tokenizer that the model was trained with"
            )
        return next((token for token in range(self._vocabulary) if token not in used), 0)

    def _padded(self, rows: Sequence[tuple[int, ...]], value: int) -> torch.Tensor:
        width = max(map(len, rows))
        return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], device=self._model.device)


def _load(settings: ScoringModel, config: PretrainedConfig) -> PreTrainedModel:
    folder, device = Path(model_folder(settings.model)), device_of()
    require_files(settings, folder)
    require_head(settings, config, folder)
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    trust = settings.trust_remote_code
    try:
        name, _ = computed_dtype(
            str(folder), ModelLoading(dtype=settings.dtype, trust_remote_code=trust), device=device
        )
        loaded, info = auto_class(settings, config).from_pretrained(
            folder,
            dtype=name if name == "auto" else getattr(torch, name),
            use_safetensors=True,
            trust_remote_code=trust,
            output_loading_info=True,
        )
        model: Any = loaded.to(device).eval()
    except NOT_LOADED as error:
        if out_of_memory(error):
            raise UserError(
                f"{settings.model}: does not fit into memory ({first_line(error)}); give it more (backend.grader_gpus) "
                "or set dtype: bfloat16"
            ) from None
        raise UserError(f"{settings.model}: cannot be loaded ({first_line(error)})") from None
    if missing := sorted(info["missing_keys"]):
        inside = f"{loaded.base_model_prefix}."
        heads = [name for name in missing if not name.startswith(inside)]
        raise UserError(f"{settings.model}: {no_head(config, heads) if heads else incomplete(missing)}")
    return model


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """This many CPU threads: an engine in the same process has its own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
