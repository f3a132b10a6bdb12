"""One Ray head for the tests of jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from head import Head, ray_head


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A head with token authentication, stopped again at the end."""
    with ray_head() as started:
        yield started
