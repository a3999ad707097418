"""Imports run one way: scenarios -> sim, analysis; analysis -> a few modules of sim; sim -> simpy, numpy, scipy."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OWN = {"sim", "analysis", "scenarios", "conf", "tests"}
OUTSIDE = {
    "sim": {"simpy", "numpy", "scipy"},
    "analysis": {"numpy", "scipy", "polars", "matplotlib", "rich"},
    "scenarios": {"numpy", "scipy", "hydra", "omegaconf", "rich", "yaml", "polars"},
}
INSIDE = {
    "sim": {"sim"},
    "analysis": {"analysis", "sim.results", "sim.qoe", "sim.units", "sim.errors"},
    "scenarios": {"scenarios", "sim", "analysis"},
}
#: The one file of `sim` that reads YAML.
EXCEPTIONS = {"sim/hardware/catalogue.py": {"yaml"}}
#: Too slow to import for every command; only inside functions, or in modules that are themselves imported that way.
LAZY = ("scipy.stats", "matplotlib", "polars", "rich", "hydra")


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in the file; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(package: str, path: Path, name: str) -> bool:
    top = name.split(".")[0]
    if top in OWN:
        return any(f"{name}.".startswith(f"{prefix}.") for prefix in INSIDE[package])
    extra = EXCEPTIONS.get(path.relative_to(ROOT).as_posix(), set())
    return top in sys.stdlib_module_names or top in OUTSIDE[package] | extra


@pytest.mark.parametrize("package", sorted(INSIDE))
def test_imports_follow_the_direction(package: str) -> None:
    files = sources(package)
    assert len(files) > 1
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if not allowed(package, path, name)
    ]
    assert wrong == []


def test_the_rule_can_fail() -> None:
    engine = ROOT / "sim" / "serving" / "engine.py"
    assert not allowed("sim", engine, "scenarios.run")
    assert not allowed("sim", engine, "hydra")
    assert not allowed("sim", engine, "yaml")
    assert not allowed("analysis", engine, "sim.simulation.run")
    assert allowed("analysis", engine, "sim.results.Result")


def needs(path: Path, modules: set[str]) -> set[str]:
    """Modules that a file imports when it runs, wherever in the file; those for annotations alone are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        for name in (f"{node.module}.{alias.name}", str(node.module))
    }
    return names & modules


def test_no_module_needs_itself_by_way_of_others() -> None:
    paths = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
        for package in INSIDE
        for path in sources(package)
    }
    packages = {name for name, path in paths.items() if path.stem == "__init__"}
    graph = {name: needs(path, paths.keys() - packages) for name, path in paths.items()}
    assert "sim.fleet.pool" in graph["sim.fleet.replicas"]
    list(graphlib.TopologicalSorter(graph).static_order())  # a circle is an error that names it
    graph["sim.units"].add("scenarios.run")
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("module", ["sim", "scenarios.cli", "scenarios.build", "scenarios.store"])
def test_slow_packages_are_imported_only_where_they_are_used(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {LAZY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
