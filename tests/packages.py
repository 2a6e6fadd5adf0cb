"""Packages that are installed for the length of a test: a folder with their metadata on the path, and no pip."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/damorl_plugin"
Groups = Mapping[str, Mapping[str, str]]
Install = Callable[[str, Groups], None]
"""`(package, {group: {name: value}})`: makes the entry points known."""


def install(patch: pytest.MonkeyPatch, folder: Path, package: str, groups: Groups) -> None:
    """Put a package of version 0.1.0 with these entry points on the path. Modules in `folder` can be imported."""
    metadata = folder / f"{package.replace('-', '_')}-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n", encoding="utf-8")
    lines = [
        line for group, points in groups.items() for line in (f"[{group}]", *(f"{n} = {v}" for n, v in points.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    patch.syspath_prepend(str(folder))


def install_example(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Put examples/damorl_plugin on the path, with the entry points of its pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install(patch, folder, project["name"], project["entry-points"])
    patch.syspath_prepend(str(EXAMPLE))
