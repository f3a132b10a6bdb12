"""Chat templates in files: of `prompt.chat_template`, and next to a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError

FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Files of a folder that may hold its chat template, in the order in which transformers reads them."""


def read_template(path: Path) -> str:
    """The chat template in a file (Jinja, or the JSON of a tokenizer) or in a tokenizer's folder.

    Raises:
        UserError: there is none.
    """
    if path.is_dir():
        if (template := template_of(path)) is None:
            raise UserError(f"prompt.chat_template: {path} has no chat template; give the path of a Jinja file")
        return template
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"prompt.chat_template: {path} cannot be read ({error}); give the path of a Jinja file"
        ) from None
    template = _of_json(text) if path.suffix == ".json" else text
    if not template or not template.strip():
        raise UserError(f"prompt.chat_template: {path} has no chat template; give the path of a Jinja file")
    return template


def template_of(folder: Path) -> str | None:
    """The chat template that was saved in a folder; None if there is none."""
    for name in FILES:
        try:
            text = (folder / name).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            continue
        template = _of_json(text) if name.endswith(".json") else text
        if template and template.strip():
            return template
    return None


def _of_json(text: str) -> str | None:
    """The default template in a tokenizer's or processor's configuration."""
    try:
        content: Any = json.loads(text)
    except ValueError:
        return None
    found = content.get("chat_template") if isinstance(content, dict) else None
    if isinstance(found, list):
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
    if isinstance(found, dict):
        found = found.get("default")
    return found if isinstance(found, str) else None
