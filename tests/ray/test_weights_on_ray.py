"""How often weights cross the object store, and that a node's processes share them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import ray
from echo import echo_config

from evoswarm.backend.base import Job
from evoswarm.backend.ray.backend import RayBackend
from evoswarm.callbacks import Callbacks
from evoswarm.rows import Row
from evoswarm.utility import make_utility
from evoswarm.weights.pool import open_pool
from evoswarm.weights.wire import pack, unpack

SIZE = 32 << 20
"""Scalars of each array."""


class Source:
    """Hands out weights as a particle does."""

    def move(self) -> Any:
        arrays = {"bf16": np.ones(SIZE, ml_dtypes.bfloat16), "fp32": np.ones(SIZE, np.float32)}
        return pack(arrays), 0.0


class Sink:
    """Receives weights as a scorer does."""

    def grows_by(self, moved: Any) -> tuple[int, list[bool]]:
        """Bytes of memory of its own that the weights need, and whether each array is a read-only view."""
        before = self._own()
        arrays = unpack(moved[0]).values()
        assert all(float(array[-1]) == 1 for array in arrays)
        return self._own() - before, [not array.flags.owndata and not array.flags.writeable for array in arrays]

    def start(self) -> int:
        """What it has before it received anything."""
        self.before = self._own()
        return self.before

    def since_start(self, moved: Any) -> int:
        return self._own() - self.before

    @staticmethod
    def _own() -> int:
        (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon:"))
        return 1024 * int(line.split()[1])


def test_a_particle_crosses_once_for_each_scorer_however_many_slices_it_scores(tmp_path: Path, cluster: None) -> None:
    config = echo_config(tmp_path, "backend={type: ray, scorers: 1}", "engine.batch_size=10", "search.population=3")
    pool, utility = open_pool(config.pool, model=config.model), make_utility(config.utility, root=config.root)
    backend = RayBackend(config, config.place, utility=utility, callbacks=Callbacks())
    try:
        jobs = [Job(i, Row.one(name), affinity=i) for i, name in enumerate(pool.names[:3])]
        assert len(backend.cut("validation")) == 10
        assert len(list(backend.evaluate([*jobs, Job("base", None)]))) == 4
        assert backend.counters.moved_bytes == 3 * pool.experts[0].nbytes
    finally:
        backend.close()


def test_processes_of_a_node_share_the_memory_of_weights(cluster: None) -> None:
    source, sinks = ray.remote(num_cpus=0)(Source).remote(), [ray.remote(num_cpus=0)(Sink).remote() for _ in range(2)]
    ray.get([sink.start.remote() for sink in sinks])
    moved = source.move.remote()
    for sink in sinks:
        grown, views = ray.get(sink.grows_by.remote(moved))
        assert grown < 1 << 20 and all(views)
        assert ray.get(sink.since_start.remote(moved)) < SIZE // 4


NODES = """
import sys
import numpy as np
import ray
from ray.cluster_utils import Cluster
from ray.experimental import get_object_locations
from test_weights_on_ray import Sink, Source

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1, resources={"other": 1})
ray.init(address=cluster.address, log_to_driver=False)
source = ray.remote(num_cpus=1)(Source).options(resources={"node:__internal_head__": 0.01}).remote()
sinks = [ray.remote(num_cpus=0)(Sink).options(resources={"other": 0.1}).remote() for _ in range(2)]
moved = source.move.remote()
ray.wait([moved], fetch_local=False)
assert len(get_object_locations([moved])[moved]["node_ids"]) == 1
for _ in range(3):
    for sink in sinks:
        grown, views = ray.get(sink.grows_by.remote(moved))
        assert grown < 1 << 20 and all(views), (grown, views)
    assert len(get_object_locations([moved])[moved]["node_ids"]) == 2
cluster.shutdown()
"""


@pytest.mark.slow
def test_all_processes_of_another_node_share_one_transfer(tmp_path: Path) -> None:
    (tmp_path / "nodes.py").write_text(NODES)
    command = [sys.executable, str(tmp_path / "nodes.py")]
    path = ":".join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": path}, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
