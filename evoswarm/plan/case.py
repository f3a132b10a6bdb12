"""What a plan is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from evoswarm.backend.ray.placement import Placement
from evoswarm.engine.config import ModelEngine
from evoswarm.plan.hardware import Hardware
from evoswarm.plan.sizes import Extra, Shape, Workload


@dataclass(frozen=True)
class EngineSettings:
    """What a plan needs to know of an engine.

    Attributes:
        ranks: GPUs of one engine.
        memory_share: share of a GPU's memory that the engine may fill.
        running: most sequences at once.
        pristine: where the copy of the adapted parameters is: auto, device or host.
        adapters: adapters that one batch holds (multi_lora), else 0.
        max_length: longest sequence in tokens, if it is set.
    """

    ranks: int = 1
    memory_share: float = 0.9
    running: int = 1024
    pristine: str = "auto"
    adapters: int = 0
    max_length: int | None = None

    @classmethod
    def of(cls, engine: ModelEngine) -> Self:
        """What the settings of an engine mean for a plan."""
        return cls(
            ranks=engine.ranks,
            memory_share=engine.memory_share,
            running=engine.running,
            pristine=engine.keeps_pristine,
            adapters=engine.particles_per_batch if engine.multi_adapter else 0,
            max_length=engine.max_length,
        )


@dataclass(frozen=True)
class Case:
    """A run on some hardware.

    Attributes:
        shape: base model and expert.
        workload: the validation split.
        experts: size of the pool.
        engine: settings of the engine.
        placement: the actors on this hardware.
        hardware: the machines.
        scoring: bytes of the models that score answers.
        extras: evaluations that belong to no generation.
    """

    shape: Shape
    workload: Workload
    experts: int
    engine: EngineSettings
    placement: Placement
    hardware: Hardware
    scoring: int = 0
    extras: Sequence[Extra] = ()

    @property
    def on_gpu(self) -> bool:
        """Whether engines run on GPUs."""
        return self.hardware.gpu is not None and self.placement.scorer_gpus > 0

    @property
    def grader_share(self) -> float:
        """The share of one GPU that the models of a grader have; 0 if graders use none."""
        return min(1.0, self.placement.grader_gpus) if self.placement.graders else 0.0

    @property
    def beside(self) -> int:
        """Bytes of the models that score answers in the process of an engine, which has no graders."""
        return 0 if self.placement.graders else self.scoring

    @property
    def length(self) -> int:
        """Tokens that the engine must have room for: as set, or those of the longest request that the model accepts."""
        if self.engine.max_length is not None:
            return self.engine.max_length
        return min(self.workload.longest, self.shape.longest or self.workload.longest)
