"""The tokens of a tokenizer on disk, without loading it."""

from __future__ import annotations

from pathlib import Path

from evoswarm.weights.expert import read_json


def tokens_of(folder: Path) -> dict[str, int]:
    """The tokens of the tokenizer in a folder and their ids; none if it has no tokenizer.json.

    Raises:
        UserError: tokenizer.json is damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return {}
    data = read_json(path)
    added = {str(token["content"]): int(token["id"]) for token in data.get("added_tokens") or []}
    vocabulary = (data.get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict):
        return vocabulary | added
    return {str(piece[0]): number for number, piece in enumerate(vocabulary or [])} | added
