"""A routed run of the toy world, shared by the tests of a module."""

from __future__ import annotations

from pathlib import Path

import pytest
from route_helpers import run_in

from evoswarm.route.run import route


@pytest.fixture(scope="module")
def routed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with a router."""
    run_dir = run_in(tmp_path_factory.mktemp("routed"))
    route(run_dir)
    return run_dir
