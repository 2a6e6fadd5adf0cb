"""Render the recipe as rattler-build does before it builds: wrong fields are errors. Needs py-rattler-build."""

from __future__ import annotations

from pathlib import Path

from rattler_build import Stage0Recipe

for variant in Stage0Recipe.from_file(str(Path(__file__).with_name("recipe.yaml"))).render():
    print(variant.recipe.package.name, variant.recipe.package.version)
