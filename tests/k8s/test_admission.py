"""`evoswarm validate --k8s` refuses a job that can never start: its driver, its quota, its volumes, its images."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from k8s_helpers import ROOT, Object, objects
from test_capacity import GPU, changed, offered, refusal, write

from evoswarm.errors import UserError
from evoswarm.launch.k8s.images import versions
from evoswarm.launch.k8s.manifest import check_manifest
from evoswarm.launch.k8s.quantity import quantity


def only(items: list[Object], kind: str) -> Object:
    (found,) = [item for item in items if item["kind"] == kind]
    return found


def group(items: list[Object]) -> Object:
    """The worker group of the RayJob."""
    found: Object = only(items, "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    return found


def container(items: list[Object]) -> Object:
    """The container of the worker group."""
    found: Object = group(items)["template"]["spec"]["containers"][0]
    return found


# The driver


def with_driver(tmp_path: Path, folder: str = "base", *, backend: Object | None = None, **fields: Any) -> str:
    items = list(yaml.safe_load_all(Path(changed(tmp_path, folder, backend=backend or {})).read_text()))
    only(items, "RayJob")["spec"] |= fields
    return write(tmp_path, items)


@pytest.mark.parametrize(
    ("folder", "fields"),
    [
        ("base", {"entrypointNumCpus": 5}),
        ("base", {"entrypointNumGpus": 1}),
        ("base", {"entrypointResources": '{"special": 1}'}),
        (GPU, {"entrypointNumGpus": 9}),
        (GPU, {"entrypointNumCpus": 33, "entrypointNumGpus": 1}),
    ],
)
def test_a_driver_that_no_single_node_can_hold_is_rejected(tmp_path: Path, folder: str, fields: Object) -> None:
    assert "no single node has that, so the job never starts" in refusal(with_driver(tmp_path, folder, **fields))


def test_a_driver_takes_its_share_from_the_run(tmp_path: Path) -> None:
    text = refusal(with_driver(tmp_path, entrypointNumCpus=1))
    assert "needs 8 CPUs (2 scorers x 4), the cluster has 7" in text and "the entrypoint takes 1 CPUs of it" in text
    assert check_manifest(with_driver(tmp_path, entrypointNumCpus=1, backend={"scorers": 1}))
    assert "needs 16 GPUs" in refusal(with_driver(tmp_path, GPU, entrypointNumGpus=0.5))
    assert check_manifest(with_driver(tmp_path, GPU, entrypointNumGpus=0.5, backend={"scorers": 13}))


@pytest.mark.parametrize("given", ['"{\\"special\\": 2}"', "'{\"special\": 2}'", '{"special": 2}'])
def test_custom_resources_of_a_group_hold_a_driver(tmp_path: Path, given: str) -> None:
    items = objects("base")
    only(items, "RayJob")["spec"]["entrypointResources"] = '{"special": 2, "accelerator_type:H100": 0.001}'
    group(items)["rayStartParams"]["resources"] = given
    assert check_manifest(write(tmp_path, items))
    del group(items)["rayStartParams"]["resources"]
    group(items)["resources"] = {"special": "1"}
    assert "entrypoint takes 2 special" in refusal(write(tmp_path, items))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("special", "is not a JSON object"),
        ("[1]", "is not a JSON object"),
        ('{"GPU": 1}', "set entrypointNumGpus instead"),
        ('{"special": "many"}', "is not a Kubernetes quantity"),
    ],
)
def test_wrong_entrypoint_resources_are_named(tmp_path: Path, text: str, words: str) -> None:
    found = refusal(with_driver(tmp_path, entrypointResources=text))
    assert words in found and "RayJob evoswarm: " in found


# MIG


def test_slices_of_a_gpu_count_as_gpus(tmp_path: Path) -> None:
    items = objects(GPU)
    mig = {"cpu": "32", "memory": "256Gi", "nvidia.com/mig-1g.10gb": "7"}
    container(items)["resources"] = {"requests": mig, "limits": mig}
    assert offered(only(items, "RayJob")["spec"]["rayClusterSpec"]) == (2, 32, 7)
    (line,) = check_manifest(write(tmp_path, items))
    assert "12 scorers x 1 GPUs" in line
    only(items, "RayJob")["spec"]["entrypointNumGpus"] = 8
    assert "no single node has that" in refusal(write(tmp_path, items))


# Quotas


def kueue(folder: str = "base") -> list[Object]:
    """The objects of a folder in the queue of the kueue overlay."""
    queues = [item for item in objects("overlays/kueue") if "Queue" in item["kind"]]
    items = [*objects(folder), *queues]
    only(items, "RayJob")["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "evoswarm"}
    return items


@pytest.mark.parametrize("folder", ["base", GPU])
def test_the_example_quota_admits_the_shipped_jobs(tmp_path: Path, folder: str) -> None:
    assert check_manifest(write(tmp_path, kueue(folder)))


@pytest.mark.parametrize(
    ("folder", "resource", "quota", "words"),
    [
        ("base", "cpu", "8", "request 10.5 cpu, the quota of ClusterQueue evoswarm is 8 cpu"),
        ("base", "memory", "48Gi", "request 54.5Gi memory, the quota of ClusterQueue evoswarm is 48Gi memory"),
        (GPU, "nvidia.com/gpu", "8", "request 16 nvidia.com/gpu, the quota of ClusterQueue evoswarm is 8"),
        (GPU, "nvidia.com/gpu", None, "request nvidia.com/gpu, which ClusterQueue evoswarm does not cover"),
    ],
)
def test_a_queue_that_can_never_admit_the_job_is_named(
    tmp_path: Path, folder: str, resource: str, quota: str | None, words: str
) -> None:
    items = kueue(folder)
    (flavor,) = only(items, "ClusterQueue")["spec"]["resourceGroups"][0]["flavors"]
    (entry,) = [entry for entry in flavor["resources"] if entry["name"] == resource]
    entry["nominalQuota"] = quota
    if quota is None:
        flavor["resources"].remove(entry)
    text = refusal(write(tmp_path, items))
    assert words in text and "so Kueue never admits it" in text
    if quota is not None:
        only(items, "ClusterQueue")["spec"]["cohortName"] = "all"
        assert check_manifest(write(tmp_path, items)), "it may borrow"
        entry["borrowingLimit"] = "1"
        assert words.partition(",")[0] in refusal(write(tmp_path, items))


def test_pods_must_fit_into_one_flavor(tmp_path: Path) -> None:
    items = kueue(GPU)
    (flavor,) = only(items, "ClusterQueue")["spec"]["resourceGroups"][0]["flavors"]
    (gpus,) = [entry for entry in flavor["resources"] if entry["name"] == "nvidia.com/gpu"]
    gpus["nominalQuota"] = "12"
    second = json.loads(json.dumps(flavor)) | {"name": "second"}
    only(items, "ClusterQueue")["spec"]["resourceGroups"][0]["flavors"] = [flavor, second]
    assert "request 16 nvidia.com/gpu, the quota of ClusterQueue evoswarm is 12" in refusal(write(tmp_path, items))


def test_a_queue_outside_of_the_manifest_is_not_judged(tmp_path: Path) -> None:
    items = [item for item in kueue(GPU) if item["kind"] != "LocalQueue"]
    assert check_manifest(write(tmp_path, items))


@pytest.mark.parametrize(
    ("hard", "words"),
    [
        ({"requests.cpu": "10"}, "take 10.5 cpu, ResourceQuota team has 10 cpu"),
        ({"limits.memory": "30Gi"}, "take 54.5Gi memory"),
        ({"pods": "3"}, "take 4 pods"),
        ({"cpu": "11", "requests.nvidia.com/gpu": "0", "count/jobs.batch": "1"}, None),
    ],
)
def test_a_resource_quota_that_is_too_small_is_named(tmp_path: Path, hard: Object, words: str | None) -> None:
    quota = {"kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": {"hard": hard}}
    source = write(tmp_path, [*objects("base"), quota])
    if words is None:
        assert check_manifest(source)
    else:
        assert words in refusal(source)


# Volumes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accessModes": ["ReadWriteOnce"]}, "is ReadWriteOnce, not ReadWriteMany"),
        ({"accessModes": ["ReadWriteOncePod"]}, "is ReadWriteOncePod, not ReadWriteMany"),
        ({"storageClassName": "gp3"}, "storage class gp3 (ebs.csi.aws.com), which has no ReadWriteMany"),
        ({"storageClassName": "fast"}, "storage class fast (disk.csi.azure.com), which has no ReadWriteMany"),
        ({"storageClassName": "shared"}, None),
        ({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}, None),
    ],
)
def test_a_volume_that_only_one_node_can_mount_is_named(tmp_path: Path, changes: Object, words: str | None) -> None:
    items = objects("overlays/gpu-autoscaling")
    only(items, "PersistentVolumeClaim")["spec"] |= changes
    for name, provisioner in (("fast", "disk.csi.azure.com"), ("shared", "efs.csi.aws.com")):
        items.append({"kind": "StorageClass", "metadata": {"name": name}, "provisioner": provisioner})
    if words is None:
        assert check_manifest(write(tmp_path, items))
    else:
        assert words in refusal(write(tmp_path, items))


# Images


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("registry.example.com:5000/team/evoswarm:0.1.0-ray2.60.0-gpu", {"Ray": "2.60.0"}),
        ("rayproject/ray:2.9.0-py310-gpu", {"Ray": "2.9.0", "Python": "3.10"}),
        ("rayproject/ray-ml:2.9.0.abc123-py39", {"Ray": "2.9.0.abc123", "Python": "3.9"}),
        ("rayproject/ray:latest-py311", {"Python": "3.11"}),
        ("evoswarm:0.1.0-ray2.60.0-python3.12@sha256:0123", {"Ray": "2.60.0", "Python": "3.12"}),
        ("python:3.11-slim", {}),
        ("team/x@sha256:0123", {}),
    ],
)
def test_versions_are_read_from_an_images_tag(image: str, found: dict[str, str]) -> None:
    assert versions(image) == found


def test_images_with_different_versions_are_named(tmp_path: Path) -> None:
    items = objects("base")
    container(items)["image"] = "evoswarm:0.1.0-ray2.59.0-cpu"
    text = refusal(write(tmp_path, items))
    assert "the image evoswarm:0.1.0-ray2.59.0-cpu of the workers has Ray 2.59.0, rayVersion says 2.60.0" in text
    container(items)["image"] = "rayproject/ray:2.60.0-py310"
    submitter = only(items, "RayJob")["spec"]["submitterPodTemplate"]["spec"]["containers"][0]
    submitter["image"] = "rayproject/ray:2.60.0-py312"
    text = refusal(write(tmp_path, items))
    assert "of the submitter has Python 3.12, the image rayproject/ray:2.60.0-py310 of the workers has 3.10" in text


def test_images_that_differ_from_this_machine_are_a_warning(tmp_path: Path) -> None:
    text = (yaml.safe_dump_all(objects("base"))).replace(version("ray"), "2.1.0")
    (tmp_path / "old.yaml").write_text(text)
    line, warning = check_manifest(str(tmp_path / "old.yaml"))
    assert "ok" in line and warning.startswith("warning: ")
    assert f"has Ray 2.1.0, this machine {version('ray')}" in warning


# Quantities


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), (2, 2), ("2Ki", 2048), ("1.5Gi", 1.5 * 2**30), ("3k", 3000), ("1e3", 1000)]
)
def test_a_quantity_is_read(text: Any, number: float) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "many", "-1", "nan", True, None, "4 Gi B"])
def test_what_is_no_quantity_is_named(text: Any) -> None:
    with pytest.raises(UserError, match="is not a Kubernetes quantity"):
        quantity(text)


def test_the_readme_names_every_overlay() -> None:
    text = (ROOT / "k8s/README.md").read_text()
    assert all(f"| `{path.name}` |" in text for path in (ROOT / "k8s/overlays").iterdir())
