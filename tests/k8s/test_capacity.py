"""`evoswarm validate --k8s`: whether a manifest's pods have enough resources for its run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from k8s_helpers import FOLDERS, PATH, ROOT, objects, rendered

from evoswarm.backend.ray.missing import missing
from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.placement import place
from evoswarm.config.run import RayBackend
from evoswarm.errors import UserError
from evoswarm.launch.k8s.manifest import check_manifest, embedded_config
from evoswarm.launch.k8s.pods import capacity

JOBS = [folder for folder in FOLDERS if objects(folder, "RayJob")]
GPU = "overlays/gpu"


def write(tmp_path: Path, items: list[Any]) -> str:
    path = tmp_path / "rendered.yaml"
    path.write_text(yaml.safe_dump_all(items))
    return str(path)


def changed(tmp_path: Path, folder: str = GPU, **changes: Any) -> str:
    """A rendered folder with changes to its run's config."""
    items = objects(folder)
    (config_map,) = [item for item in items if item["kind"] == "ConfigMap"]
    run = yaml.safe_load(config_map["data"]["run.yaml"])
    for section, values in changes.items():
        run[section] |= values
    config_map["data"]["run.yaml"] = yaml.safe_dump(run)
    return write(tmp_path, items)


def refusal(source: str) -> str:
    with pytest.raises(UserError) as caught:
        check_manifest(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("folder", JOBS)
def test_every_shipped_job_fits_its_own_pods(folder: str, tmp_path: Path) -> None:
    (tmp_path / "rendered.yaml").write_text(rendered(folder))
    (line,) = check_manifest(str(tmp_path / "rendered.yaml"))
    assert "RayJob evoswarm: ok" in line


def test_more_gpus_than_the_worker_group_offers_are_rejected(tmp_path: Path) -> None:
    text = refusal(changed(tmp_path, backend={"particle_gpus": 1}))
    assert "RayJob evoswarm: the run needs 21 GPUs (20 particles x 1 + 1 scorers x 1), the cluster has 16" in text
    assert "lower search.population" in text and "gpu: 2 x (32 CPUs, 8 GPUs)" in text


def test_sixteen_pinned_gpus_fit_and_seventeen_do_not(tmp_path: Path) -> None:
    backend = {"particle_gpus": 1, "scorers": 1}
    assert check_manifest(changed(tmp_path, backend=backend, search={"population": 15}))
    assert "needs 17 GPUs" in refusal(changed(tmp_path, backend=backend, search={"population": 16}))


def test_more_cpus_than_all_pods_offer_are_rejected(tmp_path: Path) -> None:
    assert "needs 12 CPUs" in refusal(changed(tmp_path, "base", backend={"scorers": 3}))


def test_an_actor_larger_than_any_node_is_rejected(tmp_path: Path) -> None:
    text = refusal(changed(tmp_path, "base", engine={"threads": 8}))
    assert "a scorer takes 8 CPUs, no node has more than 4; lower engine.threads" in text
    text = refusal(changed(tmp_path, backend={"scorer_gpus": 12, "scorers": 1}))
    assert "a scorer takes 12 GPUs, no node has more than 8; lower backend.scorer_gpus" in text


def test_a_gpu_fraction_that_does_not_pack_is_rejected() -> None:
    groups = [Nodes("gpu", 2, 32, 8)]
    backend = RayBackend(particle_gpus=0.6, scorer_gpus=1, scorers=1)
    assert missing(place(backend, groups, particles=15, threads=1), groups) is None
    text = missing(place(backend, groups, particles=16, threads=1), groups)
    assert text is not None and "next to 1 scorer x 1 GPUs only 15 of 16 particles x 0.6 GPUs fit" in text
    text = missing(place(backend, groups, particles=20, threads=1), groups)
    assert text is not None and "20 particles x 0.6 GPUs need 20 GPUs" in text
    thirds = RayBackend(particle_gpus=1 / 3, scorer_gpus=1, scorers=1)
    assert missing(place(thirds, groups, particles=45, threads=1), groups) is None


def test_only_an_autoscaler_can_exceed_the_replicas() -> None:
    (job,) = objects("overlays/autoscaling", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    assert [(n.name, n.count, n.cpus, n.gpus) for n in capacity(spec)] == [("head", 1, 0, 0), ("workers", 8, 4, 0)]
    spec["enableInTreeAutoscaling"] = False
    assert capacity(spec)[1].count == 2
    for changes, count in (
        ({"replicas": 8, "maxReplicas": 1}, 1),
        ({"replicas": None, "minReplicas": 2}, 2),
        ({"replicas": 2, "suspend": True}, 0),
    ):
        assert capacity(spec | {"workerGroupSpecs": [spec["workerGroupSpecs"][0] | changes]})[1].count == count
    spec["workerGroupSpecs"][0]["numOfHosts"] = 4
    assert capacity(spec)[1].count == 8


def test_ray_start_params_override_the_container_limits() -> None:
    (job,) = objects(GPU, "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    group = spec["workerGroupSpecs"][0]
    group["rayStartParams"] |= {"num-gpus": "4", "num-cpus": "10"}
    assert offered(spec) == (2, 10, 4)
    del group["rayStartParams"]
    group["template"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1500m", "amd.com/gpu": "3"}}
    assert offered(spec) == (2, 2, 3)
    group["resources"] = {"GPU": "6"}
    assert capacity(spec)[1].gpus == 6


def offered(spec: Any) -> tuple[int, float, float]:
    group = capacity(spec)[1]
    return group.count, group.cpus, group.gpus


def test_a_run_needs_the_labels_of_a_worker_group(tmp_path: Path) -> None:
    wanted = {"zone": "b", "ray.io/market-type": "spot"}
    source = changed(tmp_path, backend={"scorer_labels": wanted})
    assert "no node has the labels zone=b; the nodes have ray.io/node-group: gpu, headgroup" in refusal(source)
    items = list(yaml.safe_load_all(Path(source).read_text()))
    (job,) = [item for item in items if item["kind"] == "RayJob"]
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["labels"] = {"zone": "b"}
    assert check_manifest(write(tmp_path, items))


def test_the_output_of_kubectl_get_is_accepted(tmp_path: Path) -> None:
    (line,) = check_manifest(write(tmp_path, [{"kind": "List", "items": objects("base")}]))
    assert "RayJob evoswarm: ok" in line


def test_overrides_in_the_entrypoint_apply_to_the_run() -> None:
    items = objects("base")
    (job,) = [item for item in items if item["kind"] == "RayJob"]
    job["spec"]["entrypoint"] += " --set search.population=7"
    assert embedded_config(job, items).search.population == 7


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda items: [i for i in items if "Ray" not in i["kind"]], "neither a RayJob nor a RayCluster"),
        (lambda items: [i for i in items if i["kind"] != "ConfigMap"], "no ConfigMap of the manifest is mounted as"),
        (lambda items: [i for i in items if i["kind"] == "RayCluster"], "give a config too"),
        (lambda items: [{"kind": "RayJob", "spec": {"entrypoint": "sleep 5"}}], "is not `evoswarm run CONFIG`"),
        (lambda items: [{"kind": "RayJob", "spec": {"entrypoint": "evoswarm run /x/y"}}], "is not complete"),
        (lambda items: [{"kind": "RayJob"}], "is not complete"),
        (lambda items: [{"kind": "RayJob", "metadata": None, "spec": {"entrypoint": "run 'x"}}], "is not complete"),
        (lambda items: [{"kind": "List", "items": None}], "neither a RayJob nor a RayCluster"),
        (lambda items: [5], "not a Kubernetes object"),
        (lambda items: [{"kind": "List", "items": 5}], "neither a RayJob nor a RayCluster"),
        (lambda items: [{"kind": "List", "items": [1, 2]}], "not a Kubernetes object"),
        (lambda items: [{"kind": "RayJob", "metadata": "c"}], "not a Kubernetes object"),
    ],
)
def test_a_manifest_without_a_run_gives_one_clear_error_line(tmp_path: Path, damage: Any, words: str) -> None:
    assert words in refusal(write(tmp_path, damage(objects("base"))))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("d: 2026-13-45", "is not YAML"),
        ("[" * 3000, "is nested too deeply"),
        ("\x00", "is not YAML"),
    ],
)
def test_an_invalid_manifest_file_gives_one_clear_error_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    assert words in refusal(str(tmp_path / "m.yaml"))


@pytest.mark.parametrize("cpus", [".inf", "1e400", "-8", "many"])
def test_an_invalid_number_of_cpus_is_rejected(cpus: str) -> None:
    (job,) = objects(GPU, "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    spec["workerGroupSpecs"][0]["resources"] = {"CPU": cpus}
    with pytest.raises(UserError, match="is not a Kubernetes quantity"):
        capacity(spec)


def test_an_invalid_embedded_config_is_named(tmp_path: Path) -> None:
    text = refusal(changed(tmp_path, search={"poplation": 3}))
    assert "RayJob evoswarm: /etc/evoswarm/run.yaml: unknown key search.poplation; did you mean population?" in text
    job = rendered("base").replace("backend: {type: ray, address: auto, wait_seconds: 900}", "backend: {type: local}")
    (tmp_path / "local.yaml").write_text(job)
    assert "uses only one pod" in refusal(str(tmp_path / "local.yaml"))


def evoswarm(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, "-m", "evoswarm", *arguments], {"PATH": PATH}
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, env=env, timeout=120)


def test_validate_accepts_a_folder_standard_input_and_another_config(tmp_path: Path) -> None:
    done = evoswarm("validate", "--k8s", "k8s/overlays/gpu", "--json")
    assert done.returncode == 0 and '"valid": true' in done.stdout
    piped = yaml.safe_dump_all(objects("overlays/service"))
    arguments = ("validate", "k8s/overlays/gpu/run.yaml", "--k8s", "-", "--set")
    assert evoswarm(*arguments, "backend.scorers=8", "--set", "backend.particle_gpus=0", text=piped).returncode == 2
    done = evoswarm(*arguments, "backend={type: ray}", text=piped)
    assert done.returncode == 0 and "RayCluster evoswarm-service: ok" in done.stdout, done.stderr
    done = evoswarm("validate")
    assert done.returncode == 2 and done.stderr == "error: validate: give CONFIG or --k8s MANIFEST\n"
