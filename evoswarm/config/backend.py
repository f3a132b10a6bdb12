"""Where a run executes."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from evoswarm.section import Gpus, NonNegative, Section

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_DNS = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:(?=[A-Za-z0-9.-]{{1,253}}/){_DNS}(?:\.{_DNS})*/)?{_WORD}")
_CONDITION = re.compile(rf"!?(?:{_WORD}|in\({_WORD}(?:, ?{_WORD})*\))")


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise ValueError("is not a label name; use letters, digits, dash, dot and underscore, with an optional prefix/")
    return text


def _condition(text: str) -> str:
    if not _CONDITION.fullmatch(text):
        raise ValueError("is not a condition on a label; write value, '!value', in(a, b) or '!in(a, b)'")
    return text


Labels = dict[Annotated[str, AfterValidator(_key)], Annotated[str, AfterValidator(_condition)]]
"""A condition for each label: `H100`, `!spot`, `in(a, b)`, `!in(a, b)`."""


class LocalBackend(Section):
    """Everything in this process, without Ray."""

    type: Literal["local"] = "local"


class RayBackend(Section):
    """Particle, scorer and coordinator actors on a Ray cluster."""

    type: Literal["ray"] = "ray"
    address: str | None = None
    """Cluster address (`auto`, `host:6379`, `ray://host:10001`); null: RAY_ADDRESS if set, else a local cluster."""
    scorers: int | None = Field(None, ge=1)
    """Number of scorer actors to start with; null: one per free GPU, or one per `engine.threads` CPUs, and more when
    nodes join during the run."""
    max_scorers: int | None = Field(None, ge=1)
    """Request scorers beyond `scorers`, up to this total, without waiting for them: an autoscaler adds nodes for them,
    and each one starts to work when it is placed. null: request none."""
    particle_gpus: Gpus | None = None
    """GPUs that each particle actor pins; null: 1 if there are at least two GPUs per particle, else 0 (particles then
    keep their weights in host memory, and scorers get every GPU). Fractions share a GPU."""
    scorer_gpus: Gpus | None = None
    """GPUs of each scorer actor; null: 1 if the cluster has GPUs, else 0."""
    graders: int | None = Field(None, ge=1)
    """Number of grader actors, which score answers beside the engines, for a utility whose scoring takes long; null: 1
    if the utility needs graders, else none. A utility that asks a service has limits per run, and takes only one."""
    grader_gpus: Gpus | None = None
    """GPUs of each grader actor; null: 1 if the utility scores with a model and the cluster has a GPU to spare, else 0.
    Fractions share a GPU, for example with a scorer that has the rest of it."""
    particle_labels: Labels = {}
    """Node labels that particles require: a value, `!value`, `in(a, b)` or `!in(a, b)` for each key."""
    scorer_labels: Labels = {}
    """Node labels that scorers require, for example `{ray.io/accelerator-type: H100}`."""
    grader_labels: Labels = {}
    """Node labels that graders require."""
    colocate: bool = False
    """Place every particle on the node of a scorer, in one bundle (on one GPU if both fit), and let that scorer prefer
    its own particles, so that weights do not travel between nodes. Reserves all resources at once, like `gang`."""
    gang: bool = False
    """Reserve the resources of all actors at once or none of them, so that two runs never hold half a cluster each."""
    spread: bool = False
    """Spread actors over as many nodes as possible, so that losing a node kills few of them."""
    wait_seconds: NonNegative = 300
    """How long to wait for resources that the cluster does not have yet."""
    start_seconds: NonNegative = 1800
    """How long actors may take to start once they have resources: engines load the model, and vLLM also compiles it."""
    max_retries: int = Field(3, ge=0)
    """How often to retry work that was lost with a worker before the run stops (it can be resumed)."""
    slice_timeout: Annotated[float, Field(gt=0)] | None = 1800
    """Seconds that an engine may take for one slice. After that it is restarted, and the slice goes to another engine.
    null: no limit."""
    grading_timeout: Annotated[float, Field(gt=0)] | None = 1800
    """Seconds for which a grader may finish nothing while it has answers. After that it is restarted, and the answers
    are graded again. null: no limit."""

    def unlabeled(self) -> Self:
        """The same without conditions on nodes."""
        return self.with_(particle_labels={}, scorer_labels={}, grader_labels={})

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.max_scorers is not None and self.max_scorers < (self.scorers or 1):
            raise ValueError(f"max_scorers {self.max_scorers} is below scorers {self.scorers}; raise it, or omit it")
        shared = self.particle_labels.keys() & self.scorer_labels.keys()
        other = [key for key in sorted(shared) if self.particle_labels[key] != self.scorer_labels[key]]
        if self.colocate and other:
            raise ValueError(
                f"colocate puts particles and scorers on one node, but particle_labels and scorer_labels differ in "
                f"{other[0]}; give both the same, or set colocate: false"
            )
        return self


BACKENDS: dict[str, type[LocalBackend | RayBackend]] = {"local": LocalBackend, "ray": RayBackend}
