"""What a run is: the top of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from evoswarm.config.backend import BACKENDS, LocalBackend, RayBackend
from evoswarm.config.loggers import LOGGERS, TensorBoard, Wandb
from evoswarm.config.objectives import check_objectives
from evoswarm.engine import ENGINES, EngineConfig, TransformersEngine
from evoswarm.place import Place, RunPlace
from evoswarm.registry import by_type
from evoswarm.search import SEARCHES, Evolution, ModelSwarms
from evoswarm.search.pareto import Pareto
from evoswarm.section import NonNegative, Section
from evoswarm.utility import UTILITIES, UtilityConfig
from evoswarm.weights.config import ExportConfig, PoolConfig


class RunConfig(Section):
    """One run of evoswarm."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run: letters, digits, dot, dash and underscore."""
    model: str = Field(min_length=1)
    """Base model: a folder, or a name on the Hugging Face hub."""
    pool: PoolConfig
    """The experts."""
    utility: Annotated[UtilityConfig, by_type(UTILITIES, lambda entry: entry.config_class)]
    """What is maximized."""
    search: Annotated[Evolution, by_type(SEARCHES, lambda entry: entry.config_class, default="model_swarms")] = (
        ModelSwarms()
    )
    """The algorithm that moves the population."""
    engine: Annotated[EngineConfig, by_type(ENGINES, default="transformers")] = TransformersEngine()
    """What runs the model."""
    backend: Annotated[LocalBackend | RayBackend, by_type(BACKENDS, default="ray")] = RayBackend()
    """Where it runs."""
    export: ExportConfig = ExportConfig()
    """How the best expert is written."""
    references: bool = True
    """At the end, also measure the greedy soup, with up to one evaluation per expert: what a search must beat."""
    seed: int = Field(0, ge=0, lt=2**63)
    """One seed determines everything."""
    loggers: list[Annotated[TensorBoard | Wandb, by_type(LOGGERS)]] = []
    """Where else to log the run: `[{type: tensorboard}, {type: wandb, mode: offline}]`."""
    output: Place = Path("runs")
    """Folder of run directories, or a URL (s3://, gs://, or anything fsspec supports); this run's is `output/name`."""
    storage_seconds: NonNegative = 600
    """How long a run at a URL waits for unreachable storage before it stops; it can be resumed."""
    root: Path = Path(".")
    """Folder that relative paths and custom functions start from; default: the config file's folder."""

    @model_validator(mode="before")
    @classmethod
    def _space_of_the_search(cls, data: Any) -> Any:
        """Some searches prefer product space; what the config says counts more."""
        search, pool = (data.get("search"), data.get("pool")) if isinstance(data, dict) else (None, None)
        kind = search.get("type") if isinstance(search, dict) else search.type if isinstance(search, Evolution) else ""
        if not isinstance(kind, str) or kind not in SEARCHES or not SEARCHES[kind].config_class.prefers_product:
            return data
        pool = cls._experts_alone(pool.model_dump() if isinstance(pool, PoolConfig) else pool)
        if not isinstance(pool, dict) or pool.get("prefer_product") is not None:
            return data
        return data | {"pool": pool | {"prefer_product": True}}

    @field_validator("pool", mode="before")
    @classmethod
    def _experts_alone(cls, value: Any) -> Any:
        return {"experts": value} if isinstance(value, str | Path | list) else value

    @model_validator(mode="after")
    def _objectives_fit(self) -> Self:
        if isinstance(self.search, Pareto):
            check_objectives(self.search, self.utility)
        return self

    @model_validator(mode="after")
    def _one_process_in_a_bundle(self) -> Self:
        ranks, backend = self.engine.ranks, self.backend
        if ranks == 1 or not isinstance(backend, RayBackend):
            return self
        if backend.scorer_gpus not in (None, 0, ranks):
            raise ValueError(
                f"backend.scorer_gpus: an engine that is split over {ranks} GPUs (engine.args.tensor_parallel_size) "
                f"needs {ranks} whole GPUs; set it to {ranks}, or omit it"
            )
        if backend.colocate or backend.gang:
            key = "colocate" if backend.colocate else "gang"
            raise ValueError(
                f"backend.{key}: an engine that is split over {ranks} GPUs (engine.args.tensor_parallel_size) has its "
                f"own placement group; set backend.{key}: false, or tensor_parallel_size: 1"
            )
        return self

    @model_validator(mode="after")
    def _graders_fit(self) -> Self:
        backend, grading = self.backend, self.utility.all_grading
        if not isinstance(backend, RayBackend):
            return self
        if (backend.graders or backend.grader_gpus) and not grading:
            key = "graders" if backend.graders else "grader_gpus"
            raise ValueError(f"backend.{key}: utility {self.utility.type} is scored by the scorers; omit it")
        if (backend.graders or 1) > 1 and "service" in grading:
            raise ValueError(
                f"backend.graders: utility {self.utility.type} asks a service within limits per run, which one grader "
                "keeps; set it to 1, or omit it"
            )
        return self

    @field_validator("loggers")
    @classmethod
    def _one_of_each(cls, value: list[TensorBoard | Wandb]) -> list[TensorBoard | Wandb]:
        if len({logger.type for logger in value}) < len(value):
            raise ValueError("give each type of logger at most once")
        return value

    def over(self, *, model: str, experts: list[Place]) -> Self:
        """The run that asks members of a mix: with the settings that matter for what they answer.

        Args:
            model: the member, or the base of members that are adapters.
            experts: the member's own folder, or those of adapters.
        """
        backend = self.backend
        if isinstance(backend, RayBackend) and backend.particle_gpus is None:
            backend = backend.with_(particle_gpus=0)
        # In product space a row has the tensors of its own expert, whatever others are in the pool.
        pool = PoolConfig(experts=experts, prefer_product=True, check_values=False)
        small = {"search": ModelSwarms(population=2), "export": ExportConfig(), "engine": self.engine.merged()}
        return self.with_(model=model, pool=pool, backend=backend, **small)

    @property
    def place(self) -> RunPlace:
        """The run's place on this node, from `output` and `name`."""
        return RunPlace.of(self.output, self.name)

    @property
    def run_dir(self) -> Path:
        """The run directory on this node."""
        return self.place.path
