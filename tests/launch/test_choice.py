"""The choice between two ways of one engine: measured at the start, recorded, and kept by a resumed run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import pytest
from echo import echo_config

import evoswarm
from evoswarm.config import RunConfig
from evoswarm.engine import ENGINES, Engine, FakeEngine, VllmEngine
from evoswarm.engine.base import AdaptersNotSupported
from evoswarm.engine.fake import EchoEngine
from evoswarm.errors import UserError
from evoswarm.launch.choice import with_engine
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.inputs import Inputs, read_inputs


class TwoWays(FakeEngine):
    """Slow or quick, or it does not start."""

    way: Literal["auto", "slow", "quick", "broken", "limited"] = "auto"
    """How it answers."""
    also: str = "slow"
    """What `auto` compares with quick."""

    @property
    def mode(self) -> str | None:
        return self.way

    def merged(self) -> Self:
        return self.with_(way="slow")

    def candidates(self, *, adapters: bool) -> list[Self]:
        return [self.with_(way=way) for way in (self.also, "quick")] if self.way == "auto" else [self]

    def start(self, *, model: str, adapter: Mapping[str, Any] | None, tokenizer: Any = None) -> Engine:
        if self.way == "broken":
            raise UserError("no slot")
        if self.way == "limited":
            raise AdaptersNotSupported("too many")
        return EchoEngine(delay=0.005 * (self.way == "slow"))


@pytest.mark.parametrize("also", ["slow", "broken"])
def test_the_faster_way_is_chosen_recorded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, also: str) -> None:
    monkeypatch.setitem(ENGINES, "fake", TwoWays)
    config = echo_config(tmp_path, f"engine.also={also}", "search.max_generations=1")
    assert evoswarm.run(config)["adapter_mode"] == "quick"
    path = config.place.path / "engine.json"
    record = json.loads(path.read_text())
    known = {"quick"} if also == "broken" else {"slow", "quick"}
    assert record["mode"] == "quick" and set(record["seconds_per_particle"]) == known
    path.write_text(json.dumps({"mode": also, "seconds_per_particle": {}}))
    if also == "slow":
        longer = echo_config(tmp_path, f"engine.also={also}", "search.max_generations=2")
        assert evoswarm.run(longer)["adapter_mode"] == "slow"


def test_the_summary_has_the_way_that_the_engine_fell_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "fake", TwoWays)
    config = echo_config(tmp_path, "engine.way=limited", "search.max_generations=1")
    assert evoswarm.run(config)["adapter_mode"] == "slow"


def test_only_merged_particles_get_the_room_for_the_pristine_copy(tmp_path: Path) -> None:
    config = echo_config(tmp_path).with_(engine=VllmEngine(max_loras=3))
    fitted = config.with_(engine=config.engine.beside(0.2, share=1.0))
    seen: list[dict[str, Any]] = []

    def measure(configs: Sequence[RunConfig], inputs: Inputs) -> list[float]:
        seen.extend(one.engine.model_dump(include={"adapter_mode", "args"}) for one in configs)
        return [2.0, 1.0]

    directory = RunDirectory(tmp_path / "choice")
    directory.create()
    chosen = with_engine(
        config, read_inputs(echo_config(tmp_path)), directory, fitted=fitted, measure=measure, message=str
    )
    assert seen == [
        {"adapter_mode": "merged", "args": {"gpu_memory_utilization": 0.7}},
        {"adapter_mode": "multi_lora", "args": {}},
    ]
    assert chosen.engine.mode == "multi_lora" and chosen.engine.memory_share == 0.9


def test_nothing_is_measured_where_there_is_no_choice(tmp_path: Path) -> None:
    config = echo_config(tmp_path, "search.max_generations=1")
    assert evoswarm.run(config)["adapter_mode"] is None
    assert not (config.place.path / "engine.json").exists()
