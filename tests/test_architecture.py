"""The import directions of docs/code-layout.md: a package imports only packages that stand in its row."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("momalit", "datamodules", "callbacks")

# From the bottom up. Every package may import itself and what its row names; a cycle is therefore impossible.
ALLOWED = {
    "momalit.core": set(),
    "momalit.functional": {"momalit.core"},
    "momalit.nn": {"momalit.core", "momalit.functional"},
    "momalit.envs": {"momalit.core"},
    "momalit.training": {"momalit.core"},
    "momalit.world_model": {"momalit.core", "momalit.functional", "momalit.nn", "momalit.training"},
    "momalit.policies": {
        "momalit.core",
        "momalit.functional",
        "momalit.nn",
        "momalit.envs",
        "momalit.training",
        "momalit.world_model",
    },
    "momalit.baselines": {
        "momalit.core",
        "momalit.functional",
        "momalit.nn",
        "momalit.training",
        "momalit.policies",
    },
    "momalit.studies": {"momalit.core", "momalit.training"},
    "datamodules": {"momalit.core", "momalit.envs", "momalit.nn", "momalit.training", "momalit.policies"},
    "callbacks": {
        "momalit.core",
        "momalit.envs",
        "momalit.nn",
        "momalit.training",
        "momalit.policies",
        "momalit.baselines",
        "momalit.studies",
    },
    "momalit": {"momalit.core", "momalit.world_model", "momalit.policies", "momalit.cli"},  # __init__ and __main__
}
ALLOWED["momalit.cli"] = {*ALLOWED, "momalit"}


def package_of(module: str) -> str:
    """The row of a module: ``momalit.nn.gru`` belongs to ``momalit.nn``, ``momalit`` itself to ``momalit``."""
    for depth in (2, 1):
        package = ".".join(module.split(".")[:depth])
        if package in ALLOWED:
            return package
    raise AssertionError(f"{module} belongs to no package in this test's table")


def imported(file: Path) -> set[str]:
    """All modules that a file imports, those imported inside functions and for type checking included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            # `from momalit import nn` imports a package, `from momalit.nn import gru` a module of it.
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] in SHIPPED}


@pytest.mark.parametrize("package", SHIPPED)
def test_imports_go_one_way(package: str) -> None:
    wrong = []
    for file in sorted((ROOT / package).rglob("*.py")):
        importer = package_of(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        wrong += [
            f"{file.relative_to(ROOT)} imports {name}"
            for name in sorted(imported(file))
            if package_of(name) not in {importer} | ALLOWED[importer]
        ]
    assert not wrong, "\n".join(wrong)


def test_the_table_has_no_cycle() -> None:
    order = list(ALLOWED)
    for position, package in enumerate(order[: order.index("momalit")]):
        assert ALLOWED[package] <= set(order[:position]), package
