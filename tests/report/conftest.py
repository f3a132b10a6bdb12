"""Run directories that real runs wrote: local backend, fake engine, a pool of tiny adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_helpers import NAMES, examples, write_pool

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.config.load import parse_config
from evoswarm.errors import Stopped


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """make_run(search={...}, utility={...}, ...): the directory of a finished, or with `stop_after` stopped, run."""

    def made(
        *,
        name: str = "trial",
        names: tuple[str, ...] = NAMES,
        text: str = "say",
        stop_after: int | None = None,
        **settings: Any,
    ) -> Path:
        if not (tmp_path / "experts").exists():
            write_pool(tmp_path / "experts", names)
        data = {"dataset": "echo", "dev": examples(0, 40, text=text), "test": examples(1000, 60, text=text)}
        (tmp_path / "echo.json").write_text(json.dumps(data))
        config = {
            "name": name,
            "model": "nobase",
            "pool": "experts",
            "search": {"type": "model_swarms", "population": 8, "max_generations": 4},
            "utility": {"type": "exact_match", "data": "echo.json"},
            "engine": {"type": "fake"},
            "backend": {"type": "local"},
        } | settings
        seen: list[int] = []

        def notify(event: dict[str, Any]) -> None:
            if event["kind"] == "generation":
                seen.append(event["generation"])

        callbacks = Callbacks(notify=notify, stop=lambda: stop_after is not None and stop_after in seen)
        try:
            evoswarm.run(parse_config(yaml.safe_load(yaml.safe_dump(config)), root=tmp_path), callbacks=callbacks)
        except Stopped:
            assert stop_after is not None
        return tmp_path / "runs" / name

    return made
