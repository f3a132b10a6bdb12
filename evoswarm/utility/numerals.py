"""Reads one number in plain notation (`notation.plain`) exactly, or not at all."""

from __future__ import annotations

import re
from fractions import Fraction

_LONGEST = 1000
"""Digits of the longest number that is read."""
_CURRENCY = "$€£¥₹₩₽¢"
_SPACED = r"[1-9]\d{0,2}(?: \d{3})+"
_APOSTROPHES = r"[1-9]\d{0,2}(?:'\d{3})+"
_ENGLISH = re.compile(
    rf"(?:[1-9]\d{{0,2}}(?:,\d{{3}})+|[1-9]\d?(?:,\d{{2}})+,\d{{3}}|[1-9]\d{{0,2}}(?:_\d{{3}})+|{_SPACED}|{_APOSTROPHES}|\d+)"
    r"(?:\.\d*)?|\.\d+"
)
_CONTINENTAL = re.compile(
    rf"[1-9]\d{{0,2}}(?:\.\d{{3}}){{2,}}(?:,\d+)?|[1-9]\d{{0,2}}\.\d{{3}},\d+|(?:{_SPACED}|{_APOSTROPHES}),\d+"
)
_EXPONENT = r"\^\s*(?:\{\s*([-+]?\d{1,3})\s*\}|\(\s*([-+]?\d{1,3})\s*\)|([-+]?\d{1,3}))"
_SCIENTIFIC = re.compile(rf"(?:(.+?)\s*×\s*)?10\s*{_EXPONENT}")
_POWER = re.compile(rf"(\d+)\s*{_EXPONENT}")
_MIXED = re.compile(r"(\d+)\s*\{\s*(\d+)\s*\}/\{\s*(\d+)\s*\}|(\d+) (\d+)/(\d+)")
_LEADING = re.compile(rf"([-+]?)\s*(?:[{_CURRENCY}]{{1,2}}\s*)?([-+]?)\s*(.*)")


def read_numeral(text: str) -> Fraction | None:
    """The value of a text that is one number: integer, decimal, fraction, mixed number, power or scientific notation.

    Thousands separators are commas, spaces, apostrophes, underscores, or points if there are at least two or a decimal
    comma follows. A comma that may be decimal (`1,5`) gives None. A currency sign in front and a percent or degree sign
    behind do not count. Fractions must have a divisor other than 0.
    """
    text = text.strip().rstrip(f"{_CURRENCY}%°‰ ")
    match = _LEADING.fullmatch(text)
    if match is None or (match[1] and match[2]):
        return None
    value = _unsigned(match[3].strip())
    return -value if value is not None and "-" in (match[1], match[2]) else value


def canonical(value: Fraction) -> str | None:
    """Equal numbers get equal strings: a decimal if it is finite, else a fraction in lowest terms; None: too long."""
    rest, places = value.denominator, 0
    while rest % 10 == 0 or rest % 5 == 0 or rest % 2 == 0:
        rest, places = rest // (10 if rest % 10 == 0 else 5 if rest % 5 == 0 else 2), places + 1
    if max(abs(value.numerator), value.denominator) >= 10**_LONGEST or places > _LONGEST:
        return None
    if rest > 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :].rstrip("0")
    return ("-" if value < 0 else "") + whole + ("." + decimals if decimals else "")


def _unsigned(text: str) -> Fraction | None:
    if len(text) > _LONGEST + 100:
        return None
    if _wrapped(text):
        return read_numeral(text[1:-1])
    if mixed := _MIXED.fullmatch(text):
        whole, above, below = (int(group) for group in mixed.groups() if group is not None)
        ambiguous = _literal(text.partition("/")[0]) is not None
        return Fraction(whole * below + above, below) if above < below and not ambiguous else None
    if match := _SCIENTIFIC.fullmatch(text):
        factor = Fraction(1) if match[1] is None else _literal(match[1])
        return None if factor is None else factor * Fraction(10) ** _exponent(match, 2)
    if match := _POWER.fullmatch(text):
        base, exponent = int(match[1]), _exponent(match, 2)
        if not base or len(match[1]) * abs(exponent) > _LONGEST:
            return None
        return Fraction(base) ** exponent
    return _quotient(text) if "/" in text else _literal(text)


def _quotient(text: str) -> Fraction | None:
    """`a/b`, where a and b are numbers without a slash outside of brackets."""
    depth, slashes = 0, []
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "/" and depth == 0:
            slashes.append(i)
    if len(slashes) != 1:
        return None
    above, below = (_unsigned(part.strip()) for part in (text[: slashes[0]], text[slashes[0] + 1 :]))
    return None if above is None or not below else above / below


def _literal(text: str) -> Fraction | None:
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    if _ENGLISH.fullmatch(text):
        return Fraction(re.sub("[,'_ ]", "", text).rstrip("."))
    if _CONTINENTAL.fullmatch(text):
        return Fraction(re.sub("[.' ]", "", text).replace(",", "."))
    return None


def _exponent(match: re.Match[str], first: int) -> int:
    return int(next(group for group in match.groups()[first - 1 :] if group is not None))


def _wrapped(text: str) -> bool:
    """Whether one pair of brackets encloses the whole text."""
    if len(text) < 3 or text[0] + text[-1] not in ("()", "[]", "{}"):
        return False
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return i == len(text) - 1
    return False
