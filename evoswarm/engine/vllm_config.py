"""Settings of the vLLM engine, and the choice between merging particles and serving them as adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from evoswarm.engine.config import ModelEngine
from evoswarm.errors import UserError
from evoswarm.utility.types import Request
from evoswarm.weights.hub import model_folder

if TYPE_CHECKING:
    from evoswarm.engine.tokenizer import RunTokenizer
    from evoswarm.weights.expert import Expert

LORAS = 40
"""Adapter slots if memory allows."""
SLOTS_SHARE, BYTES = 0.1, 2
"""Share of the engine's GPU memory for adapter slots, and bytes of each of their parameters."""
QUEUED = 4096
"""Examples of a particle that go to vLLM in one call: several times what it runs at once."""
SHARE = 0.9
"""Share of its part of a GPU that vLLM gets if other actors use the same GPU."""


class VllmEngine(ModelEngine):
    """vLLM with continuous batching; particles are merged into the base model in place, or served as adapters."""

    type: Literal["vllm"] = "vllm"
    adapter_mode: Literal["auto", "merged", "multi_lora"] = "auto"
    """merged: one particle at a time, merged into the base model, at the base model's full speed. multi_lora: several
    particles in one continuous batch, as adapters of one base model. auto: the faster one, measured
    with the run's own prompts before it starts."""
    batch_size: int = Field(256, ge=1)
    """Examples per slice. Slices of a particle share a batch if one engine scores them; the size only decides into how
    many parts the examples of a particle can be divided among engines."""
    max_loras: int | None = Field(None, ge=1)
    """multi_lora: particles in one batch; null: 40, or as many as fit into a tenth of the engine's GPU memory."""
    deterministic: bool = False
    """Repeat utilities bit for bit (vLLM's batch invariance). Slower, and only on GPUs of compute capability 8.0 or
    newer."""
    sleep: bool = False
    """Free GPU memory between generations (vLLM's sleep mode) for other work on the same GPU."""
    args: dict[str, Any] = {}
    """Any argument of vLLM's engine, passed on unchanged: `gpu_memory_utilization`, `enforce_eager`, ... Without
    `max_model_len`, vLLM gets the length of the longest prompt of both splits with its answer."""

    implementation: ClassVar[str] = "evoswarm.engine.vllm:VllmEngine"
    combined: ClassVar[str] = "evoswarm.engine.combined.vllm:CombinedVllmEngine"
    separates: ClassVar[bool] = False
    spare: ClassVar[int] = 1

    def check_model(self, *, model: str) -> None:
        """See `EngineConfig.check_model`. vLLM is asked, if it is on this machine."""
        from evoswarm.engine.vllm_models import unknown_model

        folder = model_folder(model, weights=False)
        if unknown := unknown_model(folder, trust_remote_code=self.trust_remote_code):
            raise UserError(unknown)

    def misfits(self, *, model: str, experts: Sequence[Expert]) -> list[str]:
        """See `EngineConfig.misfits`."""
        from evoswarm.engine.vllm_split import check_split
        from evoswarm.weights.expert import other_weights, unread_shards

        folder = Path(model_folder(model, weights=False))
        if unread_shards(folder):
            return [
                f"{model}: has model.safetensors, which the pool and transformers read, and an index of other files, "
                "which vLLM reads; remove one of them"
            ]
        if names := other_weights(folder):
            return [
                f"{model}: vLLM would read {', '.join(names)} as well, which is not part of the model for the pool and "
                "transformers; move it to another folder"
            ]
        if find_spec("vllm") and not find_spec("torchvision") and self._reads_images(model):
            return [
                f"{model}: also reads images, and vLLM starts such a model only with torchvision, which is not "
                "installed; install the build for this torch, or use engine.type: transformers"
            ]
        problems = super().misfits(model=model, experts=experts)
        check_split(model, self.ranks, trust_remote_code=self.trust_remote_code)
        return problems

    def _reads_images(self, model: str) -> bool:
        from evoswarm.weights.skeleton import reads_images

        return reads_images(model, trust_remote_code=self.trust_remote_code)

    @field_validator("args")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, given in value.items():
            if isinstance(given, str) and key.lower().rpartition("_")[2] in ("token", "secret", "password", "key"):
                raise ValueError(
                    f"{key} looks like a secret, and a config is saved with the run; set it in the environment "
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
        """`tensor_parallel_size`."""
        return int(self.args.get("tensor_parallel_size", 1))

    @property
    def sleeps(self) -> bool:
        """`sleep`."""
        return self.sleep

    @property
    def multi_adapter(self) -> bool:
        """adapter_mode multi_lora."""
        return self.adapter_mode == "multi_lora"

    @property
    def running(self) -> int:
        """`max_num_seqs`; vLLM's own default on a large GPU is 1024."""
        return int(self.args.get("max_num_seqs", 1024))

    @property
    def max_length(self) -> int | None:
        """`max_model_len`."""
        given: int | None = self.args.get("max_model_len")
        return given

    @property
    def memory_share(self) -> float:
        """`gpu_memory_utilization`; vLLM's own default is 0.9."""
        return float(self.args.get("gpu_memory_utilization", SHARE))

    @property
    def keeps_pristine(self) -> str:
        """`pristine`; if the user reserves the GPU for vLLM, `auto` is planned as `host`."""
        return "host" if self.pristine == "auto" and "gpu_memory_utilization" in self.args else self.pristine

    def beside(self, copy: float, *, share: float) -> Self:
        """vLLM reserves a part of the GPU for itself when it starts, so that part becomes smaller."""
        if self.keeps_pristine == "host":
            return self
        reserved = round(self.memory_share * share - copy, 3)
        return self.with_(args={"gpu_memory_utilization": reserved} | self.args)

    @property
    def particles_per_batch(self) -> int:
        """`max_loras`, or 1 if particles are merged."""
        return (self.max_loras or LORAS) if self.multi_adapter else 1

    @property
    def slices_per_call(self) -> int:
        """Slices of `QUEUED` examples per particle."""
        return self.particles_per_batch * -(-QUEUED // self.batch_size)

    def fitted(
        self,
        *,
        model: str,
        parameters: int,
        requests: Callable[[], Iterable[Request]],
        tokenizer: RunTokenizer | None = None,
    ) -> Self:
        """With `max_model_len` for the longest request, and as many adapter slots as fit into memory, unless they are
        set."""
        return self._with_length(model, requests, tokenizer)._with_slots(parameters)

    def _with_length(
        self, model: str, requests: Callable[[], Iterable[Request]], tokenizer: RunTokenizer | None
    ) -> Self:
        if self.max_length is not None:
            return self
        from evoswarm.engine.lengths import longest_sequence

        folder, trust = model_folder(model), self.trust_remote_code
        longest = longest_sequence(folder, requests(), trust_remote_code=trust, tokenizer=tokenizer)
        return self.with_(args=self.args | {"max_model_len": longest})

    def _with_slots(self, parameters: int) -> Self:
        if not self.multi_adapter or self.max_loras is not None:
            return self
        from evoswarm.engine.quiet import LOG, output_to_log
        from evoswarm.engine.vllm_internals import gpu_memory, set_environment

        set_environment(threads=self.threads, deterministic=self.deterministic)
        with output_to_log(LOG):
            memory = gpu_memory()
        return self.with_(max_loras=slots(memory * self.memory_share * self.ranks, parameters=parameters))

    @property
    def mode(self) -> str | None:
        """`adapter_mode`."""
        return self.adapter_mode

    def candidates(self, *, adapters: bool) -> list[Self]:
        """Both modes, if `adapter_mode: auto` leaves the choice and the experts are adapters."""
        if self.adapter_mode != "auto":
            return [self]
        return [self.merged(), *([self.with_(adapter_mode="multi_lora")] if adapters else [])]

    def notice(self, model: str) -> str | None:
        """Whether vLLM is newer than what was tested."""
        from evoswarm.engine.vllm_versions import installed, untested

        return untested(installed())

    def merged(self) -> Self:
        """adapter_mode merged."""
        return self.with_(adapter_mode="merged")

    def in_actor(self, *, gpus: float, shared: bool) -> Self:
        """With the arguments that follow from the actor's GPUs, unless the user sets them.

        Processes of a split engine are Ray's if there are GPUs (vLLM then uses the bundles of the scorer's placement
        group), else child processes of the scorer.
        """
        derived: dict[str, Any] = {}
        if shared:
            derived["gpu_memory_utilization"] = round(SHARE * gpus, 3)
        if self.ranks > 1:
            derived["distributed_executor_backend"] = "ray" if gpus else "mp"
        return self.with_(args=derived | self.args)


def slots(memory: float, *, parameters: int) -> int:
    """Adapters of a batch that fit into `SLOTS_SHARE` of an engine's GPU memory.

    Args:
        memory: bytes; 0 without a GPU.
        parameters: number of parameters of an adapter.
    """
    return max(1, min(LORAS, int(SLOTS_SHARE * memory / (BYTES * parameters)))) if memory else LORAS
