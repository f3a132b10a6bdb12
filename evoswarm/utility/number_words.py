"""Words that change a number, make it doubtful, or are numbers themselves."""

from __future__ import annotations

import re
from fractions import Fraction


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


SCALES = {
    **dict.fromkeys(["hundred", "百", "백"], 10**2),
    **dict.fromkeys(["thousand", "千", "천"], 10**3),
    **dict.fromkeys(["万", "萬", "만"], 10**4),
    **dict.fromkeys(["lakh", "lakhs"], 10**5),
    **dict.fromkeys(["million", "millions"], 10**6),
    **dict.fromkeys(["crore", "crores"], 10**7),
    **dict.fromkeys(["亿", "億", "억"], 10**8),
    **dict.fromkeys(["billion", "billions"], 10**9),
    **dict.fromkeys(["trillion", "trillions"], 10**12),
}
UNITS_OF_ONE_LETTER = frozenset("mgshlLWVNJFCÅΩ")
"""Letters that are a unit directly behind a number. Others may be a variable or a magnitude (5k, 5M)."""
DOUBTFUL_LETTERS = frozenset("xyznkKMBbtpqr")
"""Letters that may be a variable or a magnitude even after a space."""
DOUBTFUL = _set("am pm a.m p.m o'clock squared cubed dozen dozens score mil bn mn mln tn divided") | _set(
    "half halves third thirds quarter quarters tenths hundredths pi mod modulo choose factorial repeating recurring"
)
"""Words after which a number is not the whole value."""
FUNCTIONS = _set("sqrt root cbrt log ln lg exp sin cos tan cot arcsin arccos arctan abs twice double triple") | _set(
    "sine cosine tangent logarithm half third thirds quarter quarters square cube power factorial"
)
"""Words before a number, or before `of` and a number, that make another number of it: sqrt 2, half of 10."""
DENIALS = _set("than not never instead out percent percentage fifth fifths sixth eighth tenth hundredth except") | _set(
    "step question problem exercise example equation figure table which whom"
)
"""Words before a number, or before `of` and a number, with which it is not the value: not 5, out of 5, step 5."""
JOINS = _set("to or and through by x X vs versus plus minus times over of in per until till divided mod modulo choose")
"""Words between two numbers of one expression, list or range."""
FAMILIES = (
    _set("hour hours hr hrs h minute minutes min mins m second seconds sec secs s day days week weeks")
    | _set("month months year years"),
    _set("foot feet ft inch inches in yard yards mile miles meter meters m centimeter centimeters cm km kilometers"),
    _set("pound pounds lb lbs ounce ounces oz kilogram kilograms kg gram grams g"),
    _set("dollar dollars cent cents euro euros pence degree degrees"),
)
"""Units that make one quantity together: 5 feet 3 inches."""
_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_ONES = {word: i for i, word in enumerate(_NAMES.split())}
_TENS_NAMES = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 10 * i for i, word in enumerate(_TENS_NAMES.split(), start=2)}


def number_word(text: str) -> Fraction | None:
    """The value of a text that is one number word: `twelve`, `Twenty-one.`"""
    words = re.sub(r"[\s.,!?*_'\"$]+", " ", text).strip().lower().replace("-", " ").split()
    sign = -1 if words[:1] in (["minus"], ["negative"]) else 1
    words = words[1:] if sign < 0 else words
    if len(words) == 1 and words[0] in {**_ONES, **_TENS}:
        return Fraction(sign * {**_ONES, **_TENS}[words[0]])
    if len(words) == 2 and words[0] in _TENS and 0 < _ONES.get(words[1], 0) < 10:
        return Fraction(sign * (_TENS[words[0]] + _ONES[words[1]]))
    return None
