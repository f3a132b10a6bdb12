"""The sandboxes of this machine."""

from __future__ import annotations

import sys

import pytest

from evoswarm.errors import UserError
from evoswarm.sandbox import Sandbox, open_sandbox


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Each sandbox with the `LIMITS` of the module. On Linux one may be missing, but not both."""
    limits = request.module.LIMITS
    try:
        return open_sandbox(request.param, limits=limits)
    except UserError as error:
        if sys.platform == "linux":
            open_sandbox("auto", limits=limits)
        pytest.skip(str(error))
