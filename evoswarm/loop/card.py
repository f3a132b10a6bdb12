"""The model card of the best expert."""

from __future__ import annotations

import json
from typing import Any

from evoswarm.config import RunConfig
from evoswarm.utility.config import Task


def model_card(
    config: RunConfig, summary: dict[str, Any], recipe: dict[str, Any], *, setup: str = "", note: str = ""
) -> str:
    """README.md in the Hugging Face format: what the expert is, how it was made, and how to load it.

    `setup` is a line of Python that peft needs before it can load the expert; `note` is a sentence about its weights.
    """
    best, initial, base, soup = (summary[key] for key in ("best", "initial", "base", "greedy_soup"))
    pool = f"{len(recipe['pool'])} {'models' if recipe['kind'] == 'model' else 'experts of one base model'}"
    front = {"library_name": "peft" if recipe["kind"] == "adapter" else "transformers", "tags": ["evoswarm", "merge"]}
    header = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())
    space = f" (in {recipe['space']} space)" if recipe["space"] else ""
    noise = len(recipe["terms"]) - len(recipe["experts"])
    rows = [("base model", base), (f"best initial expert ({initial['best_expert']})", initial)]
    rows += [("greedy soup of the experts", soup)] if soup else []
    rows += [("this expert", best)]
    table = "\n".join(f"| {name} | {_show(line['validation'])} | {_show(line['test'])} |" for name, line in rows)
    more = [*describe_reported(summary), *describe_selection(summary), *describe_metrics(summary["metrics"])]
    metrics = "".join(f"{line}. " for line in more)
    remark = f" {note}" if note else ""
    trade_offs = describe_front(summary["front"]) if summary["front"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return f"""---
{header}
---
# {config.name}

Made by evoswarm ({summary["algorithm"]}, seed {summary["seed"]}, {summary["generations"]} generations,
{summary["evaluations"]} evaluations) from {pool}, without gradients.

## Recipe

{describe_recipe(recipe["experts"])}{f", and {noise} mutation vectors (recipe.json)" if noise else ""}{space}

## Utility

| | validation | test |
|---|---|---|
{table}

{metrics}The expert was chosen on the validation split; the test split was read once, at the end.{remark}
{trade_offs}
## Loading

```python
{_loading(config, recipe, setup=setup)}
```

## Provenance

Utility: {_utility(config)}. Experts (sha256): {", ".join(f"{n} {h[:12]}" for n, h in recipe["pool"].items())}.
Versions: {versions}.
"""


def describe_recipe(experts: dict[str, float], *, shown: int = 12) -> str:
    """`0.61 code + 0.48 math - 0.09 chat`, largest first; without experts it is the base model."""
    if not experts:
        return "the base model"
    terms = sorted(experts.items(), key=lambda item: -abs(item[1]))
    text = " ".join(f"{'-' if value < 0 else '+'} {abs(value):.2f} {name}" for name, value in terms[:shown])
    rest = f" and {len(terms) - shown} more" if len(terms) > shown else ""
    return text.removeprefix("+ ") + rest


def describe_front(front: dict[str, Any]) -> str:
    """A section about the front that the expert is one row of, with the tasks of each row that was written."""
    tasks = list(front["reference"])
    lines = [
        "",
        "## Front",
        "",
        f"The expert is one of {front['size']} rows that no other measured row beats on every task. "
        "Utility of the rows in `front/` on test (on validation):",
        "",
        f"| recipe | {' | '.join(tasks)} |",
        "|---" * (len(tasks) + 1) + "|",
    ]
    for row in front["rows"]:
        test, validation = (row["tasks"].get(split, {}) for split in ("test", "validation"))
        cells = [f"{_show(test.get(task))} ({_show(validation.get(task))})" for task in tasks]
        lines.append(f"| {row['recipe']}{', this expert' if row['winner'] else ''} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def describe_reported(summary: dict[str, Any]) -> list[str]:
    """`arc (only reported): base 0.41, best expert 0.52, winner 0.55`, a line per task that was not evolved."""
    lines = []
    for task, of in summary["reported"].items():
        expert = summary["initial"]["best_expert"]
        best = f"best expert ({expert}) {_show(of['experts'][expert])}"
        lines.append(f"{task} (only reported): base {_show(of['base'])}, {best}, winner {_show(of['winner'])}")
    return lines


def describe_selection(summary: dict[str, Any]) -> list[str]:
    """How the winner was chosen, if not by the search."""
    if summary["selection"] is None:
        return []
    task, candidates = summary["selection"]["task"], summary["selection"]["candidates"]
    best = max(line["utility"] for line in candidates if line["utility"] is not None)
    return [
        f"Chosen by {task} among the best {len(candidates)} rows of the search: {_show(best)} on validation, "
        f"{_show(candidates[0]['utility'])} for the search's own best"
    ]


_NAMES = {"base": "base", "best_expert": "best expert", "greedy_soup": "greedy soup", "ensemble:0": "winner"}
"""Finalists whose metrics are shown, and what they are called."""


def describe_metrics(metrics: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """`chrf on test: base 58.21, best expert 57.44, winner 63.63`, a line per metric; see `summary.json`."""
    winner = metrics.get("ensemble:0", {})
    split = "test" if "test" in winner else "validation"
    known = {label: metrics[who][split] for who, label in _NAMES.items() if split in metrics.get(who, {})}
    return [
        f"{name} on {split}: " + ", ".join(f"{label} {values[name]:.4g}" for label, values in known.items())
        for name in winner.get(split, {})
    ]


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _utility(config: RunConfig) -> str:
    utility = config.utility
    return f"{utility.type} on {utility.data.path.name}" if isinstance(utility, Task) else utility.type


def _loading(config: RunConfig, recipe: dict[str, Any], *, setup: str) -> str:
    if recipe["kind"] == "model":
        return "import json\n\nmix = json.load(open('mix.json'))  # models and coefficients: evoswarm serve RUN"
    if recipe["kind"] == "checkpoint":
        return "from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained(folder)"
    return (
        f"{setup}from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{config.model}")\n'
        "model = PeftModel.from_pretrained(base, folder)"
    )
