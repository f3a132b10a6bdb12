"""Reads a data file or folder into lists of records per split. Independent of tasks.

Only folders written by `save_to_disk` are read with datasets. Its file loaders would change the records (CSV cells
become numbers, missing JSON fields become null), give no line numbers in errors, and write a copy to a cache.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError

FORMATS = "a .json, .jsonl, .csv or .parquet file, or a folder written by datasets' save_to_disk"


@dataclass(frozen=True)
class Source:
    """The content of a file or folder: named splits, or the records of the only split."""

    path: Path
    splits: dict[str, Iterable[Any]] | None
    """Splits by name; None for a file with one unnamed split."""
    records: Iterable[Any] = ()
    """The records of the only split, if `splits` is None."""
    icl_prompt: Any = None
    """Model Swarms JSON: few-shot examples, as text or as records."""


def read(path: Path) -> Source:
    """Read `path`; its suffix determines the format.

    Raises:
        UserError: the file is missing, damaged, not UTF-8, or has an unknown format.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise UserError(
            f"data file {path} does not exist; correct the data section (relative paths start at the config file)"
        )
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: unknown format {path.suffix or 'without suffix'!r}; give {FORMATS}")
    return reader(path)


def _read_json(path: Path) -> Source:
    content = _parse(_text(path), path, hint="; name a file with one record per line .jsonl")
    if isinstance(content, list):
        return Source(path, None, content)
    named = content if isinstance(content, dict) else {}
    lists: dict[str, Iterable[Any]] = {k: v for k, v in named.items() if isinstance(v, list) and k != "icl_prompt"}
    if not lists:
        raise UserError(f'{path}: has no split; give a list of records, or {{"dev": [...], "test": [...]}}')
    return Source(path, lists, icl_prompt=named.get("icl_prompt"))


def _read_jsonl(path: Path) -> Source:
    # splitlines() would also split at U+2028 and others, which JSON allows inside strings.
    lines = enumerate(_text(path).split("\n"))
    return Source(path, None, [_parse(line, path, before=number) for number, line in lines if line.strip()])


def _parse(text: str, path: Path, *, before: int | None = None, hint: str = "") -> Any:
    """JSON, `before` so many lines of a file; None: it is the whole file. `hint`: advice for more than one value."""
    line = f"{path}" if before is None else f"{path}, line {before + 1}"
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise UserError(f"{line}: contains half a character ({error.object[error.start]!a}); fix the text") from None
    except json.JSONDecodeError as error:
        hint = hint if error.msg == "Extra data" else ""
        place = f"{path}, line {error.lineno + (before or 0)}"
        raise UserError(f"{place}: broken JSON: {error.msg} (column {error.colno}){hint}") from None
    except RecursionError:
        raise UserError(f"{line}: is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{line}: {one_line(error)}; put text into quotes") from None


def _read_csv(path: Path) -> Source:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    records = []
    try:
        header = next(reader, [])
        if repeated := [name for name, count in Counter(header).items() if count > 1]:
            raise UserError(f"{path}: column {repeated[0]!r} occurs twice; rename or remove one of them")
        for row in reader:
            if row and len(row) != len(header):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(row)} cells where the header has {len(header)}; "
                    'put cells with commas or line breaks in "quotes"'
                )
            if row:
                records.append(dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: broken CSV: {error}") from None
    return Source(path, None, records)


def _read_parquet(path: Path) -> Source:
    import pyarrow
    from pyarrow import parquet

    try:
        return Source(path, None, parquet.read_table(path).to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {one_line(error)}") from None


def _read_folder(path: Path) -> Source:
    if not any((path / name).exists() for name in ("dataset_dict.json", "state.json")):
        raise UserError(f"{path}: not a folder written by datasets' save_to_disk; give {FORMATS}")
    import datasets
    import pyarrow

    try:
        loaded: Any = datasets.load_from_disk(str(path))
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: datasets cannot load this folder: {one_line(error)}") from None
    return Source(path, dict(loaded)) if isinstance(loaded, dict) else Source(path, None, loaded)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(f"{path}: not UTF-8: byte {error.start} is 0x{byte:02x}; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, at most 200 characters."""
    return " ".join(str(error).split())[:200]


_READERS = {".json": _read_json, ".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
