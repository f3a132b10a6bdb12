"""The page of a report: the template's data. Everything is escaped, except our own plots."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from evoswarm.loop.card import describe_metrics, describe_recipe, describe_selection
from evoswarm.report.analysis import graded, rank, sign_test
from evoswarm.report.drawing import Plot
from evoswarm.report.findings import (
    compared_pair,
    emergence_of,
    finalist_flips,
    flip_examples,
    open_utility,
    origin_of,
    task_table,
)
from evoswarm.report.plots import MAX_BARS, MAX_LINES, MAX_POINTS
from evoswarm.report.read import Run

MAX_EXPERTS = 200
MAX_REASONS = 20
STOPPED = {
    "max_generations": "it reached its {max_generations} generations (max_generations)",
    "max_evaluations": "another generation could have gone above its {max_evaluations} evaluations (max_evaluations)",
    "converged": "the surrogate expected no gain of {min_gain} (min_gain)",
    "finished": "there is nothing left to try",
    "patience": "{progress} had not improved for {patience} generations (patience)",
}


def render_page(run: Run, plots: Mapping[str, Plot]) -> str:
    """The HTML of the report."""
    loader = PackageLoader("evoswarm", "report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"clean": clean, "number": number, "signed": signed}
    return environment.get_template("report.html.j2").render(_context(run, plots))


def clean(value: Any, limit: int = 400) -> str:
    """Untrusted text for display: makes control and direction characters visible and truncates at `limit`."""
    text = "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in str(value)
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


def number(value: float | None) -> str:
    """Four decimals, or a dash for None."""
    return "–" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:.6g}"


def signed(value: float | None) -> str:
    """Like `number`, but always with a sign; uses a true minus."""
    return "–" if value is None else f"{'+' if value >= 0 else '−'}{number(abs(value))}"


def _context(run: Run, plots: Mapping[str, Plot]) -> dict[str, Any]:
    utility, problem = open_utility(run)
    pair, winner, lines, failures = compared_pair(run), run.winner, _lines(run), _failures(run)
    result = next(line for line in lines if line["strong"])
    return {
        "run": run,
        "config": run.config,
        "plots": plots,
        "winner": winner,
        "headline": _headline(run, result),
        "lines": lines,
        "status": _status(run),
        "warnings": _warnings(run, result["gain"]),
        "recipe": _recipe(run),
        "facts": _facts(run),
        "captions": _captions(run),
        "reference": _reference(run),
        "falls": any(after["best"] < before["best"] for before, after in pairwise(run.generations)),
        "findings": _findings(run),
        "origin": origin_of(run, winner).sentence if winner and run.initial else None,
        "emergence": emergence_of(run),
        "graded": graded([m.scores for m in run.initial]),
        "experts": _experts(run),
        "more_experts": max(0, len(run.experts) - MAX_EXPERTS),
        "flips": _flips(run),
        "split": pair[1].split if pair else None,
        "examples": flip_examples(pair, utility),
        "problem": problem,
        "tasks": task_table(run, utility),
        "reported": (run.summary or {}).get("reported", {}),
        "failures": failures[:MAX_REASONS],
        "more_failures": max(0, len(failures) - MAX_REASONS),
        "failed": sum(1 for line in run.measured for m in line if m.error),
        "versions": (run.summary or {}).get("versions", {}),
        "command": f"evoswarm run config.yaml --set seed={run.config.seed} --set name={run.config.name}-again",
    }


def _lines(run: Run) -> list[dict[str, Any]]:
    """The headline table: base, best expert, winner, ensemble."""
    summary, expert, winner = run.summary or {}, run.best_expert, run.winner
    soup = summary.get("greedy_soup")
    base, initial, best = (summary.get(key, {}) for key in ("base", "initial", "best"))
    name = next(iter(expert.experts)) if expert else initial.get("best_expert")
    rows = [
        ("Base model", base.get("validation"), base.get("test")),
        ("Best initial expert", expert.utility if expert else initial.get("validation"), initial.get("test")),
        *([("Greedy soup", soup["validation"], soup["test"])] if soup else []),
        ("Winner", winner.utility if winner else best.get("validation"), best.get("test")),
    ]
    if ensemble := summary.get("ensemble"):
        rows.append((f"Vote of the best {ensemble['k']}", ensemble["validation"], ensemble["test"]))
    lines: list[dict[str, Any]] = [
        {"label": label, "validation": validation, "test": test, "name": None, "strong": label == "Winner"}
        for label, validation, test in rows
    ]
    lines[1]["name"] = name
    split = "test" if any(line["test"] is not None for line in lines) else "validation"
    for line in lines:
        both = line[split] is not None and lines[1][split] is not None
        line["gain"] = line[split] - lines[1][split] if both and line is not lines[1] else None
    return lines


def _headline(run: Run, line: dict[str, Any]) -> dict[str, Any] | None:
    """The main result: the winner's utility and its gain over the best initial expert."""
    split = "test" if line["test"] is not None else "validation"
    if line[split] is None:
        return None
    unmoved = run.winner is not None and run.winner.phase == "experts"
    return {"value": line[split], "split": split, "gain": line["gain"], "unmoved": unmoved}


def _status(run: Run) -> dict[str, str]:
    search, done = run.config.search, len(run.generations) - 1
    if run.summary:
        reason = STOPPED.get(run.summary["stop_reason"], run.summary["stop_reason"] or "it ended")
        return {
            "label": "finished",
            "text": "Stopped because " + reason.format(**search.model_dump(), progress=search.progress) + ".",
        }
    if done < 0:
        return {"label": "unfinished", "text": "No generation is finished yet, so there are no results."}
    text = f"Generation {done} of at most {search.max_generations} is finished. The test split has not been read yet."
    return {"label": "unfinished", "text": text}


def _warnings(run: Run, gain: float | None) -> list[str]:
    found = list((run.summary or {}).get("warnings", []))
    failed = sum(1 for line in run.measured for m in line if m.error)
    if failed:
        found.append(f"{failed} of {sum(map(len, run.measured))} evaluations failed; the reasons are below")
    failed_finals = [m.who for m in run.finals.values() if m.error]
    if run.finals and gain is not None and gain < 0:
        worse = f"the winner is worse than the best initial expert on test ({signed(gain)})"
        found.append(f"{worse}: its gain on validation did not transfer")
    if failed_finals:
        found.append(f"the final measurement failed for {', '.join(failed_finals)}")
    return found + list(run.notes)


def _recipe(run: Run) -> str | None:
    winner = run.winner
    if winner is None:
        return describe_recipe(run.summary["best"]["recipe"]) if run.summary else None
    noise = f", and {winner.noise} mutation vector{'s' * (winner.noise > 1)}" if winner.noise else ""
    return describe_recipe(winner.experts) + noise


def _facts(run: Run) -> list[tuple[str, str]]:
    """Labels and values of the run's statistics."""
    seconds = [record["seconds"] for record in run.timings]
    total, scoring, moving = (sum(line.get(key, 0.0) for line in seconds) for key in ("total", "scoring", "moving"))
    last = run.generations[-1] if run.generations else {"evaluations": 0, "examples_scored": 0, "examples_reused": 0}
    scored, reused = last["examples_scored"], last["examples_reused"]
    facts = [
        ("Generations", f"{max(0, len(run.generations) - 1)} of at most {run.config.search.max_generations}"),
        ("Population", f"{run.config.search.population} particles from {len(run.experts)} experts"),
        ("Evaluations", f"{last['evaluations']:,}"),
        ("Examples scored", f"{scored:,}" + (f" ({reused / (reused + scored):.0%} reused)" if reused else "")),
        ("Time", _duration(total)),
        ("Worker time", f"{_duration(scoring)} scoring, {_duration(moving)} moving weights"),
    ]
    if winner := run.winner:
        facts.append(("Winner found in", f"generation {winner.generation}, by particle {winner.particle}"))
    if run.under_way:
        facts.append(("In progress", f"{run.under_way} evaluations of the unfinished generation"))
    return facts


def _findings(run: Run) -> list[str]:
    """The results of the analyses, one sentence each."""
    winner, found, flips, pair = run.winner, emergence_of(run), _flips(run), compared_pair(run)
    findings = [origin_of(run, winner).sentence] if winner and run.initial else []
    if found is not None and found.unsolved and found.best[-1] is not None:
        findings.append(
            f"It solves {found.best[-1]} of the {found.unsolved} validation examples that no initial expert solved."
        )
    if flips and pair:
        findings.append(
            f"On {pair[1].split} it fails on {flips['lost']} examples that the best initial expert solved, and solves "
            f"{flips['gained']} others."
        )
    if run.summary is None:
        return findings
    return findings + describe_selection(run.summary) + describe_metrics(run.summary["metrics"])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 120 else f"{minutes} min {rest} s"


def _reference(run: Run) -> str:
    """The reference point of the hypervolume; empty without a front."""
    front = run.generations[-1]["front"] if run.generations else None
    return ", ".join(f"{clean(task, 80)} {value:.4g}" for task, value in front["reference"].items()) if front else ""


def _captions(run: Run) -> dict[str, str]:
    """What is missing in each plot, by plot name."""
    particles, captions = len(run.start or ()), {}
    if run.persistent and particles > MAX_LINES:
        captions["utility"] = captions["trajectories"] = (
            f"Shows {MAX_LINES} of {particles} particles, evenly sampled, and the winner."
        )
    if not run.persistent and any(len(line) > MAX_POINTS for line in run.measured):
        captions["utility"] = captions["trajectories"] = (
            f"Shows at most {MAX_POINTS} evaluations per generation, evenly sampled."
        )
    if run.winner and len(run.winner.experts) > MAX_BARS:
        captions["recipe"] = f"Shows the {MAX_BARS} largest of {len(run.winner.experts)} coefficients."
    if run.winner and run.winner.noise:
        captions["trajectories"] = captions.get("trajectories", "") + " Mutation noise is outside this plane."
    return captions


def _experts(run: Run) -> list[dict[str, Any]]:
    """The initial experts from best to worst."""
    utilities = [m.utility for m in run.initial]
    weights = run.winner.experts if run.winner else {}
    rows = [
        {
            "name": name,
            "rank": rank(utilities, j).place if utilities else None,
            "validation": utilities[j] if utilities else None,
            "coefficient": weights.get(name),
            "sha256": run.hashes.get(name, "")[:12],
        }
        for j, name in enumerate(run.experts)
    ]
    return sorted(rows, key=lambda row: row["rank"] or 0)[:MAX_EXPERTS]


def _flips(run: Run) -> dict[str, Any] | None:
    """The winner compared with the best initial expert."""
    compared, pair = finalist_flips(run), compared_pair(run)
    if not compared or pair is None:
        return None
    flips = compared[0][1]
    lost, gained = len(flips.lost), len(flips.gained)
    right = lost + flips.both
    return {
        "lost": lost,
        "gained": gained,
        "both": flips.both,
        "neither": flips.neither,
        "total": flips.total,
        "rate": f"{lost / right:.1%}" if right else None,
        # Not on validation, because the winner was selected there for its gains.
        "chance": sign_test(lost, gained) if pair[1].split == "test" and lost + gained else None,
    }


def _failures(run: Run) -> list[dict[str, Any]]:
    """Failed evaluations by reason, the most frequent first."""
    places: dict[str, list[str]] = {}
    for m in [m for line in run.measured for m in line] + list(run.finals.values()):
        if m.error:
            place = m.who or f"generation {m.generation}, {m.phase} {m.particle}"
            places.setdefault(m.error, []).append(place)
    ordered = sorted(places.items(), key=lambda item: -len(item[1]))
    return [{"reason": reason, "count": len(where), "where": where[:4]} for reason, where in ordered]
