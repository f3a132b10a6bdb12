"""Fits a router on the outcomes of a run, and measures what it is worth on the test split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.config import RunConfig
from evoswarm.engine import TransformersEngine
from evoswarm.errors import UserError
from evoswarm.loop.checkpoint import generations_saved
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.evaluate import local_backend, settled
from evoswarm.loop.history import written_config
from evoswarm.loop.inputs import Inputs, changed_keys, read_inputs, require_same, require_same_config
from evoswarm.loop.journal import Key
from evoswarm.loop.learned import LearnedFile
from evoswarm.loop.summary import vote_scores
from evoswarm.place import RunPlace
from evoswarm.route.embed import Embedder, prompts_of
from evoswarm.route.gate import Examples, Gate, require_gate, routed
from evoswarm.route.learn import learn
from evoswarm.route.measured import (
    EXPERT,
    Known,
    Matrix,
    best_of,
    candidates_of,
    matrix_of,
    measure,
    measured_before,
    missing,
    recorded,
)
from evoswarm.route.result import ORACLE, ROUTER, table
from evoswarm.route.router import PROBES, Candidate, Router, base_hash
from evoswarm.rows import Row
from evoswarm.utility import SPLITS, Split, Utility, make_utility


def check_config(config: RunConfig) -> bool:
    """Whether there is a run of this config with a finished generation.

    Raises:
        UserError: no router can be fitted on one, or the directory holds another run.
    """
    _check(config, make_utility(config.utility, root=config.root))
    directory = RunDirectory(config.run_dir)
    if directory.exists:
        require_same_config(directory, config)
    return directory.exists and bool(generations_saved(directory))


def _check(config: RunConfig, utility: Utility) -> None:
    if not config.engine.has_model:
        raise UserError(
            f"engine.type {config.engine.type} has no model, and a router needs embeddings of the prompts; use "
            "transformers or vllm"
        )
    require_gate(utility.size("validation"))
    prompts_of(utility, "validation")


def route(run_dir: Path, *, overrides: Sequence[str] = (), callbacks: Callbacks = SILENT) -> dict[str, Any]:
    """Fit a router on what a run has measured, and write it to `router/` in the run directory.

    Returns:
        The content of `router/router.json`, without candidates and probes.

    Raises:
        UserError: there is no such run, its pool or data have changed, or it cannot have a router.
        Stopped: the callbacks asked to stop. What was measured is recorded.
    """
    task = _open(run_dir, overrides)
    best = best_of(task.directory, say=callbacks.message)
    candidates = candidates_of(task.directory, task.inputs.pool, best)
    known = recorded(task.directory, candidates, say=callbacks.message)
    embedded = _embed(task, callbacks)
    wanted, before = missing(candidates, known, task.inputs.utility), measured_before(task.directory)
    if all((one.row, key.split) in before for key, one in wanted.items()):
        known = before | known
    else:
        names = {one.name for one in wanted.values()}
        callbacks.message(f"measuring {len(names)} candidates that the run has not measured on all examples")
        for problem in _measure(task, wanted, known, callbacks):
            callbacks.warning(problem)
    return _fitted(task, matrix_of(candidates, known, task.inputs.utility), embedded, best, known)


@dataclass(frozen=True)
class _Task:
    """A run, ready to be measured."""

    directory: RunDirectory
    config: RunConfig
    inputs: Inputs
    identity: dict[str, Any]

    @property
    def splits(self) -> list[Split]:
        return [split for split in SPLITS if self.inputs.utility.size(split)]


def _open(run_dir: Path, overrides: Sequence[str]) -> _Task:
    directory = RunDirectory(run_dir)
    config, own = written_config(run_dir, overrides=overrides), written_config(run_dir)
    changed = [key for key in changed_keys(config, own) if key.split(".")[0] != "engine"]
    if changed:
        raise UserError(f"--set {changed[0]}: a router is fitted on what the run has measured; change only the engine")
    inputs = read_inputs(config)
    require_same(directory, inputs.identity, remedy="restore it, or start a new run")
    _check(config, inputs.utility)

    found, utility = settled(config, inputs.pool, inputs.utility, run=run_dir)
    return _Task(directory, found, Inputs(inputs.pool, utility, inputs.compared), inputs.identity)


@dataclass(frozen=True, eq=False)
class _Embedded:
    """Embeddings [E, D] of each split, and some prompts as token ids."""

    of: dict[Split, np.ndarray]
    probes: list[Sequence[int]]
    dtype: str


def _embed(task: _Task, callbacks: Callbacks) -> _Embedded:
    utility = task.inputs.utility
    callbacks.message("embedding the prompts with the base model")
    engine = task.config.engine
    device = engine.device if isinstance(engine, TransformersEngine) else None
    embedder = Embedder(task.config, pool=task.inputs.pool, utility=utility, device=device)
    with closing(embedder):
        ids = {split: [embedder.ids(prompt) for prompt in prompts_of(utility, split)] for split in task.splits}
        found: dict[Split, np.ndarray] = {}
        for split, rows in ids.items():
            vectors = []
            for row in rows:
                callbacks.check()
                vectors.append(embedder.embed(row))
            found[split] = np.stack(vectors)
        return _Embedded(found, list(ids["validation"][:PROBES]), embedder.dtype)


def _measure(task: _Task, wanted: Mapping[Key, Candidate], known: Known, callbacks: Callbacks) -> list[str]:
    path, inputs = task.directory.path, task.inputs
    learned = LearnedFile(task.directory.learned)
    with closing(local_backend(task.config, inputs.pool, inputs.utility, run=path, learned=learned)) as backend:
        return measure(RunContext(task.config, inputs, RunPlace(path), backend, callbacks), wanted, known)


def _fitted(task: _Task, matrix: Matrix, embedded: _Embedded, best: Sequence[Row], known: Known) -> dict[str, Any]:
    """Fit the gate, choose on validation whether to use it, and write it with its result."""
    utility, seed = task.inputs.utility, task.config.seed
    scores = matrix.scores["validation"]
    examples = Examples(embedded.of["validation"], scores, np.array(utility.weights("validation")))
    groups = [np.ones(len(scores), bool), matrix.is_expert()]

    found = learn(examples, groups, seed=seed, value=partial(utility.aggregate, "validation"))
    gate = found.gate
    split = task.splits[-1]
    choice = gate.choose(embedded.of["test"]) if split == "test" else found.unseen
    lines, oracle = _alone(task, matrix, best, split, known), matrix.scores[split].max(axis=0)
    used = np.isfinite(gate.bias)
    names = [one.name for one in matrix.candidates]
    about: dict[str, Any] = {
        "dtype": embedded.dtype,
        "base": base_hash(task.inputs.pool),
        **task.identity,
        "kind": task.inputs.pool.kind,
        "gains": found.gains,
        "best": names[0],
        "validation": {"router out of fold": found.expected, "best candidate": found.alone},
        "split": split,
        "models": table(lines | {ROUTER: routed(matrix.scores[split], choice), ORACLE: oracle}, utility, split),
        "answers": dict(Counter(names[i] for i in choice).most_common()),
        "choices": [names[i] for i in choice],
    }
    kept = [one for one, can in zip(matrix.candidates, used, strict=True) if can]
    probes = embedded.of["validation"][: len(embedded.probes)]
    Router(Gate(gate.weight[used], gate.bias[used]), kept, embedded.probes, probes, about).save(task.directory.path)
    return about


def _alone(task: _Task, matrix: Matrix, best: Sequence[Row], split: Split, known: Known) -> dict[str, np.ndarray]:
    """The scores [E] of base, best expert, winner and ensemble."""
    expert = next(i for i, one in enumerate(matrix.candidates) if one.name.startswith(EXPERT))
    places = {"base": matrix.index(None), f"best expert ({matrix.candidates[expert].name})": expert}
    places["winner"] = matrix.index(best[0]) if best else None
    lines = {name: matrix.scores[split][place] for name, place in places.items() if place is not None}
    utility, predictions = task.inputs.utility, [known[row, split].predictions for row in best if (row, split) in known]
    votes = utility.votes and not task.config.search.several
    if task.directory.finished and votes and len(predictions) > 1:
        voted = vote_scores(utility, split, predictions)
        lines |= {} if voted is None else {"ensemble": np.array(voted)}
    return lines
