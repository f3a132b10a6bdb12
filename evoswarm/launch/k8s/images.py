"""The versions of Ray and Python that the names of images state."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import version

from evoswarm.launch.k8s.pods import Object, cluster_spec, pods

Versions = dict[str, str]


def versions(image: str) -> Versions:
    """The versions in an image's tag, for example `2.60.0-py311` of rayproject/ray, or `0.1.0-ray2.60.0-cpu`."""
    name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
    parts, found = tag.split("-"), Versions()
    if name.partition("-")[0] == "ray" and parts[0][:1].isdigit():
        found["Ray"] = parts[0]
    for part in parts:
        digits = part.removeprefix("py").removeprefix("thon")
        if part.startswith("ray") and part[3:4].isdigit():
            found["Ray"] = part[3:]
        elif part.startswith("py") and digits[:1] == "3":
            found["Python"] = ".".join((digits[0], digits[1:].lstrip(".").partition(".")[0])).rstrip(".")
    return found


def image_problem(item: Object) -> str | None:
    """Which two images of a RayJob or RayCluster cannot work together, with what to change."""
    return next(_problems(item), None)


def _problems(item: Object) -> Iterator[str]:
    ray = str(cluster_spec(item).get("rayVersion") or "")
    known: dict[str, tuple[str, str]] = {"Ray": (ray, "rayVersion")} if ray else {}
    for group in pods(item):
        for image in group.images:
            for kind, found in versions(image).items():
                other, owner = known.setdefault(kind, (found, f"the image {image} of the {group.name}"))
                if other != found:
                    yield (
                        f"the image {image} of the {group.name} has {kind} {found}, {owner} {_says(owner)} {other}; "
                        "all pods must have the same versions of Ray and Python"
                    )


def _says(owner: str) -> str:
    return "says" if owner == "rayVersion" else "has"


def differences(item: Object) -> list[str]:
    """How the images differ from this machine: it may submit to such a cluster, but not join it."""
    here = {"Ray": version("ray"), "Python": ".".join(platform.python_version_tuple()[:2])}
    found = {(image, kind, v) for group in pods(item) for image in group.images for kind, v in versions(image).items()}
    return [
        f"the image {image} has {kind} {v}, this machine {here[kind]}; `evoswarm submit` works with it, "
        "`backend.address` does not"
        for image, kind, v in sorted(found)
        if v != here[kind]
    ]
