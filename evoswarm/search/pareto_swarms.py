"""Model Swarms for several objectives: every particle follows a leader from the front.

The rules of leaders and personal bests are those of OMOPSO (Reyes Sierra and Coello Coello 2005, EMO) and SMPSO (Nebro
and others 2009, IEEE MCDM). The move is that of Model Swarms (arXiv 2410.11163).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from evoswarm.search.dominance import crowding, dominates
from evoswarm.search.model_swarms import ModelSwarmsSearch, ModelSwarmsState, Swarming
from evoswarm.search.pareto import Pareto, ParetoSearch, ParetoState, Vectored
from evoswarm.search.rng import stream
from evoswarm.search.state import Measured


class ParetoSwarms(Pareto, Swarming):
    """A front over the tasks of multi_task by Model Swarms, with leaders from the front (OMOPSO, SMPSO)."""

    type: Literal["pareto_swarms"] = "pareto_swarms"


@dataclass
class ParetoSwarmsState(ParetoState, ModelSwarmsState):
    """Particles and personal bests with their objectives."""

    bests: Vectored = field(default_factory=Vectored)
    particles: Vectored = field(default_factory=Vectored)


class ParetoSwarmsSearch(ParetoSearch, ModelSwarmsSearch):
    """Model Swarms over a front. Everything but the following is as in `ModelSwarmsSearch` and `ParetoSearch`.

    Leader: in the move, g of each particle is a row of the front, by binary tournament: the larger crowding distance
    wins, then the earlier row.
    Draws: "leader"(t, i): integers(M, size=2) over the M rows of the front.

    Personal best: a new position takes its place unless the old one dominates it or has equal objectives.
    """

    config_class = ParetoSwarms
    config: ParetoSwarms
    state: ParetoSwarmsState
    state_class = ParetoSwarmsState

    def _leaders(self, t: int) -> np.ndarray:
        front = self.state.front
        place = np.empty(len(front), dtype=np.int64)
        place[np.argsort(-crowding(front.vectors), kind="stable")] = np.arange(len(front))
        drawn = [
            stream(self.seed, "leader", t, i).integers(len(front), size=2) for i in range(len(self.state.particles))
        ]
        return front.rows[[pair[place[pair].argmin()] for pair in drawn]]

    def _improve(self, kept: np.ndarray, fresh: Measured) -> np.ndarray:
        assert isinstance(fresh, Vectored)
        bests = self.state.bests
        old, new = bests.vectors[kept], fresh.vectors
        won = fresh.succeeded & ~dominates(old, new) & (old != new).any(axis=1)
        bests.put(kept[won], fresh.take(won))
        return kept[won]
