"""Benchmarks are run by hand, so a test notices when what they use is gone."""

from __future__ import annotations

import pkgutil
from unittest.mock import patch

import pytest

import benchmarks
from evoswarm.utility import TASKS


@pytest.mark.parametrize("name", [found.name for found in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")])
def test_every_benchmark_can_be_imported(name: str) -> None:
    with patch.dict(TASKS):  # a benchmark's own utility is none for other tests
        pkgutil.resolve_name(name)
