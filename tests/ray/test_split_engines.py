"""An engine that is split over GPUs is placed on one node; on nodes that claim to have GPUs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from evoswarm.backend.ray.missing import missing
from evoswarm.backend.ray.placement import place
from evoswarm.backend.ray.scheduling import Scheduling
from evoswarm.backend.ray.wait import nodes
from evoswarm.config.run import RayBackend

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=2, num_gpus=1)
ray.init(cluster.address)
backend = RayBackend(particle_gpus=0, scorers=1)
placement = place(backend, nodes(), particles=1, threads=1, ranks=2)
print(missing(placement, nodes()))
scheduling = Scheduling(backend, placement)
group = scheduling.of_scorer(0)["scheduling_strategy"].placement_group
assert not group.wait(5), placement_group_table(group)
node = cluster.add_node(num_cpus=2, num_gpus=2)
assert missing(placement, nodes()) is None
assert group.wait(60)
assert set(placement_group_table(group)["bundles_to_node_id"].values()) == {node.node_id}
scheduling.close()
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_its_ranks_wait_for_one_node_that_holds_them_all() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == (
        "a scorer of 2 ranks takes 2 GPUs, no node has more than 1; lower engine.args.tensor_parallel_size"
    )
