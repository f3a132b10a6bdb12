"""The router as a method of a comparison."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial

import numpy as np

from evoswarm.compare.bench import Bench, Candidate, Tally
from evoswarm.engine import TransformersEngine
from evoswarm.route.embed import Embedder, prompts_of
from evoswarm.route.gate import Examples, require_gate
from evoswarm.route.learn import learn
from evoswarm.utility import SPLITS, Split


def router(tally: Tally) -> list[Candidate]:
    """For each prompt, the expert that a gate chooses by the base model's embedding of the prompt (evoswarm route)."""
    bench, utility = tally.bench, tally.bench.utility
    require_gate(utility.size("validation"))
    base = [] if bench.pool.include_base else [Candidate("base")]
    every = sorted([*map(tally.expert, tally.experts), *base], key=lambda one: -tally.utility(one))
    vectors, seconds = _embeddings(bench)
    tally.charge(1, seconds)
    scores = np.array([bench.measure(one, "validation")[0].scores for one in every], float)
    examples = Examples(vectors["validation"], scores, np.array(utility.weights("validation")))
    found = learn(examples, [np.ones(len(every), bool)], seed=0, value=partial(utility.aggregate, "validation"))
    choices = {split: found.gate.choose(array) for split, array in vectors.items()}
    choices["validation"] = found.unseen
    return [Candidate("router", among=every, choices=choices)] if found.gains else [every[0]]


def _embeddings(bench: Bench) -> tuple[dict[Split, np.ndarray], float]:
    """Embeddings [E, D] of the prompts of each split, and the seconds of those of validation."""
    vectors: dict[Split, np.ndarray] = {}
    seconds, engine = [], bench.config.engine
    device = engine.device if isinstance(engine, TransformersEngine) else "cpu"  # vLLM has taken the GPU
    with closing(Embedder(bench.config, pool=bench.pool, utility=bench.utility, device=device)) as embedder:
        for split in SPLITS:
            if bench.utility.size(split):
                start = time.perf_counter()
                vectors[split] = np.stack(
                    [embedder.embed(embedder.ids(one)) for one in prompts_of(bench.utility, split)]
                )
                seconds.append(time.perf_counter() - start)
    return vectors, seconds[0]
