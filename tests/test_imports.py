"""Imports between evoswarm's modules: no cycles, and only those that docs/architecture.md allows."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `(\w+)` \|.*\| (nothing|`\w+`(?:, `\w+`)*) \|$", re.MULTILINE)
ENTRY_POINTS = {"__init__", "__main__"}
"""Modules at the top of the package that start the command line; they belong to no part."""


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    paths = sorted((root / "evoswarm").rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, also inside functions and for type checking only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return found & known.keys()


def with_packages(name: str) -> set[str]:
    """A module and the packages that importing it runs, without the top one, which imports nothing by itself."""
    parts = name.split(".")
    return {".".join(parts[:i]) for i in range(2, len(parts) + 1)}


def graph(root: Path) -> dict[str, set[str]]:
    """What each module imports, including the packages of those modules."""
    known = modules(root)
    edges = {}
    for name, path in known.items():
        reached = {part for imported in imports(path, known) for part in with_packages(imported)}
        edges[name] = reached - with_packages(name)
    return edges


def part_of(module: str) -> str:
    return module.split(".")[1]


def test_no_import_cycle_between_modules() -> None:
    edges = {name: targets for name, targets in graph(ROOT).items() if name != "evoswarm"}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        raise AssertionError(f"import cycle: {' -> '.join(reversed(error.args[1]))}") from None


def test_parts_import_only_what_the_architecture_allows() -> None:
    rows = ROW.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    allowed = {part: set(re.findall(r"`(\w+)`", names)) for part, names in rows}
    found: dict[str, set[str]] = {}
    for name, targets in graph(ROOT).items():
        if name.count(".") and part_of(name) not in ENTRY_POINTS:
            found.setdefault(part_of(name), set()).update(map(part_of, targets - {"evoswarm"}))
    assert found.keys() == allowed.keys()
    too_much = {part: sorted(found[part] - allowed[part] - {part}) for part in found}
    assert {part: names for part, names in too_much.items() if names} == {}


def test_a_cycle_inside_a_function_and_through_a_package_is_found(tmp_path: Path) -> None:
    package = tmp_path / "evoswarm" / "part"
    package.mkdir(parents=True)
    (tmp_path / "evoswarm" / "__init__.py").touch()
    (package / "__init__.py").write_text("from evoswarm.part.a import f\n")
    (package / "a.py").write_text("def f():\n    import evoswarm.other\n")
    (tmp_path / "evoswarm" / "other.py").write_text("from evoswarm.part.b import g\n")
    (package / "b.py").write_text("g = 1\n")
    edges = {name: targets for name, targets in graph(tmp_path).items() if name != "evoswarm"}
    assert edges["evoswarm.other"] == {"evoswarm.part", "evoswarm.part.b"}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        assert set(error.args[1]) == {"evoswarm.part", "evoswarm.part.a", "evoswarm.other"}
    else:
        raise AssertionError("the cycle was not found")
