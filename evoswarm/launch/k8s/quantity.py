"""Kubernetes quantities."""

from __future__ import annotations

import math
from typing import Any

from evoswarm.errors import UserError

_SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SUFFIXES |= {f"{letter}i": 1024.0 ** (power + 1) for power, letter in enumerate("KMGTPE")}


def quantity(value: Any) -> float:
    """A quantity as a number: `500m` is 0.5, `16Gi` is 2^34.

    Raises:
        UserError: it is not a quantity.
    """
    text = str(value).strip()
    suffix = next((s for s in sorted(_SUFFIXES, key=len, reverse=True) if text.endswith(s)), "")
    try:
        number = float(text.removesuffix(suffix)) * _SUFFIXES.get(suffix, 1.0)
        if isinstance(value, bool) or number < 0 or not math.isfinite(number):
            raise ValueError
        return number
    except ValueError:
        raise UserError(f"{text!r} is not a Kubernetes quantity; write 4, 500m or 16Gi") from None
