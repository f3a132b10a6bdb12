"""A chat with one particle of a run, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from evoswarm.loop.history import run_pool, written_config
from evoswarm.rows import Row
from evoswarm.serve.winner import winner_folder
from evoswarm.utility import make_utility
from evoswarm.utility.config import PromptConfig, Task
from evoswarm.utility.prompts import compose, empty_chat
from evoswarm.utility.reasoning import REASONING_TAGS, without_reasoning
from evoswarm.utility.types import Message, Prompt
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.kinds import lora_converter
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool

Say = Callable[[str], None]


class Conversation:
    """Questions and answers with the prompt's form of the run: a chat with a chat template, else single texts.

    A context, which closes the engine.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        system: str | None = None,
        max_new_tokens: int = 256,
        generation: int | None = None,
        particle: int | None = None,
        overrides: Sequence[str] = (),
        say: Say = lambda text: None,
    ) -> None:
        """Load the engine and install the winner, or the particle that is named.

        Raises:
            UserError: there is no such run or particle, or the model cannot be loaded.
        """
        config = written_config(run_dir, overrides=overrides)
        folder = winner_folder(run_dir, generation=generation, particle=particle, say=say)
        task = config.utility if isinstance(config.utility, Task) else None
        self._prompt = task.prompt if task else PromptConfig(chat_template=True)
        if system is not None:
            self._prompt = self._prompt.with_(system=system)
        self._tags = REASONING_TAGS if task is None or task.reasoning_tags is None else task.reasoning_tags
        self._stop = tuple(task.stop) if task else ()
        self._chat = empty_chat(self._prompt, root=config.root, reasoning_tags=self._tags)
        self._longest, self._said = max_new_tokens, list[Message]()
        pool = open_pool(PoolConfig(experts=[folder.resolve()]), model=config.model, alone=True)
        converter = lora_converter(config.model, pool.adapter)
        engine = config.engine.merged()
        tokenizer = engine.tokenizer(
            model=config.model,
            experts=run_pool(config).experts,
            utility=make_utility(config.utility, root=config.root),
        )
        adapter = converter.lora_config() if converter else pool.adapter
        weights = Materializer(pool).one(Row.one(pool.names[0]))
        self._engine = engine.start(model=config.model, adapter=adapter, tokenizer=tokenizer)
        self._engine.install(converter.tensors(weights) if converter else weights)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *exception: object) -> None:
        self._engine.close()

    def clear(self) -> None:
        """Forget what was said."""
        self._said = []

    def ask(self, text: str) -> str:
        """The answer to the next message; without reasoning, which is not part of a conversation."""
        (answer,) = self._engine.generate([self._next(text)], max_new_tokens=self._longest, stop=self._stop)
        answer = without_reasoning(answer, self._tags).strip()
        self._said += [("user", text), ("assistant", answer)]
        return answer

    def _next(self, text: str) -> Prompt:
        if self._chat is None:
            return compose(self._prompt, text)
        system: list[Message] = [] if self._prompt.system is None else [("system", self._prompt.system)]
        return replace(self._chat, messages=(*system, *self._said, ("user", text)))
