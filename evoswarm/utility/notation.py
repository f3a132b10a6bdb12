"""Rewrites LaTeX, Markdown and Unicode notation of numbers into one plain notation.

Fractions become `{1}/{2}`, exponents `^{3}`, every product sign `×`, every dash `-`, and every symbol that has no plain
form `UNREADABLE`, so that no part of an expression is read alone.
"""

from __future__ import annotations

import re
import unicodedata

UNREADABLE = "\u2021"

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_SYMBOLS = {
    **dict.fromkeys("×·⋅∙✕✖", "×"),
    **dict.fromkeys("⇒→⟹➔≡", "="),
    **dict.fromkeys("≈≃≅∼", "≈"),
    **dict.fromkeys("≤≥⩽⩾≠≮≯", "<"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\ufe0f", ""),
    **dict.fromkeys("’‘ʼ′", "'"),
    **dict.fromkeys("“”„«»", '"'),
    **dict.fromkeys("πϕ", UNREADABLE),
    **dict.fromkeys(_DASHES, "-"),
    "⁄": "/",
    "÷": "/",
    "٫": ".",
    "٬": "'",
    "…": "...",
    "℃": "°C",
    "℉": "°F",
    "º": "°",
    "。": ". ",
}
_COMMANDS = {
    **dict.fromkeys(["times", "cdot", "ast"], "×"),
    **dict.fromkeys(["implies", "Rightarrow", "rightarrow", "to", "equiv", "therefore"], "="),
    **dict.fromkeys(["approx", "simeq", "cong", "sim"], "≈"),
    **dict.fromkeys(["le", "leq", "leqslant", "ge", "geq", "geqslant", "lt", "gt", "ne", "neq"], "<"),
    **dict.fromkeys(
        [
            "quad",
            "qquad",
            "thinspace",
            "medspace",
            "enspace",
            "space",
            "displaystyle",
            "textstyle",
            "boldsymbol",
            "bf",
            "rm",
        ],
        " ",
    ),
    **dict.fromkeys(["left", "right", "big", "Big", "bigl", "bigr", "limits"], ""),
    **dict.fromkeys(["degree", "circ"], "°"),
    **dict.fromkeys(["percent"], "%"),
    **dict.fromkeys(["pounds"], "£"),
    **dict.fromkeys(["euro", "texteuro"], "€"),
    **dict.fromkeys(["div"], "/"),
}
_GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|normal|sf)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|operatorname\*?|emph|underline|bm"
    rf"|boldsymbol|pmb|unit|si)\s*{_GROUP}"
)
_FRACTION = re.compile(rf"\\[dtc]?frac\s*(?:{_GROUP}|(\d))\s*(?:{_GROUP}|(\d))")
_SUPERSCRIPTS = re.compile("([⁺⁻]?[⁰¹²³⁴-⁹]+)")
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_BULLET = re.compile(r"^[ \t]*[*•▪●][ \t]+", re.MULTILINE)
_EMPHASIS = re.compile(
    r"(?<![\w)*])\*{1,3}(?=[^\s*])|(?<=[^\s*])\*{1,3}(?![\w(*])|`|(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w|\{)"
)


def plain(text: str) -> str:
    """The text in plain notation; words keep their place."""
    text = re.sub(r"<<[^<>\n]*>>", "", text)  # GSM8K's calculator annotations
    text = re.sub(r"</?[A-Za-z][\w:-]*\s*/?>", " ", text)  # HTML, or the <answer> of some models
    text = _SUPERSCRIPTS.sub(lambda m: "^{" + unicodedata.normalize("NFKC", m[1]).replace("\u2212", "-") + "}", text)
    text = _VULGAR.sub(_vulgar, text)
    text = _latex("".join(_SYMBOLS.get(c, c) if not c.isascii() else c for c in map(_digit, text)))
    text = _EMPHASIS.sub("", _BULLET.sub("", text))
    text = re.sub(r"(?<=[\d)}])\s*\*\*\s*(?=[\d({-])", "^", text).replace("*", "×")
    text = re.sub(r"(?<=\d)\.?[eE]([+-]?\d+)(?!\w)", r"×10^{\1}", text)
    text = re.sub(r"(?<=\d) ?[xX] ?(?=10\^)", "×", text)
    text = re.sub(r"[-=]>", "=", text)
    text = re.sub(rf"(?<=[{_IDEOGRAPHS}])(?=[-\d$])|(?<=\bRs\.)(?=\d)", " ", text)
    return "".join(map(_symbol, text))


def _symbol(character: str) -> str:
    """Pictures are no part of a number; other symbols make it unreadable."""
    category = unicodedata.category(character)
    if category == "So" and character != "°":
        return " "
    return UNREADABLE if category == "Sm" and character not in "+<>=|~≈×" else character


def _digit(character: str) -> str:
    """A digit of any script as ASCII, any white space within a line as a space."""
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.decimal(character))
    if character.isspace() and character not in "\n\r":
        return " "
    wide = unicodedata.normalize("NFKC", character) if "\uff00" < character < "\uff5f" else character
    return wide


def _latex(text: str) -> str:
    text = re.sub(r"\{,\}", ",", text)
    text = re.sub(r"\\!", "", text)
    text = re.sub(r"\\\\", "\n", text)
    text = re.sub(r"\\[,;: ]|(?<!\\)~", " ", text)
    text = re.sub(r"\\[()\[\]]", " ", text)
    text = re.sub(r"\\([$%#&_])", r"\1", text).replace(r"\{", "[").replace(r"\}", "]")
    text = re.sub(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?", "°", text)
    text = _until_stable(_WRAPPER, r" \1", text)
    text = _until_stable(_FRACTION, _fraction, text)
    return re.sub(r"\\([A-Za-z]+) ?", lambda m: _COMMANDS.get(m[1], UNREADABLE), text).replace("&", " ")


def _vulgar(match: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", match[0]).partition("\u2044")
    return f" {{{above}}}/{{{below}}}"


def _fraction(match: re.Match[str]) -> str:
    above, above_digit, below, below_digit = match.groups()
    return f" {{{above or above_digit}}}/{{{below or below_digit}}}"


def _until_stable(pattern: re.Pattern[str], replacement: object, text: str) -> str:
    """Replace from the inside out; nesting is at most as deep as the text has backslashes."""
    for _ in range(text.count("\\")):
        text, count = pattern.subn(replacement, text)  # type: ignore[call-overload]
        if not count:
            break
    return text
