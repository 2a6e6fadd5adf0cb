"""Draw the packages of damorl, their files by size, and the arrows between them, read from the imports.

Run `python docs/draw_architecture.py` from the repository's root; it writes docs/architecture.png.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "damorl"
TALLEST = 10  # files in a column
LETTER = 0.0085  # width of a letter per point of its size
INK, BOX, ARROW = "#1f2a37", "#dfe9f5", "#8aa0b8"
FLOORS = [  # from the ground up; a package uses only packages below it
    ["types", "errors", "files", "bars", "plugins"],
    ["core", "record"],
    ["parts", "world", "theory", "report"],
    ["algos", "data"],
    ["behaviour"],
    ["experiment"],
    ["api", "loggers", "bench"],
    ["sweeps", "testing"],
    ["paper"],
    ["cli"],
]


def package_of(path: Path) -> str:
    """The folder or file right under the package."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def arrows() -> Counter[tuple[str, str]]:
    """How many imports run from package to package."""
    found: Counter[tuple[str, str]] = Counter()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "damorl":
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = {name.split(".")[1] for name in names} & {package for floor in FLOORS for package in floor}
                found.update((package_of(path), target) for target in targets - {package_of(path)})
    return found


def contents(package: str) -> list[str]:
    """The package's files with their lines of code, longest first, in columns of at most `TALLEST`."""
    folder = PACKAGE / package
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    sizes = [(path.stem, len(path.read_text().splitlines())) for path in files if path.stem != "__init__"]
    if not folder.is_dir():
        return [f"{sizes[0][1]}"]
    lines = [f"{name} {count}" for name, count in sorted(sizes, key=lambda item: -item[1])]
    tall = -(-len(lines) // -(-len(lines) // TALLEST))
    return ["\n".join(lines[start : start + tall]) for start in range(0, len(lines), tall)]


def draw(path: Path) -> None:
    """Floors from the bottom up, arrows downwards; a floor is as high as its tallest column needs."""
    columns = {package: contents(package) for floor in FLOORS for package in floor}
    heights = [
        0.65 + 0.21 * max(column.count("\n") + 1 for package in floor for column in columns[package])
        for floor in FLOORS
    ]
    bottoms = [sum(heights[:index]) + 0.75 * index for index in range(len(heights))]
    top = bottoms[-1] + heights[-1] + 0.3
    figure, axes = plt.subplots(figsize=(13, 0.86 * top))
    axes.set(xlim=(0, 13), ylim=(-0.2, top))
    axes.axis("off")
    centres: dict[str, tuple[float, float, float]] = {}
    for floor, height, bottom in zip(FLOORS, heights, bottoms, strict=True):
        width = min(3.6, 12.0 / len(floor) - 0.4)
        for index, package in enumerate(floor):
            x = 13.0 * (index + 0.5) / len(floor)
            centres[package] = (x, bottom, bottom + height)
            box = FancyBboxPatch((x - width / 2, bottom), width, height, "round,pad=0.02,rounding_size=0.12")
            box.set(facecolor=BOX, edgecolor=INK, linewidth=1.2, zorder=2)
            axes.add_patch(box)
            axes.text(
                x,
                bottom + height - 0.12,
                package,
                ha="center",
                va="top",
                fontsize=14,
                weight="bold",
                color=INK,
                zorder=3,
            )
            for place, column in enumerate(columns[package]):
                middle = x + width * ((place + 0.5) / len(columns[package]) - 0.5)
                longest = max(map(len, column.split("\n")))
                size = min(9.0, width / len(columns[package]) / (LETTER * longest))
                axes.text(
                    middle, bottom + height - 0.5, column, ha="center", va="top", fontsize=size, color=INK, zorder=3
                )
    for (source, target), count in arrows().items():
        if source not in centres or target not in centres or target in ("types", "errors"):
            continue
        (x0, y0, _), (x1, _, y1) = centres[source], centres[target]
        style = {"arrowstyle": "-|>", "color": ARROW, "lw": 0.8 + 0.25 * count**0.5, "shrinkA": 0, "shrinkB": 0}
        style["connectionstyle"] = f"arc3,rad={0.08 if x1 > x0 else -0.08}"
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=style, zorder=1)
    axes.set_title("Packages of damorl: every arrow points down (types and errors serve all)", fontsize=14, color=INK)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(ROOT / "docs" / "architecture.png")
