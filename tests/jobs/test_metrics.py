"""A real Prometheus scrapes a live run: every expression of the dashboard returns data."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from head import REPOSITORY, Head, free_port

from evoswarm.config import RunConfig, dump_config
from evoswarm.config.load import parse_config
from evoswarm.loop.directory import read_lines
from evoswarm.toy import world
from evoswarm.toy.config import target_config

HAS_VLLM = importlib.util.find_spec("vllm") is not None
EVICTED_SECONDS = 20
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed (.ci/run installs it)"
)
DASHBOARD = REPOSITORY / "cluster/grafana/evoswarm.json"


class Prometheus:
    """What a Prometheus server knows."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, expression: str) -> list[dict]:
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=20) as answer:
            return list(json.loads(answer.read())["data"]["result"])


@contextlib.contextmanager
def prometheus(head: Head, folder: Path) -> Iterator[Prometheus]:
    """Debian's Prometheus with the configuration that ships, on loopback."""
    text = (REPOSITORY / "cluster/prometheus.yml").read_text()
    assert "/tmp/ray/prom_metrics" in text
    (folder / "prometheus.yml").write_text(text.replace("/tmp/ray/prom_metrics", f"{head.folder}/prom_metrics"))
    port = free_port()
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(timeout=30)


def expressions() -> list[str]:
    """Every expression of the dashboard, its variables put in."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    (variable,) = [entry for entry in dashboard["templating"]["list"] if entry["name"] == "run"]
    found.append(re.fullmatch(r"label_values\((.*), run\)", variable["query"])[1])
    found = [text.replace("$__rate_interval", "1m").replace("$run", variable["allValue"]) for text in found]
    return [text for text in found if HAS_VLLM or "vllm" not in text]


def actor(head: Head, name: str) -> psutil.Process:
    """The process of an actor of the head's machine, by the beginning of its name."""
    found = head.get("/api/v0/actors?detail=1&limit=1000&timeout=20")["data"]["result"]["result"]
    (pid,) = [entry["pid"] for entry in found if (entry["name"] or "").startswith(name) and entry["state"] == "ALIVE"]
    return psutil.Process(pid)


def test_the_dashboard_names_every_metric_that_a_run_has() -> None:
    from evoswarm.launch.metrics import COUNTERS, GAUGES

    text = DASHBOARD.read_text()
    assert all(f"ray_evoswarm_{name}{{" in text for name in GAUGES)
    assert all(f"ray_evoswarm_{name}_total{{" in text for name in COUNTERS)


@pytest.fixture
def watched(head: Head, tmp_path: Path) -> Iterator[tuple[Prometheus, RunConfig]]:
    """A run of many generations that is on its way, and a Prometheus that scrapes it."""
    data = target_config("office", algorithm="model_swarms") | {"name": "seen", "output": str(tmp_path)}
    data["utility"]["data"] = {"path": data["utility"]["data"], "limit": 60, "test": None}
    data["search"] |= {"population": 4, "max_generations": 500, "patience": 500}
    vllm = {"type": "vllm", "adapter_mode": "merged", "args": {"max_model_len": 64, "enforce_eager": True}}
    data |= {"engine": vllm if HAS_VLLM else {"type": "transformers"}, "backend": {"type": "ray", "scorers": 1}}
    config = parse_config(data, root=world())
    (tmp_path / "it.yaml").write_text(dump_config(config))
    with prometheus(head, tmp_path) as server:
        job = head.json("submit", tmp_path / "it.yaml")["job"]
        head.until(lambda: generations(config) > 0, "the run is on its way")
        yield server, config
        assert head.json("stop", job)["state"] == "stopped"


def generations(config: RunConfig) -> int:
    return len(read_lines(config.run_dir / "generations.jsonl"))


@needs_prometheus
def test_prometheus_has_data_for_every_expression_of_the_dashboard(
    head: Head, watched: tuple[Prometheus, RunConfig]
) -> None:
    server, _ = watched
    actor(head, "particle-0:seen:").send_signal(signal.SIGKILL)
    missing: list[str] = []

    def all_there() -> bool:
        missing[:] = [expression for expression in expressions() if not server.ask(expression)]
        return not missing

    head.until(all_there, f"every expression has data: {missing}")
    restarts = {line["metric"]["actor"]: line for line in server.ask('ray_evoswarm_actor_restarts{run="seen"}')}
    assert set(restarts) >= {"particle-0", "particle-1", "particle-2", "particle-3", "scorer-0"}
    of_particle = 'ray_evoswarm_actor_restarts{actor="particle-0"}'
    head.until(lambda: [line["value"][1] for line in server.ask(of_particle)] == ["1"], "the restart is seen")
    particles = server.ask('ray_evoswarm_particle_utility{run="seen"}')
    assert {line["metric"]["particle"] for line in particles} >= {"0", "1", "2", "3"}
    up = server.ask('ray_evoswarm_actors_alive{run="seen"}')
    alive = {line["metric"]["kind"]: line["value"][1] for line in up}
    assert alive["scorer"] == "1" and alive["coordinator"] == "1"


@pytest.mark.slow
@needs_prometheus
def test_a_gauge_stays_while_nothing_happens_for_longer_than_ray_keeps_one(
    head: Head, watched: tuple[Prometheus, RunConfig]
) -> None:
    server, config = watched
    head.until(lambda: bool(server.ask('ray_evoswarm_best_utility{run="seen"}')), "the gauge is there")
    scorer = actor(head, "scorer-0:seen:")
    scorer.suspend()
    try:
        before = generations(config)
        time.sleep(EVICTED_SECONDS + 12)
        assert generations(config) <= before + 1
        assert server.ask('ray_evoswarm_best_utility{run="seen"}')
        with urllib.request.urlopen(f"http://127.0.0.1:{head.metrics}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        assert any("best_utility" in line and 'run="seen"' in line for line in lines)
    finally:
        scorer.resume()
    best = server.ask('ray_evoswarm_best_utility{run="seen"}')[0]["value"][1]
    assert float(best) <= max(line["best"] for line in read_lines(config.run_dir / "generations.jsonl"))
