"""The evaluations of a run that belong to no generation."""

from __future__ import annotations

from collections.abc import Iterator

from evoswarm.config import RunConfig
from evoswarm.engine.tokenizer import RunTokenizer
from evoswarm.loop.baseline_rows import baseline_rows
from evoswarm.loop.inputs import Inputs
from evoswarm.plan.read import workload_of
from evoswarm.plan.sizes import Extra
from evoswarm.utility import SPLITS, Split, UtilityConfig
from evoswarm.utility.reward import Reward


def extras_of(config: RunConfig, inputs: Inputs, tokenizer: RunTokenizer) -> list[Extra]:
    """What a run measures before and after its generations, at most; rows that are known are not measured again."""
    sizes = {split: inputs.utility.size(split) for split in inputs.utility.splits}
    counted = [(name, split, count) for name, split, count in _counts(config, inputs) if count and sizes.get(split)]
    work = {split: workload_of(inputs.utility, tokenizer, split) for split in {split for _, split, _ in counted}}
    return [Extra(name, count, work[split]) for name, split, count in counted]


def _counts(config: RunConfig, inputs: Inputs) -> Iterator[tuple[str, Split, int]]:
    """Name, split and number of evaluations."""
    experts = len(inputs.pool.names)
    soup = config.references and config.search.type != "greedy_soup"
    yield "scales of rewards", "validation", _measured(config.utility)
    for split in SPLITS:
        yield "baselines", split, len(baseline_rows(inputs.utility, split, pool=inputs.pool, root=config.root))
    yield "candidates", "select", config.utility.choose_from
    yield "greedy soup", "validation", soup * (experts - 1)
    for split in SPLITS:
        yield "finalists", split, 2 + config.search.finalists + soup
    yield "reported tasks", "report", 2 + experts


def _measured(utility: UtilityConfig) -> int:
    """How many rewards have a scale that is measured on the base model's answers."""
    own = isinstance(utility, Reward) and utility.to_measure is not None
    return own + sum(map(_measured, utility.parts))
