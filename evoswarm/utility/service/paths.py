"""Finds values in the JSON of a service, by JMESPath."""

from __future__ import annotations

import math
from typing import Any

from evoswarm.errors import UserError


def compiled(path: str, *, key: str) -> Any:
    """A JMESPath. `key` names its setting.

    Raises:
        UserError: it is none.
    """
    import jmespath

    try:
        return jmespath.compile(path)
    except jmespath.exceptions.JMESPathError as error:
        raise UserError(f"{key} {path!r} is no JMESPath: {' '.join(str(error).split())}") from None


def found(path: Any, content: Any) -> Any:
    """What a path finds; None if its functions do not fit the content."""
    import jmespath

    try:
        return path.search(content)
    except jmespath.exceptions.JMESPathError:
        return None


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
