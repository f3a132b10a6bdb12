"""What a run has to serve: the winner, its base model, the ensemble's members, and any particle by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from evoswarm.config import RunConfig
from evoswarm.engine.vllm_settings import RANKS
from evoswarm.errors import UserError
from evoswarm.experts.best import write_merged
from evoswarm.experts.export import export
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.history import best_rows, run_pool, written_config
from evoswarm.loop.row_cache import digest_of
from evoswarm.place import replacing_folder
from evoswarm.route.embed import Embedder
from evoswarm.route.router import load_router
from evoswarm.rows import Row
from evoswarm.serve.names import BASE, ENSEMBLE, ROUTER, WINNER
from evoswarm.serve.router import Routing, constant
from evoswarm.serve.winner import Say, particle_folder, row_folder, serving, winner_folder
from evoswarm.utility import make_utility
from evoswarm.utility.votable import VotableUtility
from evoswarm.weights.blocks import whole_tensors
from evoswarm.weights.expert import Expert, open_expert
from evoswarm.weights.kinds import kind_of
from evoswarm.weights.merge import lora_modules

_PARTICLE = re.compile(r"gen_([0-9]+)/particle_([0-9]+)")
"""Names of particles: `gen_3/particle_2`."""


@dataclass
class Offer:
    """The models of one server.

    Attributes:
        run_dir: the run.
        config: of the run.
        model: what vLLM loads: the base model of adapters, or a checkpoint.
        model_name: the name of that model.
        adapters: folder of each adapter that is served from the start.
        voters: names of the ensemble's members, best first; empty: no ensemble is offered.
        read: the utility's parser of answers, for the vote.
        router: chooses among the other models; None: no router is offered.
    """

    run_dir: Path
    config: RunConfig
    model: str
    model_name: str
    adapters: dict[str, Path] = field(default_factory=dict)
    voters: tuple[str, ...] = ()
    read: Callable[[str], str | None] | None = None
    router: Routing | None = None
    by_request: ClassVar[bool] = False
    """Models differ by what is sent with a request, and not by what vLLM has loaded."""
    _lock: Lock = field(default_factory=Lock)

    @property
    def names(self) -> list[str]:
        """All names that are offered from the start."""
        shown = [name for name in self.adapters if name not in self.voters or name == WINNER]
        others = [*([ENSEMBLE] if self.voters else []), *([ROUTER] if self.router else [])]
        return [*shown, self.model_name, *others]

    @property
    def rank(self) -> int:
        """The highest rank of the adapters that are served from the start; 0 without adapters."""
        return max((_rank(open_expert(folder)) for folder in self.adapters.values()), default=0)

    def numbers(self, name: str) -> tuple[int, int] | None:
        """Generation and number of the particle `gen_3/particle_2`; None for another name."""
        found = _PARTICLE.fullmatch(name)
        return (int(found[1]), int(found[2])) if found else None

    def request(self, body: Mapping[str, Any], name: str) -> dict[str, Any]:
        """The request to vLLM for a completion by one of the models."""
        return {**body, "model": name}

    def particle(self, name: str) -> Path | None:
        """The adapter of `gen_3/particle_2`; None for another name. Written on first use.

        Raises:
            UserError: the run has no such particle.
        """
        found = self.numbers(name)
        if found is None or not self.adapters:
            return None
        generation, number = found
        with self._lock:  # two requests may name the same particle
            return _servable(particle_folder(self.run_dir, generation, number), self.config)


@dataclass(frozen=True)
class Choice:
    """What to serve of a run.

    Attributes:
        ensemble: the ensemble too.
        merged: the winner merged into the base model, and nothing else.
        generation: a particle of this generation in place of the winner; None: the last one.
        particle: this particle in place of the winner; None: the global best.
        overrides: settings of the run's config to change, such as `engine.args.max_model_len=4096`.
        router: the router too.
        router_device: where prompts are embedded for it; a torch device.
    """

    ensemble: bool = False
    merged: bool = False
    generation: int | None = None
    particle: int | None = None
    overrides: Sequence[str] = ()
    router: bool = False
    router_device: str = "cpu"

    @property
    def several(self) -> list[str]:
        """Options that need several adapters of one base model."""
        return [name for name, asked in (("--ensemble", self.ensemble), ("--router", self.router)) if asked]


def make_offer(run_dir: Path, choice: Choice, *, say: Say = lambda text: None) -> Offer:
    """The models to serve; writes weights that do not exist yet to `serving/` in the run directory.

    The winner of a run that is not finished is its best so far. `say` is told what takes long, and what is served in
    place of what.

    Raises:
        UserError: the answers cannot be voted on, there is no router, or vLLM cannot serve the winner.
    """
    config = written_config(run_dir, overrides=choice.overrides)
    winner = winner_folder(run_dir, generation=choice.generation, particle=choice.particle, say=say)
    checkpoint = open_expert(winner, model=config.model).kind == "checkpoint"
    if choice.several and (checkpoint or choice.merged):
        reason = "its particles are checkpoints" if checkpoint else "--merged serves one model"
        raise UserError(f"{choice.several[0]}: serves adapters of one base model, and {reason}; leave it out")
    if checkpoint or choice.merged:
        return Offer(run_dir, config, str(winner if checkpoint else merged_folder(run_dir, winner, say=say)), WINNER)
    offer = Offer(run_dir, config, config.model, BASE, {WINNER: _servable(winner, config)})
    offer = _with_ensemble(offer) if choice.ensemble else offer
    return _with_router(offer, choice.router_device, say) if choice.router else offer


def merged_folder(run_dir: Path, winner: Path, *, say: Say) -> Path:
    """The base model with the winner merged in; written once."""
    beside = serving(run_dir) if winner == RunDirectory(run_dir).best else winner.parent
    folder = beside / f"{winner.name}-merged"
    if not folder.exists():
        say("merging the winner into the base model")
        with replacing_folder(folder) as new:
            write_merged(run_dir, new, expert=winner)
    return folder


def slot_rank(offer: Offer, most: int | None) -> int:
    """vLLM's `max_lora_rank` for an offer: the smallest that it has for its adapters, and for rank `most`.

    Raises:
        UserError: vLLM has no slots of this rank.
    """
    rank = max(offer.rank, most or 0)
    fitting = [known for known in RANKS if known >= rank]
    if not fitting:
        raise UserError(
            f"{offer.run_dir}: vLLM serves adapters up to rank {RANKS[-1]}, not {rank}; use --merged, or lower the "
            "rank with `evoswarm export --rank`"
        )
    return fitting[0]


def _with_ensemble(offer: Offer) -> Offer:
    utility = make_utility(offer.config.utility, root=offer.config.root)
    if not isinstance(utility, VotableUtility):
        raise UserError(
            f"--ensemble: the answers of utility.type {offer.config.utility.type} cannot be voted on; leave it out"
        )
    rows = best_rows(offer.run_dir)
    if len(rows) < 2:
        raise UserError("--ensemble: the run has one voter (search.ensemble_size: 1); leave it out")
    for number, row in enumerate(rows[1:], start=2):
        offer.adapters[f"voter_{number}"] = _row_adapter(offer, row)
    offer.voters, offer.read = tuple(offer.adapters), utility.read
    return offer


def _with_router(offer: Offer, device: str, say: Say) -> Offer:
    """The offer with the run's router, and with its candidates as adapters."""
    router, config, pool = load_router(offer.run_dir), offer.config, run_pool(offer.config)
    router.require_same(config.model, pool)
    if constant(router.gate):
        say(f"the router always answers with {router.candidates[0].name}: it gained nothing by choosing")
    utility = make_utility(config.utility, root=config.root)
    say(f"loading {config.model} once more, on {device}, to embed prompts for the router")
    embedder = Embedder(config, pool=pool, utility=utility, device=device, dtype=router.about["dtype"])
    router.require_embeddings(embedder)
    for name, row in ((one.name, one.row) for one in router.candidates):
        if row is not None:
            offer.adapters[name] = _row_adapter(offer, row)
    models = [BASE if one.row is None else one.name for one in router.candidates]
    offer.router = Routing(router.gate, models, embedder, config)
    return offer


def _row_adapter(offer: Offer, row: Row) -> Path:
    """The adapter of a row, named after its content: the run may rank its rows in another way when it ends."""
    folder = serving(offer.run_dir) / "rows" / digest_of(row).hex()
    return _servable(row_folder(offer.run_dir, folder, row), offer.config)


def _servable(folder: Path, config: RunConfig) -> Path:
    """A LoRA that vLLM serves. What is no LoRA yet is converted once.

    Raises:
        UserError: the adapter holds whole tensors.
    """
    expert = open_expert(folder, model=config.model)
    kind = kind_of(expert.config)
    if kind is not None and kind.converter:
        lora = folder.with_name(f"{folder.name}-lora")
        return lora if lora.exists() else export(folder, lora, model=config.model)[0]
    if whole := whole_tensors(expert):
        raise UserError(
            f"{expert.path}: holds {next(iter(whole.values()))} as a whole, which vLLM cannot serve as an adapter; use "
            "--merged"
        )
    return expert.path


def _rank(expert: Expert) -> int:
    return max((pair.a.shape[0] for pair in lora_modules(expert.specs).values()), default=0)
