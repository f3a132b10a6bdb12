"""How many sequences vLLM runs at once, counted where it schedules a step."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it loads torch
    from evoswarm.engine.vllm import VllmEngine


class Running:
    """Counts the sequences of every step of an engine in this process.

    Attributes:
        steps: for each step the running sequences, and as many as could have run: those that were left, or
            `max_num_seqs`.
    """

    def __init__(self, engine: VllmEngine) -> None:
        self.steps: list[tuple[int, int]] = []
        core: Any = engine._llm.llm_engine.engine_core
        scheduler = core.engine_core.scheduler
        schedule = scheduler.schedule

        def counted(*arguments: Any, **settings: Any) -> Any:
            output = schedule(*arguments, **settings)
            running, waiting = scheduler.get_request_counts()
            self.steps.append((running, min(scheduler.max_num_running_reqs, running + waiting)))
            return output

        scheduler.schedule = counted

    def take(self) -> dict[str, float]:
        """The mean of running sequences since the last call, and its share of what could have run."""
        steps, self.steps = [step for step in self.steps if step[1]], []
        if not steps:
            return {}
        running = fmean(running for running, _ in steps)
        return {"running": running, "of possible": running / fmean(possible for _, possible in steps)}
