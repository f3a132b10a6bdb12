"""What a cluster is missing for the actors of a run, in a sentence. Pure: does not know Ray."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evoswarm.backend.ray.nodes import CLOSE, Nodes, no_node_has, total, written
from evoswarm.backend.ray.packing import Unit, kinds, pack
from evoswarm.backend.ray.placement import Placement


def missing(placement: Placement, nodes: Sequence[Nodes]) -> str | None:
    """What these nodes do not have, with what to do; None if nothing is known to be missing.

    Nodes count as empty, so a placement that passes may still have to wait for other runs.
    """
    required = {
        "particle_labels": placement.particle_labels,
        "scorer_labels": placement.scorer_labels,
        "grader_labels": placement.grader_labels,
    }
    for key, labels in required.items():
        if labels and (text := no_node_has(labels, nodes)):
            return f"{text}; give nodes these labels (`ray start --labels`), or correct backend.{key}"
    units = [placement.grader, *placement.units] if placement.graders else placement.units
    usable = [n for n in nodes if any(n.has(unit.labels) for unit in units)]
    alone = (_for_unit(unit, nodes) for unit in units)
    return _in_total(placement, usable) or next(filter(None, alone), None) or _together(placement, nodes)


def _in_total(run: Placement, nodes: Sequence[Nodes]) -> str | None:
    cpus, gpus = total(nodes)
    where = "the nodes for it have" if run.particle_labels or run.scorer_labels else "the cluster has"
    if run.gpus > gpus + CLOSE:
        graders = f" + {run.grader.names} x {run.grader_gpus:g}" if run.graders and run.grader_gpus else ""
        return (
            f"the run needs {run.gpus:g} GPUs ({run.particles} particles x {run.particle_gpus:g} + "
            f"{run.scorers} scorers x {run.scorer_gpus:g}{graders}), {where} {gpus:g}; add nodes, or lower "
            f"search.population, backend.particle_gpus (a fraction or 0){', backend.grader_gpus' * bool(graders)} or "
            "backend.scorers"
        )
    each, grading = run.ranks * run.cpus, run.graders * run.grader_cpus
    if run.scorers * each + grading > cpus + CLOSE:
        graders = f" + {run.grader.names} x {run.grader_cpus}" if grading else ""
        return (
            f"the run needs {run.scorers * each + grading} CPUs ({run.scorers} scorers x {each}{graders}), "
            f"{where} {cpus:g}; add nodes, or lower backend.scorers or engine.threads"
        )
    return None


def _for_unit(unit: Unit, nodes: Sequence[Nodes]) -> str | None:
    usable = [n for n in nodes if n.count and n.has(unit.labels)]
    if not usable:
        return no_node_has(unit.labels, nodes)
    labels = f" with {written(unit.labels)}" if unit.labels else ""
    gpus, cpus = max(n.gpus for n in usable), max(n.cpus for n in usable)
    if unit.gpus > gpus + CLOSE:
        return f"a {unit.name} takes {unit.gpus:g} GPUs, no node{labels} has more than {gpus:g}; lower {unit.lower}"
    if unit.cpus > cpus + CLOSE:
        return f"a {unit.name} takes {unit.cpus:g} CPUs, no node{labels} has more than {cpus:g}; lower engine.threads"
    return _for_units(unit, usable, f"the nodes{labels} have" if labels else "the cluster has")


def _for_units(unit: Unit, usable: Sequence[Nodes], where: str) -> str | None:
    cpus, gpus = total(usable)
    per_gpu = math.floor(1 / unit.gpus + CLOSE) if 0 < unit.gpus <= 1 else 0
    need = math.ceil(unit.count / per_gpu) if per_gpu else unit.count * unit.gpus
    if need > gpus + CLOSE:
        reason, hint = "", f"add nodes, or lower {unit.lower}"
        if unit.gpus < 1:
            reason, hint = ", because a fraction must be on one GPU", f"set {unit.lower} so that more fit on one"
        return f"{unit.names} x {unit.gpus:g} GPUs need {need:g} GPUs{reason}, {where} {gpus:g}; {hint}"
    if unit.count * unit.cpus > cpus + CLOSE:
        need = unit.count * unit.cpus
        hint = "add nodes, or lower backend.scorers"
        return f"{unit.names} x {unit.cpus:g} CPUs need {need:g} CPUs, {where} {cpus:g}; {hint}"
    return None


def _together(placement: Placement, nodes: Sequence[Nodes]) -> str | None:
    """Each actor must fit on one node, and each fraction on one GPU, next to all others."""
    graders, left = placement.without_graders(nodes)
    if graders < placement.graders:
        return f"only {graders} of {placement.grader.names} fit; add nodes, or lower backend.graders"
    beside = f" beside {placement.grader.names}" if placement.graders else ""
    return _on(placement.units, left, beside)


def _on(units: Sequence[Unit], nodes: Sequence[Nodes], graders: str) -> str | None:
    first, *others = units
    placed, *beside = pack(units, kinds(nodes, *units))
    if placed < first.count:
        return (
            f"only {placed} of {first.names} fit, because each must be on one node ({first.gpus:g} GPUs, "
            f"{first.cpus:g} CPUs){graders}; add nodes, or lower backend.scorers or {first.lower}"
        )
    for unit, number in zip(others, beside, strict=True):
        if number < unit.count:
            return (
                f"next to {first.names} x {first.gpus:g} GPUs{graders} only {number} of {unit.names} x "
                f"{unit.gpus:g} GPUs fit; add nodes, or lower backend.scorers, search.population or {unit.lower}"
            )
    return None
