"""The result as text."""

from __future__ import annotations

from typing import Any

from benchmarks.common import show as table
from evoswarm.loop.card import describe_recipe

Results = dict[str, Any]


def show(results: Results, seconds: dict[str, float]) -> None:
    """Print what the experts learned, the utilities on the target, the seconds, and the speed relative to limits."""
    table("validation utility of each skill", skills(results))
    table("utility on the target", utilities(results))
    for engine in engines(results):
        print(f"winner, {engine}: {describe_recipe(results[f'evolve, {engine}']['best']['recipe'])}")
    print("both engines found the same winner" if same(results) else "the engines found different winners")
    for warning in dict.fromkeys(w for engine in engines(results) for w in results[f"evolve, {engine}"]["warnings"]):
        print(f"warning: {warning}")
    timed = seconds | {"total": sum(seconds.values())}
    table("seconds", [{"stage": name, "s": round(value)} for name, value in timed.items()])
    table("relative to the limit", limits(results))


def engines(results: Results) -> list[str]:
    """The engines of the runs."""
    return [name.removeprefix("evolve, ") for name in results if name.startswith("evolve, ")]


def skills(results: Results) -> list[Results]:
    """One row per skill."""
    rows = []
    for column in results["skills"]["utilities"]:
        found = dict(column["utilities"])
        name = column["task"].rpartition("/")[2]
        base, own = found.pop("(base model)"), found.pop(name)
        row = {"skill": name, "base": base, "own expert": own, "best other": max(v or 0.0 for v in found.values())}
        rows.append(row | results["experts"][name])
    return rows


def utilities(results: Results) -> list[Results]:
    """One row per candidate."""
    names = engines(results)
    summaries = {name: results[f"evolve, {name}"] for name in names}
    expert = summaries[names[0]]["initial"]["best_expert"]
    rows = {"base": "base", f"best expert ({expert})": "initial", "winner": "best"}
    lines = [
        {"candidate": f"{label}, {name}", **{split: summary[key][split] for split in ("validation", "test")}}
        for label, key in rows.items()
        for name, summary in summaries.items()
    ]
    return lines + [{"candidate": f"{name}, transformers", **found} for name, found in results["soups"].items()]


def same(results: Results) -> bool:
    """Whether all engines found the same recipe."""
    recipes = [results[f"evolve, {name}"]["best"]["recipe"] for name in engines(results)]
    return all(recipe == recipes[0] for recipe in recipes)


def limits(results: Results) -> list[Results]:
    """One row per measurement."""
    install = results["install"]
    rows = [{"what": "install", "limit": "a plain copy of the same parameters", "of the limit": install["of a copy"]}]
    return rows + [
        {"what": f"scoring, {name}", "limit": "the base alone", "of the limit": line["of the base"]}
        for name, line in results["scoring"].items()
    ]
