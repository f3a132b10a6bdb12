"""The published algorithms as their papers say them: each particle is a dict of fp32 tensors, moved one by one.

No coefficients, no basis, no matrix: the opposite of `evoswarm.search`, which must agree with it. Each algorithm is a
generator: it yields what it wants evaluated as `(phase, weights)` and is sent one utility per weights (None = failed);
at the end of every generation it yields None.

Source: Model Swarms (arXiv 2410.11163), GENOME and GENOME+ (arXiv 2503.01155).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from evoswarm.rows import NoiseVector
from evoswarm.search.genome import Genome
from evoswarm.search.genome_plus import GenomePlus
from evoswarm.search.model_swarms import ModelSwarms
from evoswarm.search.rng import stream

Weights = dict[str, np.ndarray]
Noise = Callable[[NoiseVector], Weights]
Asked = tuple[str, list[Weights]]
Run = Generator[Asked | None, list[float | None], None]


def weighted(*terms: tuple[float, Weights]) -> Weights:
    """Sum of factor times weights, tensor by tensor, in fp32."""
    total: Weights = {}
    for name, first in terms[0][1].items():
        tensor: np.ndarray = np.zeros(first.shape, dtype=np.float32)
        for factor, weights in terms:
            tensor = tensor + np.float32(factor) * weights[name]
        total[name] = tensor
    return total


def zeros(like: Weights) -> Weights:
    return {name: np.zeros(tensor.shape, dtype=np.float32) for name, tensor in like.items()}


@dataclass
class Record:
    """A best or a worst: weights, their utility and the generation that found them."""

    weights: Weights
    utility: float
    generation: int


@dataclass
class Particle:
    x: Weights
    v: Weights = field(default_factory=dict)
    utility: float | None = None
    best: Record | None = None
    clock: int = 0
    """Generation of the personal best or of the last restart, whichever is later."""

    measured: int = 0
    """Generation of the utility."""

    def __post_init__(self) -> None:
        self.v = self.v or zeros(self.x)

    def scored(self, utility: float | None, generation: int) -> None:
        self.utility, self.measured = utility, generation
        if utility is not None and (self.best is None or utility > self.best.utility):
            self.best = Record(self.x, utility, generation)
            self.clock = generation


class Reference(ABC):
    """What the algorithms share: the experts' own evaluation, the bests, the velocity update."""

    def __init__(
        self, config: ModelSwarms | Genome | GenomePlus, experts: Sequence[Weights], *, seed: int, noise: Noise
    ) -> None:
        self.config, self.experts, self.seed, self.noise = config, experts, seed, noise
        self.generation = -1
        self.members: list[Particle] = []
        self.expert_utilities: list[float | None] = []
        self.best: Record | None = None
        self.worst: Record | None = None

    @abstractmethod
    def run(self) -> Run:
        """The whole search as one generator."""

    @property
    def stop_reason(self) -> str | None:
        assert self.best is not None
        if self.config.patience is not None and self.generation - self.best.generation >= self.config.patience:
            return "patience"
        return "max_generations" if self.generation == self.config.max_generations else None

    def observe(self, weights: Weights, utility: float | None, generation: int) -> None:
        if utility is None:
            return
        if self.best is None or utility > self.best.utility:
            self.best = Record(weights, utility, generation)
        if self.worst is None or utility < self.worst.utility:
            self.worst = Record(weights, utility, generation)

    def scored(self, members: Sequence[Particle], utilities: Sequence[float | None], generation: int) -> None:
        for member, utility in zip(members, utilities, strict=True):
            member.scored(utility, generation)
            self.observe(member.x, utility, generation)

    def evaluate_experts(self) -> Generator[Asked, list[float | None], list[int]]:
        """Returns the numbers of the experts whose evaluation succeeded."""
        self.expert_utilities = yield "experts", list(self.experts)
        for weights, utility in zip(self.experts, self.expert_utilities, strict=True):
            self.observe(weights, utility, 0)
        return [number for number, utility in enumerate(self.expert_utilities) if utility is not None]

    def start_from_experts(self, good: Sequence[int]) -> None:
        """The successful experts as members, or the best N of them where they are more than N."""
        if len(good) > self.config.population:
            good = sorted(good, key=lambda number: (-(self.expert_utilities[number] or 0.0), number))
            good = good[: self.config.population]
        for number in good:
            member = Particle(self.experts[number])
            member.scored(self.expert_utilities[number], 0)
            self.members.append(member)

    def velocity(self, member: Particle, best: Record, worst: Record, r: Sequence[float]) -> Weights:
        """[r_v f_v v + r_p f_p (p - x) + r_g f_g (g - x) + r_w f_w (x - g_w)] / C.  Source: Model Swarms, eq. 1."""
        config = self.config
        assert isinstance(config, ModelSwarms | GenomePlus)
        inertia, cognitive = r[0] * config.inertia, r[1] * config.cognitive
        social, repel = r[2] * config.social, r[3] * config.repel
        if member.best is None:
            cognitive = 0.0
        norm = inertia + cognitive + social + repel
        if norm == 0:
            return zeros(member.x)
        velocity: Weights = {}
        for name, x in member.x.items():
            pull: np.ndarray = np.float32(inertia) * member.v[name]
            if member.best is not None:
                pull = pull + np.float32(cognitive) * (member.best.weights[name] - x)
            pull = pull + np.float32(social) * (best.weights[name] - x)
            pull = pull + np.float32(repel) * (x - worst.weights[name])
            velocity[name] = pull / np.float32(norm)
        return velocity

    def move(self, member: Particle, best: Record, worst: Record, r: Sequence[float], *, step: float) -> None:
        member.v = self.velocity(member, best, worst, r)
        for name, x in list(member.x.items()):
            member.x = member.x | {name: x + np.float32(step) * member.v[name]}


class ModelSwarmsReference(Reference):
    """Model Swarms, algorithm 1, with the released code's restart and its two dropouts."""

    config: ModelSwarms
    restarts = 0

    def run(self) -> Run:
        yield from self.populate()
        step = self.config.step_length
        while True:
            self.generation += 1
            yield None
            yield from self.swarm(self.generation + 1, step)
            step = max(self.config.step_length_factor * step, self.config.min_step_length)

    def populate(self) -> Run:
        good = yield from self.evaluate_experts()
        self.start_from_experts(good)
        children = [self.child(i) for i in range(len(self.members), self.config.population)]
        utilities = yield "population", [child.x for child in children]
        self.scored(children, utilities, 0)
        for i, member in enumerate(self.members):
            member.v = self.first_velocity(i, member)

    def child(self, i: int) -> Particle:
        rng = stream(self.seed, "populate", 0, i)
        a, b = rng.choice(i, 2, replace=False)
        w = 2 * float(rng.random())
        self.members.append(Particle(weighted((w, self.members[a].x), (1 - w, self.members[b].x))))
        return self.members[-1]

    def first_velocity(self, i: int, member: Particle) -> Weights:
        if self.config.velocity == "zero":
            return zeros(member.x)
        if self.config.velocity == "best":
            assert self.best is not None
            return weighted((1, self.best.weights), (-1, member.x))
        j = int(stream(self.seed, "velocity", 0, i).integers(len(self.members) - 1))
        j += j >= i
        return weighted((1, self.members[j].x), (-1, member.x))

    def swarm(self, t: int, step: float) -> Run:
        best, worst = self.best, self.worst
        assert best is not None and worst is not None
        for i, member in enumerate(self.members):
            self.restart(member, t - 1)
            draws = [float(value) for value in stream(self.seed, "move", t, i).random(4)]
            self.move(member, best, worst, draws if self.config.weight_randomness else [1.0] * 4, step=step)
        evaluated = [member for i, member in enumerate(self.members) if not self.dropped(t, i)]
        utilities = yield "move", [member.x for member in evaluated]
        self.scored(evaluated, utilities, t)

    def restart(self, member: Particle, finished: int) -> None:
        if self.config.patience is None or self.config.restart_patience is None or member.best is None:
            return
        if finished - member.clock >= max(1, self.config.restart_patience * self.config.patience):
            member.x, member.v, member.clock = member.best.weights, zeros(member.x), finished
            self.restarts += 1

    def dropped(self, t: int, i: int) -> bool:
        whole = stream(self.seed, "drop_generation", t, 0).random() < self.config.drop_generations
        return bool(whole or stream(self.seed, "drop_particle", t, i).random() < self.config.drop_particles)
