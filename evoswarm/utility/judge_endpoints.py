"""The endpoints of judges, asked by the openai client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from evoswarm.errors import UserError, did_you_mean
from evoswarm.utility.judge_config import Judge, JudgeModel
from evoswarm.utility.service.account import Account, Usage, cost
from evoswarm.utility.service.client import Client
from evoswarm.utility.service.config import filled
from evoswarm.utility.service.memory import Answer, Unanswered


class Endpoints:
    """One client for each judge, over one HTTP client that keeps to the limits of the run.

    Raises:
        UserError: the environment variable of a key is not set.
    """

    def __init__(self, config: Judge, account: Account) -> None:
        self._config = config
        keys = {
            name: filled(f"${judge.key_env}", key=f"utility.judges.{name}.key_env")
            for name, judge in config.judges.items()
            if judge.key_env is not None
        }
        self._http = Client(config.limits, account, hide=tuple(keys.values()))
        self._clients = {
            name: openai.AsyncOpenAI(
                base_url=judge.base_url,
                api_key=keys.get(name, "none"),
                max_retries=0,
                timeout=None,
                http_client=self._http,
            )
            for name, judge in config.judges.items()
        }

    async def check(self) -> str:
        """Ask every endpoint for its models, which is free.

        Returns:
            What may be wrong if a judge cannot be asked: a model that its endpoint does not list. Some endpoints list
            none, or not all.

        Raises:
            UserError: an endpoint cannot be reached, or refuses the key.
        """
        doubts = []
        for name, judge in self._config.judges.items():
            url = f"{judge.base_url.rstrip('/')}/models"
            listed = await self._http.reach("GET", url, headers=self._clients[name].auth_headers)
            known = _ids(listed)
            if known and judge.model not in known:
                near = did_you_mean(judge.model, known, kind="models")
                doubts.append(f"utility.judges.{name}.model {judge.model}: {near}")
        return "; ".join(doubts)

    async def ask(self, name: str, text: str, parameters: Mapping[str, Any]) -> Answer:
        """The text of a judge's answer, and the likeliest first tokens with their log-probabilities if asked for.

        Raises:
            Unanswered, UserError: see `Patience.answer`.
        """
        judge = self._config.judges[name]
        completion = await self._clients[name].chat.completions.create(
            messages=[{"role": "user", "content": text}], model=judge.model, extra_body=dict(parameters)
        )
        if not isinstance(completion, ChatCompletion) or not completion.choices:
            raise Unanswered(f"{judge.base_url} gave no answer, but {str(completion)[:200]}")
        choice = completion.choices[0]
        tokens = choice.logprobs.content if choice.logprobs else None
        top = [(entry.token, entry.logprob) for entry in tokens[0].top_logprobs] if tokens else []
        content = choice.message.content if choice.message else None
        return Answer({"text": content or "", "top": top}, self._usage(judge, completion))

    def _usage(self, judge: JudgeModel, completion: ChatCompletion) -> Usage:
        used, budget = completion.usage, self._config.limits.budget
        if used is not None:
            return cost(judge.prices, input_tokens=used.prompt_tokens, output_tokens=used.completion_tokens)
        if budget.tokens is not None or budget.money is not None:
            raise UserError(
                f"{judge.base_url} does not say how many tokens it used; remove utility.limits.budget.tokens and money"
            )
        return cost(judge.prices)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()


def _ids(listed: Any) -> list[str]:
    """The names in a list of models; none if it is something else."""
    data = listed.get("data") if isinstance(listed, Mapping) else None
    return [str(model.get("id")) for model in data if isinstance(model, Mapping)] if isinstance(data, list) else []
