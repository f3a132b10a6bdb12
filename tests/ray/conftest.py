"""A Ray cluster of this machine for the tests that share one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evoswarm.config.run import RayBackend
from evoswarm.launch.connect import connected


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One local cluster, stopped again at the end."""
    with connected(RayBackend(address="local")):
        yield
