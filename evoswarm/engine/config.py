"""Settings that several engines share. Each engine has its own light config class, which imports it when it starts."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import numpy as np
from pydantic import Field

from evoswarm.engine.base import Engine
from evoswarm.engine.loading import ModelLoading
from evoswarm.section import Section
from evoswarm.utility.requests import every_request
from evoswarm.utility.types import Chat, Request, Utility
from evoswarm.weights.hub import model_folder
from evoswarm.weights.members import is_adapter
from evoswarm.weights.optional import without_unused

if TYPE_CHECKING:
    from evoswarm.engine.combined.combination import Combination
    from evoswarm.engine.tokenizer import RunTokenizer
    from evoswarm.weights.expert import Expert


class EngineConfig(Section):
    """The settings of every engine, and what the rest of evoswarm may ask about an engine before it starts."""

    type: str
    """Name of the engine."""
    batch_size: int = Field(64, ge=1)
    """Examples per slice. Slices are fixed and sorted by length, so a utility never depends on which examples share a
    batch."""
    verify: bool | None = None
    """Score an answer by comparing it with the reference in one forward pass where that decides the score. The search
    then keeps no text of wrong answers; the finalists' answers are always generated in full. null: only where this
    gives the same result as generating, which for transformers means float32."""

    implementation: ClassVar[str] = ""
    """`module:class` of the engine. It is imported when the engine starts, so that a config stays light."""
    combined: ClassVar[str] = ""
    """`module:class` of the engine that combines the next-token scores of several models; empty: there is none."""
    bytewise: ClassVar[str] = ""
    """`module:class` of the engine that mixes models of different vocabularies byte by byte; empty: there is none."""
    mixes: ClassVar[bool] = False
    """The engine can mix the next-token distributions of several experts."""
    values: ClassVar[bool] = False
    """The engine can add what value models say of the candidates for the next token."""
    has_model: ClassVar[bool] = True
    """The engine runs a real model."""

    @property
    def cpus(self) -> int:
        """CPU threads of one engine."""
        return 1

    @property
    def ranks(self) -> int:
        """GPUs that the model is split over."""
        return 1

    @property
    def sleeps(self) -> bool:
        """The engine frees GPU memory between generations."""
        return False

    @property
    def multi_adapter(self) -> bool:
        """The engine serves several particles in one batch (`MultiAdapterEngine`)."""
        return False

    @property
    def running(self) -> int:
        """Most sequences that the engine runs at once."""
        return self.batch_size

    @property
    def max_length(self) -> int | None:
        """Longest sequence in tokens; None: that of the run's requests."""
        return None

    @property
    def memory_share(self) -> float:
        """Share of a GPU's memory that the engine may use."""
        return 0.95

    @property
    def keeps_pristine(self) -> str:
        """Where a GPU engine keeps its copy of the parameters that experts change: auto, device or host."""
        return "auto"

    @property
    def particles_per_batch(self) -> int:
        """How many particles share a batch."""
        return 1

    @property
    def slices_per_call(self) -> int:
        """How many slices the engine answers together; above 1 only if batches have no influence on its answers."""
        return 1

    @property
    def mode(self) -> str | None:
        """How particles are put into the engine, if it can do that in several ways."""
        return None

    def candidates(self, *, adapters: bool) -> list[Self]:
        """These settings with everything automatic decided; several of them if only a measurement can tell.

        Args:
            adapters: whether the experts are adapters.
        """
        return [self]

    def tokenizer(self, *, model: str, experts: Sequence[Expert], utility: Utility) -> RunTokenizer | None:
        """The tokenizer of a run; None if the engine needs none.

        Args:
            model: base model folder or hub name.
            experts: of a pool.
            utility: what is measured.

        Raises:
            UserError: it cannot be loaded.
        """
        return None

    def check_prompts(self, *, model: str, tokenizer: RunTokenizer | None, utility: Utility) -> list[str]:
        """What the user should know about the prompts of a run, one line each. Loads no weights.

        Args:
            model: base model folder or hub name.
            tokenizer: of the run.
            utility: what is measured.

        Raises:
            UserError: the model cannot answer a prompt.
        """
        return []

    def fitted(
        self,
        *,
        model: str,
        parameters: int,
        requests: Callable[[], Iterable[Request]],
        tokenizer: RunTokenizer | None = None,
    ) -> Self:
        """These settings for what the engine will serve, and for the memory of this machine.

        Args:
            model: base model folder or hub name.
            parameters: number of parameters of an expert.
            requests: gives the requests of all splits.
            tokenizer: of the run; None: the base model's.

        Raises:
            UserError: the tokenizer cannot be loaded.
        """
        return self

    def merged(self) -> Self:
        """These settings with particles merged into the base model one at a time."""
        return self

    def in_actor(self, *, gpus: float, shared: bool) -> Self:
        """These settings for an engine in an actor.

        Args:
            gpus: GPUs of the actor.
            shared: whether other actors use the same GPU.
        """
        return self

    def beside(self, copy: float, *, share: float) -> Self:
        """These settings for an engine that keeps the pristine copy next to itself on the GPU.

        Args:
            copy: the copy's share of the GPU's memory.
            share: the engine's share of the GPU, with its copy.
        """
        return self

    def notice(self, model: str) -> str | None:
        """A message for the user about how this process runs the model; None if there is nothing to say."""
        return None

    def check_model(self, *, model: str) -> None:
        """Check whether the engine knows the architecture of a base model. Loads no weights.

        Args:
            model: base model folder or hub name.

        Raises:
            UserError: it does not.
        """

    def misfits(self, *, model: str, experts: Sequence[Expert]) -> list[str]:
        """Why experts cannot be installed into the engine's model, one line each. Loads no weights.

        Args:
            model: base model folder or hub name.
            experts: of a pool.

        Raises:
            UserError: the base model cannot be loaded.
        """
        return []

    def start(self, *, model: str, adapter: Mapping[str, Any] | None, tokenizer: RunTokenizer | None = None) -> Engine:
        """Start the engine.

        Args:
            model: base model folder or hub name.
            adapter: adapter_config.json of the pool's adapters; None if the experts are full checkpoints.
            tokenizer: of the run; None: the base model's.

        Raises:
            UserError: the model or its tokenizer cannot be loaded.
        """
        folder = model_folder(model) if self.has_model else model
        made = pkgutil.resolve_name(self.implementation)
        engine: Engine = made(self, model=folder, adapter=adapter, tokenizer=tokenizer)
        return engine

    def writes_bytes(self, combination: Combination) -> bool:
        """Whether the engine mixes these models byte by byte, because their vocabularies differ.

        Raises:
            UserError: a tokenizer cannot be loaded.
        """
        return False

    def start_combined(self, combination: Combination, *, tokenizer: RunTokenizer | None = None) -> Engine:
        """Start an engine for several models that answer as one.

        Args:
            combination: the models.
            tokenizer: of the run; None: that of the first model.

        Raises:
            UserError: a model or its tokenizer cannot be loaded, or one has another vocabulary.
        """
        made = pkgutil.resolve_name(self.bytewise if self.writes_bytes(combination) else self.combined)
        engine: Engine = made(self, combination=combination, tokenizer=tokenizer)
        return engine

    def self_check(self, engine: Engine, zeros: Callable[[], Mapping[str, np.ndarray]] | None) -> None:
        """Have an engine that has just started prove that it can be trusted.

        Args:
            engine: what `start` returned.
            zeros: makes an adapter of zeros; None if the experts are full checkpoints.

        Raises:
            UserError: it cannot.
        """


class ModelEngine(EngineConfig, ModelLoading):
    """An engine that runs a real model."""

    pristine: Literal["auto", "device", "host"] = "auto"
    """Where a GPU engine keeps the base model's copy of the parameters that experts change. device: on the GPU, for the
    fastest installs. host: in pinned host memory. auto: on the GPU if it has room; vLLM then gets less of the GPU,
    unless `args.gpu_memory_utilization` is set."""

    separates: ClassVar[bool] = True
    """The engine can change an embedding and a head that share a tensor separately."""
    spare: ClassVar[int] = 0
    """Tokens of the model's context that the engine needs after an option."""

    def tokenizer(self, *, model: str, experts: Sequence[Expert], utility: Utility) -> RunTokenizer:
        """See `EngineConfig.tokenizer`. Experts may bring another one than the base model's; other models may not."""
        from evoswarm.engine.tokenizer import run_tokenizer

        requests = every_request(utility)
        chats = any(isinstance(request.prompt, Chat) and request.prompt.template is None for request in requests)
        tags = utility.reasoning_tags
        changes = [expert for expert in experts if expert.kind != "model" or is_adapter(expert)]
        folders = {expert.name: expert.path for expert in changes if str(expert.path) != model}
        return run_tokenizer(model, folders, trust_remote_code=self.trust_remote_code, tags=tags, chats=chats)

    def check_prompts(self, *, model: str, tokenizer: RunTokenizer | None, utility: Utility) -> list[str]:
        """See `EngineConfig.check_prompts`. Renders and encodes the longest prompts."""
        from transformers import AutoConfig

        from evoswarm.engine.tokenizer import check_prompts

        assert tokenizer is not None
        folder = model_folder(model, weights=False)
        text = AutoConfig.from_pretrained(folder, trust_remote_code=self.trust_remote_code).get_text_config()
        limits = [getattr(text, "max_position_embeddings", None), self.max_length]
        longest = min((limit for limit in limits if limit is not None), default=None)
        return check_prompts(tokenizer, every_request(utility), longest=longest, rows=text.vocab_size, spare=self.spare)

    def writes_bytes(self, combination: Combination) -> bool:
        """See `EngineConfig.writes_bytes`. Tokens can be steered only within one vocabulary."""
        from evoswarm.engine.combined.vocabulary import other_vocabulary

        mixed = bool(self.bytewise) and combination.rule == "mix"
        return mixed and other_vocabulary(combination.members, trust_remote_code=self.trust_remote_code) is not None

    @property
    def keeps_pristine(self) -> str:
        """`pristine`."""
        return self.pristine

    def misfits(self, *, model: str, experts: Sequence[Expert]) -> list[str]:
        """See `EngineConfig.misfits`."""
        with without_unused():
            from evoswarm.engine.check import misfits

        return misfits(model, experts, trust_remote_code=self.trust_remote_code, separates=self.separates)

    @property
    def cpus(self) -> int:
        """`threads`."""
        return self.threads

    def self_check(self, engine: Engine, zeros: Callable[[], Mapping[str, np.ndarray]] | None) -> None:
        """See `EngineConfig.self_check`."""
        from evoswarm.engine.selfcheck import CheckedEngine, probe, self_check

        checked = cast(CheckedEngine, engine)
        if checked.needs_check:
            self_check(checked, zeros and probe({name: array.shape for name, array in zeros().items()}))
