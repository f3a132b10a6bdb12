"""Reads the verdict of a judge: of one answer, a rating; of two, which is better."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

RATING = re.compile(
    r"""
    \b (?:rating|score) \b [\s:=*_"`(\[]*          # Rating: **
    ([-+]?\d+(?:\.\d+)?)                           # 7
    (?! [\d]* [.,]?\d | \s*[-\u2013\u2014]\s*\d )  # and neither a longer number nor a range
    [*_"`)\]\s]* (?: (?:/|out\ of) [\s*_]* (\d+) )?  # ** / 10
    """,
    re.VERBOSE | re.IGNORECASE,
)
ALONE = re.compile(r"([-+]?\d+(?:\.\d+)?)\s*(?:(?:/|out of)\s*(\d+))?\.?")
VERDICT = re.compile(r"\[\[(\w)\]\]")
_MARKS = " \n\t*_`\"'"


def read_rating(text: str, *, lowest: int, highest: int) -> float | None:
    """The rating in a text: after `Rating:` or `Score:`, or the whole text. None: there is none, or there are several.

    A number after the slash must be `highest`.
    """
    alone = ALONE.fullmatch(text.strip(_MARKS))
    found = [alone.groups()] if alone else [match.groups() for match in RATING.finditer(text)]
    if any(of is not None and int(of) != highest for _, of in found):
        return None
    values = {float(value) for value, _ in found}
    value = values.pop() if len(values) == 1 else math.nan
    return value if lowest <= value <= highest else None


def read_verdict(text: str, options: Sequence[str]) -> str | None:
    """The option in a text: as `[[A]]`, or the whole text. None: there is none, or there are several."""
    found = set(VERDICT.findall(text)) or {text.strip(_MARKS + ".")}
    return found.pop() if len(found) == 1 and found <= set(options) else None


def verdict_format(options: Sequence[str]) -> dict[str, Any]:
    """The `response_format` of an object whose only field is one of the options."""
    field = {"type": "string", "enum": list(options)}
    schema = {
        "type": "object",
        "properties": {"verdict": field},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


def read_json(text: str) -> str:
    """The option in an object of `verdict_format`; "": there is none."""
    try:
        verdict = json.loads(text)["verdict"]
    except (ValueError, LookupError, TypeError):
        return ""
    return verdict if isinstance(verdict, str) else ""


def expected(top: Sequence[tuple[str, float]], options: Mapping[str, float], *, least: float) -> float | None:
    """The mean value of the options, by the probabilities of the tokens that are one of them.

    Args:
        top: likeliest first tokens of the answer, with their log-probabilities.
        options: the value of each option.
        least: the probability that all options must have together.

    Returns:
        None: they have less, so that the judge was about to say something else.
    """
    found = [(options[token.strip()], math.exp(logprob)) for token, logprob in top if token.strip() in options]
    mass = math.fsum(probability for _, probability in found)
    if not mass or mass < least:
        return None
    return math.fsum(value * probability for value, probability in found) / mass
