"""vLLM as an engine: the base model loaded once, particles merged into it in place, continuous batching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors.numpy import save
from transformers import AutoConfig, GenerationConfig

from evoswarm.config.run import VllmEngine as VllmConfig
from evoswarm.engine.encode import Encoder, Ids
from evoswarm.engine.load import end_tokens, first_line, load_tokenizer
from evoswarm.engine.vllm_internals import EXTENSION, check_version, set_environment
from evoswarm.errors import UserError
from evoswarm.utility.types import Beginning, OptionScore, Prompt


class VllmEngine:
    """One vLLM engine, in this process unless `tensor_parallel_size` is above 1.

    Prompts go in as the token ids that the transformers engine has too. vLLM batches as it likes, so a log-probability
    may differ in its last digits from one run to the next; greedy answers are those of the same model.
    """

    exact = True

    def __init__(self, config: VllmConfig, *, model: str, adapter: Mapping[str, Any] | None) -> None:
        """Start vLLM and load the base model.

        Raises:
            UserError: vLLM is missing or of another version, or refuses the model or an argument.
        """
        set_environment(threads=config.threads)
        check_version()
        from vllm import LLM

        self._adapter = dict(adapter) if adapter is not None else None
        tokenizer = load_tokenizer(model, trust_remote_code=config.trust_remote_code)
        arguments = {"enable_prefix_caching": True, "seed": 0} | config.args
        arguments |= {"model": model, "dtype": _dtype(model, config), "trust_remote_code": config.trust_remote_code}
        self._in_process = int(arguments.get("tensor_parallel_size", 1)) == 1
        try:
            self._llm = LLM(worker_extension_cls=EXTENSION, **arguments)
        except (TypeError, ValueError, RuntimeError, OSError, AssertionError, NotImplementedError) as error:
            raise UserError(f"engine vllm: {model} cannot be served ({first_line(error)}); check engine.args") from None
        longest = self._llm.llm_engine.model_config.max_model_len
        self._encoder = Encoder(tokenizer, ends=end_tokens(_generation_config(model), tokenizer), longest=longest)

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`."""
        payload = weights if weights is None or self._in_process else save(dict(weights))
        problems = self._llm.collective_rpc("evoswarm_install", args=(payload, self._adapter))
        # Blocks that were computed with other weights must not be found again.
        self._llm.reset_prefix_cache()
        for problem in problems:
            if problem is not None:
                raise UserError(problem)

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """See `Engine.generate`."""
        ids = [self._encoder.prompt(prompt) for prompt in prompts]
        answers = self._greedy(ids, [max_new_tokens] * len(ids), stop)
        return [self._encoder.text(tokens, stop) for tokens in answers]

    def verify(
        self, prompts: Sequence[Prompt], drafts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[str | Beginning]:
        """See `Engine.verify`. Generates, but never further than one token behind the draft's length."""
        encoded = [self._encoder.draft(prompt, draft) for prompt, draft in zip(prompts, drafts, strict=True)]
        limits = [min(max_new_tokens, len(draft) + 1 if draft else max_new_tokens) for _, draft in encoded]
        answers = self._greedy([context for context, _ in encoded], limits, stop)
        return [self._encoder.reply(tokens, max_new_tokens=max_new_tokens, stop=stop) for tokens in answers]

    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """See `Engine.loglikelihood`. Options of one token behind the same prompt are one request."""
        pairs = [[self._encoder.option(p, option) for option in row] for p, row in zip(prompts, options, strict=True)]
        wanted: dict[Ids, set[int]] = {}
        longer: dict[Ids, int] = {}
        for context, option in (pair for row in pairs for pair in row):
            if len(option) == 1:
                wanted.setdefault(context, set()).add(option[0])
            else:
                longer[context + option] = max(len(option), longer.get(context + option, 0))
        first = self._next_tokens(wanted)
        rest = self._endings(longer)
        return [
            tuple(
                OptionScore(first[c][o[0]] if len(o) == 1 else float(sum(rest[c + o][-len(o) :])), len(o))
                for c, o in row
            )
            for row in pairs
        ]

    def _greedy(self, prompts: Sequence[Ids], limits: Sequence[int], stop: Sequence[str]) -> list[list[int]]:
        """Generated ids, with the id that ended the answer."""
        settings = [self._settings(max_tokens=limit, stop=list(stop) or None) for limit in limits]
        return [list(output.outputs[0].token_ids) for output in self._run(prompts, settings)]

    def _next_tokens(self, wanted: Mapping[Ids, set[int]]) -> dict[Ids, dict[int, float]]:
        """Log-probability of each wanted token right behind each prompt."""
        settings = [self._settings(max_tokens=1, logprob_token_ids=sorted(tokens)) for tokens in wanted.values()]
        outputs = self._run(list(wanted), settings)
        return {
            ids: {token: output.outputs[0].logprobs[0][token].logprob for token in tokens}
            for (ids, tokens), output in zip(wanted.items(), outputs, strict=True)
        }

    def _endings(self, longer: Mapping[Ids, int]) -> dict[Ids, list[float]]:
        """Log-probability of each of the last tokens of each sequence."""
        settings = [self._settings(max_tokens=1, prompt_logprobs=0) for _ in longer]
        outputs = self._run(list(longer), settings)
        return {
            ids: [output.prompt_logprobs[i][ids[i]].logprob for i in range(len(ids) - count, len(ids))]
            for (ids, count), output in zip(longer.items(), outputs, strict=True)
        }

    def _settings(self, **settings: Any) -> Any:
        from vllm import SamplingParams

        return SamplingParams(temperature=0, stop_token_ids=list(self._encoder.ends), **settings)

    def _run(self, prompts: Sequence[Ids], settings: Sequence[Any]) -> list[Any]:
        from vllm.inputs import TokensPrompt

        if not prompts:
            return []
        self._encoder.check(max(map(len, prompts)) + 1)
        inputs = [TokensPrompt(prompt_token_ids=list(ids)) for ids in prompts]
        return list(self._llm.generate(inputs, list(settings), use_tqdm=False))


def _dtype(model: str, config: VllmConfig) -> str:
    """vLLM's own `auto` would halve float32; ours is what was saved, as with transformers."""
    if config.dtype != "auto":
        return config.dtype
    saved = AutoConfig.from_pretrained(model, trust_remote_code=config.trust_remote_code).get_text_config().dtype
    return "auto" if saved is None else str(saved).removeprefix("torch.")


def _generation_config(model: str) -> GenerationConfig:
    """What `AutoModelForCausalLM` would take: the model's own file, else what its config says."""
    try:
        return GenerationConfig.from_pretrained(model)
    except OSError:
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(model))
