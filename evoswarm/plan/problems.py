"""Why a run does not fit, and which setting to change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from evoswarm.plan.case import Case
from evoswarm.plan.hardware import GB
from evoswarm.plan.memory import gpu_memory, node_memory

OBJECT_STORE_SHARE = 0.3
"""Ray's default share of a node's memory."""
SPLITS = (2, 4, 8)
"""Numbers of GPUs that an engine may be split over."""


def problems(case: Case) -> list[str]:
    """Why the run does not fit, each with what to change; empty if it fits."""
    return [*_gpu_problem(case), *_grader_problem(case), *_node_problem(case)]


def _gpu_problem(case: Case) -> list[str]:
    short = _short(case)
    if short <= 0 or case.hardware.gpu is None:
        return []
    text = f"a GPU with {case.hardware.gpu.memory_gb:g} GB is {short / GB:.1f} GB too small for the engine"
    fitting = (setting for setting, changed in _changes(case) if _short(changed) <= 0)
    more = "use GPUs with more memory, or more GPUs per node and engine.args.tensor_parallel_size (engine.type: vllm)"
    return [f"{text}; {next(fitting, more)}"]


def _short(case: Case) -> float:
    """Bytes that are missing on a GPU for one sequence of full length."""
    gpu = gpu_memory(case)
    return 0 if gpu is None else case.length * case.shape.kv_bytes_per_token / case.engine.ranks - gpu.kv_cache


def _changes(case: Case) -> Iterator[tuple[str, Case]]:
    """Settings that may help, each with the case that it makes, the cheapest first."""
    engine, shape, placement = case.engine, case.shape, case.placement
    if engine.pristine == "device":
        yield "set engine.pristine: host", replace(case, engine=replace(engine, pristine="host"))
    if engine.max_length is not None:
        enough = replace(case, engine=replace(engine, max_length=None))
        yield f"set engine.args.max_model_len: {enough.length}", enough
    if engine.adapters > 1:
        yield "lower engine.max_loras", replace(case, engine=replace(engine, adapters=1))
    if engine.memory_share < 0.9:
        yield "raise engine.args.gpu_memory_utilization", replace(case, engine=replace(engine, memory_share=0.9))
    if placement.gpu_share < 1:
        whole = replace(placement, scorer_gpus=float(placement.ranks))
        yield f"set backend.scorer_gpus: {placement.ranks}", replace(case, placement=whole)
    if shape.bytes_per_parameter == 4:
        half = replace(shape, bytes_per_parameter=2, kv_bytes_per_token=shape.kv_bytes_per_token // 2)
        yield "set engine.dtype: bfloat16", replace(case, shape=half)
    for ranks in (ranks for ranks in SPLITS if engine.ranks < ranks <= case.hardware.gpus):
        split = replace(placement, ranks=ranks, scorer_gpus=float(ranks))
        text = f"set engine.args.tensor_parallel_size: {ranks} (engine.type: vllm)"
        yield text, replace(case, placement=split, engine=replace(engine, ranks=ranks))


def _grader_problem(case: Case) -> list[str]:
    """Why the models that score answers do not fit into a grader's share of a GPU."""
    gpu, share = case.hardware.gpu, case.grader_share
    if gpu is None or not share or case.scoring <= share * gpu.memory_gb * GB:
        return []
    text = (
        f"the models that score answers have {case.scoring / GB:.1f} GB and a grader has {share * gpu.memory_gb:g} GB"
    )
    return [f"{text} of a GPU; {'raise backend.grader_gpus, or ' if share < 1 else ''}use smaller ones"]


def _node_problem(case: Case) -> list[str]:
    node, have = node_memory(case, gpu_memory(case)), case.hardware.node_memory_gb * GB
    if node.total > have:
        most = max(node.scorers, node.particles, node.graders)
        fewer = {"backend.scorers": node.scorers, "search.population": node.particles, "backend.graders": node.graders}
        change = next(setting for setting, size in fewer.items() if size == most)
        return [
            f"a node needs {node.total / GB:.1f} GB of memory and has {have / GB:.1f} GB; lower {change}, or add nodes"
        ]
    if node.object_store > OBJECT_STORE_SHARE * have:
        return [
            f"weights in flight need {node.object_store / GB:.1f} GB of Ray's object store, which has "
            f"{OBJECT_STORE_SHARE * have / GB:.1f} GB; start nodes with `ray start --object-store-memory`, or add nodes"
        ]
    return []
