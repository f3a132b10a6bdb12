"""Imports transformers without the optional packages that no language model needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNUSED = ("scipy", "sklearn")
"""transformers imports them with its models, for losses of image models and assisted generation. They take a quarter of
the time."""


@contextmanager
def without_unused() -> Iterator[None]:
    """Inside, these packages cannot be imported, unless transformers was imported before and expects them."""
    if "transformers" in sys.modules:
        yield
        return
    before = {name: sys.modules[name] for name in UNUSED if name in sys.modules}
    sys.modules.update(dict.fromkeys(UNUSED))  # type: ignore[arg-type]  # None: there is no such package
    try:
        yield
    finally:
        for name in UNUSED:
            del sys.modules[name]
        sys.modules.update(before)
