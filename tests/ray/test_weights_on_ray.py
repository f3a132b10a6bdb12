"""How often weights cross the object store, and that a node's processes share them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from echo import echo_config

from evoswarm.backend.base import Job
from evoswarm.backend.ray.backend import RayBackend
from evoswarm.callbacks import Callbacks
from evoswarm.rows import Row
from evoswarm.utility import make_utility
from evoswarm.weights.pool import open_pool

NODES = """
from pathlib import Path

import ml_dtypes
import numpy as np
import ray
from ray.cluster_utils import Cluster
from ray.experimental import get_object_locations
from evoswarm.weights.wire import pack, unpack

SIZE = 32 << 20

def own():
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])

class Source:
    def move(self):
        return pack({"bf16": np.ones(SIZE, ml_dtypes.bfloat16), "fp32": np.ones(SIZE, np.float32)}), 0.0

class Sink:
    def __init__(self):
        unpack(pack({"bf16": np.ones(1, ml_dtypes.bfloat16)}))
        self.before = own()

    def receive(self, moved):
        arrays = list(unpack(moved[0]).values())
        assert all(float(array[-1]) == 1 for array in arrays)
        views = [not array.flags.owndata and not array.flags.writeable for array in arrays]
        return own() - self.before, views

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1, resources={"other": 1})
ray.init(address=cluster.address, log_to_driver=False)
source = ray.remote(num_cpus=1)(Source).options(resources={"node:__internal_head__": 0.01}).remote()
here, there = {"node:__internal_head__": 0.01}, {"other": 0.1}
sinks = [ray.remote(num_cpus=0)(Sink).options(resources=place).remote() for place in (here, here, there, there)]
moved = source.move.remote()
for sink, nodes in 2 * list(zip(sinks, (1, 1, 2, 2))):
    grown, views = ray.get(sink.receive.remote(moved))
    assert grown < SIZE and all(views), (grown, views)  # a copy of bf16 alone has 2 * SIZE
    found = len(get_object_locations([moved])[moved]["node_ids"])
    assert found in (nodes, 2), found
ray.shutdown()
cluster.shutdown()
"""


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


@pytest.mark.slow
def test_all_processes_of_a_node_share_the_memory_of_weights_and_another_node_gets_them_once(tmp_path: Path) -> None:
    (tmp_path / "nodes.py").write_text(NODES)
    command = [sys.executable, str(tmp_path / "nodes.py")]
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path), "RAY_raylet_start_wait_time_s": "120"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
