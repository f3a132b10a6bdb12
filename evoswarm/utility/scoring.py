"""Models that score texts: their settings, and what a utility asks them. They run in `evoswarm.reward`."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from pydantic import Field

from evoswarm.section import Section
from evoswarm.utility.data import resolve

IMPLEMENTATIONS = {
    "transformers": "evoswarm.reward.transformers:TransformersScorer",
    "vllm": "evoswarm.reward.vllm:VllmScorer",
}
"""`module:class` of each engine. It is imported when the model is loaded, so that a config stays light."""
CHECK = "evoswarm.reward.check:inspect"


class ScoringModel(Section):
    """A sequence-classification model: a reward model or a classifier."""

    model: str = Field(min_length=1)
    """The model: a folder, or a name on the Hugging Face hub."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs it. vllm: vLLM's pooling models."""
    input: Literal["chat", "pair", "answer"] = "chat"
    """What the model reads. chat: the question and the answer in its own chat template. pair: both as a pair of texts,
    with the tokenizer's special tokens. answer: the answer alone."""
    chat_template: Path | None = None
    """A Jinja file, or a tokenizer's JSON, in place of the model's own chat template."""
    max_length: int | None = Field(None, ge=8)
    """The most tokens of one text; null: what the model takes. A larger number is lowered to that."""
    too_long: Literal["fail", "cut"] = "fail"
    """What happens to a longer text. fail: its example fails, and with it the evaluation. cut: the question loses its
    start, or an answer alone its end; the metric `cut` is the share of such texts."""
    batch_size: int = Field(8, ge=1)
    """transformers: texts in one batch."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type; auto: as saved."""
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads. Part of the definition of the result: another number may round differently."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave it off unless you trust its author."""
    args: dict[str, Any] = {}
    """vllm: any argument of vLLM's engine, such as `gpu_memory_utilization`."""

    def at(self, root: Path) -> ScoringModel:
        """The same with paths that start at `root` made absolute."""
        local = self.model.startswith((".", "/", "~")) or (root / self.model).is_dir()
        model = str(resolve(Path(self.model), root)) if local else self.model
        template = self.chat_template and resolve(self.chat_template, root)
        return self.with_(model=model, chat_template=template)

    def start(self) -> TextScorer:
        """Load the model.

        Raises:
            UserError: it cannot be loaded, or does not score texts.
        """
        return cast("TextScorer", pkgutil.resolve_name(IMPLEMENTATIONS[self.engine])(self))

    def inspect(self) -> Facts:
        """What the files say about the model, without loading its weights.

        Raises:
            UserError: it does not score texts, or a file is missing.
        """
        return cast("Facts", pkgutil.resolve_name(CHECK)(self))


@dataclass(frozen=True)
class Facts:
    """A model's outputs, by position, and the problem that it was trained for (transformers' `problem_type`)."""

    labels: tuple[str, ...]
    problem: str | None


@dataclass(frozen=True)
class Exchange:
    """An answer, what was asked, and the system message if there is one."""

    question: str
    answer: str
    system: str | None = None


@dataclass(frozen=True)
class Scored:
    """The outputs of a model for one text, in the order of its labels, without sigmoid or softmax.

    Attributes:
        logits: one number per label; empty if the text could not be scored.
        tokens: length of the answer in the model's tokens, including special tokens that the tokenizer adds.
        cut: whether only a part of the text was read.
        error: why it could not be scored, in one line.
    """

    logits: tuple[float, ...]
    tokens: int
    cut: bool = False
    error: str | None = None


class TextScorer(Protocol):
    """A loaded model. Texts cross this interface, not token ids: its tokenizer is not the expert's."""

    facts: Facts

    def score(self, texts: Sequence[Exchange]) -> list[Scored]:
        """The outputs for each text, in order."""

    def close(self) -> None:
        """Release the model."""
