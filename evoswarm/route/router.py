"""A router as files: the gate as safetensors, and everything else as JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.route.embed import Embedder
from evoswarm.route.gate import Gate
from evoswarm.rows import Row
from evoswarm.weights.expert import read_json
from evoswarm.weights.pool import Pool

PROBES = 3
"""Prompts whose embeddings are kept, to compare them where the router is served."""
TOLERANCE = {"float32": 1e-3, "float64": 1e-3}
"""By data type, how much an embedding may differ from its copy, relative to its norm; 16 bits: 5 %."""


@dataclass(frozen=True)
class Candidate:
    """What can answer a prompt: `expert/NAME`, `base`, `best_1` (the winner), `best_2`, ... or `greedy_soup`.

    `row` None is the base model.
    """

    name: str
    row: Row | None


@dataclass(frozen=True, eq=False)
class Router:
    """A gate and the candidates that it chooses from.

    Attributes:
        gate: over the candidates.
        candidates: only those that can answer.
        probes: token ids of some prompts.
        embeddings: [probes, D] of these prompts.
        about: data type of the embeddings, hashes of base, pool and data, and the result.
    """

    gate: Gate
    candidates: Sequence[Candidate]
    probes: Sequence[Sequence[int]]
    embeddings: np.ndarray
    about: Mapping[str, Any]

    def save(self, run_dir: Path) -> None:
        """Write `router/` in a run directory."""
        directory = RunDirectory(run_dir)
        gate = save({"weight": self.gate.weight, "bias": self.gate.bias, "probes": self.embeddings})
        directory.write("router/gate.safetensors", gate)
        lines = [
            {"name": one.name, "experts": one.row.experts if one.row else {}, "terms": one.row and one.row.to_list()}
            for one in self.candidates
        ]
        record = {"gate": _sha256(gate), "candidates": lines, "probes": [*map(list, self.probes)], **self.about}
        directory.write_json("router/router.json", record)

    def require_same(self, model: str, pool: Pool) -> None:
        """Check that base model and pool are those for which the router was fitted.

        Raises:
            UserError: they are not.
        """
        if self.about["base"] != base_hash(pool):
            raise UserError(f"the base model {model} has changed since the router was fitted; {_AGAIN}")
        before, now = self.about["pool"], pool.hashes
        changed = sorted(name for name in before | now if before.get(name) != now.get(name))
        if changed:
            raise UserError(f"expert {changed[0]} has changed since the router was fitted; {_AGAIN}")

    def require_embeddings(self, embedder: Embedder) -> None:
        """Check that prompts have the embeddings that the gate was fitted on.

        Raises:
            UserError: they do not.
        """
        for ids, before in zip(self.probes, self.embeddings, strict=True):
            difference = float(np.linalg.norm(embedder.embed(ids) - before)) / (float(np.linalg.norm(before)) or 1.0)
            if not difference <= TOLERANCE.get(embedder.dtype, 0.05):
                raise UserError(
                    f"a prompt has another embedding than when the router was fitted (relative difference "
                    f"{difference:.2g}); {_AGAIN}"
                )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_AGAIN = "restore it, or fit the router again with `evoswarm route`"


def base_hash(pool: Pool) -> str | None:
    """The sha256 of the base model's files; None if they cannot be read."""
    return pool.base.expert.sha256 if pool.base.expert else None


def load_router(run_dir: Path) -> Router:
    """The router of a run.

    Raises:
        UserError: there is none, or it is damaged.
    """
    folder = run_dir / "router"
    if not (folder / "router.json").exists():
        raise UserError(f"{run_dir}: has no router; fit one with `evoswarm route {run_dir}`")
    data = read_json(folder / "router.json")
    try:
        content = (folder / "gate.safetensors").read_bytes()
        if _sha256(content) != data["gate"]:
            raise ValueError("gate.safetensors is of another router")
        tensors = load(content)
        names = [line["name"] for line in data["candidates"]]
        rows = [None if line["terms"] is None else Row.from_list(line["terms"]) for line in data["candidates"]]
        gate, embeddings = Gate(tensors["weight"], tensors["bias"]), tensors["probes"]
        about = {key: value for key, value in data.items() if key not in ("gate", "candidates", "probes")}
        found = [Candidate(name, row) for name, row in zip(names, rows, strict=True)]
        return Router(gate, found, data["probes"], embeddings, about)
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: is damaged ({error}); fit the router again with `evoswarm route`") from None
