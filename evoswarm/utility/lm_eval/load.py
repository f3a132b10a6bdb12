"""A task with its documents and requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError, first_line
from evoswarm.utility.lm_eval.config import LmEval
from evoswarm.utility.lm_eval.settings import Settings
from evoswarm.utility.lm_eval.splits import Numbered, Record, Splits, numbered_docs, split_names
from evoswarm.utility.types import Chat, Split


@dataclass(frozen=True)
class Document:
    """A record of the data set, its place in its split, and lm-eval's requests for it."""

    number: int
    record: Record
    instances: Sequence[Any]


def load_task(settings: Settings, path: Path) -> Any:
    """lm-eval's task, with its data set.

    Raises:
        UserError: it cannot be loaded.
    """
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

    try:
        task = next(iter(TaskManager(include_defaults=False).load(settings)["tasks"].values()))
    except Exception as error:  # a task's code, the hub and the data set may raise anything
        data = f"the data set {settings['dataset_path']}" if settings.get("dataset_path") else "its data set"
        raise UserError(
            f"{path}: the task cannot be loaded ({type(error).__name__}: {first_line(error)[:200]}); if {data} has to "
            "be downloaded, load it once where there is a network, or give local files (dataset_path: json, "
            "dataset_kwargs: {data_files: ...})"
        ) from None
    if not isinstance(task, ConfigurableTask):
        raise UserError(f"{path}: the task's class is no ConfigurableTask of lm-eval; give a task with a YAML file")
    return task


def names_of(task: Any, config: LmEval, *, where: str) -> Splits:
    """The splits of a task that are in use; see `split_names`."""
    settings = task.config
    found = {"validation": settings.validation_split, "test": settings.test_split, "training": settings.training_split}
    return split_names(config, where=where, **found)


class Documents:
    """The documents of a task by split, with their requests."""

    def __init__(self, task: Any, config: LmEval, *, where: str, chat: Chat | None) -> None:
        """Build all requests.

        Raises:
            UserError: the task has no suitable split, or its requests cannot be built.
        """
        self._task, self._config, self._where, self._chat = task, config, where, chat
        self._shots()
        names = names_of(task, config, where=where)
        numbered = numbered_docs(task, config, names, where=where)
        pool = self._pool()
        if names.seeded and pool == names.validation:  # never a document of the test split
            task.sampler.replace_df([record for _, record in numbered["validation"]])
        self.warnings: list[str] = []
        if pool is not None and pool == names.test and not names.seeded:
            self.warnings = [
                f"{where}: the examples in the prompts are from the test split {pool!r}, so the search sees its "
                "answers; set fewshot_split in the task's file"
            ]
        test_split = task.config.test_split
        self.by_split: dict[Split, list[Document]] = {}
        by_use: dict[Split, str | None] = {"validation": names.validation, "test": names.test}
        for split, name in by_use.items():
            if pool is not None and pool == name:  # so that no document is among its own examples
                task.config.test_split = task.fewshot_cfg.split = pool
            else:  # lm-eval evaluates the validation split of a task that has no other
                task.config.test_split = test_split if split == "test" or names.seeded else None
            self.by_split[split] = self._built(numbered[split])

    def _shots(self) -> None:
        fixed, asked = self._task.config.num_fewshot, self._config.num_fewshot
        if fixed == 0 and asked:
            raise UserError(f"{self._where}: the task allows no examples (num_fewshot: 0); remove utility.num_fewshot")
        self._task.config.num_fewshot = (fixed or 0) if asked is None else asked

    def _pool(self) -> str | None:
        """The split from which examples for prompts are taken; None if they are from elsewhere or there are none."""
        settings, examples = self._task.config, self._task.fewshot_cfg
        if not settings.num_fewshot or (examples.split is None and examples.samples is not None):
            return None
        name = examples.split or settings.training_split or settings.validation_split or settings.test_split
        return None if name is None else str(name)

    def _built(self, numbered: Numbered) -> list[Document]:
        """The documents with the requests that lm-eval builds for them."""
        task, config = self._task, self._config
        if not numbered:
            return []
        task.has_test_docs, task.test_docs = lambda: True, lambda: [record for _, record in numbered]
        task.set_fewshot_seed(config.fewshot_seed)
        try:
            task.build_all_requests(
                limit=None,
                system_instruction=config.system_instruction,
                apply_chat_template=self._chat is not None,
                fewshot_as_multiturn=config.fewshot_as_multiturn,
                chat_template=None if self._chat is None else self._as_chat,
            )
        except Exception as error:  # templates and code of a task may raise anything
            raise UserError(
                f"{self._where}: its requests cannot be built ({type(error).__name__}: {first_line(error)[:200]}); "
                "lower utility.num_fewshot if its examples are too few, or correct the task"
            ) from None
        own: dict[int, list[Any]] = {}
        for instance in task.instances:
            own.setdefault(instance.doc_id, []).append(instance)
        return [
            Document(number, record, sorted(own[i], key=lambda instance: instance.idx))
            for i, (number, record) in enumerate(numbered)
        ]

    def _as_chat(self, turns: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> Chat:
        """The prompt of lm-eval as a chat that the engine renders, instead of text."""
        assert self._chat is not None
        begun = "" if add_generation_prompt else turns[-1]["content"]
        turns = turns if add_generation_prompt else turns[:-1]
        messages = tuple((turn["role"], turn["content"]) for turn in turns)
        return replace(self._chat, messages=messages, begun=begun, space_in_options=True)
