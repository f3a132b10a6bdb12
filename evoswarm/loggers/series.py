"""What is logged: a run's record as named scalars, and its config as hyperparameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from evoswarm.config import RunConfig

QUANTILES = (10, 25, 50, 75, 90)
"""Percentiles of the utilities measured in a generation."""
Scalars = dict[str, float]


def generation_scalars(record: dict[str, Any], timing: dict[str, Any]) -> Scalars:
    """One generation's metrics, from its lines of `generations.jsonl` and `timings.jsonl`."""
    measured = [u for by in record["utilities"].values() for u in by.values() if u is not None]
    seconds = timing["seconds"]
    found = {
        "utility/best": record["best"],
        "utility/median": record["median"],
        "utility/worst": record["worst"],
        **{f"utility/quantile_{q}": float(np.percentile(measured, q)) for q in QUANTILES if measured},
        "search/step_length": record["step_length"],
        "search/basis_size": record["basis_size"],
        **({f"front/{name}": record["front"][name] for name in ("hypervolume", "rows")} if record["front"] else {}),
        "cost/evaluations": record["evaluations"],
        "cost/examples": record["examples_scored"],
        "cost/failed": sum(map(len, record["failed"].values())),
        "cost/examples_per_second": timing["examples"] / max(seconds["total"], 1e-9),
        **{f"seconds/{phase}": value for phase, value in seconds.items()},
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def final_scalars(summary: dict[str, Any]) -> Scalars:
    """The final metrics of a run."""
    lines = {"": summary["best"], "base_": summary["base"], "best_expert_": summary["initial"]}
    lines |= {"ensemble_": summary["ensemble"]} if summary["ensemble"] else {}
    found = {f"final/{who}{split}": line[split] for who, line in lines.items() for split in ("validation", "test")}
    volumes = summary["front"]["hypervolume"] if summary["front"] else {}
    found |= {f"final/hypervolume_{name}": value for name, value in volumes.items()}
    found |= {"final/evaluations": summary["evaluations"], "final/seconds": summary["seconds"]["total"]}
    return {name: float(value) for name, value in found.items() if value is not None}


def settings(config: RunConfig) -> dict[str, str | float | bool]:
    """The config as hyperparameters with dotted keys; lists and null become text."""
    return _flat(config.model_dump(mode="json", exclude={"loggers"}), "")


def _flat(node: Any, name: str) -> dict[str, str | float | bool]:
    if isinstance(node, dict):
        return {k: v for key, inner in node.items() for k, v in _flat(inner, f"{name}.{key}" if name else key).items()}
    return {name: node if isinstance(node, str | int | float) else str(node)}
