"""No decision hangs on the wall clock. (What happens when it jumps: test_lost_nodes.py.)"""

from __future__ import annotations

import ast
from pathlib import Path

import evoswarm

WALL = {("time", "time"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}


def test_no_part_of_evoswarm_reads_the_wall_clock() -> None:
    found = []
    for path in sorted(Path(evoswarm.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                if (owner, node.attr) in WALL:
                    found.append(f"{path.name}:{node.lineno}")
    assert found == []
