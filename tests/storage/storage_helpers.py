"""A small run at a URL."""

from __future__ import annotations

from pathlib import Path

from echo import echo_config

from evoswarm.config import RunConfig

GONE = 2**22 + 1
"""No process has this id: Linux gives none above 2**22."""
SEARCH = "search={type: genome, population: 4, max_generations: 5}"


def config_of(tmp_path: Path, bucket: str, *overrides: str) -> RunConfig:
    return echo_config(tmp_path, SEARCH, f"output={bucket}/runs", *overrides)
