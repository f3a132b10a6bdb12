"""Engines that die or hang in the middle of a slice, on a real local cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from echo import echo_config, result_bytes

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig
from evoswarm.errors import ClusterError

TRAP = """
import time
from pathlib import Path

import ray

from evoswarm.engine import EngineDied
from evoswarm.engine.fake import EchoEngine

generate, calls = EchoEngine.generate, [0]

def trap(self, *args, **settings):
    calls[0] += 1
    marks = sorted(Path(__file__).parent.glob("mark*"))
    if calls[0] > 3 and len(marks) < {times}:
        Path(__file__).with_name(f"mark{{len(marks)}}").touch()
        {trouble}
    return generate(self, *args, **settings)

if ray.is_initialized() and ray.get_runtime_context().get_actor_id():  # never in the tests' own process
    EchoEngine.generate = trap

def judge(example, response):
    return float(response == example["answer"])
"""


def with_trap(folder: Path, trouble: str, *, times: int, name: str, more: str = "", ray: bool = True) -> RunConfig:
    """A run whose engines, in the scorers, fall into a trap so many times in all."""
    backend = f"backend={{type: ray, scorers: 2{more}}}" if ray else "backend={type: local}"
    config = ["search.population=4", "search.max_generations=2", backend]
    custom = f"utility={{type: custom, function: '{name}:judge', data: echo.json}}"
    (folder / f"{name}.py").write_text(TRAP.format(times=times, trouble=trouble))
    return echo_config(folder, *config, custom, f"name={name}")


@pytest.mark.parametrize(
    ("trouble", "more", "said"),
    [
        ("raise EngineDied('engine fake died: why')", "", "was lost (engine fake died: why)"),
        pytest.param(
            "time.sleep(1000)",
            ", slice_timeout: 5",
            "was lost (no answer within 5 s per slice)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_its_slices_go_to_others_and_the_run_ends_as_if_nothing_had_been(
    tmp_path: Path, cluster: None, trouble: str, more: str, said: str
) -> None:
    echo_config(tmp_path)
    calm = with_trap(tmp_path, "pass", times=0, name="calm", ray=False)
    evoswarm.run(calm)
    config, messages = with_trap(tmp_path, trouble, times=2, name="trap", more=more), []
    evoswarm.run(config, callbacks=Callbacks(notify=lambda e: messages.append(e.get("text", ""))))
    assert len(list(tmp_path.glob("mark*"))) == 2
    assert any(said in text for text in messages)
    before, after = result_bytes(calm.run_dir), result_bytes(config.run_dir)
    assert {name for name in before if before[name] != after.get(name)} <= {"inputs.json", "recipe.json"}


@pytest.mark.slow
def test_an_engine_that_always_dies_ends_the_run_with_the_reason(tmp_path: Path, cluster: None) -> None:
    echo_config(tmp_path)
    config = with_trap(
        tmp_path, "raise EngineDied('engine fake died: why')", times=10**6, name="poison", more=", max_retries: 1"
    )
    with pytest.raises(ClusterError, match=r"lost 2 times with its worker \(.*engine fake died: why"):
        evoswarm.run(config)
    settings = ", max_retries: 1, slice_timeout: 1"
    hangs = with_trap(tmp_path, "time.sleep(1000)", times=10**6, name="stuck", more=settings)
    with pytest.raises(ClusterError, match=r"lost 2 times with its worker \(.*no answer within 1 s per slice"):
        evoswarm.run(hangs)
