"""All uses of vLLM outside its documented interface, and all environment variables that are set for it.

`vllm_versions` finds out whether a version has them. Used: `worker_extension_cls`, `collective_rpc`,
`model.load_weights`, `model_runner.reload_weights` with an iterator, `get_model_loader(...).get_all_weights`,
`packed_modules_mapping` of a model class, `quant_method` of layers; for multi-LoRA `lora_manager`,
`LoRAModel.from_lora_tensors` and `PEFTHelper.from_dict`; for metrics `logger_manager`,
`ray_wrappers.RayPrometheusStatLogger` and the scheduler's `schedule`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from evoswarm.engine.in_place import InPlace
from evoswarm.engine.merged import Change, MergedBase
from evoswarm.engine.pristine import Place, Pristine
from evoswarm.engine.vllm_ranks import Sent, received
from evoswarm.engine.vllm_versions import installed, lacking
from evoswarm.errors import UserError
from evoswarm.weights.device import to_torch
from evoswarm.weights.model_names import ModelNames
from evoswarm.weights.skeleton import load_skeleton
from evoswarm.weights.tensorfile import TensorFile

EXTENSION = f"{__name__}.WorkerExtension"

SPARE = 0.02
"""Share of the GPU's memory that pristine copies leave free; vLLM has reserved its own when they are made."""
_PLAIN = ("UnquantizedLinearMethod", "UnquantizedEmbeddingMethod")


def set_environment(*, threads: int, deterministic: bool = False) -> None:
    """Set the variables of `environment` before vLLM is imported, except those that the user has set."""
    for name, value in environment(threads=threads, deterministic=deterministic).items():
        os.environ.setdefault(name, value)


def environment(*, threads: int, deterministic: bool = False) -> dict[str, str]:
    """Environment variables for vLLM.

    VLLM_ENABLE_V1_MULTIPROCESSING=0: run the engine in this process (another process takes 20 s more to start).
    VLLM_CPU_KVCACHE_SPACE=1: GiB of key-value cache of the CPU build; the default is half of the machine's memory.
    VLLM_CPU_OMP_THREADS_BIND=nobind, OMP_NUM_THREADS: otherwise all engines of a machine use the first core.
    VLLM_USE_FLASHINFER_SAMPLER=0, VLLM_ALLREDUCE_USE_FLASHINFER=0: their kernels are compiled at the start, which needs
    nvcc (vLLM #49497).
    VLLM_LOGGING_LEVEL=WARNING; VLLM_NO_USAGE_STATS=1: nothing is sent anywhere.
    """
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        **({"VLLM_BATCH_INVARIANT": "1"} if deterministic else {}),
    }


def start_after_numba() -> None:
    """Let vLLM start in a process that has loaded numba, which materializes particles.

    vLLM's CPU build reads `__dict__` of every value of every loaded module. llvmlite's library takes that for the name
    of a C function and fails; an entry in its table of functions answers instead.
    """
    if (ffi := sys.modules.get("llvmlite.binding.ffi")) is not None:
        ffi.lib._fntab.setdefault("__dict__", {})


def gpu_memory() -> int:
    """Bytes of memory of this process's GPU; 0 without one."""
    from vllm.platforms import current_platform

    return int(current_platform.get_device_total_memory()) if current_platform.is_cuda_alike() else 0


def free_memory() -> None:
    """Release what engines of this process leave behind when they are closed: groups of processes, objects that vLLM
    exempts from garbage collection, and the GPU's cache."""
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def on_ray() -> bool:
    """Whether this process is a worker of a Ray cluster, where vLLM's metrics have somewhere to go."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def on_gpu() -> bool:
    """Whether vLLM runs models on a GPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cuda_alike())


def metrics_to_ray(llm: Any) -> None:
    """Export vLLM's own metrics with Ray's, as `ray_vllm_...`, instead of in vLLM's Prometheus registry.

    vLLM has a logger for this, but `LLM` has no argument for it, and it imports Ray Serve only to look up a replica.
    """
    manager = getattr(llm.llm_engine, "logger_manager", None)
    if manager is None or not on_ray() or lacking("metrics", installed()):
        return
    from ray.util import metrics
    from vllm.v1.metrics import ray_wrappers
    from vllm.v1.metrics.prometheus import unregister_vllm_metrics

    if ray_wrappers.ray_metrics is None:  # Ray Serve is not installed
        ray_wrappers.ray_metrics = metrics
    unregister_vllm_metrics()
    manager.stat_loggers = [ray_wrappers.RayPrometheusStatLogger(llm.llm_engine.vllm_config, manager.engine_indexes)]


def count_steps(llm: Any) -> Counter[str]:
    """Counts that grow with every step that runs sequences; see `Engine.steps`. Empty if vLLM has a process of its own
    for this (`VLLM_ENABLE_V1_MULTIPROCESSING=1`)."""
    from vllm.v1.engine.core_client import InprocClient

    counts: Counter[str] = Counter()
    if not isinstance(llm.llm_engine.engine_core, InprocClient):
        return counts
    scheduler: Any = llm.llm_engine.engine_core.engine_core.scheduler
    schedule = scheduler.schedule

    def counted(*arguments: Any, **settings: Any) -> Any:
        output = schedule(*arguments, **settings)
        running, waiting = scheduler.get_request_counts()
        if running:
            counts.update(steps=1, running=running, possible=min(scheduler.max_num_running_reqs, running + waiting))
        return output

    scheduler.schedule = counted
    return counts


def check_deterministic() -> None:
    """
    Raises:
        UserError: batch invariance is not available in this process.
    """
    from vllm import envs

    if not gpu_memory():
        raise UserError("engine vllm: deterministic needs a GPU; omit it, or use engine.type: transformers")
    if not envs.VLLM_BATCH_INVARIANT:
        raise UserError(
            "engine vllm: deterministic needs VLLM_BATCH_INVARIANT=1 before vLLM is imported; unset the variable, or "
            "start a new process"
        )


class WorkerExtension:
    """Mixed into vLLM's worker: installs particles into the model that it has loaded."""

    model_runner: Any
    model_config: Any
    vllm_config: Any
    _evoswarm_place: InPlace | None

    def evoswarm_opens(self, path: Path, name: str) -> bool:
        """Whether this rank can open a file of the engine's process that has a tensor of this name."""
        try:
            return name in TensorFile(path).specs
        except UserError:
            return False

    def evoswarm_install(self, weights: Sent, adapter: Mapping[str, Any] | None, pristine: Place) -> str | None:
        """Make the model the base with these weights; None is the base itself.

        Adapters are merged into this rank's shards in place. Where vLLM holds weights in another layout than they were
        loaded in (its CPU build packs them), and for full checkpoints, whole merged tensors go through vLLM's loader.

        Args:
            weights: an expert's tensors, as sent by the engine's process.
            adapter: adapter_config.json; None for full checkpoints.
            pristine: where to keep the base's copy of the parameters that adapters change.

        Returns:
            What is wrong with the weights, or None. (An exception would end vLLM's engine.)
        """
        base = self._evoswarm_base(adapter)
        try:
            self._evoswarm_write(base, base.change(received(weights)), pristine)
        except UserError as error:
            return str(error)
        return None

    def _evoswarm_write(self, base: MergedBase, change: Change, pristine: Place) -> None:
        in_place = self._evoswarm_in_place(base, pristine)
        if in_place is not None and in_place.prepare(change.names):
            in_place.install(change)
        else:
            if in_place is not None:
                in_place.install(Change())
                self._evoswarm_place = None
            model = self.model_runner.get_model()
            with nullcontext() if on_gpu() else packed_again(model):
                self.model_runner.reload_weights(weights_iterator=base.load(change), is_checkpoint_format=True)
            process_shared(model)

    def evoswarm_wrong_weights(self, weights: Sent, adapter: Mapping[str, Any]) -> str | None:
        """The first parameter of this rank that is not the base merged with the weights; None if they went through
        vLLM's own loader, which may have changed their layout."""
        if self._evoswarm_place is None:
            return None
        return self._evoswarm_place.wrong_weights(self._evoswarm_base(adapter).change(received(weights)))

    def evoswarm_load(self, weights: Sent, number: int, adapter: Mapping[str, Any]) -> str | None:
        """Put an adapter into vLLM's LoRA manager under a number that was never used before.

        vLLM then takes a request with this number for one whose adapter it has already, and never looks at its path.

        Returns:
            What is wrong with the adapter, or None.
        """
        from vllm.lora.lora_model import LoRAModel
        from vllm.lora.peft_helper import PEFTHelper

        if self.model_config.is_moe and not on_gpu():
            return "vLLM's CPU build has no kernel for adapters of mixtures of experts"
        # Loading scales B in place, so vLLM gets tensors of its own.
        own = {n: to_torch(array, read_only=True).clone() for n, array in (received(weights) or {}).items()}
        worker, model = self.model_runner.lora_manager, self.model_runner.get_model()
        try:
            helper = PEFTHelper.from_dict(dict(adapter))
            helper.validate_legal(worker.lora_config)
            check_patterns(helper, adapter)
            lora = LoRAModel.from_lora_tensors(
                number,
                own,
                helper,
                "cpu",
                worker.lora_config.lora_dtype,
                model_vocab_size=worker.vocab_size,
                weights_mapper=renaming(model),
            )
        except (ValueError, RuntimeError) as error:
            return f"vLLM cannot serve the experts as adapters of one base ({error})"
        # vLLM silently ignores modules that it does not know.
        manager, complete = worker._adapter_manager, 2 * len(lora.loras) == len(own)
        known = {*manager.modules, *(part for parts in manager.packed_modules.values() for part in parts)}
        lora.loras = {name: pair for name, pair in lora.loras.items() if not name.startswith(unused(model))}
        strange = sorted(set(lora.loras) - known)
        if strange or not complete:
            what = strange[0] if strange else "every tensor of the experts"
            return f"vLLM has no adapter slot for {what}"
        manager.add_adapter(lora)
        return None

    def evoswarm_unload(self, numbers: list[int]) -> None:
        """Drop adapters."""
        for number in numbers:
            self.model_runner.lora_manager.remove_adapter(number)

    def _evoswarm_base(self, adapter: Mapping[str, Any] | None) -> MergedBase:
        if not hasattr(self, "_evoswarm_merged"):
            from vllm.model_executor.model_loader import get_model_loader

            # Reloading warns about every layer that an adapter does not change.
            logging.getLogger("vllm.model_executor.model_loader.reload").setLevel(logging.ERROR)
            loader, model = get_model_loader(self.vllm_config.load_config), self.model_runner.get_model()
            trust = self.model_config.trust_remote_code
            _, skeleton = load_skeleton(self.model_config.model, trust_remote_code=trust)
            self._evoswarm_merged = MergedBase(
                lambda: loader.get_all_weights(self.model_config, model),
                names=ModelNames(skeleton),
                adapter=adapter,
                fused=getattr(model, "packed_modules_mapping", {}),
            )
        return self._evoswarm_merged

    def _evoswarm_in_place(self, base: MergedBase, pristine: Place) -> InPlace | None:
        """What writes into this rank's shards; None if the model does not hold them as they were loaded."""
        if not hasattr(self, "_evoswarm_place"):
            model, parallel = self.model_runner.get_model(), self.vllm_config.parallel_config
            plain = base.adapter is not None and holds_plain_weights(model) and not self.model_config.use_mla
            complete = parallel.world_size == 1
            memory = Pristine(pristine, spare=SPARE)
            self._evoswarm_place = InPlace(base, model.load_weights, memory, complete=complete) if plain else None
        return self._evoswarm_place


def check_patterns(helper: Any, adapter: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: modules have ranks or scales of their own, and this version of vLLM reads neither.
    """
    if (adapter.get("rank_pattern") or adapter.get("alpha_pattern")) and not hasattr(helper, "get_rank_and_scaling"):
        raise ValueError("this version ignores rank_pattern and alpha_pattern")


def renaming(model: Any) -> Any:
    """From the names of transformers to those of a vLLM model; None if they are the same. As vLLM loads adapters."""
    mapper: Any = getattr(model, "hf_to_vllm_mapper", None)
    names = ("get_rename_mapper", "get_unstacked_mapper")  # the second one before vLLM 0.29
    found = [getattr(mapper, name)() for name in names if hasattr(mapper, name)]
    return found[0] if found else mapper


@contextmanager
def packed_again(model: Any) -> Iterator[None]:
    """Inside, mixtures of experts that are reloaded are packed again. vLLM's CPU build packs them only where it makes
    their kernel, and would otherwise compute with unpacked weights as if they were packed."""
    methods = [method for layer in model.modules() if (method := getattr(layer, "quant_method", None)) is not None]
    kernels = [(method, kernel) for method in methods if (kernel := getattr(method, "moe_kernel", None)) is not None]
    for method, _ in kernels:
        method.moe_kernel = None
    try:
        yield
    finally:
        for method, kernel in kernels:
            method.moe_kernel = method.moe_kernel or kernel


def process_shared(model: Any) -> None:
    """Let layers that share a parameter derive from it again what they compute with.

    Reloading does so only for the layer whose tensor is in the checkpoint: a head that is the embedding would keep what
    the CPU build has packed before.
    """
    owners: dict[int, list[Any]] = {}
    for layer in model.modules():
        for parameter in layer.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(layer)
    for layer in (layer for layers in owners.values() if len(layers) > 1 for layer in layers):
        method: Any = getattr(layer, "quant_method", None)
        if type(method).__name__ in _PLAIN:
            method.process_weights_after_loading(layer)


def unused(model: Any) -> tuple[str, ...]:
    """How the names of modules start that read images or sounds: prompts are text."""
    return tuple(f"{name}." for name in getattr(model, "_tower_model_names", ()))


def holds_plain_weights(model: Any) -> bool:
    """Whether every layer of a vLLM model computes with the parameters that were loaded, in their own layout."""
    layers = [layer for layer in model.modules() if getattr(layer, "quant_method", None) is not None]
    held = [(layer, list(layer.parameters(recurse=False))) for layer in layers]
    return all(
        type(layer.quant_method).__name__ in _PLAIN and all(parameter.numel() for parameter in parameters)
        for layer, parameters in held
        if parameters
    )
