"""The manifests in k8s/ are valid, safe and consistent with the rest of the project."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from k8s_helpers import FOLDERS, clusters, objects, pins, templates, validate, version

from evoswarm.backend.ray.placement import place_run
from evoswarm.launch.connect import TASK_RECORDS
from evoswarm.launch.k8s.manifest import embedded_config
from evoswarm.launch.k8s.pods import capacity
from evoswarm.launch.k8s.quantity import quantity
from evoswarm.plan.case import Case, EngineSettings
from evoswarm.plan.hardware import GB, Hardware
from evoswarm.plan.problems import problems
from evoswarm.plan.sizes import Shape, Workload
from evoswarm.serve.cluster import ServeArgs
from evoswarm.toy import world

every_folder = pytest.mark.parametrize("folder", FOLDERS)
NODE_LOCAL_DNS = "169.254.20.10/32"
GIB = {"Mi": 1 << 20, "Gi": 1 << 30}


def size(quantity: str) -> int:
    return int(quantity[:-2]) * GIB[quantity[-2:]]


@every_folder
def test_every_object_fits_its_schema_and_has_no_unknown_field(folder: str) -> None:
    found = objects(folder)
    assert len(found) >= 8
    for item in found:
        validate(item)


@every_folder
def test_pods_run_without_privileges(folder: str) -> None:
    for role, template in templates(folder):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        asks_kubernetes = folder.endswith("autoscaling") and role == "head"
        assert pod["automountServiceAccountToken"] is asks_kubernetes
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


@every_folder
def test_requests_equal_limits_and_the_object_store_fits_in_shared_memory(folder: str) -> None:
    for _, template in templates(folder):
        for container in template["spec"]["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
    for spec in clusters(folder):
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            (shm,) = [v["emptyDir"] for v in pod["volumes"] if v["name"] == "shm"]
            assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
            memory = size(pod["containers"][0]["resources"]["limits"]["memory"])
            store = int(group["rayStartParams"]["object-store-memory"])
            assert shm["medium"] == "Memory" and store < size(shm["sizeLimit"]) < memory / 2


@every_folder
def test_ray_requires_a_token_and_the_head_offers_no_cpus_and_gpus(folder: str) -> None:
    assert clusters(folder)
    for spec in clusters(folder):
        assert spec["authOptions"] == {"mode": "token"}
        params = spec["headGroupSpec"]["rayStartParams"]
        assert params["num-cpus"] == params["num-gpus"] == "0"
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        (ray,) = [c for c in spec["headGroupSpec"]["template"]["spec"]["containers"] if "ray" in c["name"]]
        assert {"name": TASK_RECORDS[0], "value": TASK_RECORDS[1]} in ray["env"]


@every_folder
def test_image_tag_ray_version_and_pin_agree(folder: str) -> None:
    ray, build = pins()["ray"], "gpu" if "gpu" in folder else "cpu"
    assert all(spec["rayVersion"] == ray for spec in clusters(folder))
    images = {c["image"] for _, template in templates(folder) for c in template["spec"]["containers"]}
    assert images == {f"evoswarm:{version()}-ray{ray}-{build}"}


@every_folder
def test_pods_refer_only_to_objects_that_exist(folder: str) -> None:
    def names(kind: str) -> set[str]:
        return {item["metadata"]["name"] for item in objects(folder, kind)}

    for _, template in templates(folder):
        pod = template["spec"]
        assert pod["serviceAccountName"] in names("ServiceAccount")
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for volume in volumes.values():
            assert volume.get("configMap", {}).get("name") in names("ConfigMap") | {None}
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in names("PersistentVolumeClaim") | {None}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes)
    assert {item["metadata"].get("namespace", "evoswarm") for item in objects(folder)} == {"evoswarm"}


@every_folder
def test_the_config_inside_is_a_run_on_shared_storage(folder: str) -> None:
    for job in objects(folder, "RayJob"):
        config = embedded_config(job, objects(folder))
        assert config.backend.type == "ray" and config.backend.address == "auto"
        (claim,) = [m for m in _head(job)["containers"][0]["volumeMounts"] if m["name"] == "data"]
        assert config.output.is_relative_to(claim["mountPath"])


def _head(job: dict) -> dict:
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]


def test_the_smoke_run_finds_its_files_in_the_toy_world_of_the_image() -> None:
    (job,) = objects("overlays/cpu-smoke", "RayJob")
    config = embedded_config(job, objects("overlays/cpu-smoke"))
    assert config.utility.type == "exact_match"
    for path in (config.model, config.pool.experts, config.utility.data.path):
        assert isinstance(path, str | Path)
        assert (world() / Path(path).relative_to("/opt/evoswarm/toy")).exists()


@every_folder
def test_a_failed_job_resumes_and_has_deadlines(folder: str) -> None:
    for job in objects(folder, "RayJob"):
        spec = job["spec"]
        assert "--resume auto" in spec["entrypoint"] and spec["backoffLimit"] >= 1
        assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
        assert spec["submissionMode"] == "K8sJobMode" and len(job["metadata"]["name"]) <= 47


@every_folder
def test_deletion_is_staged_as_kuberay_admits_it(folder: str) -> None:
    order = ["DeleteWorkers", "DeleteCluster", "DeleteSelf"]
    for job in objects(folder, "RayJob"):
        spec = job["spec"]
        if folder == "overlays/kueue":
            assert spec["suspend"] and spec["shutdownAfterJobFinishes"] and "deletionStrategy" not in spec
            assert (
                job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
                == objects(folder, "LocalQueue")[0]["metadata"]["name"]
            )
            continue
        assert spec["shutdownAfterJobFinishes"] is False and "ttlSecondsAfterFinished" not in spec
        stages: dict[str, list[tuple[int, int]]] = {}
        for rule in spec["deletionStrategy"]["deletionRules"]:
            condition = dict(rule["condition"])
            seconds = condition.pop("ttlSeconds")
            (state,) = condition.values()
            stages.setdefault(state, []).append((order.index(rule["policy"]), seconds))
        assert set(stages) == {"SUCCEEDED", "FAILED", "Failed"}
        assert all(stage == sorted(set(stage), key=lambda s: (s[1], s[0])) for stage in stages.values())
        scaled = spec["rayClusterSpec"].get("enableInTreeAutoscaling", False)
        assert scaled == (0 not in {policy for stage in stages.values() for policy, _ in stage})


@pytest.mark.parametrize("folder", ["overlays/autoscaling", "overlays/gpu-autoscaling"])
def test_the_autoscaler_has_its_permissions_and_pods_never_restart(folder: str) -> None:
    for spec in clusters(folder):
        assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
        assert spec["autoscalerOptions"]["securityContext"]["allowPrivilegeEscalation"] is False
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            assert group["template"]["spec"]["restartPolicy"] == "Never"
        assert all(g["minReplicas"] <= g["replicas"] < g["maxReplicas"] for g in spec["workerGroupSpecs"])
    (role,) = [item for item in objects(folder, "Role") if item["metadata"]["name"] == "evoswarm-autoscaler"]
    assert {(rule["resources"][0], *rule["verbs"]) for rule in role["rules"]} >= {("rayclusters", "get", "patch")}


@every_folder
def test_ray_pods_reach_only_each_other_and_dns(folder: str) -> None:
    (policy,) = [item for item in objects(folder, "NetworkPolicy") if item["metadata"]["name"] == "evoswarm-ray"]
    spec = policy["spec"]
    assert spec["podSelector"] == {"matchLabels": {"ray.io/is-ray-node": "yes"}}
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    peers, dns = spec["egress"]
    assert peers == {"to": [{"podSelector": spec["podSelector"]}]}
    assert {(port["protocol"], port["port"]) for port in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert {port["port"] for rule in spec["ingress"] for port in rule.get("ports", [])} == {8265, 8080}
    for policy in objects(folder, "NetworkPolicy"):
        rules = [
            rule
            for rule in policy["spec"].get("egress", [])
            if {"port": 53, "protocol": "UDP"} in rule.get("ports", [])
        ]
        assert all({"ipBlock": {"cidr": NODE_LOCAL_DNS}} in rule["to"] for rule in rules)
        assert len(rules) == (policy["metadata"]["name"] not in ("evoswarm-autoscaler", "evoswarm-serve"))


def test_the_service_answers_only_labeled_pods_and_asks_for_a_key() -> None:
    (service,) = objects("overlays/serve", "RayService")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    module, _, name = application["import_path"].partition(":")
    assert (module, name) == ("evoswarm.serve.cluster", "build")
    args = ServeArgs.model_validate(application["args"])
    (policy,) = [p for p in objects("overlays/serve", "NetworkPolicy") if p["metadata"]["name"] == "evoswarm-serve"]
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"evoswarm.io/client": "true"}}}]
    assert rule["ports"] == [{"protocol": "TCP", "port": config["http_options"]["port"]}]
    for _, template in templates("overlays/serve"):
        (container,) = template["spec"]["containers"]
        (key,) = [entry for entry in container["env"] if entry["name"] == args.api_key_env]
        assert key["valueFrom"] == {"secretKeyRef": {"name": "evoswarm-api-key", "key": "key"}}
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert args.replicas <= group["replicas"] * (cpus // args.cpus)


@every_folder
def test_no_ray_pod_asks_a_hub_that_it_cannot_reach(folder: str) -> None:
    for spec in clusters(folder):
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            (container,) = group["template"]["spec"]["containers"]
            assert {"name": "HF_HUB_OFFLINE", "value": "1"} in container["env"]


@pytest.mark.parametrize("folder", ["base", "overlays/autoscaling", "overlays/kueue"])
def test_a_model_of_two_billion_parameters_fits_into_the_memory_of_each_worker(folder: str) -> None:
    (job,) = objects(folder, "RayJob")
    config = embedded_config(job, objects(folder))
    head, workers = capacity(job["spec"]["rayClusterSpec"])
    assert head.cpus == 0
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    memory = quantity(group["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"])
    gemma = Shape(2_600_000_000, 26, 10**9, 50_000_000, 4, 212_992, None)
    hardware = Hardware(workers.count, 0, int(workers.cpus), None, memory / GB)
    placement = place_run(config, [workers])
    case = Case(gemma, Workload(200, 40_000, 500, 256), 10, EngineSettings(running=32), placement, hardware)
    assert problems(case) == []


def test_the_job_and_the_service_run_on_the_same_cluster() -> None:
    for folder in ("base", "overlays/gpu", "overlays/autoscaling", "overlays/gpu-autoscaling"):
        job, service = clusters(folder)
        assert service.pop("suspend") is True
        assert job == service
    assert clusters("overlays/service")[0]["suspend"] is False
