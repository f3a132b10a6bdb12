"""Whether the volumes that several pods share can be mounted by all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evoswarm.launch.k8s.pods import Object, pods

BLOCK = {
    "ebs.csi.aws.com": ("gp2", "gp3", "io1", "io2"),
    "kubernetes.io/aws-ebs": (),
    "pd.csi.storage.gke.io": ("standard-rwo", "premium-rwo"),
    "kubernetes.io/gce-pd": (),
    "disk.csi.azure.com": ("managed", "managed-csi", "managed-csi-premium", "managed-premium"),
    "kubernetes.io/azure-disk": (),
    "cinder.csi.openstack.org": (),
    "rancher.io/local-path": ("local-path",),
    "k8s.io/minikube-hostpath": (),
    "kubernetes.io/no-provisioner": (),
    "dobs.csi.digitalocean.com": ("do-block-storage",),
    "csi.hetzner.cloud": ("hcloud-volumes",),
}
"""Provisioners of disks, which one node can mount, and the usual names of their storage classes."""
HINT = "all Ray pods write to it; name a class of a shared file system (NFS, EFS, Filestore, Azure Files, CephFS)"


def volume_problem(item: Object, objects: Sequence[Object]) -> str | None:
    """Why some pods of a RayJob or RayCluster can never mount a claim of the manifest, with what to change."""
    return next(_problems(item, objects), None)


def _problems(item: Object, objects: Sequence[Object]) -> Iterator[str]:
    classes = {o["metadata"]["name"]: o.get("provisioner") for o in objects if o.get("kind") == "StorageClass"}
    for claim in (o for o in objects if o.get("kind") == "PersistentVolumeClaim"):
        name, spec = claim["metadata"]["name"], claim["spec"]
        if _users(item, name) < 2:
            continue
        modes = spec.get("accessModes") or []
        if "ReadWriteMany" not in modes:
            yield f"PersistentVolumeClaim {name} is {', '.join(modes) or 'of no mode'}, not ReadWriteMany; {HINT}"
        given = spec.get("storageClassName")
        usual = next((maker for maker, names in BLOCK.items() if given in names), None)
        provisioner = classes.get(given, usual)
        if provisioner in BLOCK:
            yield (
                f"PersistentVolumeClaim {name} has the storage class {given} ({provisioner}), which has no "
                f"ReadWriteMany; {HINT}"
            )


def _users(item: Object, claim: str) -> int:
    """The number of pods that mount a claim; a group without pods may get some from an autoscaler."""
    found = 0
    for group in pods(item):
        claims = [(v.get("persistentVolumeClaim") or {}).get("claimName") for v in group.spec.get("volumes") or []]
        found += max(1, group.count) if claim in claims else 0
    return found
