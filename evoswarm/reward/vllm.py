"""Scores texts with vLLM's pooling models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from evoswarm.engine.dtype import computed_dtype, device_of
from evoswarm.engine.loading import ModelLoading
from evoswarm.engine.quiet import LOG, loggers_to_log, output_to_log
from evoswarm.engine.vllm_errors import explain
from evoswarm.engine.vllm_internals import free_memory, gpu_memory, on_ray, set_environment, start_after_numba
from evoswarm.engine.vllm_versions import check_version
from evoswarm.errors import UserError
from evoswarm.reward.check import facts_of, read_config, require_files, require_head
from evoswarm.reward.rows import Rows
from evoswarm.reward.texts import Encoded, TextEncoder
from evoswarm.utility.scoring import Exchange, Scored, ScoringModel
from evoswarm.weights.hub import model_folder

SPARE = 2 << 30
"""Bytes of a GPU for activations, besides 1.2 times the weights, of which a part is left for keys and values."""


class VllmScorer:
    """See `TextScorer`. vLLM's batches depend on timing, so the last digits of a score may differ between runs."""

    def __init__(self, settings: ScoringModel) -> None:
        """Start vLLM and load the model.

        Raises:
            UserError: vLLM is missing or refuses the model, or the score head is not in its files.
        """
        set_environment(threads=settings.threads)
        config = read_config(settings)
        self.facts = facts_of(config)
        self._rows = Rows(settings.model, TextEncoder(settings, config), self._logits)
        with _quiet() as log:
            self._llm = _start(settings, config, longest=self._rows.encoder.longest, log=log)
        tasks = self._llm.supported_tasks
        # Of InternLM2 and Qwen2 reward models vLLM gives an output for every token; the last one is the reward.
        self._task = next((task for task in ("classify", "token_classify") if task in tasks), None)
        if self._task is None:
            self.close()
            raise UserError(f"{settings.model}: vLLM does not serve it as a classifier; use engine: transformers")

    def score(self, texts: Sequence[Exchange]) -> list[Scored]:
        """See `TextScorer.score`."""
        return self._rows.score(texts)

    def close(self) -> None:
        """See `TextScorer.close`."""
        with _quiet():
            self._llm.llm_engine.engine_core.shutdown()
            del self._llm
            free_memory()

    def _logits(self, rows: Sequence[Encoded]) -> list[list[float]]:
        from vllm.inputs import TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=list(row.ids)) for row in rows]
        parameters = list(map(_parameters, rows))
        outputs = self._llm.encode(prompts, pooling_params=parameters, pooling_task=self._task, use_tqdm=False)
        return [output.outputs.data.float().reshape(-1, len(self.facts.labels))[-1].tolist() for output in outputs]


def _parameters(row: Encoded) -> Any:
    """Without sigmoid and softmax; vLLM is told where the second text of a pair starts."""
    from vllm import PoolingParams

    parameters = PoolingParams(use_activation=False)
    if row.types:
        second = row.types.index(1) if 1 in row.types else len(row.types)
        parameters.extra_kwargs = {"compressed_token_type_ids": second}
    return parameters


def _start(settings: ScoringModel, config: PretrainedConfig, *, longest: int, log: Path | None) -> Any:
    check_version()
    folder, trust = Path(model_folder(settings.model)), settings.trust_remote_code
    files = require_files(settings, folder)
    require_head(settings, config, folder)
    dtype, _ = computed_dtype(
        str(folder), ModelLoading(dtype=settings.dtype, trust_remote_code=trust), device=device_of()
    )
    start_after_numba()
    torch.set_num_threads(settings.threads)
    from vllm import LLM

    logging.getLogger("vllm.v1.engine.input_processor").setLevel(logging.ERROR)
    arguments: dict[str, Any] = {"max_model_len": longest, "seed": 0, "use_tqdm_on_load": False}
    arguments |= {"load_format": "safetensors", "disable_log_stats": not on_ray()}
    if memory := gpu_memory():
        wanted = 1.2 * sum(path.stat().st_size for path in files) + SPARE
        arguments["gpu_memory_utilization"] = round(min(0.9, wanted / memory), 3)
    fixed = {"model": str(folder), "runner": "pooling", "dtype": dtype, "trust_remote_code": trust}
    try:
        llm = LLM(**arguments | settings.args | fixed)
    except Exception as error:  # vLLM raises anything
        raise explain(error, model=settings.model, log=log) from None
    if log is not None:
        loggers_to_log("vllm", log)
    return llm


def _quiet() -> AbstractContextManager[Path | None]:
    """vLLM's output goes to a log; that of an actor is in Ray's logs already."""
    return nullcontext() if on_ray() else output_to_log(LOG)
