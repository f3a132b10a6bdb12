"""Checks WeGeFT adapters (arXiv 2312.00700) in the pool. `generate` converts them to LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIXES = PHI, PSI = "base_model.wegeft_phi.", "base_model.wegeft_psi."


def problems(config: Mapping[str, Any], names: Mapping[str, Any]) -> list[str]:
    """Why a WeGeFT adapter cannot be evolved, from its config and its tensors."""
    found = ["modules_to_save is not supported with WeGeFT"] if config.get("modules_to_save") else []
    phi, psi = ({name.removeprefix(start) for name in names if name.startswith(start)} for start in PREFIXES)
    if not phi or phi != psi or len(phi) + len(psi) != len(names):
        found.append("has tensors that are not pairs of phi and psi; save the adapter again")
    return found
