"""lm-eval's requests for a document as one request of this project, and the responses back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from evoswarm.errors import UserError
from evoswarm.utility.lm_eval.config import LmEval
from evoswarm.utility.lm_eval.load import Document
from evoswarm.utility.types import Choose, Generate, Prompt, Request, Single


def request_of(document: Document, config: LmEval, *, where: str) -> Request:
    """The request for a document.

    Raises:
        UserError: the task asks for several things at once.
    """
    kinds = {instance.request_type for instance in document.instances}
    if kinds == {"loglikelihood"}:
        return _choose([instance.args for instance in document.instances])
    first = document.instances[0]
    if kinds == {"loglikelihood_rolling"} and len(document.instances) == 1:
        return Choose("", (str(first.args[0]),), rolling=True)
    if kinds == {"generate_until"} and len(document.instances) == 1:
        return _generate(*first.args, config=config)
    raise UserError(
        f"{where}: document {document.number} makes {len(document.instances)} requests ({', '.join(sorted(kinds))}); "
        "a task may compare options, or generate one text per document"
    )


def _choose(pairs: Sequence[tuple[Prompt, str]]) -> Choose:
    moved = [_moved(prompt, option) for prompt, option in pairs]
    prompts, options = tuple(prompt for prompt, _ in moved), tuple(option for _, option in moved)
    return Choose(prompts[0], options, prompts if len(set(prompts)) > 1 else ())


def _moved(prompt: Prompt, option: str) -> tuple[Prompt, str]:
    """White space at the end of a prompt is the start of its option, as in lm-eval. The engine does so for a chat."""
    if not isinstance(prompt, str):
        return prompt, option
    bare = prompt.rstrip()
    return bare, prompt[len(bare) :] + option


def _generate(prompt: Prompt, settings: dict[str, Any], *, config: LmEval) -> Generate:
    from lm_eval.models.utils import normalize_gen_kwargs

    used: dict[str, Any] = dict(normalize_gen_kwargs(settings))
    stop = tuple(dict.fromkeys(text for text in used["until"] if text))
    return Generate(prompt, config.max_new_tokens or used["max_gen_toks"], stop)


def results_of(document: Document, response: Single, ensemble: Any) -> list[Any]:
    """What lm-eval's `process_results` gets: the responses after a filter, in the order of the instances."""
    if isinstance(response, str):
        raw: list[Any] = [response]
    elif document.instances[0].request_type == "loglikelihood_rolling":
        raw = [option.logprob for option in response]
    else:
        raw = [(option.logprob, option.greedy) for option in response]
    instances = [
        replace(instance, resps=[found], filtered_resps={})
        for instance, found in zip(document.instances, raw, strict=True)
    ]
    ensemble.apply(instances)
    return [instance.filtered_resps[ensemble.name] for instance in instances]
