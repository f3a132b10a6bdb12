"""Fenced blocks of the documentation, and made-up experts and data for the configs in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tiny_scorers import save_scorer

from evoswarm import toy
from evoswarm.place import is_url

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^ *```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```", flags=re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
SIZE = 4
"""Records in each split of made-up data."""


@dataclass(frozen=True)
class Block:
    """One fenced block. `before` is the last line of text above it, `after` the rest of the page."""

    page: Path
    line: int
    language: str
    text: str
    before: str
    after: str

    @property
    def not_run(self) -> bool:
        """Marked by `<!-- not run: REASON -->` above the block."""
        return bool(_NOT_RUN.search(self.before))

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def file(self, suffix: str) -> str:
        """The file name that the text gives to the block: above it, or in the next command."""
        name = re.compile(rf"([\w-]+\.{suffix})\b")
        found = name.search(self.before) or name.search(self.after)
        return found[1] if found else f"block.{suffix}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        above = text[: match.start()].rstrip().splitlines()
        yield Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 1,
            language=match["language"],
            text=match["text"],
            before=above[-1] if above else "",
            after=text[match.end() :],
        )


def all_blocks(*languages: str) -> list[Block]:
    return [b for page in PAGES for b in blocks_of(page) if b.language in languages and not b.not_run]


def make_files(data: dict[str, Any], folder: Path) -> None:
    """Write the experts and the data that a config names."""
    world = toy.world()
    pool = data.get("pool")
    if isinstance(pool, list):
        for place, expert in zip(pool, sorted((world / "experts").iterdir()), strict=False):
            _link(folder, place, expert)
    elif pool is not None and "experts" not in data:  # otherwise it is the folder to write
        _link(folder, pool, world / "experts")
    if str(data.get("model", "")).startswith("."):
        _link(folder, data["model"], world / "base")
    for expert in data.get("experts", {}).values():
        _make_data(expert["data"] if isinstance(expert, dict) else expert, "", folder)
    for path in data.get("compare", {}).get("training", {}).values():
        _make_data(path, "", folder)
    utilities = [data.get("utility"), *data.get("compare", {}).get("targets", {}).values()]
    for utility in filter(None, utilities):
        for task in utility.get("tasks", {"": _inner(utility)}).values():
            if task["type"] == "lm_eval":
                _make_task(task, folder)
                continue
            _make_data(task["data"], task["type"], folder)
            for model in task.get("models", {}).values():
                save_scorer(folder / model["model"])
            if "classifier" in task:
                save_scorer(folder / task["classifier"], kind="bert", labels=("neutral", "toxic"))


def with_toy_base(text: str) -> str:
    """The text with the toy world's base in place of models of the hub."""
    return re.sub(r"\b(google|meta-llama)/[\w.-]+", str(toy.world() / "base"), text)


def _link(folder: Path, place: str, target: Path) -> None:
    if not is_url(place) and not (folder / place).exists() and not (folder / place).parent.is_symlink():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(target)


def _inner(utility: dict[str, Any]) -> dict[str, Any]:
    """The utility that has the data."""
    task = utility.get("task")
    return task if isinstance(task, dict) else utility


def _make_task(utility: dict[str, Any], folder: Path) -> None:
    """Write a task of lm-eval that a page shows, and its data."""
    shown = (b.text for page in PAGES for b in blocks_of(page) if b.text.startswith(f"task: {utility['task']}\n"))
    tasks = folder / utility["include_path"]
    tasks.mkdir(exist_ok=True)
    text = next(shown)
    (tasks / f"{utility['task']}.yaml").write_text(text)
    for split, name in yaml.safe_load(text)["dataset_kwargs"]["data_files"].items():
        _write(tasks / name, _records("", split), None)


def _make_data(data: str | dict[str, Any], kind: str, folder: Path) -> None:
    data = {"path": data} if isinstance(data, str) else data
    names = [data.get("validation") or "dev", data.get("test") or "test"]
    if "." in names[1]:  # a file of its own
        _write(folder / names.pop(), _records(kind, "test"), None)
    _write(folder / data["path"], _records(kind, "dev"), {name: _records(kind, name) for name in names})


def _write(path: Path, records: list[dict[str, Any]], splits: dict[str, list[dict[str, Any]]] | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(splits or records))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        import datasets

        dataset = datasets.Dataset.from_list(records)
        dataset.to_parquet(path) if path.suffix == ".parquet" else dataset.save_to_disk(str(path))


def _records(kind: str, split: str) -> list[dict[str, Any]]:
    """Records with every field that the examples of the documentation name."""
    records = []
    for number in range(SIZE):
        question, answer = f"{split} {number}", "A" if kind == "multiple_choice" else str(number)
        record: dict[str, Any] = dict.fromkeys(("question", "problem", "prompt", "passage"), question)
        record |= dict.fromkeys(("answer", "solution", "completion"), answer)
        if kind == "multiple_choice":
            record["choices"] = {"A": "one", "B": "two"}
        if kind == "code":
            record |= {"task_id": question, "inputs": [""], "outputs": [str(number)], "solution": f"print({number})"}
        if kind == "json":
            record["answer"] = {"name": question, "year": number}
        records.append(record)
    return records
