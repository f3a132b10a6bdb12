"""From files to examples: splits, column mapping, few-shot examples, limits, hash, and warnings about the data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError
from evoswarm.utility.columns import column
from evoswarm.utility.config import Data
from evoswarm.utility.readers import Source, read
from evoswarm.utility.references import is_missing, plain_number
from evoswarm.utility.types import SPLITS, Request, Split


@dataclass(frozen=True)
class Example:
    """One record after column mapping. `fields["id"]` always exists; `where` names file, split and record."""

    fields: dict[str, Any]
    where: str

    def get(self, name: str) -> Any:
        """The field `name`.

        Raises:
            UserError: it is missing or null.
        """
        if is_missing(self.fields.get(name)):
            state = "is null" if name in self.fields else "is missing"
            raise UserError(
                f"{self.where}: field {name!r} {state}; the record has {', '.join(map(str, self.fields))}; "
                f"name the right one with data.columns, as in columns: {{{name}: ...}}"
            )
        return self.fields[name]


@dataclass(frozen=True)
class Examples:
    """The examples in use."""

    splits: dict[Split, list[Example]]
    shots: list[Example]
    """Few-shot examples, in prompt order."""
    shot_text: str | None
    """Few-shot examples from the file as formatted text (`icl_prompt`)."""
    warnings: list[str] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """Hash of everything that affects prompts or scores."""
        content: list[Any] = [[example.fields for example in self.splits[split]] for split in SPLITS]
        content += [[example.fields for example in self.shots], self.shot_text]
        text = json.dumps(content, sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()


def load_examples(config: Data, *, root: Path, few_shot: int = 0) -> Examples:
    """Read both splits.

    Few-shot examples come from the file's `icl_prompt`: all of it if it is text, or the first `few_shot` records of a
    list. Without `icl_prompt`, they are the last `few_shot` records of the validation split, which then no longer
    contains them. Limits apply afterwards.

    Raises:
        UserError: the data is invalid.
    """
    source = read(resolve(config.path, root))
    records, where = _split(source, config.validation, "validation", root)
    shot_text, shots = (None, []) if few_shot == 0 else _icl_prompt(source, config, few_shot)
    if few_shot and shot_text is None and not shots:
        if len(records) <= few_shot:
            raise UserError(f"{where}: {len(records)} records are too few for few_shot: {few_shot}; lower it")
        shots = _examples(records, config, where)[-few_shot:]
        records = records[:-few_shot]
    validation, warnings = _unique(_examples(records[: config.limit], config, where), where)
    test: list[Example] = []
    if config.test is not None:
        records, where = _split(source, config.test, "test", root)
        test, more = _unique(_examples(records[: config.test_limit], config, where), where)
        warnings += more
    return Examples({"validation": validation, "test": test}, shots, shot_text, warnings)


def overlap_warnings(questions: dict[Split, list[str]], test_ids: list[Any], *, path: Path) -> list[str]:
    """A warning about test questions that are also in the validation split, ignoring white space."""
    keys = {split: [" ".join(question.split()) for question in questions[split]] for split in SPLITS}
    known = set(keys["validation"])
    repeated = [i for i, key in enumerate(keys["test"]) if key in known]
    if not repeated:
        return []
    advice = "the test utility says less about new data; use another test split"
    if sorted(keys["validation"]) == sorted(keys["test"]):
        return [f"{path}: THE VALIDATION AND THE TEST SPLIT ARE EQUAL, all {len(repeated)} questions; {advice}"]
    first = ", ".join(str(test_ids[i]) for i in repeated[:5])
    return [
        f"{path}: THE SPLITS OVERLAP: {len(repeated)} of {len(keys['test'])} test questions are also in the validation "
        f"split (first test ids: {first}); {advice}"
    ]


def repeat_warnings(requests: dict[Split, list[Request]], *, path: Path) -> list[str]:
    """A warning for each split in which most examples ask what another one asks."""
    return [
        f"{path}: only {distinct} of {len(asked)} {split} examples are different requests, so a utility rests on few "
        "questions; use examples that differ"
        for split, asked in requests.items()
        if len(asked) > 1 and 2 * (distinct := len(set(asked))) <= len(asked)
    ]


def resolve(path: str | Path, root: Path) -> Path:
    """`path`, relative to `root` unless it is absolute."""
    return root / Path(path).expanduser()


USUAL = ("validation", "valid", "val")
"""Names of the validation split in files without `dev`."""


def _split(source: Source, name: str, split: Split, root: Path) -> tuple[list[Any], str]:
    """The records of the split `name`, and "file: split" for messages."""
    if split == "validation" and name == Data.model_fields["validation"].default:
        name = next((usual for usual in (name, *USUAL) if usual in (source.splits or ())), name)
    if source.splits is not None and name in source.splits:
        return _checked(source.splits[name], f"{source.path}: {name}")
    other = resolve(name, root)
    if other.is_file() or other.suffix.lower() in {".json", ".jsonl", ".csv", ".parquet"}:
        second = read(other)
        if second.splits is not None:
            raise UserError(f"{other}: data.{split} needs a file with one split, and this one has {_names(second)}")
        return _checked(second.records, f"{other}: {split}")
    if source.splits is not None:
        raise UserError(f"{source.path}: no split {name!r}; set data.{split} to one of: {_names(source)}")
    if split == "validation" and name == Data.model_fields["validation"].default:
        return _checked(source.records, f"{source.path}: {split}")
    hint = " or to null" if split == "test" else ", or leave it out to use this one"
    raise UserError(f"{source.path}: holds one split, no {name!r}; set data.{split} to the path of another file{hint}")


def _names(source: Source) -> str:
    return ", ".join(source.splits or ())


def _checked(records: Any, where: str) -> tuple[list[Any], str]:
    listed = list(records)
    if not listed:
        raise UserError(f"{where}: the split is empty; give it records or choose another")
    for index, record in enumerate(listed):
        if not isinstance(record, dict):
            raise UserError(f"{where}[{index}]: a record is an object of named fields, not {type(record).__name__}")
    return listed, where


def _examples(records: Sequence[dict[str, Any]], config: Data, where: str) -> list[Example]:
    return [_example(record, config.columns, f"{where}[{index}]", index) for index, record in enumerate(records)]


def _example(record: dict[str, Any], columns: Mapping[str, str | list[str]], place: str, index: int) -> Example:
    fields, where = dict(record), place
    for name in sorted(columns, key=lambda name: name != "id"):
        try:
            fields[name] = column(record, columns[name])
        except LookupError as error:
            problem = f"data.columns maps {name!r} to {columns[name]!r}, which is missing"
            detail = f" ({error})" if "." in str(columns[name]) else ""
            there = ", ".join(map(str, record))
            raise UserError(f"{where}: {problem}{detail}; the record has {there}; correct the mapping") from None
        where = f"{place} (id {_identity(fields, index)[:40]!r})"
    identity = _identity(fields, index)
    return Example({**fields, "id": identity}, f"{place} (id {identity[:40]!r})")


def _identity(fields: Mapping[str, Any], index: int) -> str:
    identity = fields.get("id")
    return str(index) if is_missing(identity) else plain_number(identity)


def _icl_prompt(source: Source, config: Data, few_shot: int) -> tuple[str | None, list[Example]]:
    prompt, where = source.icl_prompt, f"{source.path}: icl_prompt"
    if prompt is None or isinstance(prompt, str):
        return prompt, []
    if not isinstance(prompt, list):
        raise UserError(f"{where}: must be text or a list of records, not {type(prompt).__name__}")
    records, _ = _checked(prompt, where)
    if len(records) < few_shot:
        raise UserError(f"{where}: {len(records)} records are too few for few_shot: {few_shot}; lower it")
    return None, _examples(records[:few_shot], config, where)


def _unique(examples: list[Example], where: str) -> tuple[list[Example], list[str]]:
    """If ids repeat, replace all ids of the split by the record's index and warn.

    This is no error, because published files repeat ids on different records.

    Raises:
        UserError: a complete record is repeated, including its id: it would count twice.
    """
    seen: dict[str, Example] = {}
    for example in examples:
        before = seen.setdefault(repr(sorted(example.fields.items())), example)
        if before is not example:
            raise UserError(f"{example.where}: repeats {before.where} in every field; remove one of them")
    counts = Counter(example.fields["id"] for example in examples)
    repeated = [identity for identity, count in counts.items() if count > 1]
    if not repeated:
        return examples, []
    numbered = [replace(e, fields={**e.fields, "id": str(index)}) for index, e in enumerate(examples)]
    extra = len(examples) - len(counts)
    return numbered, [
        f"{where}: {extra} of {len(examples)} ids repeat an earlier one (first: {repeated[0]!r}); "
        "record indices are used as ids instead"
    ]
