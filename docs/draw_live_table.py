"""Draw docs/live-table.svg: what `damorl sweep` shows in a terminal, taken while a real sweep works.

python docs/draw_live_table.py docs/grids/weights.toml --after 60
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

import damorl
from damorl.sweeps import live


def main() -> None:
    """Run the grid until the moment of the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", type=Path)
    parser.add_argument("--after", type=float, default=60.0, help="seconds until the picture is taken")
    parser.add_argument("--out", type=Path, help="directory of the sweep, a temporary one by default")
    args = parser.parse_args()
    began, draw = time.monotonic(), live.Display.draw

    def take(self: live.Display, force: bool = False) -> None:
        draw(self, force)
        if time.monotonic() - began > args.after and self.progress.running:
            console = Console(record=True, width=100, file=io.StringIO())
            console.print(live.picture(self.plan, self.progress, self.timings))
            console.save_svg(str(Path(__file__).parent / "live-table.svg"), title=f"damorl sweep {args.grid.name}")
            raise KeyboardInterrupt

    patched: Any = live.Display
    patched.draw = take
    with tempfile.TemporaryDirectory() as folder:
        damorl.sweep(args.grid, out=args.out or folder, form="live")


if __name__ == "__main__":
    main()
