"""What a run is: the top of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from evoswarm.config.base import Gpus, NonNegative, Section
from evoswarm.config.labels import Labels
from evoswarm.config.loggers import LoggerConfig
from evoswarm.config.place import Place, working_folder
from evoswarm.config.search import ModelSwarms, SearchConfig
from evoswarm.config.utility import UtilityConfig


class Pool(Section):
    """The experts. A bare string or list in place of this section is `experts`."""

    experts: Place | list[Place]
    """A folder of expert folders (sorted by name), or a list of expert folders: PEFT adapters, or full checkpoints of
    one architecture. Folders may be URLs (s3://, gs://, what fsspec knows): every node keeps a copy."""
    include_base: bool = False
    """Put the base model itself into the pool as the expert `base`. Moves are affine (coefficients sum to 1); with the
    base among the experts, their sum can be anything."""
    check_values: bool = True
    """Read every value once before the start to find NaN and infinities."""


class Engine(Section):
    """What every engine has."""

    batch_size: int = Field(64, ge=1)
    """Examples per slice. Slices are fixed and sorted by length, so a utility never depends on who shares the batch."""
    verify: bool | None = None
    """Judge an answer by how far it goes along with the reference, where that decides the score. Search then keeps no
    text of answers that are wrong; the finalists' answers are always generated whole. null: where it gives what
    generating gives, which for transformers is in float32."""

    @property
    def together(self) -> int:
        """How many particles an engine answers as at once."""
        return 1


class TransformersEngine(Engine):
    """Hugging Face transformers, on CPU or GPU."""

    type: Literal["transformers"] = "transformers"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the base model; auto: as saved."""
    device: str | None = None
    """torch device, for example `cuda:0`; null: the GPU if there is one, else the CPU."""
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads of one engine. Part of the result's definition: another number may round differently."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you trust its author."""
    pristine: Literal["auto", "device", "host"] = "auto"
    """Where a GPU engine keeps the base's copy of the parameters that experts change. device: on the GPU, for the
    fastest installs. host: in pinned host memory. auto: on the GPU if a fifth of its memory stays free."""


class VllmEngine(Engine):
    """vLLM: particles are merged into the base in place, and answered with continuous batching."""

    type: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the base model; auto: as saved."""
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads of one engine, on vLLM's CPU build."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you trust its author."""
    adapter_mode: Literal["auto", "merged", "multi_lora"] = "auto"
    """merged: one particle at a time, merged into the base in place, at the base's full speed. multi_lora: several
    particles in one continuous batch, as adapters beside the base. auto: see docs/guides/engines.md."""
    max_loras: int = Field(8, ge=1)
    """multi_lora: particles in one batch."""
    sleep: bool = False
    """Give the GPU's memory back between generations (vLLM's sleep mode), for what else runs on the same GPU."""
    args: dict[str, Any] = {}
    """Any argument of vLLM's engine, as it is: `max_model_len`, `gpu_memory_utilization`, `enforce_eager`, ..."""

    @field_validator("args")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, given in value.items():
            if isinstance(given, str) and key.lower().rpartition("_")[2] in ("token", "secret", "password", "key"):
                raise ValueError(
                    f"{key} looks like a secret, and a config is written down with the run; set it in the environment "
                    "(HF_TOKEN, ...)"
                )
        return value

    @field_validator("args")
    @classmethod
    def _whole_ranks(cls, value: dict[str, Any]) -> dict[str, Any]:
        ranks = value.get("tensor_parallel_size", 1)
        if type(ranks) is not int or ranks < 1:
            raise ValueError(f"tensor_parallel_size must be a whole number of GPUs, 1 or more, not {ranks!r}")
        return value

    @property
    def ranks(self) -> int:
        """GPUs that the model is split over."""
        return int(self.args.get("tensor_parallel_size", 1))

    @property
    def together(self) -> int:
        """`max_loras`, or 1 where particles are merged."""
        return self.max_loras if self.adapter_mode == "multi_lora" else 1


class FakeEngine(Engine):
    """Deterministic stand-in that hashes prompt and weights; for tests and for measuring the loop itself."""

    type: Literal["fake"] = "fake"
    delay: NonNegative = 0
    """Seconds that a slice takes."""


EngineConfig = Annotated[TransformersEngine | VllmEngine | FakeEngine, Field(discriminator="type")]


class LocalBackend(Section):
    """Everything in this process, without Ray."""

    type: Literal["local"] = "local"


class RayBackend(Section):
    """Particle, scorer and coordinator actors on a Ray cluster."""

    type: Literal["ray"] = "ray"
    address: str | None = None
    """Cluster address (`auto`, `host:6379`, `ray://host:10001`); null: RAY_ADDRESS if set, else a local cluster."""
    scorers: int | None = Field(None, ge=1)
    """Number of scorer actors to begin with; null: one per free GPU, or one per `engine.threads` CPUs, and more when
    nodes join in mid-run."""
    max_scorers: int | None = Field(None, ge=1)
    """Scorers beyond `scorers`, up to so many in all, are asked for without waiting for them: an autoscaler adds nodes
    for them, and each begins to work when it has a place. null: none are asked for."""
    particle_gpus: Gpus | None = None
    """GPUs that each particle actor pins; null: 1 where the cluster has GPUs, else 0. Fractions share a GPU."""
    scorer_gpus: Gpus | None = None
    """GPUs of each scorer actor; null: 1 where the cluster has GPUs, else 0."""
    particle_labels: Labels = {}
    """Labels of the nodes that particles may lie on: a value, `!value`, `in(a, b)` or `!in(a, b)` for each key."""
    scorer_labels: Labels = {}
    """Labels of the nodes that scorers may lie on, for example `{ray.io/accelerator-type: H100}`."""
    colocate: bool = False
    """Put every particle beside a scorer, in one bundle (on one GPU, where their shares fit on one), and let that
    scorer begin with its own particles: weights then need not travel between nodes. Takes all places at once, as
    `gang` does."""
    gang: bool = False
    """Take the places of all actors at once or none of them, so that two runs never hold half a cluster each."""
    spread: bool = False
    """Lay actors over as many nodes as there are, so that a lost node takes few of them along."""
    wait_seconds: NonNegative = 300
    """How long to wait for resources that the cluster does not have yet."""
    max_retries: int = Field(3, ge=0)
    """How often work that a lost worker took with it is tried again before the run stops (it can be resumed)."""
    slice_timeout: Annotated[float, Field(gt=0)] | None = 1800
    """Seconds within which an engine must be done with one slice; one that is not is started again, and the slice goes
    to another. null: wait for ever."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.max_scorers is not None and self.max_scorers < (self.scorers or 1):
            raise ValueError(
                f"max_scorers {self.max_scorers} is below scorers {self.scorers}; raise it, or leave it out"
            )
        shared = self.particle_labels.keys() & self.scorer_labels.keys()
        other = [key for key in sorted(shared) if self.particle_labels[key] != self.scorer_labels[key]]
        if self.colocate and other:
            raise ValueError(
                f"colocate puts particles and scorers on one node, but particle_labels and scorer_labels differ in "
                f"{other[0]}; give both the same, or set colocate: false"
            )
        return self


BackendConfig = Annotated[LocalBackend | RayBackend, Field(discriminator="type")]


class RunConfig(Section):
    """One run of evoswarm."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run: letters, digits, dot, dash and underscore."""
    model: str
    """Base model: a folder, or a name on the Hugging Face hub."""
    pool: Pool
    """The experts."""
    utility: Annotated[UtilityConfig, Field()]
    """What is maximised."""
    search: SearchConfig = ModelSwarms()
    """The algorithm that moves the population."""
    engine: EngineConfig = TransformersEngine()
    """What runs the model."""
    backend: BackendConfig = RayBackend()
    """Where it runs."""
    seed: int = Field(0, ge=0, lt=2**63)
    """One seed determines everything."""
    loggers: list[LoggerConfig] = []
    """Who else is told how the run goes: `[{type: tensorboard}, {type: wandb, mode: offline}]`."""
    output: Place = Path("runs")
    """Folder of run directories, or a URL (s3://, gs://, what fsspec knows); this run's is `output/name`."""
    storage_seconds: NonNegative = 600
    """How long a run at a URL waits for storage that is gone before it stops; it can be resumed."""
    root: Path = Path(".")
    """Folder that relative paths and custom functions start from; the config file's own folder by default."""

    @field_validator("pool", mode="before")
    @classmethod
    def _experts_alone(cls, value: Any) -> Any:
        return {"experts": value} if isinstance(value, str | Path | list) else value

    @model_validator(mode="after")
    def _one_process_in_a_bundle(self) -> Self:
        ranks = getattr(self.engine, "ranks", 1)
        if ranks > 1 and isinstance(self.backend, RayBackend) and self.backend.scorer_gpus not in (None, 0, ranks):
            raise ValueError(
                f"backend.scorer_gpus: an engine that is split over {ranks} GPUs (engine.args.tensor_parallel_size) "
                f"takes {ranks} whole ones; set it to {ranks}, or leave it out"
            )
        if ranks > 1 and isinstance(self.backend, RayBackend) and (self.backend.colocate or self.backend.gang):
            key = "colocate" if self.backend.colocate else "gang"
            raise ValueError(
                f"backend.{key}: an engine that is split over {ranks} GPUs (engine.args.tensor_parallel_size) has a "
                f"placement group of its own; set backend.{key}: false, or tensor_parallel_size: 1"
            )
        return self

    @field_validator("search", "engine", "backend", mode="before")
    @classmethod
    def _default_type(cls, value: Any, info: ValidationInfo) -> Any:
        """A section that does not say its type means the default one."""
        assert info.field_name is not None
        default = cls.model_fields[info.field_name].default
        return {"type": default.type} | value if isinstance(value, dict) else value

    @field_validator("loggers")
    @classmethod
    def _one_of_each(cls, value: list[LoggerConfig]) -> list[LoggerConfig]:
        if len({logger.type for logger in value}) < len(value):
            raise ValueError("each type of logger at most once")
        return value

    @property
    def run_dir(self) -> Path:
        """The run directory; of a run at a URL, the folder in which this node works on it."""
        return (
            self.output / self.name if isinstance(self.output, Path) else working_folder(f"{self.output}/{self.name}")
        )

    @property
    def run_url(self) -> str | None:
        """Where the run lives, if that is a URL."""
        return None if isinstance(self.output, Path) else f"{self.output}/{self.name}"

    @property
    def run_place(self) -> str:
        """The run directory as a user names it."""
        return self.run_url or str(self.run_dir)
