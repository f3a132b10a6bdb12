"""Memory is checked when a run starts, before any engine does."""

from __future__ import annotations

from pathlib import Path

from echo import echo_config
from tiny_models import save_llama

from evoswarm.plan.fit import host_problem
from evoswarm.plan.hardware import Hardware
from evoswarm.plan.inspect import host_memory


def test_a_run_without_gpus_and_with_too_little_host_memory_says_by_how_much_and_what_to_change(tmp_path: Path) -> None:
    save_llama(tmp_path / "base")  # 0.5 MB
    size = (tmp_path / "base" / "model.safetensors").stat().st_size / 1e9
    ray = echo_config(tmp_path, f"model={tmp_path / 'base'}", "backend={type: ray, scorers: 4}")
    local = echo_config(tmp_path, f"model={tmp_path / 'base'}")
    enough, little, tiny = (Hardware(2, 0, 4, None, memory * size) for memory in (2.1, 1.9, 0.9))
    assert host_problem(ray, enough) is None and host_problem(local, little) is None
    said = host_problem(ray, little)
    assert said is not None and said.startswith("2 engines with weights of 0.0 GB each do not fit into a node's 0.0 GB")
    assert said.endswith("lower backend.scorers")
    assert str(host_problem(local, tiny)).endswith("use nodes with more memory, or GPUs")


def test_the_memory_limit_of_a_container_counts(tmp_path: Path) -> None:
    for name, text in (("limited", "1000000\n"), ("unlimited", "max\n"), ("huge", "9223372036854771712\n")):
        (tmp_path / name).write_text(text)
    everything = host_memory([])
    assert host_memory([tmp_path / "limited", tmp_path / "missing"]) == 1_000_000
    assert host_memory([tmp_path / "unlimited"]) == host_memory([tmp_path / "huge"]) == everything > 1_000_000
