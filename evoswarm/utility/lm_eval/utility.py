"""A task of lm-evaluation-harness as a utility."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.errors import UserError, first_line
from evoswarm.utility.config import PromptConfig
from evoswarm.utility.data import overlap_warnings, repeat_warnings
from evoswarm.utility.lm_eval.config import LmEval
from evoswarm.utility.lm_eval.find import find_task
from evoswarm.utility.lm_eval.load import Documents, load_task
from evoswarm.utility.lm_eval.metric import Metric, make_metric
from evoswarm.utility.lm_eval.quiet import require, undisturbed
from evoswarm.utility.lm_eval.request import request_of, results_of
from evoswarm.utility.lm_eval.settings import read_settings
from evoswarm.utility.mean import MeanUtility
from evoswarm.utility.prompts import empty_chat
from evoswarm.utility.reasoning import without_reasoning
from evoswarm.utility.types import SPLITS, Choose, OptionScore, Outcome, Request, Response, Single, Split, Turns


class LmEvalUtility(MeanUtility[LmEval]):
    """The mean over documents of a task's metric, as lm-eval computes it for each of them.

    Prompts, few-shot examples, filters and metrics are lm-eval's (`build_all_requests`, `process_results`), so that the
    value over a whole split is that of `lm_eval.simple_evaluate`. Where that is no mean, it is in `metrics`, exact,
    and the score of one document is that of `Metric`.

    Source: Gao et al., The Language Model Evaluation Harness (2024).

    Raises:
        UserError: the task cannot be found, loaded or supported.
    """

    config_class = LmEval

    def __init__(self, config: LmEval, *, root: Path) -> None:
        self.config = config
        require()
        with undisturbed():
            path = find_task(config, root=root)
            self._task = load_task(read_settings(path, config), path)
            name = self._where = str(self._task.config.task)
            chat = empty_chat(PromptConfig(**config.chat()), root=root, reasoning_tags=self.reasoning_tags)
            found = Documents(self._task, config, where=name, chat=chat)
            documents = self._documents = found.by_split
            self._filter = self._chosen_filter()
            self._requests = {
                split: [request_of(document, config, where=name) for document in documents[split]] for split in SPLITS
            }
            self._metric = self._chosen_metric()
            self._questions: dict[Split, list[str]] = {
                split: [str(self._task.doc_to_text(document.record)) for document in documents[split]]
                for split in SPLITS
            }
            self.sha256: str = self._fingerprint()
        ids = [str(document.number) for document in documents["test"]]
        asked = {split: list(map(_asked, self._requests[split])) for split in SPLITS}
        self.warnings: list[str] = [
            *found.warnings,
            *overlap_warnings(asked, ids, path=Path(name)),
            *repeat_warnings(self._requests, path=Path(name)),
        ]

    @property
    def negative(self) -> bool:
        return self._metric.negative

    def example(self, split: Split, index: int) -> dict[str, Any]:
        document = self._documents[split][index]
        answer = self._task.doc_to_target(document.record)
        return {"id": str(document.number), "question": self._questions[split][index], "answer": answer}

    def outcomes(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        with undisturbed():
            return [self._assess(split, i, response) for i, response in zip(indices, responses, strict=True)]

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        with undisturbed():
            return {self._metric.name: self._metric.whole(statistics)}

    def gold_logprob(self, split: Split, index: int, logprobs: Sequence[float]) -> float:
        """That of the right option among all of them, if the task names one."""
        request, record = self._requests[split][index], self._documents[split][index].record
        gold = self._task.doc_to_target(record)
        if not isinstance(request, Choose) or request.prompts or type(gold) is not int or not 0 <= gold < len(logprobs):
            return math.nan
        return float(logprobs[gold] - np.logaddexp.reduce(logprobs))

    def _assess(self, split: Split, index: int, response: Response) -> Outcome:
        document = self._documents[split][index]
        assert not isinstance(response, Turns)
        logprobs: tuple[float, ...] = ()
        if isinstance(response, str):
            response = without_reasoning(self.opening(split, index) + response, self.reasoning_tags)
        else:
            logprobs = tuple(option.logprob for option in response)
            if any(math.isnan(value) or value == math.inf for value in logprobs):
                return Outcome(
                    None, None, f"{self._where}: document {document.number}: log-likelihoods are not numbers"
                )
        try:
            filtered = results_of(document, response, self._filter)
            value = self._task.process_results(document.record, filtered)[self._metric.name]
            score, statistics = self._metric.score(value)
        except Exception as error:  # code of a task may raise anything: the example fails, not the run
            what = f"{type(error).__name__}: {first_line(error)[:200]}"
            return Outcome(None, None, f"{self._where}: document {document.number}: {what}")
        if not math.isfinite(score):
            return Outcome(None, None, f"{self._where}: document {document.number}: {self._metric.name} is {score}")
        prediction = filtered[0] if isinstance(filtered[0], str) else None
        return Outcome(score, prediction, logprobs=logprobs, statistics=statistics)

    def _chosen_filter(self) -> Any:
        filters = {ensemble.name: ensemble for ensemble in self._task._filters}
        return filters[_one(self.config.filter, list(filters), key="filter", where=self._where)]

    def _chosen_metric(self) -> Metric:
        """The metric, tried on an empty answer to the first document."""
        document, request = self._documents["validation"][0], self._requests["validation"][0]
        response: Single = ""
        if isinstance(request, Choose):
            response = [OptionScore(-1.0 - i, 1) for i in range(len(request.options))]
        known = list(self._task.aggregation())
        try:
            computed = self._task.process_results(document.record, results_of(document, response, self._filter))
        except Exception:  # code of a task may not know what to do with an empty answer
            computed = {}
        names = [name for name in known if name in computed] + [name for name in computed if name not in known]
        name = _one(self.config.metric, names or known, key="metric", where=self._where)
        metric = make_metric(self._task, name, where=self._where)
        if name in computed:
            asked = [r for split in SPLITS for r in self._requests[split] if isinstance(r, Choose)]
            try:
                metric.score(computed[name])
                metric.check(max((len(request.options) for request in asked), default=0))
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"{self._where}: metric {name} cannot be computed from what the task gives for a document, "
                    f"{str(computed[name])[:60]} ({first_line(error)[:200]}); choose another metric"
                ) from None
        return metric

    def _fingerprint(self) -> str:
        """Hash of the version of lm-eval, of the task's settings and code, and of all documents and prompts."""
        settings = self._task.config.to_dict(keep_callable=True)
        for place in ("dataset_path", "dataset_kwargs", "metadata"):  # paths; the documents are in the hash
            settings.pop(place, None)
        content: list[Any] = [metadata.version("lm_eval"), settings, type(self._task), self._metric.name]
        content += [self._filter.name]
        for split in SPLITS:
            pairs = zip(self._documents[split], self._requests[split], strict=True)
            content.append([[document.record, repr(request)] for document, request in pairs])
        return hashlib.sha256(json.dumps(content, default=_code).encode()).hexdigest()


def _one(given: str | None, names: Sequence[str], *, key: str, where: str) -> str:
    """The name that is given, or the only one.

    Raises:
        UserError: it does not exist, or there are several.
    """
    if given is None and len(names) == 1:
        return names[0]
    if given in names:
        return str(given)
    what = "the task has several" if given is None else f"the task has no {key} {given!r}"
    raise UserError(f"utility.{key}: {where}: {what}; set it to one of: {', '.join(names)}")


def _asked(request: Request) -> str:
    """The text of a request, to compare splits by."""
    prompt = request.prompt if isinstance(request.prompt, str) else request.prompt.text
    return prompt + "".join(request.options if isinstance(request, Choose) else ())


def _code(value: Any) -> str:
    """What stands for a value that is no JSON: the hash of the file of a function or class, else its type."""
    code = value if inspect.isfunction(value) or inspect.isclass(value) else type(value)
    try:
        content = Path(str(inspect.getsourcefile(code))).read_bytes()
    except (TypeError, OSError):
        content = b""
    return f"{code.__qualname__} {hashlib.sha256(content).hexdigest()} {value if code is not value else ''}"
