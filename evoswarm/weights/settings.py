"""The settings of adapter_config.json that decide what a LoRA is, checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from re import Pattern
from typing import Any

from pydantic import BaseModel, StrictFloat, StrictInt, ValidationError

Names = Pattern[str] | list[str] | None
"""A regular expression over module names, or a list of names."""


class LoraSettings(BaseModel):
    """What peft expects of these keys; others are not checked here."""

    r: StrictInt = 8
    lora_alpha: StrictInt | StrictFloat = 8
    rank_pattern: dict[Pattern[str], StrictInt] | None = None
    alpha_pattern: dict[Pattern[str], StrictInt | StrictFloat] | None = None
    target_modules: Names = None
    exclude_modules: Names = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[StrictInt] | StrictInt | None = None


def wrong_setting(config: Mapping[str, Any]) -> str | None:
    """The first setting with which peft could not load a LoRA, and why."""
    try:
        LoraSettings.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors()[0]
        return f"{first['loc'][0]} is {config[str(first['loc'][0])]!r}: {first['msg']}"
    return None
