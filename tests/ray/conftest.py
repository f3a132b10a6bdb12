"""A Ray cluster of this machine for the tests that share one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evoswarm.config.run import RayBackend
from evoswarm.launch.connect import connected

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One local cluster, stopped again at the end. Its processes can import what tests register."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        with connected(RayBackend(address="local")):
            yield
