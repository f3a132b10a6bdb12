"""Extracts an answer from generated text: a letter, a number, a regular expression's match, or the text itself.

Never extracts part of a word or of a longer number.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping
from decimal import Decimal

# "A" and "I" are also words: before a lowercase word they are letters only if that word continues the answer.
_GOES_ON = r"(?:because|since|as|is|which|due|though|but)\b|(?:and|or)\s+[A-Z](?![\w'’])"
_LETTER = rf"(?![AI]\s+(?!{_GOES_ON})[a-z])([A-Z])(?![\w'’])"
_ALONE = re.compile(r"[\s\"'*_(\[{]*([A-Z])[\s\"'*_)\]}.:]*", re.ASCII)
_STATED = re.compile(
    r"(?:(?i:\banswer\b ?(?:is|was|will be|would be|should be)? ?[:=]? ?(?:option |choice )?)"
    r"|\\boxed\{ ?)(?:\\text\{)?[\"'*_(\[{]*" + _LETTER + r"(?! ?(?:,|/|&|and\b|or\b) ?[A-Z](?![\w'’]))"
)
_LEADING = re.compile(r"[\s\"'*_(\[{]*([A-Z])[.):\]}*](?!\w)")
_STANDING = re.compile(r"(?<![\w'’])" + _LETTER)


def parse_choice(text: str, choices: Mapping[str, str]) -> str | None:
    """The letter of a generated answer, or None if there is no letter or more than one.

    The first rule that applies decides:
    1. the first line is a letter and nothing else: `C`, `(C).`, `**C**`;
    2. the last statement of an answer: `the answer is C`, `Answer: (C)`, `\\boxed{C}`;
    3. the text starts with a marked letter: `C) Paris`, `C. Paris`;
    4. the text is one option's text, ignoring case, white space and punctuation;
    5. exactly one letter of the options stands alone in the text: `I would choose C`.
    """
    first_line = _ALONE.fullmatch(text.strip().partition("\n")[0])
    flat = " ".join(text.split())
    stated = _STATED.findall(flat)
    leading = _LEADING.match(flat)
    if first_line or stated or leading:
        letter = first_line[1] if first_line else stated[-1] if stated else leading[1] if leading else ""
        return letter if letter in choices else None
    given, *options = (normalize(t, ignore_case=True, ignore_punctuation=True) for t in (text, *choices.values()))
    same = [letter for letter, option in zip(choices, options, strict=True) if option == given]
    if len(same) == 1 and given:
        return same[0]
    standing = set(_STANDING.findall(flat)) & set(choices)
    return standing.pop() if len(standing) == 1 else None


_CURRENCY = "$€£¥₹"
_TOKEN = re.compile(
    rf"(?<!\w)(?<![0-9][.,])((?<![)\]%])[-+]|)(?:\\?[{_CURRENCY}]\s?([-+]?))?((?:[0-9]|(?<![\w.])\.[0-9])[0-9.,_]*)"
    r"((?:[eE][-+]?[0-9]+)?)((?:/[0-9]+)*)"
)
_WHOLE = re.compile(r"(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)?(?:(?<=[0-9])|(?=\.))(?:\.[0-9]*)?")


def last_number(text: str) -> str | None:
    """The last number in a text, in canonical form, or None.

    Thousands separators, a currency sign in front, a percent sign or unit behind and a trailing period do not count:
    `-$1,000.50.` is -1000.5, `50%` is 50, `1/2` is 0.5. Runs such as `1.2.3`, `1,2` or `3/4/2020` are no numbers and
    are passed over, and so are digits inside a word (`GPT4`). A minus directly behind a word, a digit or a closing
    bracket is no sign: `10-5` ends in 5.
    """
    for match in reversed(list(_TOKEN.finditer(text.replace("−", "-").replace("{,}", ",")))):
        number = _canonical(*match.groups(""))
        if number is not None:
            return number
    return None


def _canonical(sign: str, inner_sign: str, digits: str, exponent: str, divisors: str) -> str | None:
    """Equal numbers get equal strings: no leading or trailing zeros, no exponent, no negative zero."""
    digits = digits.rstrip(".,_")
    if not _WHOLE.fullmatch(digits) or len(exponent) > 4 or divisors.count("/") > 1 or (sign and inner_sign):
        return None
    value = Decimal(digits.replace(",", "") + exponent)
    if divisors:
        if not Decimal(divisors[1:]):
            return None
        value /= Decimal(divisors[1:])
    plain = format(value, "f")
    plain = (plain.rstrip("0").rstrip(".") if "." in plain else plain).lstrip("0")
    plain = "0" + plain if not plain or plain.startswith(".") else plain
    return "-" + plain if "-" in (sign, inner_sign) and plain != "0" else plain


def last_match(pattern: re.Pattern[str], text: str) -> str | None:
    """The last match of a pattern: its first group if it has one, else the whole match; None if there is no match."""
    found = None
    for match in pattern.finditer(text):
        found = match[1] if pattern.groups else match[0]
    return found


def normalize(text: str, *, ignore_case: bool = False, ignore_punctuation: bool = False) -> str:
    """Unicode form C without white space at the ends; then, as asked for, without case, punctuation, repeated space."""
    text = unicodedata.normalize("NFC", text).strip()
    if ignore_case:
        text = unicodedata.normalize("NFC", text.casefold())
    if ignore_punctuation:
        kept = (c for c in text if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
        text = " ".join("".join(kept).split())
    return unicodedata.normalize("NFC", text)
