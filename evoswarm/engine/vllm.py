"""vLLM as an engine: the base model loaded once, particles merged into it in place, continuous batching."""

from __future__ import annotations

import copy
import logging
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evoswarm.engine.base import AdaptersNotSupported, Verified, together
from evoswarm.engine.encode import Ids
from evoswarm.engine.errors import EngineDied, dies_on_error
from evoswarm.engine.load import end_tokens, generation_config
from evoswarm.engine.quiet import LOG, loggers_to_log, output_to_log
from evoswarm.engine.tokenizer import RunTokenizer, load_tokenizer
from evoswarm.engine.vllm_config import VllmEngine as VllmConfig
from evoswarm.engine.vllm_errors import explain
from evoswarm.engine.vllm_internals import (
    EXTENSION,
    check_deterministic,
    count_steps,
    free_memory,
    metrics_to_ray,
    on_gpu,
    on_ray,
    set_environment,
    start_after_numba,
)
from evoswarm.engine.vllm_options import Costs, Item, OptionItem, in_requests, wanted_tokens
from evoswarm.engine.vllm_ranks import Ranks
from evoswarm.engine.vllm_settings import arguments
from evoswarm.engine.vllm_versions import check_version, installed, lacking, untested
from evoswarm.errors import UserError
from evoswarm.utility.types import OptionScore, Prompt


class VllmEngine:
    """One vLLM engine, in this process unless `tensor_parallel_size` is above 1.

    Prompts are passed as token ids, the same as for the transformers engine. vLLM's batches depend on timing, so the
    last digits of a log-probability may differ between runs.
    """

    exact = True

    def __init__(
        self,
        config: VllmConfig,
        *,
        model: str,
        adapter: Mapping[str, Any] | None,
        tokenizer: RunTokenizer | None = None,
    ) -> None:
        """Start vLLM and load the base model.

        Raises:
            UserError: vLLM is missing or too old, or refuses the model or an argument.
        """
        set_environment(threads=config.threads, deterministic=config.deterministic)
        tokenizer = tokenizer or RunTokenizer(load_tokenizer(model, trust_remote_code=config.trust_remote_code))
        self._adapter = dict(adapter) if adapter is not None else None
        self._multi_adapter = config.adapter_mode == "multi_lora"
        with _quiet() as log:
            folder = tokenizer.tokenizer.name_or_path
            self._llm = _start(config, model=model, adapter=adapter, tokenizer=folder, log=log)
        metrics_to_ray(self._llm)
        self.steps = count_steps(self._llm)
        self._ranks = Ranks(self._llm, in_process=config.ranks == 1)
        self._sleeps, self._asleep, self._pristine = config.sleep, False, config.pristine
        self._longest: int = self._llm.llm_engine.model_config.max_model_len
        cache = self._llm.llm_engine.vllm_config.cache_config
        self._costs = Costs(cache.block_size if cache.enable_prefix_caching else None)
        ends = end_tokens(generation_config(model), tokenizer.tokenizer)
        rows = self._llm.llm_engine.model_config.get_vocab_size()
        self._encoder = tokenizer.encoder(ends=ends, longest=self._longest, rows=rows)
        self.tokens = self._encoder.tokens
        self._numbers: dict[Hashable, int | None] = {}
        self._last_number = 0
        self._of: Sequence[Hashable] | None = None

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`."""
        if self._multi_adapter:
            return self.install_adapters({None: weights})
        self._wake()
        problem = self._ranks.call("evoswarm_install", weights, self._adapter, self._pristine)
        self._forget()
        if problem is not None:
            raise UserError(problem)

    @property
    def needs_check(self) -> bool:
        """See `CheckedEngine`."""
        return on_gpu() or untested(installed()) is not None

    def wrong_weights(self, weights: Mapping[str, np.ndarray]) -> str | None:
        """See `CheckedEngine`. Adapters that are not merged have no weights to compare."""
        return None if self._multi_adapter else self._ranks.call("evoswarm_wrong_weights", weights, self._adapter)

    def install_adapters(self, particles: Mapping[Hashable, Mapping[str, np.ndarray] | None]) -> None:
        """See `MultiAdapterEngine`. Every particle gets a new number, because vLLM caches adapters by number."""
        self._wake()
        self._llm.collective_rpc("evoswarm_unload", args=([n for n in self._numbers.values() if n is not None],))
        self._numbers = {}
        self._forget()
        adapters = [weights for weights in particles.values() if weights is not None]
        # vLLM answers requests without an adapter wrongly in such a batch, so the base is an adapter of zeros.
        base = {name: np.zeros_like(array) for name, array in adapters[0].items()} if adapters else None
        for name, given in particles.items():
            weights = base if given is None else given
            if weights is None:
                self._numbers[name] = None
                continue
            self._last_number += 1
            problem = self._ranks.call("evoswarm_load", weights, self._last_number, self._adapter)
            if problem is not None:
                raise AdaptersNotSupported(problem)
            self._numbers[name] = self._last_number

    def sleep(self) -> None:
        """See `Engine.sleep`. Weights move to host memory and come back unchanged."""
        if self._sleeps and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True

    def _wake(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False
            self._forget()

    def _forget(self) -> None:
        """Drop the prefix cache: its blocks were computed with other weights.

        Raises:
            EngineDied: vLLM still uses some of them.
        """
        if not self._llm.reset_prefix_cache():
            raise EngineDied("engine vllm: the prefix cache of the previous weights could not be cleared")

    def close(self) -> None:
        """See `Engine.close`."""
        with _quiet():
            self._llm.llm_engine.engine_core.shutdown()
            del self._llm, self._ranks  # before vLLM 0.32 they would keep the model
            free_memory()

    def group(self, of: Sequence[Hashable]) -> VllmEngine:
        """See `MultiAdapterEngine.group`."""
        view = copy.copy(self)
        view._of = of
        return view

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """See `Engine.generate`."""
        ids = [self._encoder.prompt(prompt) for prompt in prompts]
        answers = self._greedy(ids, [max_new_tokens] * len(ids), stop)
        return [self._encoder.text(prompt, tokens, stop) for prompt, tokens in zip(prompts, answers, strict=True)]

    def verify(
        self,
        prompts: Sequence[Prompt],
        drafts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        logprobs: bool = False,
    ) -> list[Verified]:
        """See `Engine.verify`. Generates at most one token more than the draft has; log-probabilities need requests of
        their own.
        """
        encoded = [self._encoder.draft(prompt, draft) for prompt, draft in zip(prompts, drafts, strict=True)]
        limits = [min(max_new_tokens, len(draft) + 1 if draft else max_new_tokens) for _, draft in encoded]
        answers = self._greedy([context for context, _ in encoded], limits, stop)
        replies = [
            self._encoder.reply(prompt, tokens, max_new_tokens=max_new_tokens, stop=stop)
            for prompt, tokens in zip(prompts, answers, strict=True)
        ]
        known = self._drafts(encoded, stop, max_new_tokens) if logprobs else [None] * len(replies)
        return list(map(Verified, replies, known))

    def _drafts(self, encoded: Sequence[tuple[Ids, Ids]], stop: Sequence[str], limit: int) -> list[float | None]:
        """Log-probability of each draft and its end after its prompt; None if the draft is empty."""
        particles = self._of or [None] * len(encoded)
        limits = [self._encoder.room(len(context), limit) for context, _ in encoded]
        drafts = [
            (who, context, draft[: most - 1])
            for who, (context, draft), most in zip(particles, encoded, limits, strict=True)
        ]
        lasts = [
            self._encoder.last_tokens(draft, stop, limit=most) for (_, draft), most in zip(encoded, limits, strict=True)
        ]
        ends = [
            [(who, context + draft, (token,)) for token in last] if draft else []
            for (who, context, draft), last in zip(drafts, lasts, strict=True)
        ]
        found = self._scores([item for item in drafts if item[2]] + [item for row in ends for item in row])
        return [
            found[item].logprob + float(np.logaddexp.reduce([found[end].logprob for end in row])) if row else None
            for item, row in zip(drafts, ends, strict=True)
        ]

    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """See `Engine.loglikelihood`."""
        pairs = [[self._encoder.option(p, option) for option in row] for p, row in zip(prompts, options, strict=True)]
        particles = self._of or [None] * len(pairs)
        items = [(who, *pair) for who, row in zip(particles, pairs, strict=True) for pair in row]
        found = self._scores(items)
        scores = iter(found[item] for item in items)
        return [tuple(next(scores) for _ in row) for row in pairs]

    def rolling(self, texts: Sequence[str]) -> list[OptionScore]:
        """See `Engine.rolling`."""
        particles = self._of or [None] * len(texts)
        rows = [
            [(who, *pair) for pair in self._encoder.windows(text, spare=2)]  # parts of prompts: one token must follow
            for who, text in zip(particles, texts, strict=True)
        ]
        found = self._scores([item for row in rows for item in row])
        return [together([found[item] for item in row]) for row in rows]

    def _scores(self, items: Sequence[OptionItem]) -> dict[OptionItem, OptionScore]:
        """The scores of options."""
        fitting = [item for item in items if len(item[1]) + len(item[2]) < self._longest]
        whole = set() if self._multi_adapter else self._costs.whole(fitting)  # vLLM 0.32: not with adapters
        return self._by_tokens([item for item in items if item not in whole]) | self._by_prompts(list(whole))

    def _by_prompts(self, items: Sequence[OptionItem]) -> dict[OptionItem, OptionScore]:
        """The scores of options as parts of prompts."""
        settings = [self._settings(max_tokens=1, prompt_logprobs=0) for _ in items]
        outputs = self._run([(who, context + option) for who, context, option in items], settings)
        each = [
            [output.prompt_logprobs[i][token] for i, token in enumerate(option, start=len(context))]
            for (_, context, option), output in zip(items, outputs, strict=True)
        ]
        return {
            item: together([OptionScore(found.logprob, 1, found.rank == 1) for found in tokens])
            for item, tokens in zip(items, each, strict=True)
        }

    def _by_tokens(self, items: Sequence[OptionItem]) -> dict[OptionItem, OptionScore]:
        """The scores of options, with one request for each different prefix of an option."""
        requests = list(in_requests(wanted_tokens(items)))
        settings = [self._settings(max_tokens=1, logprob_token_ids=tokens) for _, tokens in requests]
        outputs = self._run([item for item, _ in requests], settings)
        next_token = {
            (*item, token): OptionScore(
                float(output.outputs[0].logprobs[0][token].logprob), 1, output.outputs[0].token_ids[0] == token
            )
            for (item, tokens), output in zip(requests, outputs, strict=True)
            for token in tokens
        }
        return {
            (who, context, option): together(
                [next_token[who, context + option[:i], token] for i, token in enumerate(option)]
            )
            for who, context, option in items
        }

    def _greedy(self, prompts: Sequence[Ids], limits: Sequence[int], stop: Sequence[str]) -> list[list[int]]:
        """Generated ids, with the id that ended the answer.

        vLLM's text starts with the space before the first word where `Encoder.text` may not, so an answer must not end
        there for a stop string that starts with a space. `Encoder.text` cuts it.
        """
        texts, ends = [text for text in stop if text[0] != " "], self._encoder.ends_of(tuple(stop))
        settings = [self._settings(max_tokens=n, stop=texts or None, stop_token_ids=list(ends)) for n in limits]
        particles = self._of or [None] * len(prompts)
        outputs = self._run(list(zip(particles, prompts, strict=True)), settings)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def _settings(self, **settings: Any) -> Any:
        from vllm import SamplingParams

        text = bool(settings.get("stop"))  # vLLM needs the text only to find stop strings
        raw = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
        return SamplingParams(temperature=0, detokenize=text, **raw, **settings)

    def _run(self, items: Sequence[Item], settings: Sequence[Any]) -> list[Any]:
        """vLLM's output for each prompt, answered by its particle."""
        from vllm.inputs import TokensPrompt
        from vllm.lora.request import LoRARequest

        if not items:
            return []
        self._wake()
        self._encoder.check(max(len(ids) for _, ids in items), more=1)
        numbers = [self._numbers.get(who) for who, _ in items]
        requests = [None if n is None else LoRARequest(f"particle-{n}", n, f"mem://{n}") for n in numbers]
        inputs = [TokensPrompt(prompt_token_ids=list(ids)) for _, ids in items]
        lora = {"lora_request": requests} if self._multi_adapter else {}
        with dies_on_error("vllm"):  # vLLM would return unfinished requests with the next prompts
            return list(self._llm.generate(inputs, list(settings), use_tqdm=False, **lora))


def _quiet() -> AbstractContextManager[Path | None]:
    """vLLM's output goes to a log; that of an actor is in Ray's logs already."""
    return nullcontext() if on_ray() else output_to_log(LOG)


def _start(
    config: VllmConfig, *, model: str, adapter: Mapping[str, Any] | None, tokenizer: str, log: Path | None
) -> Any:
    """vLLM's `LLM` with the base model."""
    check_version()
    if config.multi_adapter and (lack := lacking("multi_lora", installed())):
        raise AdaptersNotSupported(f"this version of vLLM has no {lack}")
    if config.deterministic:
        check_deterministic()
    start_after_numba()
    # If torch is already loaded the environment variable has no effect, and vLLM forbids later changes.
    torch.set_num_threads(config.threads)
    from vllm import LLM

    # It warns about tokenizers of adapters, which these adapters do not have.
    logging.getLogger("vllm.v1.engine.input_processor").setLevel(logging.ERROR)
    settings = {"disable_log_stats": not on_ray(), "tokenizer": tokenizer} | arguments(
        config, model=model, adapter=adapter
    )
    try:
        llm = LLM(worker_extension_cls=EXTENSION, **settings)
    except Exception as error:  # vLLM raises anything
        raise explain(error, model=model, log=log) from None
    if log is not None:
        loggers_to_log("vllm", log)  # starting has made new handlers
    return llm
