"""Renders the kustomize folders and validates objects against their schemas, with unknown fields forbidden."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parent / "schemas"
KUBERNETES = "1.33"
"""Version of the Kubernetes schemas."""
FOLDERS = ["base", *sorted(f"overlays/{path.name}" for path in (ROOT / "k8s/overlays").iterdir())]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
"""Includes this environment's programs: kubectl and hadolint are installed as Python packages."""
if shutil.which("kubectl", path=PATH) is None:
    pytest.skip("kubectl is not installed", allow_module_level=True)
PRESERVE = "x-kubernetes-preserve-unknown-fields"

Object = dict[str, Any]


@functools.cache
def rendered(folder: str) -> str:
    """The output of `kubectl kustomize` for a folder in k8s/."""
    command = ["kubectl", "kustomize", str(ROOT / "k8s" / folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": PATH})
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(folder: str, *kinds: str) -> list[Object]:
    """The rendered objects of a folder, optionally only of some kinds."""
    items = yaml.load_all(rendered(folder), Loader=yaml.CSafeLoader)
    return [item for item in items if not kinds or item["kind"] in kinds]


def clusters(folder: str) -> list[Object]:
    """The RayClusterSpecs of a folder's RayJobs, RayClusters and RayServices."""
    jobs, services = objects(folder, "RayJob"), objects(folder, "RayCluster")
    served = [item["spec"]["rayClusterConfig"] for item in objects(folder, "RayService")]
    return [item["spec"]["rayClusterSpec"] for item in jobs] + [item["spec"] for item in services] + served


def templates(folder: str) -> Iterator[tuple[str, Object]]:
    """A folder's pod templates with their roles: head, worker and submitter."""
    for job in objects(folder, "RayJob"):
        yield "submitter", job["spec"]["submitterPodTemplate"]
    for spec in clusters(folder):
        yield "head", spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield "worker", group["template"]


def strict(schema: Any) -> Any:
    """The schema with unknown fields forbidden, except where Kubernetes accepts any field."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    new = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and PRESERVE not in schema:
        new.setdefault("additionalProperties", False)
    return new


@functools.cache
def _validators() -> dict[str, Draft202012Validator]:
    job = json.loads((SCHEMAS / "kuberay-v1.7-rayjob-v1.json").read_text())
    spec = job["properties"]["spec"]["properties"]["rayClusterSpec"]
    cluster = job | {"properties": job["properties"] | {"spec": spec}}
    service = json.loads((SCHEMAS / "kuberay-v1.7-rayservice-v1.json").read_text())
    service["properties"]["spec"]["properties"]["rayClusterConfig"] = spec
    others = yaml.safe_load((SCHEMAS / "others.yaml").read_text())
    schemas = {"RayJob": job, "RayCluster": cluster, "RayService": service} | others
    return {kind: Draft202012Validator(strict(schema)) for kind, schema in schemas.items()}


def validate(item: Object) -> None:
    """Raise ValidationError if an object does not match its schema."""
    if item["kind"] in _validators():
        assert set(item["metadata"]) <= {"name", "namespace", "labels", "annotations"}
        _validators()[item["kind"]].validate(item)
    else:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)


def pins() -> dict[str, str]:
    """The versions in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def version() -> str:
    """evoswarm's version."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
